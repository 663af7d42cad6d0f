"""One plan for one declared load: the planner's problem from the fleet of the files, and what its answer means."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wattzoo.cli.fleet_model import Fleet
from wattzoo_policies.capacity.model import LatencyTarget, RequestShape, knee_load, power_watts, work_seconds
from wattzoo_policies.placement.forecast import UNKNOWN_RATIO
from wattzoo_policies.placement.joint import JointParameters
from wattzoo_policies.placement.problem import Plan, PlanProblem, PlanService, PlanVariant, make_plan_pool
from wattzoo_policies.placement.signals import FleetService, FleetVariant
from wattzoo_policies.placement.target import REACH


class LoadError(ValueError):
    """A `--load` that cannot be; the text names it and the rule."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one service is to carry; `shape` is `None` where the profiles' own requests are meant."""

    rate_rps: float
    shape: RequestShape | None = None


@dataclass(frozen=True, slots=True)
class VariantPlan:
    """One variant of a plan: replicas, how many of them carry the load, requests/s and the plant's watts.

    load: share of the knee that the active ones are filled to; `None` without any.
    """

    variant: FleetVariant
    replicas: int
    active: int
    rate_rps: float
    load: float | None
    watts: float


def parse_loads(entries: Sequence[str], services: Sequence[str]) -> dict[str, Load]:
    """Return the load by service of entries SERVICE=RPS or SERVICE=RPS,INxOUT; raises `LoadError`."""
    loads: dict[str, Load] = {}
    for entry in entries:
        name, sign, text = entry.rpartition("=")
        if not sign:
            raise LoadError(f"--load must be SERVICE=RPS or SERVICE=RPS,INxOUT, not {entry!r}")
        if name not in services:
            raise LoadError(f"--load: there is no LLMService {name!r}; there are {', '.join(services)}")
        if name in loads:
            raise LoadError(f"--load: {name} is given twice")
        rate, comma, tokens = text.partition(",")
        shape = None
        if comma:
            first, sign, further = tokens.lower().partition("x")
            shape_numbers = (_positive(first), _positive(further)) if sign else (None, None)
            if shape_numbers[0] is None or shape_numbers[1] is None:
                raise LoadError(f"--load {name}: tokens must be INxOUT, two positive numbers, not {tokens!r}")
            shape = RequestShape(shape_numbers[0], shape_numbers[1])
        number = _positive(rate)
        if number is None:
            raise LoadError(f"--load {name}: requests/s must be a positive number, not {rate!r}")
        loads[name] = Load(number, shape)
    if not loads:
        raise LoadError("--load is required: SERVICE=RPS[,INxOUT] for one service at least")
    return loads


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0.0 else None


def shape_of(fleet: Fleet, loads: Mapping[str, Load], service: str) -> RequestShape:
    """Return the requests of a service: as declared, else those that its profiles were measured with."""
    load = loads.get(service)
    return fleet.shapes[service] if load is None or load.shape is None else load.shape


def mean_shape(fleet: Fleet, loads: Mapping[str, Load]) -> RequestShape:
    """Return the mean request over all services."""
    shapes = {name: shape_of(fleet, loads, name) for name in loads}
    total = sum(load.rate_rps for load in loads.values())
    return RequestShape(
        sum(load.rate_rps * shapes[name].input_tokens for name, load in loads.items()) / total,
        sum(load.rate_rps * shapes[name].output_tokens for name, load in loads.items()) / total,
    )


def describe_plan(fleet: Fleet, loads: Mapping[str, Load], plan: Plan) -> tuple[VariantPlan, ...]:
    """Return the plan variant by variant, with watts by the replica's own law instead of the planner's line.

    The planner's objective is linear and misses the jump from idle to the first request (placement.md 2).
    """
    rows = []
    for variant in fleet.variants:
        rates = {name: flows.get(variant.name, 0.0) for name, flows in plan.flows.items()}
        total = sum(rates.values())
        replicas = plan.replicas.get(variant.name, 0)
        active = min(replicas, max(1, math.ceil(plan.active.get(variant.name, 0.0) - 1e-6))) if total > 0.0 else 0
        watts, load = variant.model.idle_watts * (replicas - active), None
        if active:
            shapes = {name: shape_of(fleet, loads, name) for name in rates}
            shape = RequestShape(
                sum(rate * shapes[name].input_tokens for name, rate in rates.items()) / total,
                sum(rate * shapes[name].output_tokens for name, rate in rates.items()) / total,
            )
            watts += active * power_watts(variant.model, shape, total / active)
            knees = [
                k
                for s in fleet.services
                if rates.get(s.name) and (k := knee_load(variant.model, shapes[s.name], s.latency))
            ]
            load = total / active * work_seconds(variant.model, shape) / min(knees, default=1.0)
        rows.append(VariantPlan(variant, replicas, active, total, load, watts))
    return tuple(rows)


def make_problem(fleet: Fleet, loads: Mapping[str, Load], accuracies: Mapping[str, Mapping[str, float]]) -> PlanProblem:
    """Return the problem that the joint controller poses once these loads have long held.

    The high rate is what it plans for before it knows its forecast's error, the accuracy is the target with the
    credit earned, and no start counts: the plan is one to stay at.
    """
    parameters = JointParameters()
    used = tuple(service for service in fleet.services if service.name in loads)
    return PlanProblem(
        pools=tuple(make_plan_pool(pool) for pool in fleet.pools),
        variants=tuple(_plan_variant(variant, _knee(variant, fleet, loads)) for variant in fleet.variants),
        services=tuple(_plan_service(service, fleet, loads, accuracies[service.name], parameters) for service in used),
        eta=parameters.eta,
        tau_seconds=parameters.tau_seconds,
    )


def _plan_variant(variant: FleetVariant, knee: float | None) -> PlanVariant:
    return PlanVariant(
        name=variant.name,
        member=variant.member,
        pool=variant.pool,
        accelerators=variant.model.accelerators,
        idle_watts=variant.model.idle_watts,
        active_watts=variant.model.active_watts,
        max_watts=variant.model.max_watts,
        start_joules=0.0,
        knee_load=knee,
        min_replicas=variant.min_replicas,
        max_replicas=variant.max_replicas,
    )


def _knee(variant: FleetVariant, fleet: Fleet, loads: Mapping[str, Load]) -> float | None:
    """Return the knee at the mean request and the strictest bounds of the services that may use the variant."""
    users = [s for s in fleet.services if s.name in loads and variant.member in s.members]
    if not users:
        return None
    latency = functools.reduce(LatencyTarget.strictest, (s.latency for s in users), LatencyTarget())
    return knee_load(variant.model, mean_shape(fleet, {s.name: loads[s.name] for s in users}), latency)


def _plan_service(
    service: FleetService,
    fleet: Fleet,
    loads: Mapping[str, Load],
    accuracies: Mapping[str, float],
    parameters: JointParameters,
) -> PlanService:
    usable = [variant for variant in fleet.variants if variant.member in service.members]
    known = [accuracies[name] for name in service.members]
    rate, shape = loads[service.name].rate_rps, shape_of(fleet, loads, service.name)
    return PlanService(
        name=service.name,
        rate_rps=rate,
        high_rate_rps=rate * UNKNOWN_RATIO,
        alpha=min(max(service.alpha + parameters.margin, min(known)), max(known) - REACH),
        work_seconds={variant.name: work_seconds(variant.model, shape) for variant in usable},
        accuracy={variant.name: accuracies[variant.member] for variant in usable},
    )
