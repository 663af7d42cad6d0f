"""The planner's front door: one joint plan for all services that share pools (placement.md 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wattzoo_policies.placement.check import check_problem
from wattzoo_policies.placement.component import Answer, Effort, plan_sparing_starts
from wattzoo_policies.placement.decompose import restrict, split_components
from wattzoo_policies.placement.instance import Demand, Fleet, FloatArray, make_demand, make_fleet
from wattzoo_policies.placement.prices import (
    describe_replicas,
    find_runner_up,
    price_accuracy,
    value_accelerators,
)
from wattzoo_policies.placement.problem import Plan, PlanProblem, PlanService, PlanStatus

LEAST_SHORT = 1e-6
"""Shares below this are the solver's tolerance, not a shortage."""

_WORST = (PlanStatus.GREEDY, PlanStatus.KEPT, PlanStatus.TIME_LIMIT, PlanStatus.OPTIMAL)


def solve_plan(
    problem: PlanProblem,
    *,
    time_limit_seconds: float = 2.0,
    gap: float = 0.01,
    previous: Plan | None = None,
    explain: bool = False,
) -> Plan:
    """Return the plan of least objective within the gap, the best one found when the time runs out.

    previous: kept where the solver brings nothing better in time. explain: also find the runner-up (one more solve
    per component). Raises `PlanError` for numbers that make no sense; shortage of any kind is told in the plan.
    """
    check_problem(problem)
    fleet = make_fleet(problem)
    demands = [make_demand(problem, fleet, service) for service in sorted(problem.services, key=lambda s: s.name)]
    active = [demand for demand in demands if demand is not None]
    parts = split_components(fleet, active)
    unit = penalty_unit(fleet)
    sizes = np.array([variants.size * max(1, len(inside)) if inside else 0 for variants, inside in parts], dtype=float)
    gathered = _Gathered(fleet)
    for (variants, inside), size in zip(parts, sizes, strict=True):
        if not variants.size and not inside:
            continue
        limit = time_limit_seconds * float(size / max(1.0, sizes.sum()))
        effort = Effort(limit, gap, problem.overload_penalty * unit, problem.accuracy_penalty * unit)
        smaller, own = restrict(fleet, [active[index] for index in inside], variants)
        kept = None
        if previous is not None:
            kept = np.array([previous.replicas.get(v.name, 0) for v in smaller.variants], dtype=np.int64)
        answer = plan_sparing_starts(smaller, own, effort, kept, problem.kept_eta / problem.eta)
        gathered.add(smaller, own, answer, effort)
        if explain:
            gathered.explain(smaller, own, answer, effort)
    return gathered.plan(problem.services)


def penalty_unit(fleet: Fleet) -> float:
    """Return objective units per watt of the dearest variant: penalties are given in watts and scaled by it."""
    ratios = [
        float(weight + (cost - weight * variant.idle_watts) / max(1.0, variant.max_watts))
        for variant, weight, cost in zip(fleet.variants, fleet.weight, fleet.replica_cost, strict=True)
    ]
    return max(ratios, default=1.0) or 1.0


@dataclass(slots=True)
class _Gathered:
    """What the components add up to."""

    fleet: Fleet
    replicas: dict[str, int] = field(default_factory=dict)
    active: dict[str, float] = field(default_factory=dict)
    flows: dict[str, dict[str, float]] = field(default_factory=dict)
    short: dict[str, float] = field(default_factory=dict)
    missing: dict[str, float] = field(default_factory=dict)
    prices: dict[str, float] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    binding: list[str] = field(default_factory=list)
    runners: list[str] = field(default_factory=list)
    cost: float = 0.0
    penalty: float = 0.0
    bound: float = 0.0
    watts: float = 0.0
    extra: float = 0.0
    has_runner: bool = False
    statuses: list[PlanStatus] = field(default_factory=list)

    def add(self, fleet: Fleet, demands: Sequence[Demand], answer: Answer, effort: Effort) -> None:
        """Take in one component."""
        loads = self._add_flows(fleet, demands, answer)
        for index, variant in enumerate(fleet.variants):
            self.replicas[variant.name] = int(answer.replicas[index])
            self.active[variant.name] = min(float(loads[index]), float(answer.replicas[index]))
            self.watts += variant.idle_watts * float(answer.replicas[index])
        self.cost += answer.flows.cost
        self.penalty += answer.flows.penalty
        self.bound += answer.bound
        if demands:
            self.statuses.append(answer.status)
            self.prices.update(price_accuracy(answer.flows, demands))
        values, binding = value_accelerators(fleet, demands, effort)
        self.values.update(values)
        if binding:
            self.binding.append(binding)

    def _add_flows(self, fleet: Fleet, demands: Sequence[Demand], answer: Answer) -> FloatArray:
        layout, values = answer.flows.program.layout, answer.flows.relaxed.values
        loads = np.zeros(len(fleet.variants))
        for index, demand in enumerate(demands):
            first = layout.flows + layout.pairs[index]
            shares = np.clip(values[first : first + demand.variants.size], 0.0, 1.0)
            np.add.at(loads, demand.variants, shares * demand.load)
            self.watts += float(shares @ demand.watts)
            names = [fleet.variants[v].name for v in demand.variants]
            rates = shares * demand.rate_rps
            self.flows[demand.name] = {name: float(r) for name, r in zip(names, rates, strict=True) if r > 0.0}
            if answer.flows.has_slacks:
                self._add_shortage(demand, values[layout.slacks + index :: len(demands)][:4])
        return loads

    def _add_shortage(self, demand: Demand, slacks: FloatArray) -> None:
        """Take in a service's slacks: shares short (expected, high) and accuracy missing (expected, high)."""
        shares = np.where(slacks > LEAST_SHORT, slacks, 0.0)
        short = max(float(shares[0]) * demand.rate_rps, float(shares[1]) * demand.high_rate_rps)
        missing = float(max(shares[2] if demand.rate_rps > 0.0 else 0.0, shares[3]))
        if short > 0.0:
            self.short[demand.name] = short
        if missing > 0.0:
            self.missing[demand.name] = missing

    def explain(self, fleet: Fleet, demands: Sequence[Demand], answer: Answer, effort: Effort) -> None:
        """Find the component's runner-up."""
        leader, cost, other = find_runner_up(fleet, demands, answer, effort)
        if not leader:
            return
        if other is None or cost is None:
            self.runners.append(f"none without {leader}")
            return
        self.has_runner = True
        self.extra += cost - answer.flows.cost
        self.runners.append(f"without {leader}: {describe_replicas(fleet, other)}")

    def plan(self, services: Sequence[PlanService]) -> Plan:
        """Return the whole plan; services without demand have empty flows."""
        gap = None
        if np.isfinite(self.bound):
            gap = max(0.0, self.cost - self.bound) / self.cost if self.cost > 0.0 else 0.0
        status = next((status for status in _WORST if status in self.statuses), PlanStatus.OPTIMAL)
        objective = self.cost + self.penalty
        return Plan(
            replicas=self.replicas,
            active=self.active,
            flows={service.name: self.flows.get(service.name, {}) for service in services},
            watts=self.watts,
            objective=objective,
            status=status,
            gap=gap,
            short_rps=self.short,
            accuracy_missing=self.missing,
            price_joules_per_satisfied=self.prices,
            accelerator_value_watts=self.values,
            binding="; ".join([*self.fleet.notes, *self.binding]),
            runner_up="; ".join(self.runners),
            runner_up_objective=objective + self.extra if self.has_runner else None,
        )
