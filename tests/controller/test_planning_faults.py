"""The joint plan when things go wrong around it: objects that break or come again, clocks, a solver that dies."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import make_llm_service, make_member, make_model_pool, make_variant
from tests.controller.test_planning import LARGE, PRIORS, Planned
from tests.controller.world import POOL
from wattzoo import planning
from wattzoo.decide.passes import think_pool
from wattzoo.decide.plan_fleet import make_problem
from wattzoo.model import Kind, Ref, TelemetrySnapshot
from wattzoo.planning import KEPT_INTERVALS
from wattzoo_policies.placement.problem import Plan, PlanProblem
from wattzoo_policies.placement.solve import solve_plan

OTHER = Ref(POOL.namespace, "other")
INTERVAL_SECONDS = 60.0


def failed_plans(world: Planned) -> float:
    return world.reconciler._telemetry.registry.get_sample_value("wattzoo_plans_total", {"status": "Failed"}) or 0.0


def add_other(world: Planned, **spec: Any) -> None:
    members = [make_member("only", [make_variant(**spec)])]
    world.cluster.add(Kind.MODEL_POOL, make_model_pool("other", members=members, scaling={"planner": "Joint"}))


@pytest.mark.parametrize("way", ["invalid", "breaks"])
async def test_a_pool_that_cannot_be_passed_over_is_planned_no_more(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Planned()
    add_other(world)
    await world.start(rps=4.0)
    if way == "invalid":
        raw = world.cluster.get(Kind.MODEL_POOL, "zoo")
        raw["spec"] = {**raw["spec"], "members": []}
        raw["metadata"]["generation"] += 1
    else:
        monkeypatch.setattr("wattzoo.reconcile.think_pool", _breaking_for("zoo"))
    asked: list[PlanProblem] = []

    def record(problem: PlanProblem, **more: Any) -> Plan:
        asked.append(problem)
        return solve_plan(problem, **more)

    world.reconciler.planner._solve = record
    await world.run(6)
    assert asked
    assert not any("zoo" in variant.name.split("/")[1] for variant in asked[-1].variants)


def _breaking_for(name: str) -> Any:
    def think(specs: Any, ref: Ref, *rest: Any) -> Any:
        if ref.name == name:
            raise RuntimeError("poisoned")
        return think_pool(specs, ref, *rest)

    return think


@pytest.mark.parametrize("error", [RuntimeError("HiGHS broke"), KeyError("x"), MemoryError(), OverflowError("inf")])
async def test_whatever_the_solver_raises_passes_go_on_and_it_is_counted(error: Exception) -> None:
    world = Planned()
    await world.start(rps=20.0)
    before = world.cluster.replicas(LARGE)

    def broken(*_: Any, **__: Any) -> Plan:
        raise error

    world.reconciler.planner._solve = broken
    await world.run(6, rps=20.0)
    assert failed_plans(world) >= 1.0
    assert world.cluster.replicas(LARGE) >= before


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), OverflowError("inf"), KeyError("x")])
async def test_a_problem_that_cannot_be_made_stops_no_pass(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Planned()
    await world.start(rps=4.0)

    def broken(*_: Any, **__: Any) -> PlanProblem:
        raise error

    monkeypatch.setattr(planning, "make_problem", broken)
    await world.run(int(4 * KEPT_INTERVALS) + 4, rps=4.0)
    assert failed_plans(world) >= 1.0
    assert world.condition(Kind.MODEL_POOL, POOL, "Degraded")["reason"] != "InternalError"
    assert world.plan["planner"] == "PerVariant"


async def test_a_service_that_the_planner_refuses_is_asked_about_once_an_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Planned()
    await world.start(rps=4.0)
    solved: list[PlanProblem] = []

    def poisoned(*parts: Any) -> PlanProblem:
        problem = make_problem(*parts)
        return replace(problem, services=tuple(replace(service, alpha=math.nan) for service in problem.services))

    def record(problem: PlanProblem, **more: Any) -> Plan:
        solved.append(problem)
        return solve_plan(problem, **more)

    monkeypatch.setattr(planning, "make_problem", poisoned)
    world.reconciler.planner._solve = record
    await world.run(12, rps=4.0)  # twelve passes of 15 s are three intervals
    assert [problem.services for problem in solved] == [()] * 3
    assert world.condition(Kind.MODEL_POOL, POOL, "Degraded")["status"] == "True"


async def test_a_plan_of_the_future_is_none() -> None:
    world = Planned()
    await world.start(rps=4.0)
    planner = world.reconciler.planner
    assert planner.plan_of(POOL, world.now) is not None
    assert (
        planner.plan_of(POOL, world.now - INTERVAL_SECONDS) is not None
    )  # clocks of two Prometheus may differ a little
    assert planner.plan_of(POOL, world.now - 3600.0) is None


@pytest.mark.parametrize("way", ["deleted", "PerVariant"])
async def test_a_pool_that_comes_back_starts_without_its_old_plan(way: str) -> None:
    world = Planned()
    add_other(world)
    await world.start(rps=4.0)
    planner = world.reconciler.planner
    assert planner.plan_of(POOL, world.now) is not None
    if way == "deleted":
        del world.cluster.objects[Kind.MODEL_POOL][POOL]
    else:
        world.cluster.get(Kind.MODEL_POOL, "zoo")["spec"]["scaling"] = {"planner": "PerVariant"}
        world.cluster.get(Kind.MODEL_POOL, "zoo")["metadata"]["generation"] += 1
    await world.run(1)
    assert planner.plan_of(POOL, world.now) is None
    assert planner.refused_of(POOL) == ()


async def test_a_pool_that_is_unknown_for_a_moment_keeps_its_plan() -> None:
    """Between two planners a pool would start what it does not need: each splits a load in its own way."""
    world = Planned()
    add_other(world, minReplicas=1)
    world.cluster.add(Kind.LLM_SERVICE, make_llm_service("second", pool="other", safestMember="only"))
    await world.start(rps=20.0)
    for _ in range(5):  # a minute in which the gateway's counters of one service are missing, and a plan for the other
        both = [world.traffic(20.0, service=name) for name in ("chat", "second")]
        groups = {name: [*both[1].groups[name]] for name in both[1].groups}
        world.cluster.run_pods(0.0)
        await world.tick(TelemetrySnapshot(world.now + 15.0, groups, {}))
        assert world.plan["planner"] == "Joint"


async def test_a_pool_that_left_while_it_was_planned_gets_no_plan() -> None:
    world = Planned()
    await world.start(rps=4.0)
    planner = world.reconciler.planner

    def leave(problem: PlanProblem, **more: Any) -> Plan:
        planner.note(POOL, None)
        return solve_plan(problem, **more)

    planner._solve = leave
    await world.tick(world.traffic(4.0), INTERVAL_SECONDS)
    assert planner.plan_of(POOL, world.now) is None


@pytest.mark.parametrize("way", ["Observe", "paused"])
async def test_what_a_pool_does_not_ask_for_any_more_is_free_for_others(way: str) -> None:
    world = Planned()
    add_other(world)
    world.cluster.add(Kind.LLM_SERVICE, make_llm_service(members=PRIORS))
    await world.start(rps=60.0)
    await world.run(4, rps=60.0)
    assert sum(world.cluster.replicas(name) for name in (LARGE, "zoo-small-h100")) >= 7
    raw = world.cluster.get(Kind.MODEL_POOL, "zoo")
    if way == "Observe":
        raw["spec"]["mode"] = "Observe"
        raw["metadata"]["generation"] += 1
    else:
        raw["metadata"]["annotations"] = {"wattzoo.dev/paused": "true"}
    for name in (LARGE, "zoo-small-h100"):
        world.cluster.get(Kind.DEPLOYMENT, name)["spec"]["replicas"] = 0  # somebody else looks after it now
    other = world.cluster.get(Kind.MODEL_POOL, "other")
    other["spec"]["members"][0]["variants"][0]["minReplicas"] = 8
    other["metadata"]["generation"] += 1
    await world.run(3, rps=60.0)
    assert world.cluster.replicas("other-only-h100") == 8
