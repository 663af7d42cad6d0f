"""Requests per second that members and variants shall be able to carry, from measured load and coming weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from wattzoo.decide.caps import Headroom
from wattzoo.decide.estimate import PoolContext
from wattzoo.decide.memory import PoolEstimate, ServiceForecast
from wattzoo.decide.shortage import Shortage
from wattzoo.decisions import PoolPlan
from wattzoo.model import Ref, VariantKey, VariantState
from wattzoo_policies.capacity.replicas import estimate_peak_rps

BACKLOG_SECONDS = 60.0
"""Waiting requests are to be worked off within this time."""
IDLE_RPS = 1e-6
"""Stands for no traffic where one replica shall stay."""
PEAK_SECONDS = 30.0
"""Replicas are for the largest rate of this time; rates are measured over 15 s each."""


@dataclass(frozen=True, slots=True)
class PoolInputs:
    """Everything one decision about replicas rests on.

    wishes: by service the shares of members to plan for. live: by service the weights of its live route. headroom: by
    AcceleratorPool; a variant whose pool is missing there may not be placed and is left as it is. rates: recent
    (time, requests per second) by service, oldest first. drained: silent pods on which nothing runs any more, by
    variant; a variant that is missing there is not packed. shortages: variants whose accelerators do not come.
    plan: what the joint plan wishes; without it each variant follows its own demand. forecasts: what services may send.
    """

    context: PoolContext
    estimate: PoolEstimate
    wishes: Mapping[Ref, Mapping[str, float]]
    live: Mapping[Ref, Mapping[VariantKey, int]]
    headroom: Mapping[str, Headroom]
    at_seconds: float
    rates: Mapping[Ref, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    drained: Mapping[VariantKey, frozenset[str]] = field(default_factory=dict)
    shortages: Mapping[VariantKey, Shortage] = field(default_factory=dict)
    plan: PoolPlan | None = None
    forecasts: Mapping[Ref, ServiceForecast] = field(default_factory=dict)


def _shares(weights: Mapping[VariantKey, int]) -> dict[str, float]:
    total = sum(weights.values())
    shares: dict[str, float] = {}
    for key, weight in weights.items():
        if total:
            shares[key.member] = shares.get(key.member, 0.0) + weight / total
    return shares


def estimate_member_demand(inputs: PoolInputs) -> dict[str, float | None]:
    """Requests per second by member: of each service its recent peak times the share to plan for.

    What was wished for, averaged, and what the route has where that does not follow us; before a service's first pass
    the live shares alone.
    Unknown where a service's rate is. A pool without traffic keeps the member that is wished for most, else chance
    would choose who stays.
    """
    members = [member.name for member in inputs.context.pool.spec.members]
    demand: dict[str, float | None] = dict.fromkeys(members, 0.0)
    for ref in inputs.context.services:
        load = inputs.estimate.loads.get(ref)
        wish = inputs.wishes.get(ref) or _shares(inputs.live.get(ref, {}))
        rate = None
        if load is not None and load.total_rps is not None:
            rate = estimate_peak_rps(inputs.rates.get(ref, ()), inputs.at_seconds, PEAK_SECONDS)
            rate = load.total_rps if rate is None else rate
        for member in members:
            share = wish.get(member, 0.0)
            so_far = demand[member]
            if share > 0.0:
                demand[member] = None if rate is None or so_far is None else so_far + rate * share
    favourite = _favourite(inputs, members)
    if favourite is not None and demand[favourite] == 0.0:
        demand[favourite] = IDLE_RPS
    return demand


def _favourite(inputs: PoolInputs, members: list[str]) -> str | None:
    """The member that the services wish for most, or trust most while they know nothing."""
    wanted = dict.fromkeys(members, 0.0)
    for ref, service in inputs.context.services.items():
        for member, share in (inputs.wishes.get(ref) or {service.safest_member: 1.0}).items():
            if member in wanted:
                wanted[member] += share
    best = max(wanted, key=lambda member: wanted[member], default=None)
    return best if best is not None and wanted[best] > 0.0 else None


def _most_replicas(inputs: PoolInputs, state: VariantState, most: int) -> int:
    """Replicas that bounds, cap and nodes allow a variant in all; of a short one what it has."""
    shortage = inputs.shortages.get(state.key)
    if shortage is not None:
        return min(most, len(state.ready) + int(shortage.is_trying(inputs.at_seconds)))
    room = inputs.headroom.get(state.accelerator_pool or "")
    for bound in () if room is None else (room.accelerators, room.allocatable):
        if bound is not None:
            most = min(most, bound // max(1, state.accelerators_per_replica))
    return most


def split_demand(
    inputs: PoolInputs, member: str, demand_rps: float, reserve: float, bounds: Mapping[VariantKey, tuple[int, int]]
) -> dict[VariantKey, float]:
    """Fill a member's variants from the one with the fewest joules per request, each up to what it may become.

    What fits nowhere stays with the first, so that the cap that cuts it is seen.
    """
    capacities = inputs.estimate.capacities
    states = [state for state in inputs.context.states if state.key.member == member]
    usable = [state for state in states if (capacities[state.key].rps or 0.0) > 0.0 and state.key in bounds]
    usable.sort(key=lambda state: capacities[state.key].joules_per_request or math.inf)
    split = {state.key: 0.0 for state in states}
    left = demand_rps
    for state in usable:
        carried = _most_replicas(inputs, state, bounds[state.key][1]) * (capacities[state.key].rps or 0.0)
        split[state.key] = min(left, carried / (1.0 + reserve))
        left -= split[state.key]
    if usable and left > 0.0:
        split[usable[0].key] += left
    return split


def estimate_variant_demand(
    inputs: PoolInputs, bounds: Mapping[VariantKey, tuple[int, int]]
) -> dict[VariantKey, float | None]:
    """Requests per second that each variant shall be able to carry, with its backlog; None is unknown.

    Without the gateway's counters the engines' own rate stands in: what is served now, where it is served.
    """
    reserve = inputs.context.pool.spec.scaling.measured_reserve
    signals = inputs.estimate.signals
    by_variant: dict[VariantKey, float | None] = {}
    for member, demand in estimate_member_demand(inputs).items():
        if demand is not None:
            by_variant |= split_demand(inputs, member, demand, reserve, bounds)
            continue
        for state in inputs.context.states:
            if state.key.member == member:
                by_variant[state.key] = signals[state.key].served_rps if state.ready else None
    for key, rate in by_variant.items():
        backlog = signals[key].waiting
        if rate is not None and backlog:
            by_variant[key] = rate + backlog / BACKLOG_SECONDS
    return by_variant
