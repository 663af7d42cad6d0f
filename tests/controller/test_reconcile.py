"""Whole passes over a cluster in memory: the good day first, then every bad situation that must end in a condition."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.builders import (
    NAMESPACE,
    START_SECONDS,
    make_accelerator_pool,
    make_gateway_counter,
    make_llm_service,
    make_member,
    make_model_pool,
    make_pod,
    make_silence,
    make_variant,
)
from tests.controller.world import CHAT, POOL, World
from wattzoo.model import TOTAL_WEIGHT, Kind, Ref, Sample, Series, TelemetrySnapshot, WriteState

SERVICE, MODEL_POOL = Kind.LLM_SERVICE, Kind.MODEL_POOL


async def test_from_nothing_to_traffic() -> None:
    world = World()
    world.cluster.add(MODEL_POOL, make_model_pool())
    await world.tick()
    assert world.cluster.replicas("zoo-large-h100") == 1  # nothing ran: one replica of the safest member
    assert world.cluster.replicas("zoo-small-h100") == 0
    world.cluster.run_pods(world.now)
    await world.tick(world.traffic(0.0))
    assert world.weights() == [0, TOTAL_WEIGHT]
    assert world.condition(SERVICE, CHAT, "Ready")["reason"] == "RoutePending"
    world.cluster.accept_routes()
    await world.tick(world.traffic(0.0))
    assert world.condition(SERVICE, CHAT, "Ready")["status"] == "True"
    assert world.condition(MODEL_POOL, POOL, "Ready")["status"] == "True"
    assert [note for note in world.events.notes if note.warning] == []  # how everything begins is no bad news


async def test_an_unknown_member_is_started_to_be_learned_once_there_is_traffic() -> None:
    world = World()
    world.cluster.add(MODEL_POOL, make_model_pool())
    await world.tick()
    await world.run(4)
    assert world.cluster.replicas("zoo-small-h100") == 1


async def test_the_promise_is_kept_with_both_members() -> None:
    world = World()
    await world.start()
    await world.run(20)
    status = world.cluster.get(SERVICE, "chat")["status"]
    shares = {member["name"]: member["weight"] / TOTAL_WEIGHT for member in status["members"]}
    assert sum(shares.values()) == pytest.approx(1.0)
    small, large = world.judged[("chat", "small")], world.judged[("chat", "large")]
    achieved = (small[0] + large[0]) / (sum(small) + sum(large))
    assert achieved > 0.75
    assert small[0] + small[1] > 0.0
    assert world.condition(SERVICE, CHAT, "TrafficProgrammed")["status"] == "True"
    assert status["energy"]["provenance"] == "Measured"


async def test_load_brings_replicas_and_only_time_takes_them() -> None:
    world = World()
    await world.start(rps=4.0)
    await world.run(4, rps=40.0)
    # 40 requests/s and 30 % reserve; one replica carries .9 * 1000 tokens/s / 100 tokens = about 8 at the knee
    grown = sum(world.cluster.replicas(f"zoo-{member}-h100") for member in ("small", "large"))
    assert grown >= 6
    await world.run(4, rps=4.0)
    assert sum(world.cluster.replicas(f"zoo-{member}-h100") for member in ("small", "large")) == grown
    await world.run(24, rps=4.0)
    assert sum(world.cluster.replicas(f"zoo-{member}-h100") for member in ("small", "large")) == 2


async def test_a_second_pass_writes_nothing() -> None:
    world = World()
    await world.start()
    telemetry = world.traffic(4.0)
    await world.tick(telemetry)
    world.cluster.writes.clear()
    await world.tick(telemetry, seconds=1.0)
    assert world.cluster.writes == []


async def test_steady_writes_are_one_checkpoint_a_minute() -> None:
    world = World()
    world.cluster.add(SERVICE, make_llm_service(target_per_mille=500))  # the small member suffices: weights stand still
    await world.start()
    await world.run(60)  # by then the law explores so little that less of it moves nothing
    world.cluster.writes.clear()
    await world.run(16)  # four minutes
    assert world.cluster.server_writes() == []
    await world.run(16)
    by_object: dict[str, int] = {}
    for item in world.cluster.writes:
        by_object[item.ref.name] = by_object.get(item.ref.name, 0) + 1
    assert set(by_object) <= {"h100", "zoo", "chat"}
    assert max(by_object.values()) <= 4


async def test_a_restart_does_not_jump() -> None:
    world = World()
    await world.start()
    await world.run(8, rps=40.0)
    twin = copy.deepcopy(world.cluster)
    replicas = {name: world.cluster.replicas(name) for name in ("zoo-small-h100", "zoo-large-h100")}
    telemetry, before = world.traffic(40.0), world.weights()
    await world.tick(telemetry)
    went_on = world.weights()
    world.cluster, world.now = twin, world.now - 15.0
    world.restart()
    await world.tick(telemetry)
    assert {name: world.cluster.replicas(name) for name in replicas} == replicas
    assert world.weights() == before
    later = TelemetrySnapshot(telemetry.at_seconds + 15.0, telemetry.groups, {})
    await world.tick(later)
    assert {name: world.cluster.replicas(name) for name in replicas} == replicas
    assert world.weights() == pytest.approx(went_on, abs=0.1 * TOTAL_WEIGHT)


async def test_a_restart_that_lost_its_state_keeps_the_live_weights_until_something_is_known() -> None:
    world = World()
    await world.start()
    before = world.weights()
    world.cluster.get(SERVICE, "chat")["status"].pop("controller")
    world.restart()
    telemetry = world.traffic(4.0)
    silent = TelemetrySnapshot(telemetry.at_seconds, {**telemetry.groups, "feedback": []}, {})
    await world.tick(silent)
    assert world.weights() == before


async def test_prometheus_unreachable_holds_everything() -> None:
    world = World()
    await world.start()
    await world.run(4, rps=40.0)
    weights = world.weights()
    replicas = {name: world.cluster.replicas(name) for name in ("zoo-small-h100", "zoo-large-h100")}
    world.cluster.writes.clear()
    for _ in range(40):  # ten minutes, longer than any stabilisation window
        await world.tick(make_silence(world.now + 15.0))
    assert world.cluster.server_writes() == []
    assert world.weights() == weights
    assert {name: world.cluster.replicas(name) for name in replicas} == replicas
    for kind, ref in ((SERVICE, CHAT), (MODEL_POOL, POOL)):
        condition = world.condition(kind, ref, "MetricsAvailable")
        assert (condition["status"], condition["reason"]) == ("False", "PrometheusUnreachable")
    assert world.condition(SERVICE, CHAT, "Degraded")["status"] == "True"


async def test_a_nan_sample_is_refused_with_a_reason() -> None:
    world = World()
    await world.start()
    weights = world.weights()
    telemetry = world.traffic(4.0)
    poisoned = [
        Series(s.name, s.labels, (*s.samples[:-1], Sample(float("nan"), s.samples[-1].at_seconds)))
        for s in telemetry.groups["feedback"]
    ]
    await world.tick(TelemetrySnapshot(telemetry.at_seconds, {**telemetry.groups, "feedback": poisoned}, {}))
    assert world.weights() == weights
    assert world.condition(SERVICE, CHAT, "MetricsAvailable")["reason"] == "NonFiniteSample"


async def test_a_missing_pool_is_a_condition_and_others_go_on() -> None:
    world = World()
    world.cluster.add(SERVICE, make_llm_service("lost", pool="nowhere"))
    await world.start()
    lost = Ref(NAMESPACE, "lost")
    assert world.condition(SERVICE, lost, "Ready")["reason"] == "ModelPoolNotFound"
    assert world.condition(SERVICE, lost, "SLAMet")["status"] == "Unknown"
    assert world.condition(SERVICE, CHAT, "Ready")["status"] == "True"
    assert Ref(NAMESPACE, "lost") not in world.cluster.objects[Kind.HTTP_ROUTE]


async def test_a_pool_that_vanishes_leaves_the_route_as_it_is() -> None:
    world = World()
    await world.start()
    weights = world.weights()
    del world.cluster.objects[MODEL_POOL][POOL]
    await world.tick()
    assert world.weights() == weights
    assert world.cluster.server_writes() == []
    assert world.condition(SERVICE, CHAT, "Ready")["reason"] == "ModelPoolNotFound"


async def test_an_unknown_policy_is_a_condition() -> None:
    world = World()
    raw = make_llm_service("odd", controller={"policy": "Oracle"})
    world.cluster.add(SERVICE, raw)
    await world.start()
    assert world.condition(SERVICE, Ref(NAMESPACE, "odd"), "Ready")["reason"] == "UnknownPolicy"
    assert world.condition(SERVICE, CHAT, "Ready")["status"] == "True"


async def test_one_poisoned_object_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.cluster.add(SERVICE, make_llm_service("poison"))
    poison = Ref(NAMESPACE, "poison")
    broken = {"metadata": {"name": "poison", "namespace": NAMESPACE}, "status": {"parents": [7]}}
    world.cluster.add(Kind.HTTP_ROUTE, broken)
    await world.tick()
    await world.tick()
    assert world.condition(SERVICE, poison, "Degraded")["reason"] == "InternalError"
    assert len([record for record in caplog.records if "poison" in record.getMessage()]) == 1
    assert world.condition(SERVICE, CHAT, "Degraded")["reason"] != "InternalError"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [(None, "AcceleratorPoolNotFound"), ({"allowedNamespaces": {"names": ["other"]}}, "NamespaceNotAllowed")],
)
async def test_accelerators_that_may_not_be_used_hold_what_runs(spec: dict[str, Any] | None, reason: str) -> None:
    world = World()
    await world.start()
    del world.cluster.objects[Kind.ACCELERATOR_POOL][Ref("", "h100")]
    if spec is not None:
        world.cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool("h100", **spec))
        world.restart()
    for _ in range(30):
        await world.tick(world.traffic(0.1))
    assert world.cluster.replicas("zoo-large-h100") >= 1
    assert all(item.kind is not Kind.DEPLOYMENT for item in world.cluster.server_writes())
    assert world.condition(MODEL_POOL, POOL, "Placed")["reason"] == reason
    assert world.condition(MODEL_POOL, POOL, "Degraded")["reason"] == reason


async def test_a_missing_profile_keeps_replicas_and_says_so() -> None:
    world = World()
    await world.start()
    await world.run(3, rps=40.0)
    before = world.cluster.replicas("zoo-large-h100")
    world.cluster.objects[Kind.MODEL_PROFILE].clear()
    await world.run(30, rps=1.0)
    assert world.cluster.replicas("zoo-large-h100") == before
    assert world.condition(MODEL_POOL, POOL, "Degraded")["reason"] == "ProfileNotFound"


async def test_pods_without_a_node_are_a_condition_and_no_capacity() -> None:
    world = World()
    await world.start()
    labels = world.cluster.get(Kind.DEPLOYMENT, "zoo-large-h100")["spec"]["template"]["metadata"]["labels"]
    telemetry = world.traffic(4.0)
    world.cluster.get(Kind.DEPLOYMENT, "zoo-large-h100")["spec"]["replicas"] = 2
    world.cluster.add(Kind.POD, make_pod("stuck", labels, unplaced_since=world.now - 150.0))
    await world.tick(telemetry)
    placed = world.condition(MODEL_POOL, POOL, "Placed")
    assert (placed["status"], placed["reason"]) == ("False", "Unschedulable")
    assert "Insufficient nvidia.com/gpu" in placed["message"]
    assert world.cluster.replicas("zoo-large-h100") == 2  # not lowered
    assert world.condition(SERVICE, CHAT, "Ready")["status"] == "True"
    await world.tick(world.traffic(4.0))
    assert world.condition(Kind.ACCELERATOR_POOL, Ref("", "h100"), "Degraded")["reason"] == "Unschedulable"
    assert world.cluster.get(Kind.ACCELERATOR_POOL, "h100", "")["status"]["shortSince"]


async def test_a_route_refused_by_the_gateway_is_a_condition() -> None:
    world = World()
    await world.start()
    route = world.cluster.get(Kind.HTTP_ROUTE, "chat")
    accepted = route["status"]["parents"][0]["conditions"][0]
    accepted |= {"status": "False", "reason": "NotAllowedByListeners", "message": "no listener allows it"}
    replicas = world.cluster.replicas("zoo-large-h100")
    await world.tick(world.traffic(4.0))
    programmed = world.condition(SERVICE, CHAT, "TrafficProgrammed")
    assert (programmed["status"], programmed["reason"]) == ("False", "RouteNotAccepted")
    assert "no listener allows it" in programmed["message"]
    assert world.condition(SERVICE, CHAT, "Ready")["status"] == "False"
    assert world.cluster.replicas("zoo-large-h100") == replicas


async def test_shares_that_ignore_the_weights_are_seen() -> None:
    world = World()
    await world.start()
    await world.run(6)
    telemetry = world.traffic(4.0)
    even = [make_gateway_counter("chat", index, telemetry.at_seconds, 2.0) for index in range(2)]
    for _ in range(8):
        seen = TelemetrySnapshot(world.now + 1.0, {**telemetry.groups, "gateway": even}, {})
        await world.tick(seen, seconds=1.0)
    small, large = world.weights()
    if abs(small - large) > 0.4 * TOTAL_WEIGHT:
        assert world.condition(SERVICE, CHAT, "TrafficProgrammed")["reason"] == "SharesDisagree"


async def test_a_refused_write_is_reported_in_the_servers_words() -> None:
    world = World()
    world.cluster.refuse[Kind.DEPLOYMENT] = WriteState.DENIED
    await world.tick()
    degraded = world.condition(MODEL_POOL, POOL, "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "WriteDenied")
    assert "refused by a test" in degraded["message"]


async def test_kinds_that_cannot_be_read_stop_the_pass_before_it_thinks() -> None:
    world = World()
    await world.start()
    world.cluster.unreadable[Kind.POD] = "403"
    for _ in range(30):
        await world.tick()
    assert world.cluster.server_writes() == []
    assert world.condition(MODEL_POOL, POOL, "Ready")["reason"] == "ClusterUnreadable"


async def test_an_adopted_deployment_is_scaled_and_gets_a_service() -> None:
    world = World()
    adopted = make_variant("old", acceleratorPool="h100", workloadRef={"kind": "Deployment", "name": "vllm"})
    members = [make_member("small"), make_member("large", [adopted])]
    world.cluster.add(MODEL_POOL, make_model_pool(members=members))
    await world.tick()
    assert world.condition(MODEL_POOL, POOL, "Degraded")["reason"] == "WorkloadNotFound"
    world.cluster.add(
        Kind.DEPLOYMENT,
        {
            "metadata": {"name": "vllm", "namespace": NAMESPACE, "uid": "u", "resourceVersion": "1", "generation": 1},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "vllm"}},
                "template": {
                    "metadata": {"labels": {"app": "vllm"}},
                    "spec": {"containers": [{"resources": {"requests": {"nvidia.com/gpu": "2"}}}]},
                },
            },
        },
    )
    await world.tick()
    service = world.cluster.get(Kind.SERVICE, "zoo-large-old")
    assert service["spec"]["selector"] == {"app": "vllm"}
    await world.run(2)
    await world.run(3, rps=20.0)
    assert world.cluster.replicas("vllm") > 1
    assert "ownerReferences" not in world.cluster.get(Kind.DEPLOYMENT, "vllm")["metadata"]
    held = world.cluster.get(Kind.ACCELERATOR_POOL, "h100", "")["status"]["allocatedByWattZoo"]
    assert held >= 2 * world.cluster.replicas("vllm") - 2  # two accelerators per replica, as its template asks


async def test_a_variant_that_leaves_the_spec_is_deleted_once_drained() -> None:
    world = World()
    await world.start()
    raw = world.cluster.get(MODEL_POOL, "zoo")
    raw["spec"]["members"] = [raw["spec"]["members"][1]]
    raw["metadata"]["generation"] = 2
    await world.tick(world.traffic(4.0))
    assert Ref(NAMESPACE, "zoo-small-h100") in world.cluster.objects[Kind.DEPLOYMENT]  # the route still knew it
    assert world.weights() == [TOTAL_WEIGHT]
    await world.run(25)
    for kind in (Kind.DEPLOYMENT, Kind.SERVICE, Kind.POD_DISRUPTION_BUDGET):
        assert Ref(NAMESPACE, "zoo-small-h100") not in world.cluster.objects[kind]
        assert Ref(NAMESPACE, "zoo-large-h100") in world.cluster.objects[kind]


async def test_two_services_share_a_pool_and_its_energy() -> None:
    world = World()
    world.cluster.add(SERVICE, make_llm_service("search", target_per_mille=600))
    await world.tick()
    for _ in range(6):
        world.cluster.run_pods(START_SECONDS - 60.0)
        world.cluster.accept_routes()
        both = [world.traffic(4.0, service=name).groups for name in ("chat", "search")]
        groups = {
            group: [*both[0][group], *(both[1][group] if group in {"gateway", "feedback"} else ())] for group in both[0]
        }
        await world.tick(TelemetrySnapshot(world.now + 15.0, groups, {}))
    world.cluster.accept_routes()
    for name in ("chat", "search"):
        status = world.cluster.get(SERVICE, name)["status"]
        assert status["energy"]["provenance"] == "Proportional"
    assert sum(world.weights("search")) == TOTAL_WEIGHT
