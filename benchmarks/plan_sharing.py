"""What sharing saves small services: one plan for all against a replica set each, and the least possible.

The least possible is proven apart from the planner's own objective: a linear program of the plant's watts in which
replicas may be fractions, accelerators have no end and every variant works where a second of its work costs least.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.plan_instances import ALIKE_TOKENS, Shape, make_instance_with_steps
from wattzoo_policies.placement.instance import Demand, make_demand, make_fleet, tighten_upper
from wattzoo_policies.placement.milp import Slacks, make_program, solve_linear
from wattzoo_policies.placement.problem import Plan, PlanProblem, PlanStatus, PlanVariant
from wattzoo_policies.placement.solve import solve_plan

MEANS_RPS = (0.05, 0.2, 0.5, 2.0)
MOST_RATIO = 0.25


@dataclass(slots=True)
class Shared:
    """Sums over the seeds of one rate: watts, replicas of the own sets and what of them is filled, plans short."""

    shared_watts: float = 0.0
    own_watts: float = 0.0
    apart_watts: float = 0.0
    least_watts: float = 0.0
    own_replicas: float = 0.0
    own_load: float = 0.0
    short: int = 0


def sharing_text(seed: int, seeds: int) -> list[str]:
    """Return the table of 100 small services: one plan for all against a replica set of its own for each."""
    lines = [
        "## 100 small services sharing 4 pools",
        "",
        "Watts of the plant's law (idle, a jump with the first requests in flight, then the load), without starts;",
        "requests of 616 prompt and 131 output tokens, replicas filled to 90 % of the knee before the next one in all",
        "columns. Own set: each service has the one variant that reaches its accuracy at the least power, with the",
        "replicas that its high rate needs; filled: how much of them the expected rate takes. Planned apart: each has",
        "a plan of its own, mixtures too, with the whole fleet to itself. Bar: shared at most 1/4 of one set each.",
        "Least: no plan that keeps the promises takes less, proven with fractions of replicas and accelerators without",
        "end (a linear program). Where it is above 1/4 the bar is out of reach: services that fill half of their own",
        "sets are not small. Short: shared plans for which the four pools are too few to keep every promise.",
        "",
        "| requests/s per service (mean) | seeds | short | own set filled | shared W | own set W | ratio | least ratio "
        "| planned apart W | ratio | bar |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return lines + [_row_text(mean, seeds, _measure(mean, seed, seeds)) for mean in MEANS_RPS]


def _row_text(mean: float, seeds: int, found: Shared) -> str:
    ratio, least = found.shared_watts / found.own_watts, found.least_watts / found.own_watts
    verdict = "met" if ratio <= MOST_RATIO else "MISSED, out of reach" if least > MOST_RATIO else "MISSED"
    return (
        f"| {mean:g} | {seeds} | {found.short} | {100.0 * found.own_load / found.own_replicas:.0f} % "
        f"| {found.shared_watts / seeds:.0f} | {found.own_watts / seeds:.0f} | {ratio:.3f} | {least:.3f} "
        f"| {found.apart_watts / seeds:.0f} | {found.shared_watts / found.apart_watts:.3f} | {verdict} |"
    )


def _measure(mean: float, seed: int, seeds: int) -> Shared:
    found = Shared()
    for number in range(seeds):
        rng = np.random.default_rng([seed, 7, number])
        problem, steps = make_instance_with_steps(rng, Shape(6, 4, 100, 100.0 * mean, alike=True))
        plan = solve_plan(problem, time_limit_seconds=20.0)
        found.shared_watts += plant_watts(problem, plan, steps)
        found.short += bool(plan.short_rps or plan.accuracy_missing)
        found.least_watts += least_watts(problem, steps)
        for service in problem.services:
            alone = replace(problem, services=(service,))
            watts, own = min(((plant_watts(alone, own, steps), own) for own in _own_sets(alone)), key=lambda e: e[0])
            found.own_watts += watts
            found.own_replicas += sum(own.replicas.values())
            found.own_load += sum(own.active.values())
            found.apart_watts += plant_watts(alone, solve_plan(alone, time_limit_seconds=1.0), steps)
    return found


def _own_sets(problem: PlanProblem) -> list[Plan]:
    """Return, for a single service, the plans of one variant that reach its accuracy, sized for the high rate."""
    service, plans = problem.services[0], []
    for variant in problem.variants:
        if variant.knee_load is not None and service.accuracy[variant.name] >= service.alpha:
            load = service.high_rate_rps * service.work_seconds[variant.name] / (problem.eta * variant.knee_load)
            replicas = {other.name: 0 for other in problem.variants} | {variant.name: math.ceil(load)}
            active = {variant.name: load * service.rate_rps / service.high_rate_rps}
            flows = {service.name: {variant.name: service.rate_rps}}
            plans.append(Plan(replicas, active, flows, 0.0, 0.0, PlanStatus.GREEDY))
    return plans


def plant_watts(problem: PlanProblem, plan: Plan, steps: Mapping[str, float]) -> float:
    """Return watts at the expected rates: P = idle + (1 - exp(-n)) (active - idle) + (max - active) rho."""
    watts = 0.0
    for variant in problem.variants:
        flows = [(s, plan.flows[s.name].get(variant.name, 0.0)) for s in problem.services]
        work = sum(rate * s.work_seconds[variant.name] for s, rate in flows)
        watts += variant.idle_watts * plan.replicas[variant.name]
        if work > 0.0:
            busy = max(1, math.ceil(work / (problem.eta * (variant.knee_load or 1.0)) - 1e-6))
            load = work / busy
            sequences = sum(rate for _, rate in flows) / busy * ALIKE_TOKENS[1] * steps[variant.name] / (1.0 - load)
            jump = -math.expm1(-sequences) * (variant.active_watts - variant.idle_watts)
            watts += busy * (jump + (variant.max_watts - variant.active_watts) * load)
    return watts


def least_watts(problem: PlanProblem, steps: Mapping[str, float]) -> float:
    """Return watts below which no plan of services of alike requests keeps its promises, on any number of accelerators.

    Replicas cost their idle watts, work what it costs at the load where a second of it is cheapest.
    """
    each = {
        variant.name: _least_watts_per_load(variant, problem.eta, work, steps[variant.name])
        for variant in problem.variants
        for work in [problem.services[0].work_seconds[variant.name]]
    }
    fleet = make_fleet(problem)
    endless = replace(
        fleet, rows=(), upper=np.full_like(fleet.upper, 10**6), start_cost=np.zeros_like(fleet.start_cost)
    )
    demands: list[Demand] = []
    for service in problem.services:
        demand = make_demand(problem, fleet, service)
        if demand is not None:
            names = [fleet.variants[index].name for index in demand.variants]
            cost = np.array([service.rate_rps * service.work_seconds[name] * each[name] for name in names])
            demands.append(replace(demand, cost=cost, high_cost=np.zeros_like(cost)))
    relaxed = solve_linear(make_program(tighten_upper(endless, demands), demands, Slacks.NONE, 0.0, 0.0))
    if relaxed is None:
        raise ArithmeticError("services that the most accurate variant alone can serve were found without a plan")
    return relaxed.objective


def _least_watts_per_load(variant: PlanVariant, eta: float, work_seconds: float, step_seconds: float) -> float:
    """Return the least watts above idle per unit of load, over all loads that a replica may have."""
    load = eta * (variant.knee_load or 1.0) * np.linspace(1e-3, 1.0, 1000)
    sequences = load / work_seconds * ALIKE_TOKENS[1] * step_seconds / (1.0 - load)
    jump = -np.expm1(-sequences) * (variant.active_watts - variant.idle_watts)
    at_rest = ALIKE_TOKENS[1] * step_seconds / work_seconds * (variant.active_watts - variant.idle_watts)
    return float(np.min(jump / load, initial=at_rest)) + variant.max_watts - variant.active_watts
