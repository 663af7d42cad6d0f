"""When passes run, and what an event makes run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from wattzoo.handlers import fingerprint, make_handler, make_settings
from wattzoo.loop import STUCK_AFTER_SECONDS, Dirty, Loop, Progress, affected, find_needs, pool_of
from wattzoo.model import ClusterSnapshot, Kind, Manifest, Ref, TelemetryNeeds, TelemetrySnapshot
from wattzoo.telemetry import ServiceFigures, Telemetry

A, B = Ref("n", "a"), Ref("n", "b")


def service(ref: Ref, pool: str, interval: int = 5, metric: str = "") -> Manifest:
    feedback = {"prometheus": {"metric": metric}} if metric else {}
    return {
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        "spec": {"modelPoolRef": {"name": pool}, "controller": {"intervalSeconds": interval}, "feedback": feedback},
    }


def snapshot_of(**more: Any) -> ClusterSnapshot:
    empty: dict[str, Any] = {
        name: {}
        for name in (
            "accelerator_pools",
            "model_pools",
            "profiles",
            "llm_services",
            "deployments",
            "services",
            "disruption_budgets",
            "routes",
        )
    }
    return ClusterSnapshot(**(empty | {"pods": (), "nodes": ()} | more))


class World:
    """The loop's surroundings: a clock, one snapshot, and passes that are only written down."""

    def __init__(self, snapshot: ClusterSnapshot, *, cluster_wide: bool = True) -> None:
        self.now = 1000.0
        self.snapshot = snapshot
        self.passes: list[tuple[str, Ref]] = []
        self.needs: list[TelemetryNeeds] = []
        self.breaking: set[Ref] = set()
        self.telemetry = Telemetry()
        self.loop = Loop(
            self,
            self,
            Dirty(),
            self.telemetry,
            pool_interval_seconds=15.0,
            window_seconds=45.0,
            clock=lambda: self.now,
            cluster_wide=cluster_wide,
        )

    async def observe_cluster(self) -> ClusterSnapshot:
        return self.snapshot

    async def observe_telemetry(self, needs: TelemetryNeeds) -> TelemetrySnapshot:
        self.needs.append(needs)
        return TelemetrySnapshot(self.now, {}, {})

    async def reconcile_pool(self, ref: Ref, *_: object) -> None:
        self._note("pool", ref)

    async def reconcile_service(self, ref: Ref, *_: object) -> None:
        self._note("service", ref)

    async def reconcile_accelerator_pool(self, ref: Ref, *_: object) -> None:
        self._note("accelerators", ref)

    async def reconcile_profile(self, ref: Ref, *_: object) -> None:
        self._note("profile", ref)

    def _note(self, kind: str, ref: Ref) -> None:
        self.passes.append((kind, ref))
        if ref in self.breaking:
            raise RuntimeError(ref.name)

    async def tick_at(self, now: float, *marked: tuple[Kind, Ref]) -> list[tuple[str, Ref]]:
        self.now, self.passes = now, []
        await self.loop.tick(frozenset(marked))
        return self.passes


ZOO = snapshot_of(
    accelerator_pools={"h100": {}},
    model_pools={A: {}, B: {}},
    llm_services={A: service(A, "a", 5), B: service(B, "b", 20)},
)


async def test_new_objects_are_due_at_once_pools_before_services() -> None:
    world = World(ZOO)
    assert await world.tick_at(1000.0) == [
        ("accelerators", Ref("", "h100")),
        ("pool", A),
        ("pool", B),
        ("service", A),
        ("service", B),
    ]


async def test_each_object_has_its_own_interval() -> None:
    world = World(ZOO)
    await world.tick_at(1000.0)
    assert await world.tick_at(1004.0) == []
    assert await world.tick_at(1005.0) == [("service", A)]
    assert await world.tick_at(1020.0) == [
        ("accelerators", Ref("", "h100")),
        ("pool", A),
        ("pool", B),
        ("service", A),
        ("service", B),
    ]


async def test_a_marked_pool_takes_its_services_along_and_nobody_else() -> None:
    world = World(ZOO)
    await world.tick_at(1000.0)
    assert await world.tick_at(1001.0, (Kind.MODEL_POOL, A)) == [("pool", A), ("service", A)]
    assert await world.tick_at(1002.0, (Kind.LLM_SERVICE, B)) == [("pool", B), ("service", B)]
    assert await world.tick_at(1003.0, (Kind.LLM_SERVICE, Ref("n", "gone"))) == []


def test_profiles_and_hardware_concern_every_pool_they_can() -> None:
    other = Ref("m", "c")
    zoo = replace(ZOO, model_pools={**ZOO.model_pools, other: {}})
    everything = {(Kind.MODEL_POOL, ref) for ref in (A, B)} | {(Kind.LLM_SERVICE, ref) for ref in (A, B)}
    profile = (Kind.MODEL_PROFILE, Ref("n", "p"))
    assert affected({profile}, zoo) == everything | {profile}
    hardware = (Kind.ACCELERATOR_POOL, Ref("", "h100"))
    assert affected({hardware}, zoo) == everything | {hardware, (Kind.MODEL_POOL, other)}


async def test_a_pass_that_breaks_stays_alone_and_comes_again_at_its_interval() -> None:
    world = World(ZOO)
    world.breaking = {A}
    assert len(await world.tick_at(1000.0)) == 5
    assert await world.tick_at(1001.0) == []
    assert len(await world.tick_at(1015.0)) == 4
    failures = world.telemetry.registry.get_sample_value("wattzoo_pass_failures_total", {"kind": "ModelPool"})
    assert failures == 2.0


async def test_what_is_gone_is_forgotten_unless_its_kind_could_not_be_read() -> None:
    world = World(ZOO)
    await world.tick_at(1000.0)
    world.telemetry.set_service(A, ServiceFigures({"target": 0.8}))
    labels = {"namespace": "n", "service": "a"}
    world.snapshot = snapshot_of(unreadable={Kind.LLM_SERVICE: "away"})
    await world.tick_at(1001.0)
    assert world.telemetry.registry.get_sample_value("wattzoo_sla_target_ratio", labels) == 0.8
    world.snapshot = snapshot_of()
    await world.tick_at(1002.0)
    assert world.telemetry.registry.get_sample_value("wattzoo_sla_target_ratio", labels) is None


async def test_ticks_that_follow_closely_share_one_look_at_prometheus() -> None:
    world = World(ZOO)
    for now in (1000.0, 1000.5, 1002.0):
        await world.tick_at(now, (Kind.MODEL_POOL, A))
    assert len(world.needs) == 2


async def test_an_operator_of_some_namespaces_does_not_speak_for_accelerator_pools() -> None:
    world = World(ZOO, cluster_wide=False)
    assert ("accelerators", Ref("", "h100")) not in await world.tick_at(1000.0)


async def test_progress_counts_only_when_our_kinds_could_be_read() -> None:
    world = World(snapshot_of(unreadable={Kind.MODEL_POOL: "away"}))
    await world.tick_at(1000.0)
    assert world.loop.progress == Progress(None, None)
    world.snapshot = ZOO
    await world.tick_at(1001.0)
    assert world.loop.progress == Progress(None, 1001.0)
    assert not world.loop.progress.is_stuck(9999.0)
    assert Progress(0.0, None).is_stuck(STUCK_AFTER_SECONDS + 1)


async def test_the_loop_ends_after_the_running_tick() -> None:
    world, stopping = World(ZOO), asyncio.Event()
    stopping.set()
    await world.loop.run(stopping)
    assert world.passes == []


async def test_marks_come_from_any_thread_and_are_taken_once() -> None:
    dirty = Dirty()
    await asyncio.to_thread(dirty.mark, Kind.MODEL_POOL, A)
    await dirty.wait(5.0)
    assert dirty.take() == {(Kind.MODEL_POOL, A)}
    assert dirty.take() == frozenset()
    await dirty.wait(0.001)


def test_needs_are_the_services_counters_each_in_its_own_namespace() -> None:
    other = Ref("m", "c")
    services = {A: service(A, "a", metric="x_total"), B: service(B, "a"), other: service(other, "a", metric="x_total")}
    needs = find_needs(snapshot_of(llm_services=services), 30.0)
    assert needs == TelemetryNeeds(frozenset({("x_total", "n"), ("x_total", "m")}), 30.0, 5.0 + 30.0)


def test_feedback_is_needed_for_the_longest_interval_and_since_the_oldest_checkpoint() -> None:
    services = {A: service(A, "a", metric="x_total"), B: service(B, "a", metric="x_total")}
    services[A]["spec"]["controller"] = {"intervalSeconds": 300}
    for ref, minute in ((A, 2), (B, 1)):
        services[ref]["status"] = {"controller": {"observedAt": f"1970-01-01T00:0{minute}:00Z"}}
    needs = find_needs(snapshot_of(llm_services=services), 45.0)
    assert (needs.window_seconds, needs.feedback_window_seconds, needs.feedback_since_seconds) == (45.0, 330.0, 60.0)


@pytest.mark.parametrize("spec", [None, 3, {}, {"modelPoolRef": "a"}, {"modelPoolRef": {"name": 3}}])
def test_a_service_of_any_shape_references_no_pool(spec: Any) -> None:
    assert pool_of(A, {"spec": spec}) is None


def event(kind: str = "MODIFIED", generation: int = 1, **more: Any) -> dict[str, Any]:
    metadata = {"name": "a", "namespace": "n", "uid": "u", "generation": generation, **more.pop("metadata", {})}
    return {"type": kind, "object": {"metadata": metadata, **more}}


def test_our_own_status_writes_do_not_wake_us() -> None:
    marks: list[tuple[Kind, Ref]] = []
    handler = make_handler(Kind.LLM_SERVICE, lambda kind, ref: marks.append((kind, ref)))
    handler(event=event(kind="ADDED"))
    handler(event=event(status={"x": 1}))
    assert len(marks) == 1
    handler(event=event(generation=2))
    handler(event=event(generation=2, metadata={"annotations": {"wattzoo.dev/paused": "true"}}))
    handler(event=event(kind="DELETED", generation=2))
    assert marks == [(Kind.LLM_SERVICE, A)] * 4


def test_a_pods_readiness_wakes_its_pool_and_its_heartbeats_do_not() -> None:
    marks: list[tuple[Kind, Ref]] = []
    handler = make_handler(Kind.POD, lambda kind, ref: marks.append((kind, ref)))
    labels = {"labels": {"wattzoo.dev/model-pool": "zoo"}}
    for ready, beat in (("False", "1"), ("False", "2"), ("True", "3")):
        condition = {"type": "Ready", "status": ready, "lastProbeTime": beat}
        handler(event=event(metadata=labels, status={"phase": "Running", "conditions": [condition]}))
    handler(event=event(metadata={"labels": {}}))
    assert marks == [(Kind.MODEL_POOL, Ref("n", "zoo"))] * 2


def test_what_is_going_counts_as_a_change() -> None:
    before = event()["object"]
    after = event(metadata={"deletionTimestamp": "now"})["object"]
    assert fingerprint(Kind.MODEL_POOL, before) != fingerprint(Kind.MODEL_POOL, after)


def test_the_watching_framework_writes_nothing() -> None:
    settings = make_settings()
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.peering.standalone
