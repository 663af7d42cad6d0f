"""What each service may send: learned in steps, by the same code that the simulated controller runs.

Services that share members are one load, in replica-seconds per second, so that sizes of requests count like their
number. A pass is more frequent than a step and samples by time; what was not measured is no sample, least of all zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from wattzoo.decide.capacity import KNEE_SHARE, service_bounds
from wattzoo.decide.context import find_missing_members
from wattzoo.decide.demand import BACKLOG_SECONDS, PEAK_SECONDS
from wattzoo.decide.estimate import PoolContext
from wattzoo.decide.memory import ForecastMemory, PoolEstimate, PoolMemory, ServiceForecast
from wattzoo.decide.traffic import RECENT_SECONDS
from wattzoo.decide.weights import live_share
from wattzoo.model import Ref, VariantKey
from wattzoo_policies.capacity.model import RequestShape
from wattzoo_policies.capacity.replicas import estimate_peak_rps
from wattzoo_policies.placement.forecast import LEAST_SAMPLES, UNKNOWN_RATIO, LoadMemory
from wattzoo_policies.placement.joint_demand import (
    FIRST_CARE,
    ROUTE_DEVIATIONS,
    Group,
    estimate_groups,
    estimate_loads,
    follow_groups,
    group_services,
    learn_care,
    observe_services,
    widen,
)
from wattzoo_policies.placement.joint_state import JointState, ServiceMemory
from wattzoo_policies.placement.signals import FleetObservation, FleetService, FleetVariant

EARLY_SHARE = 1.0 / 15.0
"""A sample may come so much of a step before its time; passes wake up a little early or late."""
CHANCE_SECONDS = RECENT_SECONDS
"""Chance counts over what rates are measured over, whatever the step; requests stay about as long."""
REPAY_SECONDS = 60.0
"""Only debts depend on it, and those are each service's own law's."""


def observe_forecasts(context: PoolContext, estimate: PoolEstimate, memory: ForecastMemory) -> ForecastMemory:
    """The memory with one more sample where it is time for one, and what follows for every service.

    A group of services of which one rate is unknown gets no sample; its last forecast stays. The first request is where
    learning begins: a jump from the silence before it would be an error that says nothing.
    """
    now, before = estimate.at_seconds, memory.at_seconds
    if before is not None and 0.0 <= now - before < memory.step_seconds * (1.0 - EARLY_SHARE):
        return memory
    observation = make_observation(context, estimate, memory.step_seconds)
    rates = {service.name: service.rate_rps for service in observation.services}
    if all(rate is None for rate in rates.values()) or (not memory.state.loads and not any(rates.values())):
        return memory
    state = memory.state
    seen = observe_services(state, observation, REPAY_SECONDS)
    sized = {name: _with_size(context, estimate, name, one) for name, one in seen.items()}
    grouped = group_services(observation, sized)
    state = follow_groups(state, observation, grouped, sized)
    groups, loads = estimate_groups(observation, grouped, sized, state.loads)
    care = dict(state.care)
    for group in groups:
        if all(rates[service.name] is not None for service in group.services):
            care[group.key] = learn_care(care.get(group.key, FIRST_CARE), group, observation, sized)
    forecasts: dict[str, ServiceForecast] = {}
    for group in groups:
        forecasts |= _forecast_group(group, sized, care.get(group.key, FIRST_CARE), loads[group.key], now)
    care = {key: value for key, value in care.items() if key in loads}
    names = {str(ref): ref for ref in context.services}
    return ForecastMemory(
        step_seconds=memory.step_seconds,
        at_seconds=now,
        state=JointState(services=seen, loads=loads, care=care, groups=state.groups),
        services={names[name]: forecast for name, forecast in forecasts.items()},
    )


def _forecast_group(
    group: Group, memories: Mapping[str, ServiceMemory], care: float, past: LoadMemory, at_seconds: float
) -> dict[str, ServiceForecast]:
    loads = estimate_loads(
        group,
        memories,
        None,
        at_seconds=at_seconds,
        interval_seconds=CHANCE_SECONDS,
        care=care,
        fill=KNEE_SHARE,
    )
    together = sum(load.next_rps for load in loads.values())
    is_learned = any(expected.errors.samples >= LEAST_SAMPLES for expected in past.following)
    ratio = group.next_ratio if is_learned else None
    return {name: ServiceForecast(load, ratio, care, together, group.base_ratio) for name, load in loads.items()}


def make_observation(context: PoolContext, estimate: PoolEstimate, step_seconds: float) -> FleetObservation:
    """What the simulated controller would see of this pool; debts and accuracies are left out, they are the laws'."""
    variants = []
    for state in context.states:
        model, signals = estimate.capacities[state.key].model, estimate.signals[state.key]
        if model is not None:
            variants.append(
                FleetVariant(
                    name=str(state.key),
                    member=state.key.member,
                    pool=state.accelerator_pool or "",
                    model=model,
                    replicas=state.desired or len(state.ready),
                    ready=len(state.ready),
                    serving=len(state.serving),
                    running=signals.running,
                    waiting=signals.waiting,
                    late_share=signals.late_share,
                )
            )
    return FleetObservation(
        at_seconds=estimate.at_seconds,
        interval_seconds=step_seconds,
        pools=(),
        variants=tuple(variants),
        services=tuple(_observe_service(context, estimate, ref) for ref in context.services),
    )


def _observe_service(context: PoolContext, estimate: PoolEstimate, ref: Ref) -> FleetService:
    members = find_missing_members(context.services[ref], context.pool)[0]
    load = estimate.loads.get(ref)
    rate = None if load is None else load.latest_rps
    return FleetService(
        name=str(ref),
        alpha=0.0,
        members=members,
        latency=service_bounds(context.services[ref]),
        rate_rps=rate,
        shape=_measured_shape(estimate, members),
        satisfied=0.0,
        total=0.0,
        accuracies={},
    )


def _measured_shape(estimate: PoolEstimate, members: tuple[str, ...]) -> RequestShape | None:
    """The mean request that these members' servers have just finished; None is unknown."""
    finished = inputs = outputs = 0.0
    for key, signals in estimate.signals.items():
        rate, tokens_in, tokens_out = signals.served_rps, signals.input_tokens, signals.output_tokens
        if key.member in members and rate and tokens_in is not None and tokens_out:
            finished += rate
            inputs += rate * tokens_in
            outputs += rate * tokens_out
    return RequestShape(inputs / finished, outputs / finished) if finished > 0.0 else None


def _with_size(context: PoolContext, estimate: PoolEstimate, name: str, memory: ServiceMemory) -> ServiceMemory:
    """The memory of a service with the profiles' mean request while its own was never measured."""
    if memory.input_tokens is not None:
        return memory
    spec = next(spec for ref, spec in context.services.items() if str(ref) == name)
    members = find_missing_members(spec, context.pool)[0]
    own = (capacity for key, capacity in estimate.capacities.items() if key.member in members)
    shape = next((capacity.shape for capacity in own if capacity.shape is not None), None)
    if shape is None:
        return memory
    return replace(memory, input_tokens=shape.input_tokens, output_tokens=shape.output_tokens)


def estimate_present_rps(estimate: PoolEstimate, memory: PoolMemory, ref: Ref) -> float:
    """Requests per second that a service sends now, at least: measured, expected of the coming interval, and owed.

    Where requests wait for its servers, what is measured may be less than what came: then its recent peak counts, and
    its part of the backlog.
    """
    load = estimate.loads.get(ref)
    measured = 0.0 if load is None else load.total_rps or 0.0
    forecast = memory.forecasts.services.get(ref)
    present = max(measured, 0.0 if forecast is None else forecast.load.next_rps)
    together = sum(one.total_rps or 0.0 for one in estimate.loads.values())
    waiting = sum(signals.waiting or 0.0 for signals in estimate.signals.values())
    if waiting <= 0.0 or measured <= 0.0:
        return present
    peak = estimate_peak_rps(memory.rates.get(ref, ()), estimate.at_seconds, PEAK_SECONDS)
    return max(present, (peak or 0.0) + waiting * measured / together / BACKLOG_SECONDS)


def estimate_rates(estimate: PoolEstimate, memory: PoolMemory, ref: Ref) -> tuple[float, float]:
    """(expected, high) requests per second of a service: forecast, and never less than there is now.

    high is what may come within the time that a new replica takes. Before the first sample the measured rate stands in,
    with the reserve that a forecast begins with.
    """
    forecast = memory.forecasts.services.get(ref)
    present = estimate_present_rps(estimate, memory, ref)
    if forecast is None:
        load = estimate.loads.get(ref)
        measured = 0.0 if load is None else load.total_rps or 0.0
        return measured, max(present, UNKNOWN_RATIO * measured)
    load_ = forecast.load
    return load_.rate_rps, max(load_.rate_rps, load_.high_rps, present)


def estimate_coming_rps(
    forecasts: Mapping[Ref, ServiceForecast], live: Mapping[Ref, Mapping[VariantKey, int]], key: VariantKey
) -> float | None:
    """Requests per second that a variant shall have room for in the coming interval, by the live weights.

    What is expected, widened by the forecast's own error and by chance, as many times as late requests have taught:
    each request draws its route alone, so of k expected ones at share p the count has the variance k (1 - p). None
    while the error of a service that may reach it is not known.
    """
    expected, used = 0.0, None
    for ref, weights in live.items():
        share = live_share(weights, key)
        if share == 0.0:
            continue
        forecast = forecasts.get(ref)
        if forecast is None or forecast.next_ratio is None:
            return None
        used = forecast  # any of them: they share members, so they are one group
        expected += share * forecast.load.next_rps
    if used is None or used.next_ratio is None or expected <= 0.0:
        return 0.0
    chance = ROUTE_DEVIATIONS * math.sqrt(max(0.0, 1.0 - expected / used.group_rps) / (CHANCE_SECONDS * expected))
    return expected * used.base_ratio * widen(used.next_ratio / used.base_ratio, chance, used.care)
