"""Joules of one request at a member, from its pods' energy and its finished requests, smoothed over two minutes.

Two figures. The average divides everything by the requests: what a request really cost, idle and start-up included. The
marginal is what a request costs on a replica filled to its knee: the profile's figure for requests of the measured
length, times measured over modelled power at the present load. A policy that compared averages would starve a member
because it is starved, and one that compared raw measurements at light load would compare loads and not members.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from wattzoo.decide.memory import MemberMemory, PoolMemory
from wattzoo.decisions import Capacity, MemberEnergy, ServiceLoad, VariantSignals
from wattzoo.model import VariantKey, VariantState

SMOOTHING_SECONDS = 120.0
MAX_CORRECTION = 2.0
"""A profile that is off by more than this is wrong about more than power: it is corrected no further."""
MIN_REQUESTS = 20.0
"""Below this many requests in the smoothing time an average says more about chance than about the member."""


def _add_known(total: float | None, more: float | None) -> float | None:
    return None if total is None or more is None else total + more


def _observe_member(
    states: Sequence[VariantState],
    signals: Mapping[VariantKey, VariantSignals],
    capacities: Mapping[VariantKey, Capacity],
    at_seconds: float,
) -> MemberMemory | None:
    """One member's figures of this moment; None unless power and rate of every variant with warm pods are known."""
    watts = serving = rate = tokens_in = tokens_out = 0.0
    modelled: float | None = 0.0
    measured = False
    for state in states:
        seen = signals[state.key]
        if seen.watts is not None:
            watts += seen.watts
        if not seen.warm:
            continue
        if seen.serving_watts is None or seen.served_rps is None or seen.watts is None:
            return None
        measured = True
        serving += seen.serving_watts
        expected = capacities[state.key].modelled_watts(seen.served_rps, seen.warm - seen.silent, seen.silent)
        modelled = _add_known(modelled, expected)
        rate += seen.served_rps
        tokens_in += (seen.input_tokens or 0.0) * seen.served_rps
        tokens_out += (seen.output_tokens or 0.0) * seen.served_rps
    if not measured:
        return None
    known = rate > 0.0
    return MemberMemory(
        at_seconds,
        watts,
        serving,
        modelled,
        rate,
        tokens_in / rate if known else None,
        tokens_out / rate if known else None,
    )


def smooth_member(before: MemberMemory | None, now: MemberMemory | None) -> MemberMemory | None:
    """Exponential average by elapsed time; the last figures stay while nothing new is known."""
    if before is None or now is None:
        return now or before
    weight = 1.0 - math.exp(-max(0.0, now.at_seconds - before.at_seconds) / SMOOTHING_SECONDS)

    def mix(old: float, new: float) -> float:
        return old + weight * (new - old)

    def mix_known(old: float | None, new: float | None) -> float | None:
        return mix(old, new) if old is not None and new is not None else new if old is None else old

    return MemberMemory(
        now.at_seconds,
        mix(before.watts, now.watts),
        mix(before.serving_watts, now.serving_watts),
        mix_known(before.modelled_watts, now.modelled_watts),
        mix(before.served_rps, now.served_rps),
        mix_known(before.input_tokens, now.input_tokens),
        mix_known(before.output_tokens, now.output_tokens),
    )


def estimate_members(
    states: Sequence[VariantState],
    signals: Mapping[VariantKey, VariantSignals],
    capacities: Mapping[VariantKey, Capacity],
    before: Mapping[str, MemberMemory],
    at_seconds: float,
) -> dict[str, MemberMemory]:
    """Smoothed figures of every member of which something is known."""
    by_member: dict[str, list[VariantState]] = {}
    for state in states:
        by_member.setdefault(state.key.member, []).append(state)
    smoothed = {
        member: smooth_member(before.get(member), _observe_member(own, signals, capacities, at_seconds))
        for member, own in by_member.items()
    }
    return {member: memory for member, memory in smoothed.items() if memory is not None}


def estimate_energy(
    member: str,
    states: Sequence[VariantState],
    signals: Mapping[VariantKey, VariantSignals],
    capacities: Mapping[VariantKey, Capacity],
    memory: MemberMemory | None,
    *,
    shared: bool,
    stale: bool,
) -> MemberEnergy:
    """Joules per request at a member with their provenance; `stale` says that the measurement is too old to use."""
    own = [state for state in states if state.key.member == member]
    modelled = (capacities[state.key].joules_per_request for state in own)
    profile = min((joules for joules in modelled if joules is not None), default=None)
    warm = sum(signals[state.key].warm for state in own)
    coverage = round(100 * sum(signals[state.key].covered for state in own) / warm) if warm else None
    times = [at for state in own if (at := signals[state.key].energy_at_seconds) is not None]
    at_seconds = min(times, default=None if memory is None else memory.at_seconds)
    if memory is None or stale:
        return MemberEnergy(profile, profile, shared=shared, observed_at_seconds=at_seconds, coverage_percent=coverage)
    enough = memory.served_rps * SMOOTHING_SECONDS >= MIN_REQUESTS
    average = memory.watts / memory.served_rps if enough else None
    marginal = average
    if profile is not None and memory.modelled_watts:
        correction = memory.serving_watts / memory.modelled_watts
        marginal = profile * min(MAX_CORRECTION, max(1.0 / MAX_CORRECTION, correction))
    return MemberEnergy(
        average,
        marginal if marginal is not None else profile,
        memory.watts,
        measured=True,
        shared=shared,
        observed_at_seconds=at_seconds,
        coverage_percent=coverage,
    )


def estimate_service_watts(
    own: ServiceLoad, others: Iterable[ServiceLoad], energy: Mapping[str, MemberEnergy]
) -> float | None:
    """A service's part of the servers' power: by its share of each member's requests, of unused members of all.

    The parts of a pool's services add up to its power. None while some rate or every power is unknown.
    """
    loads = [own, *others]
    if any(load.total_rps is None for load in loads):
        return None
    totals = _member_rates(loads)
    mine, everything = _member_rates([own]), sum(totals.values())
    known = [(name, row.watts) for name, row in energy.items() if row.watts is not None]
    if not known or everything <= 0.0:
        return None
    watts = 0.0
    for name, power in known:
        total = totals.get(name, 0.0)
        share = mine.get(name, 0.0) / total if total > 0.0 else sum(mine.values()) / everything
        watts += share * power
    return watts


def measured_watts(memories: Iterable[PoolMemory], accelerator_pool: str) -> float | None:
    """Measured power of everything managed on one AcceleratorPool; None when nothing was measured."""
    known = [
        seen.watts
        for estimate in (memory.estimate for memory in memories)
        if estimate is not None
        for key, seen in estimate.signals.items()
        if seen.watts is not None and estimate.accelerator_pools.get(key) == accelerator_pool
    ]
    return sum(known) if known else None


def _member_rates(loads: Iterable[ServiceLoad]) -> dict[str, float]:
    rates: dict[str, float] = {}
    for load in loads:
        for key, rate in load.by_variant_rps.items():
            rates[key.member] = rates.get(key.member, 0.0) + rate
    return rates
