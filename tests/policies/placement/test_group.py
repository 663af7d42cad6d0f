"""Services planned as one: exact where they differ in rate, length and promise alone, close where they differ more."""

from __future__ import annotations

import numpy as np
import pytest

from tests.policies.placement.instances import compiled
from wattzoo_policies.placement.component import Effort, lay_flows
from wattzoo_policies.placement.group import group_demands
from wattzoo_policies.placement.milp import Slacks, make_program, solve_linear, solve_program
from wattzoo_policies.placement.problem import PlanPool, PlanProblem, PlanService, PlanVariant
from wattzoo_policies.placement.solve import solve_plan


def make_many(seed: int, services: int, *, differ: float) -> PlanProblem:
    """Return services on the same six variants of three models; `differ` is the spread of works and accuracies."""
    rng = np.random.default_rng(seed)
    variants = []
    for model in range(3):
        for pool in range(2):
            idle, scale = 90.0 * (1 + pool), 2.0**model
            variants.append(
                PlanVariant(
                    f"m{model}p{pool}",
                    f"m{model}",
                    f"p{pool}",
                    2**model,
                    idle * scale,
                    float(rng.uniform(2.0, 4.0)) * idle * scale,
                    float(rng.uniform(4.5, 6.0)) * idle * scale,
                    3e4 * scale,
                    float(rng.uniform(0.4, 0.8)),
                    int(rng.integers(0, 3)),
                )
            )
    base = np.array([0.05 * 1.7**model for model in range(3) for _ in range(2)])
    names = [variant.name for variant in variants]
    found = []
    for index in range(services):
        # a longer request takes longer everywhere; a harder workload moves and stretches all accuracies
        work = base * float(rng.uniform(0.3, 3.0)) * np.exp(differ * rng.normal(size=6))
        shift, stretch = float(rng.uniform(0.0, 0.2)), float(rng.uniform(0.5, 1.5))
        levels = np.array([0.3, 0.38, 0.5])
        accuracy = np.repeat(shift + stretch * (levels + 0.02 * differ * rng.normal(size=3)), 2)
        rate = float(rng.uniform(0.05, 1.0)) * 40.0 / services
        alpha = float(accuracy.min() + rng.uniform(-0.1, 0.95) * np.ptp(accuracy))
        works = dict(zip(names, map(float, work), strict=True))
        accuracies = dict(zip(names, map(float, accuracy), strict=True))
        found.append(PlanService(f"s{index:03d}", rate, rate * float(rng.uniform(1, 1.5)), alpha, works, accuracies))
    return PlanProblem((PlanPool("p0", 24), PlanPool("p1", 24)), tuple(variants), tuple(found))


@pytest.mark.parametrize("seed", range(15))
def test_thresholds_replace_the_services_without_loss(seed: int) -> None:
    fleet, demands = compiled(make_many(seed, 30, differ=0.0))
    groups, is_exact = group_demands(demands, 4)
    assert is_exact
    assert len(groups) == 1
    one, all_of_them = (solve_linear(make_program(fleet, parts, Slacks.NONE, 0, 0)) for parts in (groups, demands))
    assert one is not None
    assert all_of_them is not None
    # share <= replicas rows belong to single services; without them the two relaxations are the same program
    assert one.objective == pytest.approx(all_of_them.objective, rel=1e-6)
    chosen = solve_program(make_program(fleet, groups, Slacks.NONE, 0, 0), 20.0, 1e-6)
    assert chosen.values is not None
    replicas = np.rint(chosen.values[: len(fleet.variants)]).astype(np.int64)
    flows = lay_flows(fleet, demands, replicas, Effort(1.0, 1e-6, 1e6, 2e5))
    assert not flows.has_slacks
    assert flows.cost == pytest.approx(chosen.cost, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_services_that_differ_are_planned_within_four_percent_of_the_whole_program(seed: int) -> None:
    problem = make_many(seed, 30, differ=0.15)
    fleet, demands = compiled(problem)
    assert not group_demands(demands)[1]
    plan = solve_plan(problem, time_limit_seconds=30.0, gap=0.005)
    whole = solve_program(make_program(fleet, demands, Slacks.NONE, 0, 0), 30.0, 0.005)
    assert not plan.short_rps
    assert not plan.accuracy_missing
    assert plan.objective <= 1.04 * whole.cost
