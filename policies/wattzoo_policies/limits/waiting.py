"""Wrappers that wait: for a window to pass, for a gap that is long enough, for metrics that are fresh.

None of them slows an increase that is wanted on fresh evidence. Samples of pods that still warm up are no evidence;
whoever observes leaves them out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from wattzoo_policies.capacity.replicas import count_replicas, free_accelerators
from wattzoo_policies.limits.plans import clip_replicas
from wattzoo_policies.protocols import ReplicaLaw
from wattzoo_policies.signals import ReplicaHistory, ReplicaPlan, ReplicaRequest, VariantDemand, VariantReplicas

MAX_WISHES = 64
"""Wishes kept per variant; more are thinned to their running maximum (a wish that a later one exceeds is dropped)."""

GAP_FACTOR = 1.5
"""A gap must be this many times the break-even time before a variant is worth starting anew."""


def with_down_stabilization(law: ReplicaLaw, window_seconds: float) -> ReplicaLaw:
    """Go down only to the largest wish of the last `window_seconds`; go up at once.

    Without it one quiet scrape stops servers that take minutes to come back. A start without history counts the
    present replicas as the first wish, so a restarted controller waits a whole window before it shrinks anything.
    """

    def stabilized(history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        inner, plan = law(history, request)
        wishes: dict[str, tuple[tuple[float, int], ...]] = {}
        decided = []
        for variant, entry in zip(request.variants, plan.variants, strict=True):
            past = inner.wishes.get(variant.variant) or ((request.at_seconds, variant.current_replicas),)
            recent = _fold([*past, (request.at_seconds, entry.replicas)], request.at_seconds - window_seconds)
            wishes[variant.variant] = recent
            decided.append(_hold(variant, entry, max(number for _, number in recent), window_seconds))
        return replace(inner, wishes=wishes), ReplicaPlan(tuple(decided))

    return stabilized


def with_zero_gap(law: ReplicaLaw, factor: float = GAP_FACTOR) -> ReplicaLaw:
    """Take a variant's last replica only when nothing will be wanted of it for longer than a start is worth.

    The bound is factor * start_joules / saved_watts. Who does not know the coming gap expects it to be as long as the
    one so far: at worst that costs 1 + factor times the best choice in hindsight. Where start or saving is unknown the
    other wrappers decide alone, and so they do where others wait for its accelerators.
    """

    def gapped(history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        inner, plan = law(history, request)
        contested = contested_pools(request, plan)
        zero_since: dict[str, float] = {}
        decided = []
        for variant, entry in zip(request.variants, plan.variants, strict=True):
            since = _zero_since(inner, variant, entry, request.at_seconds)
            if since is not None:
                zero_since[variant.variant] = since
            break_even = break_even_seconds(variant)
            gap = variant.expected_gap_seconds
            if gap is None:
                gap = 0.0 if since is None else request.at_seconds - since
            leaves = entry.replicas == 0 and variant.current_replicas > 0 and variant.max_replicas > 0
            if not leaves or break_even is None or variant.accelerator_pool in contested or gap > factor * break_even:
                decided.append(entry)
                continue
            text = f"{entry.message}; one kept, a gap of {gap:.0f} s is not worth a start ({break_even:.0f} s are)"
            decided.append(replace(entry, replicas=1, reason="ShortGap", message=text))
        return replace(inner, zero_since=zero_since), ReplicaPlan(tuple(decided))

    return gapped


def with_stale_hold(law: ReplicaLaw, stale_after_seconds: float) -> ReplicaLaw:
    """Keep what a variant has while its demand is unknown or older than `stale_after_seconds`: neither up nor down."""

    def held(history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        inner, plan = law(history, request)
        decided = []
        for variant, entry in zip(request.variants, plan.variants, strict=True):
            problem = _staleness(variant, request.at_seconds, stale_after_seconds)
            number = clip_replicas(variant, variant.current_replicas)
            if problem is None:
                decided.append(entry)
            else:
                reason, text = problem
                message = f"{text}, {number} kept"
                decided.append(replace(entry, replicas=number, wished=None, reason=reason, message=message))
        return inner, ReplicaPlan(tuple(decided))

    return held


def with_reachable_only(law: ReplicaLaw, reserve: float = 0.0) -> ReplicaLaw:
    """Start no more replicas than carry every request that could be sent to the variant (`reachable_rps`).

    Debt is repaid by answering coming requests well. When all of them already go to the best variant, a further
    replica repays nothing, however large the debt is.
    """
    if not (math.isfinite(reserve) and reserve >= 0.0):
        raise ValueError(f"reserve must be a number of at least 0, not {reserve}")

    def bounded(history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        inner, plan = law(history, request)
        decided = []
        for variant, entry in zip(request.variants, plan.variants, strict=True):
            most = _reachable(variant, reserve)
            if most is None or entry.replicas <= max(most, variant.current_replicas):
                decided.append(entry)
                continue
            number = max(most, variant.current_replicas)
            text = f"{entry.message}; cut to {number}, which carry everything that could be sent to it"
            decided.append(replace(entry, replicas=number, reason="BeyondReach", message=text))
        return inner, ReplicaPlan(tuple(decided))

    return bounded


def break_even_seconds(variant: VariantDemand) -> float | None:
    """Return after how long the absence of a replica has saved what its start costs; `None` when unknown."""
    if variant.start_joules is None or variant.saved_watts is None or not variant.saved_watts > 0.0:
        return None
    return variant.start_joules / variant.saved_watts


def contested_pools(request: ReplicaRequest, plan: ReplicaPlan) -> frozenset[str]:
    """Return the pools in which increases want more accelerators than may be taken now."""
    wanted: dict[str, int] = {}
    for variant, entry in zip(request.variants, plan.variants, strict=True):
        if variant.accelerator_pool is not None and entry.replicas > variant.current_replicas:
            more = (entry.replicas - variant.current_replicas) * variant.accelerators_per_replica
            wanted[variant.accelerator_pool] = wanted.get(variant.accelerator_pool, 0) + more
    free = {pool: free_accelerators(request, pool) for pool in wanted}
    return frozenset(pool for pool, more in wanted.items() if (room := free[pool]) is not None and more > room)


def _zero_since(
    history: ReplicaHistory, variant: VariantDemand, entry: VariantReplicas, at_seconds: float
) -> float | None:
    """Since when nothing is wished of a variant that has replicas; an unknown wish changes nothing."""
    before = history.zero_since.get(variant.variant)
    if variant.current_replicas == 0 or (entry.wished is not None and entry.wished > 0):
        return None
    return before if entry.wished is None or before is not None else at_seconds


def _staleness(variant: VariantDemand, at_seconds: float, stale_after_seconds: float) -> tuple[str, str] | None:
    if variant.demand_rps is None or not math.isfinite(variant.demand_rps):
        return "DemandUnknown", "demand unknown"
    if variant.observed_at_seconds is None:
        return None
    age = at_seconds - variant.observed_at_seconds
    return None if age <= stale_after_seconds else ("MetricsStale", f"demand was last observed {age:.0f} s ago")


def _reachable(variant: VariantDemand, reserve: float) -> int | None:
    if variant.reachable_rps is None or variant.capacity_rps is None or not 0.0 < variant.capacity_rps < math.inf:
        return None
    if not math.isfinite(variant.reachable_rps):
        return None
    needed = count_replicas(variant.reachable_rps * (1.0 + reserve), variant.capacity_rps)
    return max(variant.min_replicas, needed)


def _hold(variant: VariantDemand, entry: VariantReplicas, largest: int, window_seconds: float) -> VariantReplicas:
    held = min(largest, variant.max_replicas)
    if entry.replicas >= variant.current_replicas or held <= entry.replicas:
        return entry
    held = min(held, variant.current_replicas)
    if held <= entry.replicas:
        return entry
    message = f"{entry.message}; {held} kept, the largest wish of the last {window_seconds:.0f} s"
    return replace(entry, replicas=held, reason="DownStabilization", message=message)


def _fold(wishes: Sequence[tuple[float, int]], since: float) -> tuple[tuple[float, int], ...]:
    """Return what can still be the largest of a sliding window: strictly falling wishes, oldest first."""
    falling: deque[tuple[float, int]] = deque(maxlen=MAX_WISHES)
    for at, number in wishes:
        if at < since:
            continue
        while falling and falling[-1][1] <= number:
            falling.pop()
        falling.append((at, number))
    return tuple(falling)
