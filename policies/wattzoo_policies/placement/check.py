"""What the planner refuses: numbers that no plan could be right for, told by object, field, value and rule.

Infeasible numbers (too much demand, an accuracy nobody reaches) are no bad input: the plan says what is short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from wattzoo_policies.placement.problem import PlanPool, PlanProblem, PlanService, PlanVariant


class PlanError(ValueError):
    """Bad input to the planner; the attributes let a caller drop the object and go on with the others."""

    def __init__(self, kind: str, name: str, field: str, value: object, rule: str) -> None:
        super().__init__(f"{kind} {name}: {field} is {value}, but {rule}")
        self.kind = kind
        self.name = name
        self.field = field
        self.value = value
        self.rule = rule


def check_problem(problem: PlanProblem) -> None:
    """Raise `PlanError` for the first thing that makes the problem meaningless."""
    if not 0.0 <= problem.high_share < 1.0:
        raise PlanError("problem", "plan", "high_share", problem.high_share, "it must be at least 0 and below 1")
    for name, value in (("eta", problem.eta), ("kept_eta", problem.kept_eta), ("tau_seconds", problem.tau_seconds)):
        _check_positive("problem", "plan", name, value)
    _check_positive("problem", "plan", "overload_penalty", problem.overload_penalty)
    _check_positive("problem", "plan", "accuracy_penalty", problem.accuracy_penalty)
    for name, value in (("eta", problem.eta), ("kept_eta", problem.kept_eta)):
        if value > 1.0:
            raise PlanError("problem", "plan", name, value, "it must be at most 1")
    _check_names("pool", problem.pools)
    _check_names("variant", problem.variants)
    _check_names("service", problem.services)
    pools = {pool.name: pool for pool in problem.pools}
    for pool in problem.pools:
        _check_pool(pool)
    for variant in problem.variants:
        _check_variant(variant, pools)
    names = {variant.name for variant in problem.variants}
    for service in problem.services:
        _check_service(service, names)


def _check_names(kind: str, items: Sequence[PlanPool] | Sequence[PlanVariant] | Sequence[PlanService]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.name in seen:
            raise PlanError(kind, item.name, "name", item.name, "names must differ")
        seen.add(item.name)


def _check_pool(pool: PlanPool) -> None:
    _check_count("pool", pool.name, "accelerators", pool.accelerators)
    for count in pool.node_accelerators:
        _check_count("pool", pool.name, "node_accelerators", count)
    _check_at_least_zero("pool", pool.name, "objective_weight", pool.objective_weight)
    _check_at_least_zero("pool", pool.name, "price_per_accelerator_second", pool.price_per_accelerator_second)
    if pool.power_budget_watts is not None:
        _check_at_least_zero("pool", pool.name, "power_budget_watts", pool.power_budget_watts)


def _check_variant(variant: PlanVariant, pools: dict[str, PlanPool]) -> None:
    name = variant.name
    if variant.pool not in pools:
        raise PlanError("variant", name, "pool", variant.pool, "no such pool is in the problem")
    if pools[variant.pool].accelerators == 0:
        raise PlanError("pool", variant.pool, "accelerators", 0, f"variant {name} needs a pool with at least 1")
    if variant.accelerators < 1:
        raise PlanError("variant", name, "accelerators", variant.accelerators, "it must be at least 1")
    for field in ("idle_watts", "active_watts", "max_watts", "start_joules"):
        _check_at_least_zero("variant", name, field, getattr(variant, field))
    if variant.active_watts < variant.idle_watts:
        raise PlanError("variant", name, "active_watts", variant.active_watts, "it must be at least idle_watts")
    if variant.max_watts < variant.active_watts:
        raise PlanError("variant", name, "max_watts", variant.max_watts, "it must be at least active_watts")
    if variant.knee_load is not None and not 0.0 < variant.knee_load <= 1.0:
        raise PlanError("variant", name, "knee_load", variant.knee_load, "it must be above 0 and at most 1, or None")
    for field in ("current_replicas", "min_replicas", "max_replicas"):
        _check_count("variant", name, field, getattr(variant, field))


def _check_service(service: PlanService, variants: set[str]) -> None:
    name = service.name
    _check_at_least_zero("service", name, "rate_rps", service.rate_rps)
    _check_at_least_zero("service", name, "high_rate_rps", service.high_rate_rps)
    if not math.isfinite(service.alpha):
        raise PlanError("service", name, "alpha", service.alpha, "it must be a number")
    for variant, work in service.work_seconds.items():
        if variant not in variants:
            raise PlanError("service", name, "work_seconds", variant, "no such variant is in the problem")
        _check_positive("service", name, f"work_seconds[{variant}]", work)
        accuracy = service.accuracy.get(variant)
        if accuracy is None or not 0.0 <= accuracy <= 1.0:
            raise PlanError("service", name, f"accuracy[{variant}]", accuracy, "it must be a number from 0 to 1")


def _check_positive(kind: str, name: str, field: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise PlanError(kind, name, field, value, "it must be a number above 0")


def _check_at_least_zero(kind: str, name: str, field: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0.0):
        raise PlanError(kind, name, field, value, "it must be a number of at least 0")


def _check_count(kind: str, name: str, field: str, value: int) -> None:
    if not value >= 0 or value != int(value):
        raise PlanError(kind, name, field, value, "it must be a whole number of at least 0")
