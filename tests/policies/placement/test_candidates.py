"""Large components: what the candidates leave out is looked at again, or ruled out by a proof."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.plan_instances import Shape, make_instance
from tests.policies.placement.instances import compiled, keeps_caps, make_small
from wattzoo_policies.placement.component import LARGE_VARIANTS
from wattzoo_policies.placement.decompose import keep_within
from wattzoo_policies.placement.milp import Slacks, make_program, solve_linear, solve_program
from wattzoo_policies.placement.solve import solve_plan


@pytest.mark.parametrize("seed", [2, 12])
def test_plan_of_a_few_replicas_among_many_variants_is_within_the_gap_of_the_best_of_all(seed: int) -> None:
    """A handful of replicas: the best plan of instance 2 uses a variant that is 22nd by its reduced cost."""
    problem = make_instance(np.random.default_rng([0, seed]), Shape(20, 8, 3, 6.0))
    assert len(problem.variants) > LARGE_VARIANTS
    best = solve_program(make_program(*compiled(problem), Slacks.NONE, 0.0, 0.0), 60.0, 1e-3)
    assert best.is_complete
    plan = solve_plan(problem, time_limit_seconds=60.0)
    assert keeps_caps(problem, dict(plan.replicas))
    assert plan.objective <= 1.01 * best.cost
    assert plan.gap is not None
    assert (1.0 - plan.gap) * plan.objective <= best.cost * (1.0 + 1e-6), "the bound must hold for all variants"


def test_a_plan_with_a_variant_that_was_ruled_out_costs_what_was_said() -> None:
    ruled_out = 0
    for seed in range(40):
        fleet, demands = compiled(make_small(np.random.default_rng(seed)))
        program = make_program(fleet, demands, Slacks.NONE, 0.0, 0.0)
        relaxed, best = solve_linear(program), solve_program(program, 10.0, 1e-6)
        if relaxed is None or best.values is None:
            continue
        left, beyond = keep_within(fleet, relaxed, best.cost)
        for variant in set(range(len(fleet.variants))) - set(map(int, left)):
            lower = fleet.lower.copy()
            lower[variant] = 1
            forced = solve_program(make_program(fleet.with_lower(lower), demands, Slacks.NONE, 0.0, 0.0), 10.0, 1e-6)
            ruled_out += 1
            assert forced.is_infeasible or forced.cost >= beyond - 1e-6 > best.cost - 1e-6, (seed, variant)
    assert ruled_out >= 10
