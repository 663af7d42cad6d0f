"""How many replicas each variant needs for its demand: the plain rule, up and down at once.

It is deliberately simple (a joint plan over models and pools is another law behind the same protocol): replicas =
ceil(demand * (1 + reserve) / capacity at the SLO knee), within the variant's bounds. What must not flap, shrink on thin
evidence or take accelerators that are not there is put around it by the `with_*` wrappers of `limits`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from wattzoo_policies.protocols import ReplicaLaw
from wattzoo_policies.signals import ReplicaHistory, ReplicaPlan, ReplicaRequest, VariantDemand, VariantReplicas

PLANNED_INTERVALS = 6.0
LEAST_PLANNED_SHARE = 0.005
"""What is left in the average of a member that is not wanted any more needs no server."""

MOST_REPLICAS = 1_000_000
"""Whoever needs more needs what nobody has; a quotient of huge and tiny numbers is infinite."""


def count_replicas(rate_rps: float, capacity_rps: float) -> int:
    """Return the replicas of this finite, positive capacity that carry a rate."""
    return math.ceil(min(max(0.0, rate_rps / capacity_rps), float(MOST_REPLICAS)) - 1e-9)


def make_replica_rule(reserve: float = 0.3) -> ReplicaLaw:
    """Return the rule with a reserve (share of the demand kept free on top of it)."""
    if not (math.isfinite(reserve) and reserve >= 0.0):
        raise ValueError(f"reserve must be a number of at least 0, not {reserve}")

    def rule(history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        wishes = tuple(_wish(variant, reserve) for variant in request.variants)
        return history, ReplicaPlan(wishes)

    return rule


def estimate_peak_rps(
    samples: Sequence[tuple[float, float]], at_seconds: float, horizon_seconds: float, lead_seconds: float = 0.0
) -> float | None:
    """Return the rate to be ready for: the largest recent sample, and a rising trend carried on over the lead time.

    samples: (at_seconds, rate), oldest first; those older than the horizon or not finite do not count. `None` without
    any. The trend is the slope between the means of the younger and the older half.
    """
    recent = [(at, rate) for at, rate in samples if at_seconds - horizon_seconds <= at <= at_seconds and rate >= 0.0]
    recent = [(at, rate) for at, rate in recent if math.isfinite(rate)]
    if not recent:
        return None
    peak = max(rate for _, rate in recent)
    half = len(recent) // 2
    if half == 0 or lead_seconds <= 0.0:
        return peak
    old, young = _mean(recent[:half]), _mean(recent[-half:])
    slope = (young[1] - old[1]) / (young[0] - old[0]) if young[0] > old[0] else 0.0
    return max(peak, young[1] + max(0.0, slope) * (at_seconds + lead_seconds - young[0]))


def estimate_variant_demand(
    services: Sequence[tuple[float | None, Mapping[str, float]]], splits: Mapping[str, Mapping[str, float]]
) -> dict[str, float | None]:
    """Return requests per second by variant.

    services: of each its rate (`None`: unknown) and the shares of the members that it wishes for. splits: of each
    member the shares of its variants. A variant that an unknown rate may reach is unknown.
    """
    demand: dict[str, float | None] = {variant: 0.0 for variants in splits.values() for variant in variants}
    for rate, weights in services:
        for member, weight in weights.items():
            for variant, share in splits.get(member, {}).items():
                if weight * share == 0.0:
                    continue
                sofar = demand[variant]
                demand[variant] = None if rate is None or sofar is None else sofar + rate * weight * share
    return demand


def average_shares(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Return shares by member to plan replicas for: an exponential average over `PLANNED_INTERVALS` decisions.

    A law that steers its credit moves a fifth of the traffic to and fro between intervals, around a mixture that
    hardly moves. Servers for each swing would cost more than the swings are worth: the reserve carries what fits, and
    what does not fit is steered later. The first shares count whole; shares that sum to nothing change nothing.
    """
    total = sum(now.values())
    if total <= 0.0:
        return dict(before)
    shares = {name: share / total for name, share in now.items()}
    if not before:
        return shares
    averaged = {name: before.get(name, 0.0) * (1.0 - 1.0 / PLANNED_INTERVALS) for name in {**before, **shares}}
    averaged = {name: share + shares.get(name, 0.0) / PLANNED_INTERVALS for name, share in averaged.items()}
    return {name: s for name, s in averaged.items() if s >= LEAST_PLANNED_SHARE or shares.get(name, 0.0) > 0.0}


def estimate_max_shares(variants: Sequence[VariantDemand], rate_rps: float | None) -> dict[str, float]:
    """Return by member the share of a pool's rate that its ready replicas carry (for `MemberCondition.max_share`).

    Members without a known capacity are left out (no bound), all are when the rate is unknown or zero.
    """
    shares: dict[str, float] = {}
    if rate_rps is None or not rate_rps > 0.0:
        return shares
    unknown = {variant.member for variant in variants if variant.capacity_rps is None}
    for variant in variants:
        if variant.member not in unknown and variant.capacity_rps is not None:
            carried = variant.ready_replicas * variant.capacity_rps / rate_rps
            shares[variant.member] = shares.get(variant.member, 0.0) + carried
    return shares


def held_accelerators(variant: VariantDemand, replicas: int) -> int:
    """Return the accelerators that a variant may hold until a change to `replicas` is through.

    What leaves holds its own until it is gone, while its successors start at once.
    """
    return (max(variant.current_replicas, replicas) + variant.terminating_replicas) * variant.accelerators_per_replica


def free_accelerators(request: ReplicaRequest, pool: str) -> int | None:
    """Return the accelerators of a pool that may be taken now; `None` without any bound, negative above a cap."""
    bounds = []
    if pool in request.max_accelerators:
        inside = (variant for variant in request.variants if variant.accelerator_pool == pool)
        bounds.append(request.max_accelerators[pool] - sum(held_accelerators(v, v.current_replicas) for v in inside))
    if pool in request.free_accelerators:
        bounds.append(request.free_accelerators[pool])
    return min(bounds, default=None)


def fit_accelerators(wishes: Sequence[VariantReplicas], request: ReplicaRequest) -> tuple[VariantReplicas, ...]:
    """Cut increases that the accelerators of a pool do not allow, one replica at a time from the largest increase.

    What runs already is never cut here (a cap below use forbids increases and no more). A decrease frees nothing yet.
    A cap wins over declared minimum replicas.
    """
    replicas = {wish.variant: wish.replicas for wish in wishes}
    cut: set[str] = set()
    for pool in {**request.max_accelerators, **request.free_accelerators}:
        free = free_accelerators(request, pool)
        inside = [variant for variant in request.variants if variant.accelerator_pool == pool]
        rising = [v for v in inside if replicas[v.variant] > v.current_replicas]
        while rising and free is not None and sum(_taken(v, replicas[v.variant]) for v in rising) > free:
            most = max(rising, key=lambda v: _taken(v, replicas[v.variant]))
            replicas[most.variant] -= 1
            cut.add(most.variant)
            rising = [v for v in rising if replicas[v.variant] > v.current_replicas]
    return tuple(
        replace(
            wish,
            replicas=replicas[wish.variant],
            reason="AcceleratorsExhausted",
            message=f"{wish.message}; cut to {replicas[wish.variant]} by the pool's accelerators",
        )
        if wish.variant in cut
        else wish
        for wish in wishes
    )


def _taken(variant: VariantDemand, replicas: int) -> int:
    return (replicas - variant.current_replicas) * variant.accelerators_per_replica


def _wish(variant: VariantDemand, reserve: float) -> VariantReplicas:
    """Decide one variant alone; what is unknown holds."""
    name, current = variant.variant, variant.current_replicas
    if variant.demand_rps is None or not math.isfinite(variant.demand_rps):
        held = _clip(current, variant)
        return VariantReplicas(name, held, None, "DemandUnknown", f"demand unknown, {held} kept")
    if variant.capacity_rps is None or not 0.0 < variant.capacity_rps < math.inf:
        held = _clip(current, variant)
        return VariantReplicas(name, held, None, "CapacityUnknown", f"no capacity at this latency target, {held} kept")
    needed = count_replicas(variant.demand_rps * (1.0 + reserve), variant.capacity_rps)
    replicas = _clip(needed, variant)
    message = (
        f"{variant.demand_rps:.2f} requests/s and {reserve:.0%} reserve at {variant.capacity_rps:.2f} "
        f"per replica need {needed}"
    )
    if replicas > needed:
        return VariantReplicas(name, replicas, needed, "AtMinimum", f"{message}; at least {replicas} declared")
    if replicas < needed:
        return VariantReplicas(name, replicas, needed, "AtMaximum", f"{message}; at most {replicas} declared")
    return VariantReplicas(name, replicas, needed, "DemandMet", message)


def _clip(replicas: int, variant: VariantDemand) -> int:
    return max(variant.min_replicas, min(variant.max_replicas, replicas))


def _mean(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(at for at, _ in samples) / len(samples), sum(rate for _, rate in samples) / len(samples)
