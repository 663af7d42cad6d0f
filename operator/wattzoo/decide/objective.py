"""What the joint plan minimises, from the figures of AcceleratorPools; one that is missing is never taken for zero.

Carbon and prices add up over everything that is planned together, so a pool without its figure leaves all of them to
Energy, and the object says which field of which pool it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from wattzoo.api.accelerator_pool import AcceleratorPoolSpec
from wattzoo.api.conditions import Reason
from wattzoo.decide.plan_fleet import PlanPart
from wattzoo.decisions import Finding
from wattzoo.model import Kind
from wattzoo_policies.placement.objective import Coefficients, Objective, make_coefficients
from wattzoo_policies.placement.problem import PlanProblem

FIELDS = {
    Objective.CARBON: "spec.carbonGramsPerKilowattHour",
    Objective.COST: "spec.pricePerAcceleratorHourMilli",
}
"""By objective the field of an AcceleratorPool that it needs."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """Pools that are planned together for Energy, and those of them without the figure."""

    objective: Objective
    pools: frozenset[str]
    missing: tuple[str, ...]

    @property
    def finding(self) -> Finding:
        """What the objects say of it."""
        names = ", ".join(f"{Kind.ACCELERATOR_POOL}/{name}" for name in self.missing)
        return Finding(
            Reason.OBJECTIVE_FIGURE_MISSING,
            f"{names}: {FIELDS[self.objective]} is unset, so that the plan minimises Energy instead of "
            f"{self.objective} in {', '.join(sorted(self.pools))}",
        )


def find_coefficients(spec: AcceleratorPoolSpec, objective: Objective) -> Coefficients | None:
    """The coefficients of one pool; None while its figure is missing."""
    milli = spec.price_per_accelerator_hour_milli
    return make_coefficients(objective, spec.carbon_grams_per_kilowatt_hour, None if milli is None else milli / 1e3)


def weigh_pools(
    problem: PlanProblem, hardware: Mapping[str, AcceleratorPoolSpec], objective: Objective
) -> tuple[PlanProblem, tuple[Fallback, ...]]:
    """The problem with what each pool counts for, and where that had to be Energy."""
    found = {
        pool.name: find_coefficients(hardware[pool.name], objective) if pool.name in hardware else None
        for pool in problem.pools
    }
    fallbacks = []
    for group in _connected(problem):
        missing = tuple(sorted(name for name in group if found[name] is None))
        if missing:
            fallbacks.append(Fallback(objective, group, missing))
    energy = {name for fallback in fallbacks for name in fallback.pools}
    pools = []
    for pool in problem.pools:
        counted = found[pool.name]
        if counted is None or pool.name in energy:
            counted = Coefficients()
        weight, price = counted.objective_weight, counted.price_per_accelerator_second
        pools.append(replace(pool, objective_weight=weight, price_per_accelerator_second=price))
    return replace(problem, pools=tuple(pools)), tuple(fallbacks)


def _connected(problem: PlanProblem) -> tuple[frozenset[str], ...]:
    """Pools that some service may use together, and so on: at least what the planner solves as one."""
    place = {variant.name: variant.pool for variant in problem.variants}
    groups = {pool.name: frozenset({pool.name}) for pool in problem.pools}
    for service in problem.services:
        joined = frozenset().union(*(groups[place[name]] for name in service.work_seconds if name in place))
        for name in joined:
            groups[name] = joined
    return tuple(dict.fromkeys(groups.values()))


def find_fallbacks(part: PlanPart, fallbacks: tuple[Fallback, ...]) -> tuple[Finding, ...]:
    """What of a part's plan minimises Energy although something else is asked for."""
    used = {state.accelerator_pool for state in part.context.states if state.key in part.bounds}
    return tuple(fallback.finding for fallback in fallbacks if not fallback.pools.isdisjoint(used))
