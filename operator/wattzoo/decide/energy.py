"""Joules of one request at a member, from its pods' energy and its finished requests, smoothed over two minutes.

Two figures. The average divides everything by the requests: what a request really cost, idle and start-up included. The
marginal leaves out the idle power of capacity that was not used: a policy that compared averages would starve a member
because it is starved. Where nothing was measured, the profile's figure at the knee stands in and is flagged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from wattzoo.decide.memory import MemberMemory
from wattzoo.decisions import Capacity, MemberEnergy, VariantSignals
from wattzoo.model import VariantKey, VariantState

SMOOTHING_SECONDS = 120.0
PROFILE_REQUESTS = 30.0
"""Requests that the profile's figure is worth beside measured ones; after a minute at one per second it is a third."""
MIN_REQUESTS = 5.0
"""Below this many requests in the smoothing time an average says more about chance than about the member."""


def _used_watts(signals: VariantSignals, capacity: Capacity) -> float | None:
    """Power of the variant's warm pods less the idle power of what they could carry and did not."""
    if signals.serving_watts is None or signals.served_rps is None:
        return None
    if capacity.idle_watts is None or not capacity.rps:
        return signals.serving_watts
    utilisation = min(1.0, signals.served_rps / (signals.warm * capacity.rps))
    return max(0.0, signals.serving_watts - (1.0 - utilisation) * signals.warm * capacity.idle_watts)


def _observe_member(
    states: Sequence[VariantState],
    signals: Mapping[VariantKey, VariantSignals],
    capacities: Mapping[VariantKey, Capacity],
    at_seconds: float,
) -> MemberMemory | None:
    """One member's figures of this moment; None unless power and rate of every variant with warm pods are known."""
    watts = used = rate = 0.0
    tokens_in = tokens_out = 0.0
    measured = False
    for state in states:
        seen = signals[state.key]
        if seen.watts is not None:
            watts += seen.watts
        if not seen.warm:
            continue
        variant_used = _used_watts(seen, capacities[state.key])
        if variant_used is None or seen.served_rps is None or seen.watts is None:
            return None
        measured = True
        used += variant_used
        rate += seen.served_rps
        tokens_in += (seen.input_tokens or 0.0) * seen.served_rps
        tokens_out += (seen.output_tokens or 0.0) * seen.served_rps
    if not measured:
        return None
    known = rate > 0.0
    return MemberMemory(
        at_seconds, watts, used, rate, tokens_in / rate if known else None, tokens_out / rate if known else None
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
        mix(before.used_watts, now.used_watts),
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
    ready = sum(len(state.ready) for state in own)
    coverage = round(100 * sum(signals[state.key].covered for state in own) / ready) if ready else 0
    times = [at for state in own if (at := signals[state.key].energy_at_seconds) is not None]
    at_seconds = min(times, default=None if memory is None else memory.at_seconds)
    requests = 0.0 if memory is None else memory.served_rps * SMOOTHING_SECONDS
    if memory is None or stale or requests < MIN_REQUESTS:
        watts = None if memory is None or stale else memory.watts
        return MemberEnergy(
            profile, profile, watts, shared=shared, observed_at_seconds=at_seconds, coverage_percent=coverage
        )
    average = memory.watts / memory.served_rps
    marginal = memory.used_watts / memory.served_rps
    if profile is not None:
        marginal = (requests * marginal + PROFILE_REQUESTS * profile) / (requests + PROFILE_REQUESTS)
    return MemberEnergy(
        average,
        marginal,
        memory.watts,
        measured=True,
        shared=shared,
        observed_at_seconds=at_seconds,
        coverage_percent=coverage,
    )
