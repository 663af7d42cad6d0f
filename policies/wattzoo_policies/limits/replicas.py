"""What stands between a wish for fewer replicas and acting on it. Going up is never slowed here.

Each wrapper does one thing and composes: `with_last_ready_kept(with_down_stabilization(make_replica_rule(), 300.0))`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from wattzoo_policies.capacity.replicas import fit_accelerators, make_replica_rule
from wattzoo_policies.protocols import ReplicaLaw
from wattzoo_policies.signals import ReplicaHistory, ReplicaPlan, ReplicaRequest, VariantDemand, VariantReplicas

MAX_WISHES = 64
"""Wishes kept per variant; more are thinned to their running maximum (a wish that a later one exceeds is dropped)."""


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
        return ReplicaHistory(wishes), ReplicaPlan(tuple(decided))

    return stabilized


def with_last_ready_kept(law: ReplicaLaw) -> ReplicaLaw:
    """Keep one replica of the last variant that can serve: a gateway has nobody to hold the first request for us."""

    def kept(history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        after, plan = law(history, request)
        if any(entry.replicas > 0 and v.ready_replicas > 0 for v, entry in _pairs(request, plan)):
            return after, plan
        last = max(request.variants, key=lambda v: (v.ready_replicas, v.current_replicas), default=None)
        if last is None or last.current_replicas == 0:
            return after, plan
        return after, ReplicaPlan(
            tuple(
                replace(
                    entry,
                    replicas=max(1, entry.replicas),
                    reason="LastReadyKept",
                    message=f"{entry.message}; one kept, nothing else is ready",
                )
                if entry.variant == last.variant and entry.replicas == 0
                else entry
                for entry in plan.variants
            )
        )

    return kept


def with_make_before_break(law: ReplicaLaw) -> ReplicaLaw:
    """Shrink a variant only when the replicas that stay are ready for the demand that the law planned for.

    A variant whose ready replicas are fewer than what it is to keep loses none: those that start may never come.
    """

    def made(history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        after, plan = law(history, request)
        decided = []
        for variant, entry in _pairs(request, plan):
            starting = variant.current_replicas - variant.ready_replicas
            if entry.replicas < variant.current_replicas and variant.ready_replicas < entry.replicas and starting > 0:
                held = min(variant.current_replicas, variant.max_replicas)
                message = f"{entry.message}; {held} kept until {entry.replicas} are ready"
                decided.append(replace(entry, replicas=held, reason="WaitingForReady", message=message))
            else:
                decided.append(entry)
        return after, ReplicaPlan(tuple(decided))

    return made


def with_accelerator_cap(law: ReplicaLaw) -> ReplicaLaw:
    """Apply the accelerator cap once more, around wrappers that may have held replicas up."""

    def capped(history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        after, plan = law(history, request)
        return after, ReplicaPlan(fit_accelerators(plan.variants, request))

    return capped


def make_default_replica_law(reserve: float = 0.3, down_stabilization_seconds: float = 300.0) -> ReplicaLaw:
    """Return what the operator uses: the plain rule, stabilised, make before break, last ready kept, capped."""
    law = with_down_stabilization(make_replica_rule(reserve), down_stabilization_seconds)
    return with_accelerator_cap(with_last_ready_kept(with_make_before_break(law)))


def decide_replicas(
    history: ReplicaHistory,
    request: ReplicaRequest,
    reserve: float = 0.3,
    down_stabilization_seconds: float = 300.0,
) -> tuple[ReplicaHistory, ReplicaPlan]:
    """Decide replicas with the default law; the history must be handed to the next call."""
    return make_default_replica_law(reserve, down_stabilization_seconds)(history, request)


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


def _pairs(request: ReplicaRequest, plan: ReplicaPlan) -> list[tuple[VariantDemand, VariantReplicas]]:
    return list(zip(request.variants, plan.variants, strict=True))
