from __future__ import annotations

from dataclasses import dataclass, field

from tests.builders import (
    NAMESPACE,
    START_SECONDS,
    make_accelerator_pool,
    make_feedback,
    make_gateway_counter,
    make_llm_service,
    make_model_pool,
    make_node,
    make_pod_series,
    make_profile,
    make_telemetry,
)
from tests.fakes import FakeCluster, FakeEvents
from wattzoo.model import Kind, Manifest, Ref, Series, TelemetrySnapshot
from wattzoo.reconcile import Reconciler
from wattzoo.settings import LeaseSettings, PrometheusSettings, Settings
from wattzoo.telemetry import Telemetry

POOL = Ref(NAMESPACE, "zoo")
CHAT = Ref(NAMESPACE, "chat")
SETTINGS = Settings(
    prometheus=PrometheusSettings(url="http://prometheus:9090"), lease=LeaseSettings("wattzoo-system", "test")
)


@dataclass
class World:
    """A cluster with one zoo and one service, a Reconciler over it, and a clock that tests move."""

    cluster: FakeCluster = field(default_factory=FakeCluster)
    events: FakeEvents = field(default_factory=FakeEvents)
    now: float = START_SECONDS
    reconciler: Reconciler = field(init=False)

    def __post_init__(self) -> None:
        self.cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool())
        self.cluster.add(Kind.NODE, make_node())
        self.cluster.add(Kind.MODEL_PROFILE, make_profile())
        self.cluster.add(Kind.MODEL_POOL, make_model_pool())
        self.cluster.add(Kind.LLM_SERVICE, make_llm_service())
        self.restart()

    def restart(self) -> None:
        """A new process: nothing remembered."""
        self.reconciler = Reconciler(self.cluster, self.events, Telemetry("test"), SETTINGS, clock=lambda: self.now)

    async def tick(self, telemetry: TelemetrySnapshot | None = None, seconds: float = 15.0) -> None:
        """Time goes on, then every object is passed over once, as the loop does."""
        self.now += seconds
        seen = telemetry if telemetry is not None else make_telemetry(self.now)
        snapshot = self.cluster.snapshot()
        for name in snapshot.accelerator_pools:
            await self.reconciler.reconcile_accelerator_pool(Ref("", name), snapshot, seen)
        for ref in snapshot.model_pools:
            await self.reconciler.reconcile_pool(ref, snapshot, seen)
        for ref in snapshot.llm_services:
            await self.reconciler.reconcile_service(ref, snapshot, seen)

    def traffic(self, rps: float, seconds: float = 15.0, service: str = "chat", feedback: float = 1.0) -> TelemetrySnapshot:
        """Telemetry of the coming tick: every ready pod busy, the gateway sending `rps` as the weights say."""
        at = self.now + seconds
        parts: list[dict[str, list[Series]]] = [
            make_pod_series(pod["metadata"]["name"], at, rps / 2.0, 400.0)
            for pod in self.cluster.objects[Kind.POD].values()
        ]
        weights = self.weights(service)
        total = sum(weights) or 1
        gateway = [make_gateway_counter(service, i, at, rps * w / total) for i, w in enumerate(weights)]
        elapsed = (at - START_SECONDS) * feedback
        judged = make_feedback(service, "small", at, 6.0 * elapsed, 4.0 * elapsed)
        judged += make_feedback(service, "large", at, 9.0 * elapsed, 1.0 * elapsed)
        return make_telemetry(at, *parts, {"gateway": gateway, "feedback": judged})

    def weights(self, service: str = "chat") -> list[int]:
        """Weights of a live route in its order; empty without one."""
        route = self.cluster.objects[Kind.HTTP_ROUTE].get(Ref(NAMESPACE, service))
        return [] if route is None else [ref["weight"] for ref in route["spec"]["rules"][0]["backendRefs"]]

    def condition(self, kind: Kind, ref: Ref, name: str) -> Manifest:
        """One condition of an object's status."""
        rows = self.cluster.objects[kind][ref]["status"]["conditions"]
        return next(row for row in rows if row["type"] == name)

    async def start(self) -> None:
        """From nothing to a running zoo with both members ready and the route accepted."""
        await self.tick()
        for _ in range(2):
            self.cluster.run_pods(self.now - 60.0)
            self.cluster.accept_routes()
            await self.tick(self.traffic(4.0))
        self.cluster.run_pods(self.now - 60.0)
        self.cluster.accept_routes()


async def test_from_nothing_to_traffic() -> None:
    world = World()
    await world.tick()
    assert world.cluster.replicas("zoo-large-h100") == 1  # nothing ran: one replica of the safest member
    assert world.cluster.replicas("zoo-small-h100") == 0
    world.cluster.run_pods(world.now)
    await world.tick()
    assert world.weights() == [0, 1_000_000]
    assert world.condition(Kind.LLM_SERVICE, CHAT, "Ready")["reason"] == "RoutePending"
    world.cluster.accept_routes()
    await world.tick()
    assert world.condition(Kind.LLM_SERVICE, CHAT, "Ready")["status"] == "True"
    assert world.condition(Kind.MODEL_POOL, POOL, "Ready")["status"] == "True"
