"""Input that cannot be: the object says which field breaks which rule, and all others go on being planned."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.builders import (
    NAMESPACE,
    make_accelerator_pool,
    make_gateway_counter,
    make_llm_service,
    make_member,
    make_model_pool,
    make_node,
    make_profile,
    make_telemetry,
    make_variant,
)
from tests.controller.test_planning import PRIORS, Planned
from tests.controller.world import CHAT, POOL, World
from wattzoo.decide.plan_fleet import cut_refused
from wattzoo.model import Kind, Ref
from wattzoo_policies.placement.check import PlanError, check_problem
from wattzoo_policies.placement.problem import PlanPool, PlanProblem, PlanService, PlanVariant

L4 = "NVIDIA-L4"
OTHER, BATCH = Ref(NAMESPACE, "other"), Ref(NAMESPACE, "batch")


def degraded(world: World, kind: Kind, ref: Ref) -> tuple[str, str, str]:
    row = world.condition(kind, ref, "Degraded")
    return row["status"], row["reason"], row["message"]


def with_second_pool(world: World, accelerator_pool: str = "l4") -> None:
    """Another ModelPool with one member, and the service `batch` that uses it."""
    members = [make_member("only", [make_variant(accelerator_pool)])]
    world.cluster.add(Kind.MODEL_POOL, make_model_pool("other", members=members, scaling={"planner": "Joint"}))
    world.cluster.add(Kind.LLM_SERVICE, make_llm_service("batch", "other", safestMember="only"))


@pytest.mark.parametrize("nodes", [True, False])
async def test_a_pool_without_accelerators_costs_only_its_own_variants(nodes: bool) -> None:
    world = Planned()
    cap = {"maxAccelerators": 0} if nodes else {}
    world.cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool("l4", L4, **cap))
    if nodes:
        world.cluster.add(Kind.NODE, make_node("l4-0", L4))
    names = {"small": "fast", "large": "slow"}
    members = [
        make_member(name, [make_variant(profile=profile), make_variant("l4", profile)])
        for name, profile in names.items()
    ]
    world.cluster.add(Kind.MODEL_POOL, make_model_pool(members=members, scaling={"planner": "Joint"}))
    await world.start(rps=20.0)
    assert world.plan["planner"] == "Joint"
    assert world.cluster.replicas("zoo-large-h100") >= 5  # as if the l4 variants were not there
    assert world.cluster.replicas("zoo-large-l4") == 0
    status, reason, message = degraded(world, Kind.MODEL_POOL, POOL)
    assert (status, reason) == ("True", "NotPlanned")
    assert message.startswith("AcceleratorPool/l4: accelerators is 0, but ")
    if nodes:
        assert degraded(world, Kind.ACCELERATOR_POOL, Ref("", "l4"))[:2] == ("True", "MaxAcceleratorsReached")
    else:
        assert world.condition(Kind.ACCELERATOR_POOL, Ref("", "l4"), "Ready")["reason"] == "NoMatchingNodes"


async def test_a_minimum_that_finds_no_accelerators_is_told_by_the_joint_plan_too() -> None:
    world = Planned()
    world.cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool("l4", L4))
    members = [make_member("large", [make_variant(profile="slow"), make_variant("l4", "slow", minReplicas=1)])]
    world.cluster.add(Kind.MODEL_POOL, make_model_pool(members=members, scaling={"planner": "Joint"}))
    await world.start(rps=20.0)
    assert world.plan["planner"] == "Joint"
    placed = world.condition(Kind.MODEL_POOL, POOL, "Placed")
    assert (placed["status"], placed["reason"]) == ("False", "AcceleratorsShort")
    assert "large/l4 needs 1 replicas and may have 0" in placed["message"]


async def run_both(world: Planned, ticks: int, batch_rps: float) -> None:
    """Ticks with 20 requests/s at `chat` and some at each backend of `batch`."""
    for _ in range(ticks):
        world.cluster.run_pods(world.now - 60.0)
        world.cluster.accept_routes()
        busy = world.traffic(20.0)
        own = [make_gateway_counter("batch", i, busy.at_seconds, batch_rps) for i in range(len(world.weights("batch")))]
        await world.tick(make_telemetry(busy.at_seconds, {**busy.groups, "gateway": [*busy.groups["gateway"], *own]}))


async def test_a_cap_set_to_zero_holds_its_zoo_and_stops_no_other() -> None:
    world = Planned()
    world.cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool("l4", L4))
    world.cluster.add(Kind.NODE, make_node("l4-0", L4))
    with_second_pool(world)
    await run_both(world, 10, 20.0)
    before = world.cluster.replicas("other-only-l4")
    assert before >= 2
    capped = make_accelerator_pool("l4", L4, maxAccelerators=0)
    capped["metadata"]["generation"] = 2
    world.cluster.add(Kind.ACCELERATOR_POOL, capped)
    await run_both(world, 40, 20.0)
    assert world.plan["planner"] == "Joint"
    assert world.cluster.replicas("zoo-large-h100") >= 5
    assert world.cluster.replicas("other-only-l4") == before  # a lower cap only forbids increases
    assert degraded(world, Kind.MODEL_POOL, OTHER)[:2] == ("True", "NotPlanned")
    assert degraded(world, Kind.MODEL_POOL, POOL)[:2] == ("False", "AsExpected")


async def test_an_accelerator_pool_whose_nodes_lack_its_resource_says_so() -> None:
    world = World()
    world.cluster.add(Kind.NODE, make_node(accelerators=0))
    await world.tick()
    ready = world.condition(Kind.ACCELERATOR_POOL, Ref("", "h100"), "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NoMatchingNodes")
    assert ready["message"].startswith("spec.resourceName: none of the 1 nodes")


def impossible(name: str, **more: Any) -> Any:
    """A service that asks for 1 ms to the first token; the lightest measured point takes 100 ms."""
    accuracy = {"accuracy": {"targetPerMille": 800}}
    return make_llm_service(name, sla={**accuracy, "latency": {"timeToFirstToken": {"p95Milliseconds": 1}}}, **more)


@pytest.mark.parametrize("planner", ["Joint", "PerVariant"])
async def test_a_latency_that_nothing_keeps_is_told_at_its_service_alone(planner: str) -> None:
    world = Planned()
    world.cluster.get(Kind.MODEL_POOL, "zoo")["spec"]["scaling"] = {"planner": planner}
    world.cluster.add(Kind.LLM_SERVICE, impossible("batch", members=PRIORS))
    await run_both(world, 12, 0.0)
    feasible = world.condition(Kind.LLM_SERVICE, BATCH, "SLAFeasible")
    assert (feasible["status"], feasible["reason"]) == ("False", "LatencyUnattainable")
    assert feasible["message"].startswith("spec.sla.latency.timeToFirstToken.p95Milliseconds: 1 is asked for")
    assert "already take 100" in feasible["message"]
    assert world.condition(Kind.LLM_SERVICE, CHAT, "SLAFeasible")["reason"] != "LatencyUnattainable"
    assert world.cluster.replicas("zoo-large-h100") >= 3  # chat's 20 requests/s are still planned for
    assert world.plan["planner"] == planner


@pytest.mark.parametrize("planner", ["Joint", "PerVariant"])
async def test_a_latency_made_impossible_lowers_nothing(planner: str) -> None:
    world = Planned()
    world.cluster.get(Kind.MODEL_POOL, "zoo")["spec"]["scaling"] = {"planner": planner}
    await world.start(rps=20.0)
    before = [world.cluster.replicas(f"zoo-{name}-h100") for name in ("small", "large")]
    changed = impossible("chat", members=PRIORS)
    changed["metadata"]["generation"] = 2
    changed["status"] = world.cluster.get(Kind.LLM_SERVICE, "chat")["status"]
    world.cluster.add(Kind.LLM_SERVICE, changed)
    await world.run(40, rps=20.0)
    after = [world.cluster.replicas(f"zoo-{name}-h100") for name in ("small", "large")]
    assert all(now >= then for now, then in zip(after, before, strict=True))
    assert world.condition(Kind.LLM_SERVICE, CHAT, "SLAFeasible")["reason"] == "LatencyUnattainable"
    assert degraded(world, Kind.MODEL_POOL, POOL)[1] == "LatencyUnattainable"


async def test_a_zoo_with_a_broken_profile_is_left_out_and_the_other_planned() -> None:
    world = Planned()
    with_second_pool(world, "h100")
    broken = make_profile("bad")
    broken["spec"]["points"][0]["powerWatts"] = -300
    world.cluster.add(Kind.MODEL_PROFILE, broken)
    members = [make_member("only", [make_variant("h100", "bad")])]
    world.cluster.add(Kind.MODEL_POOL, make_model_pool("other", members=members, scaling={"planner": "Joint"}))
    await world.start(rps=20.0)
    assert world.plan["planner"] == "Joint"
    status, reason, message = degraded(world, Kind.MODEL_POOL, OTHER)
    assert (status, reason) == ("True", "InvalidSpec")
    assert message.startswith(f"ModelProfile/{NAMESPACE}/bad: spec.points[0].powerWatts: ")
    assert degraded(world, Kind.MODEL_POOL, POOL)[:2] == ("False", "AsExpected")


VARIANT = PlanVariant("a", "m", "h100", 1, 100.0, 300.0, 600.0, 9000.0, 0.9)
SERVICE = PlanService("s", 1.0, 1.3, 0.8, {"a": 0.1, "b": 0.1}, {"a": 0.9, "b": 0.9})


def make_plan_problem(**bad: Any) -> PlanProblem:
    """Two variants and two services on one pool, of which variant `b` has the fields given."""
    second = PlanVariant(**{**{name: getattr(VARIANT, name) for name in VARIANT.__slots__}, "name": "b", **bad})
    other = PlanService("t", 2.0, 2.6, 0.8, dict(SERVICE.work_seconds), dict(SERVICE.accuracy))
    return PlanProblem((PlanPool("h100", 8), PlanPool("l4", 0)), (VARIANT, second), (SERVICE, other))


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"idle_watts": -1.0}, "idle_watts"),
        ({"max_watts": math.nan}, "max_watts"),
        ({"knee_load": 1.5}, "knee_load"),
        ({"pool": "nowhere"}, "pool"),
    ],
)
def test_what_the_planner_refuses_is_cut_alone(bad: dict[str, Any], field: str) -> None:
    problem, refused = cut_refused(make_plan_problem(**bad))
    assert [(error.kind, error.name, error.field) for error in refused] == [("variant", "b", field)]
    assert [variant.name for variant in problem.variants] == ["a"]
    assert [service.work_seconds for service in problem.services] == [{"a": 0.1}, {"a": 0.1}]
    check_problem(problem)


def test_a_refused_pool_takes_its_variants_and_a_refused_service_nothing_else() -> None:
    problem, refused = cut_refused(make_plan_problem(pool="l4"))
    assert [(error.kind, error.name) for error in refused] == [("pool", "l4")]
    assert [pool.name for pool in problem.pools] == ["h100"]
    assert [variant.name for variant in problem.variants] == ["a"]
    nan = PlanService("s", math.nan, 1.0, 0.8, dict(SERVICE.work_seconds), dict(SERVICE.accuracy))
    whole = make_plan_problem()
    problem, refused = cut_refused(PlanProblem(whole.pools, whole.variants, (nan, whole.services[1])))
    assert [(error.kind, error.name, error.field) for error in refused] == [("service", "s", "rate_rps")]
    assert problem.variants == whole.variants
    assert [service.name for service in problem.services] == ["t"]


def test_what_concerns_the_whole_problem_is_raised() -> None:
    whole = make_plan_problem()
    with pytest.raises(PlanError, match="problem plan: eta is 2"):
        cut_refused(PlanProblem(whole.pools, whole.variants, whole.services, eta=2.0))
