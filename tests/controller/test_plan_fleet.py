"""The joint planner's problem from what a pass knows: plain numbers, nothing guessed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import make_llm_service
from tests.controller.test_planning import Planned
from tests.controller.world import CHAT, POOL
from wattzoo.decide.caps import Headroom
from wattzoo.decide.plan_fleet import (
    PlanPart,
    cut_refused,
    declared_reserves,
    find_refused,
    find_unknown,
    is_exceeded,
    make_problem,
    read_plan,
    steady_accuracy,
)
from wattzoo.decisions import ServiceLoad
from wattzoo.model import Kind, VariantKey
from wattzoo.planning import make_fleet_problem, solve_fleet
from wattzoo_policies.placement.problem import Plan, PlanStatus
from wattzoo_policies.placement.solve import solve_plan
from wattzoo_policies.signals import MemberOutcomes

SMALL, LARGE = VariantKey("small", "h100"), VariantKey("large", "h100")
ROOM = {"h100": Headroom(accelerators=6, allocatable=8, watts=None, watts_per_accelerator=700.0)}


async def part_of(world: Planned, rps: float = 10.0) -> PlanPart:
    await world.start(rps=rps)
    return world.reconciler.planner._parts[POOL]


async def test_a_replica_at_its_share_of_the_knee_carries_what_the_operator_says() -> None:
    """`knee_load` is read back from the capacity, so that the measured points count in the plan too."""
    world = Planned()
    part = await part_of(world)
    problem = make_problem([part], ROOM, world.cluster.snapshot())
    service = problem.services[0]
    for variant, key in zip(problem.variants, (SMALL, LARGE), strict=True):
        assert variant.knee_load is not None
        carried = problem.eta * variant.knee_load / service.work_seconds[variant.name]
        assert carried == pytest.approx(part.estimate.capacities[key].rps)
    assert [pool.accelerators for pool in problem.pools] == [6]  # the smaller of cap and nodes
    assert problem.pools[0].node_accelerators == (8,)


@pytest.mark.parametrize(("start_seconds", "spared"), [(59.0, False), (61.0, True)])
async def test_starts_that_outlast_a_plan_are_spared(start_seconds: float, spared: bool) -> None:
    """Plans are four steps of 15 s apart; the quickest start counts, the other one takes 300 s."""
    world = Planned()
    part = await part_of(world)
    capacities = dict(part.estimate.capacities)
    for key, seconds in ((SMALL, start_seconds), (LARGE, 300.0)):
        model = capacities[key].model
        assert model is not None
        capacities[key] = replace(capacities[key], model=replace(model, startup_seconds=seconds))
    part = replace(part, estimate=replace(part.estimate, capacities=capacities))
    problem = make_problem([part], ROOM, world.cluster.snapshot())
    assert problem.kept_eta == (1.0 if spared else problem.eta)


async def test_a_service_is_planned_for_what_is_forecast() -> None:
    """Thirteen samples of a steady load: too few to have learned anything, so a fixed reserve of 30 % stands in."""
    world = Planned()
    part = await part_of(world, rps=10.0)
    service = make_problem([part], ROOM, world.cluster.snapshot()).services[0]
    assert service.rate_rps == pytest.approx(10.0, rel=0.05)
    assert service.high_rate_rps == pytest.approx(13.0, rel=0.05)
    assert service.accuracy == {
        "team-a/zoo/small/h100": pytest.approx(0.6, abs=0.01),
        "team-a/zoo/large/h100": pytest.approx(0.9, abs=0.01),
    }


async def test_a_declared_reserve_stands_by_on_top_and_is_told_apart() -> None:
    world = Planned()
    world.cluster.get(Kind.MODEL_POOL, "zoo")["spec"]["scaling"] = {"reservePercent": 50}
    part = await part_of(world, rps=5.0)
    assert declared_reserves([part]) == {"team-a/chat": 50.0}
    snapshot = world.cluster.snapshot()
    found = solve_fleet(make_fleet_problem([part], ROOM, snapshot), 5.0, None)
    share = found.shares[POOL]
    assert share.rates[CHAT] == pytest.approx(6.5, rel=0.05)
    assert share.reserves[CHAT] == pytest.approx(share.rates[CHAT] / 2.0)
    alone = solve_fleet(make_fleet_problem([without_reserve(part)], ROOM, snapshot), 5.0, None)
    assert alone.shares[POOL].reserves == {}
    assert sum(share.replicas.values()) > sum(alone.shares[POOL].replicas.values())
    assert sum(share.high_rps.values()) == pytest.approx(share.rates[CHAT])  # what stands by carries nothing


def without_reserve(part: PlanPart) -> PlanPart:
    pool = part.context.pool
    scaling = pool.spec.scaling.model_copy(update={"reserve_percent": 0})
    spec = pool.spec.model_copy(update={"scaling": scaling})
    return replace(part, context=replace(part.context, pool=pool.model_copy(update={"spec": spec})))


async def test_a_member_of_which_nothing_is_known_runs_somewhere() -> None:
    world = Planned()
    world.cluster.add(Kind.LLM_SERVICE, make_llm_service())  # declares nothing of its members
    part = replace(await part_of(world), ledgers={CHAT: None})
    problem = make_problem([part], ROOM, world.cluster.snapshot())
    assert [variant.min_replicas for variant in problem.variants] == [1, 1]


async def test_what_is_unknown_is_not_planned_for() -> None:
    world = Planned()
    part = await part_of(world)
    assert find_unknown(part, ROOM) == ""
    silent = replace(part, estimate=replace(part.estimate, loads={CHAT: ServiceLoad()}))
    assert "rate of chat" in find_unknown(silent, ROOM)
    blind = replace(part, estimate=replace(part.estimate, capacities={}))
    assert "small/h100" in find_unknown(blind, ROOM)
    unbounded = {"h100": Headroom(None, None, None, None)}
    assert "how much of h100" in find_unknown(part, unbounded)


async def test_a_plan_is_read_back_by_variant() -> None:
    world = Planned()
    part = await part_of(world)
    problem = make_problem([part], ROOM, world.cluster.snapshot())
    rate = problem.services[0].rate_rps
    plan = Plan(
        replicas={"team-a/zoo/large/h100": 4},
        active={},
        flows={"team-a/chat": {"team-a/zoo/large/h100": rate}},
        watts=1000.0,
        objective=1000.0,
        status=PlanStatus.OPTIMAL,
        accuracy_missing={"team-a/chat": 0.1},
        price_joules_per_satisfied={"team-a/chat": 1e6},
    )
    share = read_plan(part, problem, plan, 5.0)
    assert share.replicas == {SMALL: 0, LARGE: 4}
    assert share.high_rps[LARGE] == pytest.approx(problem.services[0].high_rate_rps)
    assert share.price == {}  # a penalty is no price


async def test_what_came_since_the_planner_was_asked_exceeds_a_plan_and_what_it_refused_does_not() -> None:
    world = Planned()
    part = await part_of(world, rps=10.0)
    share = solve_fleet(make_fleet_problem([part], ROOM, world.cluster.snapshot()), 5.0, None).shares[POOL]
    without = replace(share, rates={})
    assert is_exceeded(part, without, asked=frozenset())
    assert not is_exceeded(part, without, asked=frozenset({CHAT}))
    for planned_rps, exceeded in ((9.0, True), (11.0, False)):  # ten are there
        assert is_exceeded(part, replace(share, rates={CHAT: planned_rps}), asked=frozenset({CHAT})) is exceeded


async def test_a_variant_that_the_planner_refused_keeps_what_it_has() -> None:
    world = Planned()
    part = await part_of(world, rps=20.0)
    held = {state.key: state.desired for state in part.context.states}
    assert held[LARGE] not in {None, 0}
    problem = make_problem([part], ROOM, world.cluster.snapshot())
    empty = replace(problem, pools=(replace(problem.pools[0], accelerators=0),))
    cut, refused = cut_refused(empty)
    assert not cut.variants
    share = read_plan(part, cut, solve_plan(cut), 5.0)
    assert share.replicas == held
    finding = find_refused(part, refused)[0]
    assert finding.reason == "NotPlanned"
    assert finding.message.startswith(
        "AcceleratorPool/h100: accelerators is 0, but variant team-a/zoo/small/h100 needs"
    )


def test_a_power_budget_bounds_accelerators() -> None:
    assert Headroom(10, 8, 2100.0, 700.0).bound == 3
    assert Headroom(None, None, None, None).bound is None


def test_a_plan_goes_by_what_was_counted_of_a_member_and_a_little_by_how_it_is_now() -> None:
    assert steady_accuracy(MemberOutcomes("m", 0.0, 0.0, None), 0.7) == 0.7
    assert steady_accuracy(MemberOutcomes("m", 300.0, 500.0, None), 0.5) == pytest.approx(0.55)  # alike
    assert steady_accuracy(MemberOutcomes("m", 6e5, 1e6, None), 0.5) == pytest.approx((5000 * 0.6 + 500 * 0.5) / 5500)
