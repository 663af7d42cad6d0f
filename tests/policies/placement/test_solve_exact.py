"""The planner against enumeration on small instances, and what must hold for every plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.policies.placement.instances import enumerate_best, keeps_caps, make_small
from wattzoo_policies.placement.problem import PlanProblem
from wattzoo_policies.placement.solve import solve_plan


def make_exact(seed: int, *, scarce: bool = False) -> PlanProblem:
    """Return a small problem in which replicas that are there may be filled no more than new ones."""
    problem = make_small(np.random.default_rng(seed), scarce=scarce)
    return replace(problem, kept_eta=problem.eta)


@pytest.mark.parametrize("block", range(10))
def test_plan_is_as_good_as_the_best_of_all_replica_counts(block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        problem = make_exact(seed)
        best = enumerate_best(problem)
        plan = solve_plan(problem, gap=1e-6, time_limit_seconds=30.0)
        assert keeps_caps(problem, dict(plan.replicas)), seed
        assert plan.objective == pytest.approx(best.cost + best.penalty, rel=1e-4), (seed, best, plan)


@pytest.mark.parametrize("seed", range(40))
def test_plan_under_shortage_is_short_of_no_more_than_it_must(seed: int) -> None:
    problem = make_exact(1000 + seed, scarce=True)
    best = enumerate_best(problem)
    plan = solve_plan(problem, gap=1e-6, time_limit_seconds=30.0)
    assert keeps_caps(problem, dict(plan.replicas))
    assert plan.objective == pytest.approx(best.cost + best.penalty, rel=1e-3)
    assert bool(plan.short_rps or plan.accuracy_missing) == (best.penalty > 0.0)
