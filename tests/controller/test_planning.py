"""The joint plan in the operator: made beside the event loop, followed through all limits, never needed."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import (
    NAMESPACE,
    make_accelerator_pool,
    make_llm_service,
    make_member,
    make_model_pool,
    make_profile,
    make_variant,
)
from tests.controller.world import CHAT, POOL, World
from wattzoo.model import Kind, Manifest, TelemetrySnapshot
from wattzoo.planning import KEPT_INTERVALS
from wattzoo_policies.placement.problem import Plan, PlanProblem
from wattzoo_policies.placement.solve import solve_plan

LARGE, SMALL = "zoo-large-h100", "zoo-small-h100"
PRIORS = [
    {"name": "small", "accuracyPriorPerMille": 600, "priorSamples": 500},
    {"name": "large", "accuracyPriorPerMille": 900, "priorSamples": 500},
]


class Planned(World):
    """A world whose pool is planned jointly; the solver's answer is there before the next pass."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cluster.add(Kind.MODEL_PROFILE, make_profile("slow", 400))
        profiles = {"small": "fast", "large": "slow"}
        members = [make_member(name, [make_variant(profile=profile)]) for name, profile in profiles.items()]
        self.cluster.add(Kind.MODEL_POOL, make_model_pool(members=members, scaling={"planner": "Joint"}))
        self.cluster.add(Kind.LLM_SERVICE, make_llm_service(members=PRIORS))

    async def tick(self, telemetry: TelemetrySnapshot | None = None, seconds: float = 15.0) -> None:
        await super().tick(telemetry, seconds)
        await self.reconciler.planner.wait()

    @property
    def plan(self) -> Manifest:
        shown: Manifest = self.cluster.objects[Kind.MODEL_POOL][POOL]["status"]["plan"]
        return shown


async def test_replicas_follow_a_plan_that_says_what_it_costs() -> None:
    world = Planned()
    await world.start(rps=20.0)
    assert world.plan["planner"] == "Joint"
    assert "planned for" in world.plan["message"]
    # 80 % by members of 60 and 90 %: two thirds of 20 requests/s and 30 % reserve by large ones of about 3 each
    assert world.cluster.replicas(LARGE) >= 5
    assert world.cluster.replicas(SMALL) >= 1
    assert world.weights()


async def test_load_above_what_was_planned_for_is_planned_at_once() -> None:
    world = Planned()
    await world.start(rps=4.0)
    assert world.cluster.replicas(LARGE) + world.cluster.replicas(SMALL) <= 3
    await world.run(2, rps=60.0)
    assert world.cluster.replicas(LARGE) + world.cluster.replicas(SMALL) == 8  # every accelerator there is


async def test_without_a_profile_each_variant_follows_its_own_demand() -> None:
    world = Planned()
    await world.start(rps=20.0)
    before = world.cluster.replicas(LARGE)
    world.cluster.objects[Kind.MODEL_PROFILE].clear()
    await world.run(int(KEPT_INTERVALS * 4) + 4, rps=1.0)
    assert world.plan["planner"] == "PerVariant"
    assert "no joint plan, each variant follows its own load: what a replica of" in world.plan["message"]
    assert world.cluster.replicas(LARGE) == before  # nothing lowers on unknown
    assert world.condition(Kind.MODEL_POOL, POOL, "Degraded")["reason"] == "ProfileNotFound"


def refuse(*_: Any, **__: Any) -> Plan:
    raise ArithmeticError("the solver broke")


async def test_a_plan_that_fails_is_counted_and_the_last_one_holds_until_it_is_old() -> None:
    world = Planned()
    await world.start(rps=20.0)
    world.reconciler.planner._solve = refuse
    await world.run(5, rps=20.0)
    assert world.plan["planner"] == "Joint"
    assert "no joint plan" not in world.plan["message"]
    telemetry = world.reconciler._telemetry.registry
    assert (telemetry.get_sample_value("wattzoo_plans_total", {"status": "Failed"}) or 0.0) >= 1.0
    await world.run(int(KEPT_INTERVALS * 4), rps=20.0)
    assert world.plan["planner"] == "PerVariant"
    assert "planning failed (ArithmeticError: the solver broke)" in world.plan["message"]
    assert world.cluster.replicas(LARGE) >= 1


async def test_a_slow_solver_does_not_hold_up_passes() -> None:
    world = Planned()
    await world.start(rps=4.0)
    may_end, ended = threading.Event(), threading.Event()

    def slow(problem: PlanProblem, **more: Any) -> Plan:
        assert may_end.wait(60.0)  # in a thread of its own
        ended.set()
        return solve_plan(problem, **more)

    world.reconciler.planner._solve = slow
    try:
        for _ in range(4):
            await World.tick(world, world.traffic(4.0))  # four passes while the solver works
        assert not ended.is_set()
    finally:
        may_end.set()
    await world.reconciler.planner.wait()
    assert ended.is_set()


@pytest.mark.parametrize("missing", [0.0, 2e-7, 0.05])
async def test_a_declared_reserve_comes_on_top_whatever_the_services_miss(missing: float) -> None:
    """What serves is planned first and then a minimum, so that neither gives way to the other, nor to rounding."""
    world = Planned()
    scaling = {"planner": "Joint", "reservePercent": 100}
    world.cluster.get(Kind.MODEL_POOL, "zoo")["spec"]["scaling"] = scaling
    await world.start(rps=4.0)
    asked: list[tuple[PlanProblem, Plan]] = []

    def short_of_accuracy(problem: PlanProblem, **more: Any) -> Plan:
        plan = replace(solve_plan(problem, **more), accuracy_missing={"team-a/chat": missing})
        asked.append((problem, plan))
        return plan

    world.reconciler.planner._solve = short_of_accuracy
    await world.tick(world.traffic(4.0), 60.0)
    (_, served), (problem, _) = asked
    (service, reserve) = problem.services
    assert reserve.rate_rps == 0.0
    assert reserve.high_rate_rps == pytest.approx(service.high_rate_rps)  # 100 percent of it
    assert {v.name: v.min_replicas for v in problem.variants} == served.replicas
    share = world.reconciler.planner._plans[POOL]
    assert share.rates[CHAT] == service.high_rate_rps
    assert share.reserves[CHAT] == reserve.high_rate_rps


async def test_pools_that_share_accelerators_are_planned_within_one_cap() -> None:
    world = Planned()
    world.cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool(maxAccelerators=6))
    members = [make_member("only", [make_variant()])]
    world.cluster.add(Kind.MODEL_POOL, make_model_pool("other", members=members, scaling={"planner": "Joint"}))
    await world.start(rps=60.0)
    await world.run(8, rps=60.0)
    held = sum(d["spec"]["replicas"] for d in world.cluster.objects[Kind.DEPLOYMENT].values())
    assert held <= 6
    assert world.plan["planner"] == "Joint"


async def test_unknown_load_lowers_nothing() -> None:
    world = Planned()
    await world.start(rps=20.0)
    before = world.cluster.replicas(LARGE), world.cluster.replicas(SMALL)
    for _ in range(30):
        await world.tick()
    assert world.cluster.replicas(LARGE) >= before[0]
    assert world.cluster.replicas(SMALL) >= before[1]


@pytest.mark.parametrize("planner", ["Joint", "PerVariant"])
async def test_the_promise_is_kept_by_either(planner: str) -> None:
    world = Planned()
    world.cluster.get(Kind.MODEL_POOL, "zoo")["spec"]["scaling"] = {"planner": planner}
    await world.start(rps=10.0)
    await world.run(40, rps=10.0)
    achieved = world.cluster.get(Kind.LLM_SERVICE, CHAT.name, NAMESPACE)["status"]["sla"]["achieved"]
    assert float(achieved.rstrip("%")) >= 79.0
