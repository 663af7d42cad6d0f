"""The bound that the table of shared services is held against."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.plan_instances import Shape, make_instance_with_steps
from benchmarks.plan_sharing import least_watts, plant_watts
from wattzoo_policies.placement.solve import solve_plan


@pytest.mark.parametrize("rate_rps", [2.0, 20.0, 100.0])
def test_no_plan_takes_less_than_the_least_watts_and_full_replicas_come_near(rate_rps: float) -> None:
    for seed in range(3):
        rng = np.random.default_rng([5, seed])
        problem, steps = make_instance_with_steps(rng, Shape(6, 4, 10, rate_rps, alike=True))
        plan = solve_plan(problem, time_limit_seconds=20.0)
        assert not plan.short_rps
        assert not plan.accuracy_missing
        least, watts = least_watts(problem, steps), plant_watts(problem, plan, steps)
        assert least <= watts
        # whole replicas and starts are what the bound leaves out: little where many replicas are full
        assert rate_rps < 100.0 or watts <= 1.25 * least
