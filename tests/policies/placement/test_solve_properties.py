"""What must hold for every plan: caps, order of listing, components, one more accelerator, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policies.placement.instances import keeps_caps, make_small
from wattzoo_policies.placement.check import PlanError
from wattzoo_policies.placement.problem import Plan, PlanPool, PlanProblem, PlanService, PlanStatus, PlanVariant
from wattzoo_policies.placement.solve import solve_plan

VARIANT = PlanVariant("v", "m", "p", 1, 100.0, 400.0, 600.0, 0.0, 0.5)
SERVICE = PlanService("s", 1.0, 1.0, 0.5, {"v": 0.1}, {"v": 0.6})
PROBLEM = PlanProblem((PlanPool("p", 4),), (VARIANT,), (SERVICE,))


def pool_watts(problem: PlanProblem, plan: Plan, pool: str) -> float:
    """Return the modelled watts of the expected flows in a pool, from the replica model's own formula."""
    watts = 0.0
    for variant in problem.variants:
        if variant.pool != pool:
            continue
        work = sum(
            plan.flows[s.name].get(variant.name, 0.0) * s.work_seconds.get(variant.name, 0.0) for s in problem.services
        )
        active = work / (problem.eta * (variant.knee_load or 1.0))
        watts += variant.idle_watts * (plan.replicas[variant.name] - active)
        watts += variant.active_watts * active + (variant.max_watts - variant.active_watts) * work
    return watts


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scarce=st.booleans(),
    budget=st.one_of(st.none(), st.floats(0.0, 3000.0)),
    minima=st.integers(0, 5),
)
def test_no_plan_breaks_a_cap(seed: int, scarce: bool, budget: float | None, minima: int) -> None:
    problem = make_small(np.random.default_rng(seed), scarce=scarce)
    pools = tuple(replace(pool, power_budget_watts=budget) for pool in problem.pools)
    variants = tuple(replace(variant, min_replicas=minima) for variant in problem.variants)
    problem = replace(problem, pools=pools, variants=variants)
    for limit in (2.0, 0.0):
        plan = solve_plan(problem, time_limit_seconds=limit)
        assert keeps_caps(problem, dict(plan.replicas))
        for pool in problem.pools:
            assert budget is None or pool_watts(problem, plan, pool.name) <= budget * (1 + 1e-6) + 1e-3
        for service in problem.services:
            carried = sum(plan.flows[service.name].values())
            assert carried + plan.short_rps.get(service.name, 0.0) >= service.rate_rps * (1 - 1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_order_of_listing_does_not_matter(seed: int) -> None:
    problem = make_small(np.random.default_rng(seed))
    turned = replace(
        problem, pools=problem.pools[::-1], variants=problem.variants[::-1], services=problem.services[::-1]
    )
    plan, other = solve_plan(problem), solve_plan(turned)
    assert dict(plan.replicas) == dict(other.replicas)
    assert {name: dict(flows) for name, flows in plan.flows.items()} == {
        name: dict(flows) for name, flows in other.flows.items()
    }


@pytest.mark.parametrize("seed", range(20))
def test_one_more_accelerator_never_costs_more(seed: int) -> None:
    problem = make_small(np.random.default_rng(seed), scarce=seed % 2 == 0, nodes=False)
    more = replace(problem, pools=tuple(replace(pool, accelerators=pool.accelerators + 1) for pool in problem.pools))
    before, after = (solve_plan(p, gap=1e-6, time_limit_seconds=30.0).objective for p in (problem, more))
    assert after <= before * (1 + 1e-4)


@pytest.mark.parametrize("seed", range(10))
def test_components_are_planned_as_if_alone(seed: int) -> None:
    parts = [make_small(np.random.default_rng(seed)), make_small(np.random.default_rng(seed + 500))]
    named = [_renamed(part, letter) for part, letter in zip(parts, "ab", strict=True)]
    both = PlanProblem(
        named[0].pools + named[1].pools, named[0].variants + named[1].variants, named[0].services + named[1].services
    )
    alone = [solve_plan(part, gap=1e-6) for part in named]
    together = solve_plan(both, gap=1e-6)
    assert together.objective == pytest.approx(sum(plan.objective for plan in alone), rel=1e-6)
    assert dict(together.replicas) == {**alone[0].replicas, **alone[1].replicas}


def test_a_minimum_above_the_cap_is_cut_and_told() -> None:
    plan = solve_plan(replace(PROBLEM, variants=(replace(VARIANT, min_replicas=9),)))
    assert plan.replicas == {"v": 4}
    assert "minReplicas of v cut from 9 to 4 by the cap of p" in plan.binding


def test_a_large_replica_needs_its_accelerators_on_one_node() -> None:
    large = replace(VARIANT, accelerators=4)
    split = PlanProblem((PlanPool("p", 8, (3, 3, 2)),), (large,), (SERVICE,))
    plan = solve_plan(split)
    assert plan.replicas == {"v": 0}
    assert plan.short_rps == pytest.approx({"s": 1.0})
    assert solve_plan(replace(split, pools=(PlanPool("p", 8, (4, 3, 1)),))).replicas == {"v": 1}


def test_sizes_that_do_not_divide_are_packed_by_search() -> None:
    # two nodes of 5: 3 + 2 and 3 + 2 fit, 3 + 3 on one node does not; three replicas of 3 never do
    variants = (replace(VARIANT, name="three", accelerators=3), replace(VARIANT, name="two", accelerators=2))
    # .45 seconds of work a second per replica, so 4.5 requests/s each: 18 need four replicas
    service = PlanService("s", 18.0, 18.0, 0.5, {"three": 0.1, "two": 0.1}, {"three": 0.6, "two": 0.6})
    plan = solve_plan(PlanProblem((PlanPool("p", 10, (5, 5)),), variants, (service,)))
    assert sum(plan.replicas.values()) == 4
    assert not plan.short_rps
    # one of 5 and three of 3 hold no more than 14 accelerators and 4 pieces of 3, yet do not fit nodes of 7 and 7;
    # whatever fits carries 18 requests/s: 2 x 9, 9 + 2 x 4.5 or 4 x 4.5
    odd = PlanProblem(
        (PlanPool("p", 14, (7, 7)),),
        (replace(VARIANT, name="five", accelerators=5), replace(VARIANT, name="three", accelerators=3)),
        (PlanService("s", 22.5, 22.5, 0.5, {"five": 0.05, "three": 0.1}, {"five": 0.6, "three": 0.6}),),
    )
    best = solve_plan(odd)
    assert keeps_caps(odd, dict(best.replicas))
    assert best.short_rps == pytest.approx({"s": 4.5})


def test_a_plan_is_kept_when_the_solver_brings_nothing_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    before = solve_plan(PROBLEM)
    from wattzoo_policies.placement import component  # noqa: PLC0415
    from wattzoo_policies.placement.milp import Solution  # noqa: PLC0415

    monkeypatch.setattr(
        component, "solve_program", lambda *_, **__: Solution(None, math.inf, -math.inf, is_complete=False)
    )
    kept = solve_plan(PROBLEM, previous=before)
    assert (kept.status, dict(kept.replicas)) == (PlanStatus.KEPT, {"v": 1})
    assert kept.flows == {"s": {"v": pytest.approx(1.0)}}
    greedy = solve_plan(PROBLEM)
    assert (greedy.status, dict(greedy.replicas), greedy.gap) == (PlanStatus.GREEDY, {"v": 1}, None)
    # a kept plan is cut to the caps of today
    lowered = replace(PROBLEM, pools=(PlanPool("p", 2),))
    cut = solve_plan(lowered, previous=replace(before, replicas={"v": 4, "gone": 3}))
    assert cut.replicas == {"v": 1}


def test_a_tiny_service_is_served_and_keeps_its_promise() -> None:
    large = replace(VARIANT, name="large", idle_watts=4000.0, active_watts=5000.0, max_watts=6000.0)
    tiny = PlanService("s", 1e-6, 1e-6, 0.75, {"v": 0.1, "large": 0.1}, {"v": 0.6, "large": 0.8})
    plan = solve_plan(replace(PROBLEM, variants=(VARIANT, large), services=(tiny,)))
    # only the large model reaches it, whatever its idle watts; a second server would cost more than it saves
    assert plan.replicas == {"v": 0, "large": 1}
    assert plan.flows["s"] == {"large": pytest.approx(1e-6)}


def test_price_and_value_of_a_readable_case() -> None:
    large = replace(VARIANT, name="large", active_watts=900.0, max_watts=1100.0, min_replicas=1)
    small = replace(VARIANT, min_replicas=1)
    service = PlanService("s", 2.0, 2.0, 0.7, {"v": 0.1, "large": 0.1}, {"v": 0.6, "large": 0.8})
    plan = solve_plan(replace(PROBLEM, variants=(small, large), services=(service,)), explain=True)
    # per second of work: small (400 - 100)/.45 + 200, large (900 - 100)/.45 + 200; .1 s each, .2 of accuracy apart
    assert plan.price_joules_per_satisfied["s"] == pytest.approx((800.0 - 300.0) / 0.45 * 0.1 / 0.2)
    assert plan.accelerator_value_watts == {"p": 0.0}
    assert plan.binding == "accuracy of s"
    # 2 x 100 W idle, half of 2 requests/s each: .1 s of work a second on both
    assert plan.watts == pytest.approx(200.0 + 0.1 * (300.0 / 0.45 + 200.0) + 0.1 * (800.0 / 0.45 + 200.0))


@pytest.mark.parametrize("name", ["dear", "w-dear"])  # before and after the one that is left out
def test_runner_up_is_the_plan_without_the_variant_that_carries_most(name: str) -> None:
    dear = replace(VARIANT, name=name, idle_watts=150.0)
    service = replace(SERVICE, work_seconds={"v": 0.1, name: 0.1}, accuracy={"v": 0.6, name: 0.6})
    plan = solve_plan(replace(PROBLEM, variants=(VARIANT, dear), services=(service,)), explain=True)
    assert plan.runner_up == f"without v: 1 x {name}"
    # active replicas cost the same, of the idle .778 of a replica 50 W more are left
    assert plan.runner_up_objective == pytest.approx(plan.objective + 50.0 * (1.0 - 0.1 / 0.45))


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (replace(PROBLEM, variants=(replace(VARIANT, idle_watts=-5.0),)), "variant v: idle_watts is -5.0"),
        (replace(PROBLEM, variants=(replace(VARIANT, max_watts=math.nan),)), "variant v: max_watts is nan"),
        (replace(PROBLEM, variants=(replace(VARIANT, active_watts=50.0),)), "variant v: active_watts is 50.0"),
        (replace(PROBLEM, variants=(replace(VARIANT, accelerators=0),)), "variant v: accelerators is 0"),
        (replace(PROBLEM, variants=(replace(VARIANT, pool="x"),)), "variant v: pool is x"),
        (replace(PROBLEM, variants=(replace(VARIANT, knee_load=0.0),)), "variant v: knee_load is 0.0"),
        (replace(PROBLEM, pools=(PlanPool("p", 0),)), "pool p: accelerators is 0"),
        (replace(PROBLEM, pools=(PlanPool("p", 4, power_budget_watts=-1.0),)), "pool p: power_budget_watts is -1.0"),
        (replace(PROBLEM, services=(replace(SERVICE, rate_rps=math.nan),)), "service s: rate_rps is nan"),
        (replace(PROBLEM, services=(replace(SERVICE, alpha=math.nan),)), "service s: alpha is nan"),
        (replace(PROBLEM, services=(replace(SERVICE, accuracy={}),)), r"service s: accuracy\[v\] is None"),
        (replace(PROBLEM, services=(SERVICE, SERVICE)), "service s: name is s"),
        (replace(PROBLEM, eta=0.0), "problem plan: eta is 0.0"),
        (replace(PROBLEM, high_share=1.0), "problem plan: high_share is 1.0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_name(problem: PlanProblem, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        solve_plan(problem)


def _renamed(problem: PlanProblem, letter: str) -> PlanProblem:
    def put(names: dict[str, float]) -> dict[str, float]:
        return {letter + name: value for name, value in names.items()}

    return replace(
        problem,
        pools=tuple(replace(pool, name=letter + pool.name) for pool in problem.pools),
        variants=tuple(replace(v, name=letter + v.name, pool=letter + v.pool) for v in problem.variants),
        services=tuple(
            replace(s, name=letter + s.name, work_seconds=put(dict(s.work_seconds)), accuracy=put(dict(s.accuracy)))
            for s in problem.services
        ),
    )
