"""From what was observed to what is planned for: rates, sizes and loads of every service, now and at their highest."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from wattzoo_policies.capacity.model import LatencyTarget, ReplicaModel, RequestShape, knee_load, work_seconds
from wattzoo_policies.placement.forecast import (
    EWMA_WEIGHT,
    LEAST_RATIO,
    NEXT_WEIGHT,
    LoadForecast,
    LoadMemory,
    forecast_load,
    lead_steps,
    observe_load,
)
from wattzoo_policies.placement.joint_state import JointState, ServiceMemory
from wattzoo_policies.placement.signals import FleetObservation, FleetService, FleetVariant
from wattzoo_policies.placement.target import observe_debt

SHAPE_MEMORY = 9.0
"""Mean tokens are averaged over about this many intervals' requests."""
ROUTE_DEVIATIONS = 2.0
"""Standard deviations of a variant's share of an interval's requests that its replicas are to carry."""
MOST_RAISE = 1.25
LONGER_PROMPTS = 1.2
"""The time to first token is kept for prompts this much longer than the average: intervals' means differ."""
LATE_SHARE = 0.006
"""Share of requests that packing may make late."""
CARE_GAIN = 0.5
MOST_WEIGHT = 5.0
FIRST_CARE = 1.2
LEAST_CARE = 0.25
MOST_CARE = 2.5
SHAPE_GRID = 0.01
"""Sizes are rounded to this share before a knee is computed: a knee hardly moves, its computation is not free."""


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """What one service is expected to send: slow average, the coming interval, the high load, and the mean request."""

    rate_rps: float
    next_rps: float
    high_rps: float
    shape: RequestShape


@dataclass(frozen=True, slots=True)
class Group:
    """Services that share members, and their load in forecast units.

    rate_work, next_work: what average rates and sizes make of it; the forecast is the better guess, since it has seen
    sizes and rates together. weight: the last interval's load over the mean one.
    """

    services: tuple[FleetService, ...]
    forecast: LoadForecast
    rate_work: float
    next_work: float
    weight: float = 1.0

    @property
    def key(self) -> str:
        """Return what the state files the group's loads under."""
        return self.services[0].name

    @property
    def next_ratio(self) -> float:
        """Return what the coming interval's load rarely exceeds, over the expected."""
        return self.forecast.next_high / self.forecast.next_load if self.forecast.next_load > 0.0 else 1.0

    @property
    def base_ratio(self) -> float:
        """Return what the coming interval's error is one of, over the expected: above 1 where the peak is believed."""
        base, following = self.forecast.next_base, self.forecast.next_load
        return base / following if base > 0.0 and following > 0.0 else 1.0

    def widened(self, chance: float, care: float) -> float:
        """Return what load may become over the expected, the forecast's error and chance's counted `care` times.

        Where the peak is believed the error is its own: no care makes a burst smaller than the last ones were.
        """
        base, following = self.forecast.next_base, self.forecast.next_load
        if not (base > 0.0 and following > 0.0):
            return widen(self.next_ratio, chance, care)
        return self.base_ratio * widen(self.forecast.next_high / base, chance, care)

    def foreseen(self) -> Group:
        """Return the group as of somebody who knows the coming interval's rate, and only chance and sizes are left."""
        following = self.forecast.next_load
        known = replace(self.forecast, next_high=following * LEAST_RATIO, next_base=following)
        return replace(self, forecast=known)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What somebody knows of a service's coming demand: the mean until the next plan, the highest within the lead.

    next_rps: the coming interval's; `None`: that one is not known, and forecast like any other.
    """

    rate_rps: float
    high_rps: float
    next_rps: float | None = None


class Foresight(Protocol):
    """Knows the future: for comparisons, never for serving."""

    @property
    def knows_next(self) -> bool:
        """Return whether the coming interval's rate is known."""
        ...

    def look(self, service: str, at_seconds: float) -> Outlook:
        """Return what is coming to a service."""
        ...


def observe_services(
    state: JointState, observation: FleetObservation, repay_seconds: float
) -> dict[str, ServiceMemory]:
    """Return the memories after the interval that has ended; a rate that is unknown changes none."""
    memories = {}
    for service in observation.services:
        memory = state.services.get(service.name, ServiceMemory())
        if service.rate_rps is not None and math.isfinite(service.rate_rps):
            memory = _observe_rate(memory, service.rate_rps, service.shape)
        rate = memory.rate_rps or 0.0
        memories[service.name] = replace(memory, debt=observe_debt(memory.debt, service, rate, repay_seconds))
    return memories


def group_services(
    observation: FleetObservation, memories: Mapping[str, ServiceMemory]
) -> list[tuple[FleetService, ...]]:
    """Return groups of services with a known rate and size that share members, directly or through others."""
    groups: list[tuple[set[str], list[FleetService]]] = []
    for service in observation.services:
        memory = memories[service.name]
        if memory.rate_rps is None or memory.input_tokens is None:
            continue
        members, own = set(service.members), [service]
        apart = []
        for group in groups:
            if group[0] & members:
                members |= group[0]
                own = [*group[1], *own]
            else:
                apart.append(group)
        groups = [*apart, (members, own)]
    return [tuple(own) for _, own in groups]


def follow_groups(
    state: JointState,
    observation: FleetObservation,
    groups: Sequence[tuple[FleetService, ...]],
    memories: Mapping[str, ServiceMemory],
) -> JointState:
    """Return the state with what was learnt of loads filed under the groups of now.

    A group goes on with what is known of the one that most of its load was in, scaled by what joined or left: the sum
    is larger or smaller at once, how far it strays from what is expected is still the best guess of how it will.
    """
    averages = {**memories, **{name: memory for name, memory in state.services.items() if memory.input_tokens}}
    filed = {services[0].name: tuple(service.name for service in services) for services in groups}
    loads, care = {}, {}
    for services in groups:
        key, model = services[0].name, _reference(observation.variants, services)
        names = filed[key]

        def work(these: Iterable[str], model: ReplicaModel | None = model) -> float:
            known = [averages[name] for name in these if name in averages]
            return 0.0 if model is None else sum((m.rate_rps or 0.0) * _mean_work(model, m) for m in known)

        shared = {old: [name for name in state.groups[old] if name in names] for old in state.loads}
        heir = max((old for old in shared if shared[old]), key=lambda old: (work(shared[old]), old), default=None)
        if heir is None:
            continue
        before, now = work(state.groups[heir]), work(names)
        loads[key] = state.loads[heir]
        if set(names) != set(state.groups[heir]) and before > 0.0 and now > 0.0:
            loads[key] = loads[key].scaled(now / before)
        if heir in state.care:
            care[key] = state.care[heir]
    return replace(state, loads=loads, care=care, groups=filed)


def estimate_groups(
    observation: FleetObservation,
    groups: Sequence[tuple[FleetService, ...]],
    memories: Mapping[str, ServiceMemory],
    loads: Mapping[str, LoadMemory],
) -> tuple[list[Group], dict[str, LoadMemory]]:
    """Return the groups with their forecasts, and the memories of their loads with this interval in them."""
    found, after = [], {}
    for services in groups:
        model = _reference(observation.variants, services)
        key = services[0].name
        memory = loads.get(key, LoadMemory())
        known = all(service.rate_rps is not None for service in services)
        if known and model is not None:
            load = sum(_work(model, s, memories[s.name]) for s in services)
            starts = (model.startup_seconds for model in _models(observation.variants, services))
            memory = observe_load(memory, load, lead_steps(max(starts), observation.interval_seconds))
        after[key] = memory
        forecast = forecast_load(memory)
        if forecast is not None and model is not None:
            averages = [memories[s.name] for s in services]
            found.append(
                Group(
                    services,
                    forecast,
                    sum((m.rate_rps or 0.0) * _mean_work(model, m) for m in averages),
                    sum((m.next_rps or 0.0) * _mean_work(model, m) for m in averages),
                    memory.weight,
                )
            )
    return found, after


def estimate_loads(
    group: Group,
    memories: Mapping[str, ServiceMemory],
    foresight: Foresight | None,
    *,
    at_seconds: float,
    interval_seconds: float,
    care: float,
    fill: float,
) -> dict[str, ServiceLoad]:
    """Return the loads of a group's services; the group's forecast is spread in proportion to their rates.

    fill: how full a plan fills replicas when there is high load. Packing fills them to the knee over `care` times the
    expected error; where that is less, the high load is raised (by a quarter at most), lest a plan brings fewer
    replicas than packing will want.
    """
    forecast = group.forecast
    count = sum(memories[s.name].next_rps or 0.0 for s in group.services) * interval_seconds
    wider = group.widened(ROUTE_DEVIATIONS / math.sqrt(count) if count > 0.0 else 0.0, care)
    high_load = max(forecast.high, min(fill * wider * forecast.next_load, MOST_RAISE * forecast.high))
    high = high_load / group.rate_work if group.rate_work > 0.0 else 1.0
    now = forecast.level / group.rate_work if group.rate_work > 0.0 else 1.0
    soon = forecast.next_load / group.next_work if group.next_work > 0.0 else 1.0
    loads = {}
    for service in group.services:
        memory = memories[service.name]
        rate, following = memory.rate_rps or 0.0, memory.next_rps or 0.0
        shape = RequestShape(memory.input_tokens or 0.0, memory.output_tokens or 1.0)
        if foresight is not None:
            seen = foresight.look(service.name, at_seconds)
            near = following * soon if seen.next_rps is None else seen.next_rps
            loads[service.name] = ServiceLoad(seen.rate_rps, near, max(near, seen.high_rps), shape)
        else:
            loads[service.name] = ServiceLoad(rate * now, following * soon, max(rate * high, following * soon), shape)
    return loads


def estimate_knees(
    variants: Sequence[FleetVariant], groups: Sequence[Group], loads: Mapping[str, ServiceLoad]
) -> dict[str, float | None]:
    """Return by variant the knee at the mean request and the strictest bounds of the services that may use it."""
    knees: dict[str, float | None] = {}
    for variant in variants:
        users = [s for group in groups for s in group.services if variant.member in s.members]
        total = sum(loads[s.name].rate_rps for s in users)
        if not users:
            knees[variant.name] = None
            continue
        weights = [loads[s.name].rate_rps / total if total > 0.0 else 1.0 / len(users) for s in users]
        shapes = [loads[s.name].shape for s in users]
        mean_in = sum(w * shape.input_tokens for w, shape in zip(weights, shapes, strict=True))
        mean_out = sum(w * shape.output_tokens for w, shape in zip(weights, shapes, strict=True))
        latency = functools.reduce(LatencyTarget.strictest, (s.latency for s in users), LatencyTarget())
        knees[variant.name] = _knee(variant.model, _rounded(LONGER_PROMPTS * mean_in), _rounded(mean_out), latency)
    return knees


def widen(ratio: float, chance: float, care: float) -> float:
    """Return what load may become over the expected: the forecast's error and chance's, `care` times."""
    return 1.0 + care * math.hypot(max(0.0, ratio - 1.0), chance)


def learn_care(
    care: float, group: Group, observation: FleetObservation, memories: Mapping[str, ServiceMemory]
) -> float:
    """Return how many times the expected error is kept free on serving replicas, after the interval that has ended.

    Each interval's share of requests that were late moves it up, the allowed share down, so that in the long run just
    that share is late, whatever the errors look like. Intervals count by their load: the promise is one to requests,
    and where load comes in bursts silence says nothing. How loaded a variant was follows from the requests inside it:
    n = r*O*t0/(1 - r*w) on each serving replica. Where nobody measures how many were late, all were if the mean of
    that load is beyond a bound; of a count at one moment that says too much, it sways more than a request's life does.
    """
    late, total = 0.0, 0.0
    for variant in observation.variants:
        users = [s for s in group.services if variant.member in s.members]
        if not users or not variant.running or variant.serving <= 0 or variant.waiting is None:
            continue
        if variant.waiting > 0.0 and variant.serving >= variant.ready:
            continue  # there was nothing to wake: no care would have helped
        model, shape = variant.model, _mean_shape(users, memories)
        inside, work = variant.running / variant.serving, work_seconds(model, shape)
        rate = inside / (shape.output_tokens * model.t0_seconds + inside * work)
        share = variant.late_share
        if share is None:
            latency = functools.reduce(LatencyTarget.strictest, (s.latency for s in users), LatencyTarget())
            share = float(variant.waiting > 0.0 or _is_late(model, shape, rate, latency))
        total += rate * variant.serving
        late += rate * variant.serving * share
    if total <= 0.0:
        return care
    step = CARE_GAIN * min(MOST_WEIGHT, group.weight) * (late / total - LATE_SHARE)
    return min(MOST_CARE, max(LEAST_CARE, care + step))


def _is_late(model: ReplicaModel, shape: RequestShape, rate_rps: float, latency: LatencyTarget) -> bool:
    """Return whether a replica that gets so many requests breaks a bound."""
    slower = 1.0 / max(1e-6, 1.0 - rate_rps * work_seconds(model, shape))
    first = (shape.input_tokens * model.prefill_seconds_per_token + model.t0_seconds) * slower
    is_late = latency.tpot_seconds is not None and model.t0_seconds * slower > latency.tpot_seconds
    return is_late or (latency.ttft_seconds is not None and first > latency.ttft_seconds)


def _mean_shape(users: Sequence[FleetService], memories: Mapping[str, ServiceMemory]) -> RequestShape:
    """Return the mean request of the last interval (averages where a service had none), weighted by rate."""
    weights, inputs, outputs = [], [], []
    for service in users:
        memory = memories[service.name]
        shape = service.shape or RequestShape(memory.input_tokens or 0.0, memory.output_tokens or 1.0)
        weights.append(max(1e-9, memory.rate_rps or 0.0))
        inputs.append(shape.input_tokens)
        outputs.append(shape.output_tokens)
    total = sum(weights)
    return RequestShape(
        sum(w * tokens for w, tokens in zip(weights, inputs, strict=True)) / total,
        sum(w * tokens for w, tokens in zip(weights, outputs, strict=True)) / total,
    )


def _observe_rate(memory: ServiceMemory, rate: float, shape: RequestShape | None) -> ServiceMemory:
    slow = rate if memory.rate_rps is None else memory.rate_rps + EWMA_WEIGHT * (rate - memory.rate_rps)
    quick = rate if memory.next_rps is None else memory.next_rps + NEXT_WEIGHT * (rate - memory.next_rps)
    memory = replace(memory, rate_rps=slow, next_rps=quick)
    if shape is None or rate <= 0.0:
        return memory
    if memory.input_tokens is None or memory.output_tokens is None:
        return replace(memory, input_tokens=shape.input_tokens, output_tokens=shape.output_tokens)
    weight = rate / (rate + SHAPE_MEMORY * slow)
    return replace(
        memory,
        input_tokens=memory.input_tokens + weight * (shape.input_tokens - memory.input_tokens),
        output_tokens=memory.output_tokens + weight * (shape.output_tokens - memory.output_tokens),
    )


def _reference(variants: Sequence[FleetVariant], services: Sequence[FleetService]) -> ReplicaModel | None:
    return next(iter(_models(variants, services)), None)


def _models(variants: Sequence[FleetVariant], services: Sequence[FleetService]) -> list[ReplicaModel]:
    """Return the models of the replicas that these services may use, by the names of the variants."""
    members = {member for service in services for member in service.members}
    return [variant.model for variant in sorted(variants, key=lambda v: v.name) if variant.member in members]


def _work(model: ReplicaModel, service: FleetService, memory: ServiceMemory) -> float:
    """Return the load of the interval that has ended, at its own mean size where that is known."""
    shape = service.shape or RequestShape(memory.input_tokens or 0.0, memory.output_tokens or 1.0)
    return (service.rate_rps or 0.0) * work_seconds(model, shape)


def _mean_work(model: ReplicaModel, memory: ServiceMemory) -> float:
    return work_seconds(model, RequestShape(memory.input_tokens or 0.0, memory.output_tokens or 1.0))


@functools.lru_cache(maxsize=4096)
def _knee(model: ReplicaModel, input_tokens: float, output_tokens: float, latency: LatencyTarget) -> float | None:
    return knee_load(model, RequestShape(input_tokens, output_tokens), latency)


def _rounded(tokens: float) -> float:
    return 0.0 if tokens <= 0.0 else math.exp(round(math.log(tokens) / SHAPE_GRID) * SHAPE_GRID)
