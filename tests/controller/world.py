"""A whole operator without its I/O: a cluster in memory, a Reconciler over it, and a clock that tests move."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tests.builders import (
    NAMESPACE,
    START_SECONDS,
    make_accelerator_pool,
    make_feedback,
    make_gateway_counter,
    make_llm_service,
    make_member,
    make_model_pool,
    make_node,
    make_pod_series,
    make_profile,
    make_telemetry,
    make_variant,
)
from tests.fakes import FakeCluster, FakeEvents
from wattzoo.model import LABEL_SERVING, Kind, Manifest, Ref, Sample, Series, TelemetrySnapshot
from wattzoo.reconcile import Reconciler
from wattzoo.settings import LeaseSettings, PrometheusSettings, Settings
from wattzoo.telemetry import Telemetry

POOL = Ref(NAMESPACE, "zoo")
CHAT = Ref(NAMESPACE, "chat")
ACCURACY = {"small": 0.6, "large": 0.9}
SENT_BEFORE = 100_000.0
"""Requests that a backend's counter has when it is first read; what came before is no news."""
SETTINGS = Settings(
    prometheus=PrometheusSettings(url="http://prometheus:9090"), lease=LeaseSettings("wattzoo-system", "test")
)


def two_members() -> list[Manifest]:
    """A small and a large member, one replica each at least; new ones at each call, for a test may change its own."""
    return [make_member(name, [make_variant(minReplicas=1)]) for name in ACCURACY]


@dataclass
class World:
    """A cluster with one zoo and one service, a Reconciler over it, and a clock that tests move."""

    cluster: FakeCluster = field(default_factory=FakeCluster)
    events: FakeEvents = field(default_factory=FakeEvents)
    now: float = START_SECONDS
    judged: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    sent: dict[tuple[str, int], float] = field(default_factory=dict)
    reconciler: Reconciler = field(init=False)

    def __post_init__(self) -> None:
        self.cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool())
        self.cluster.add(Kind.NODE, make_node())
        self.cluster.add(Kind.MODEL_PROFILE, make_profile())
        self.cluster.add(Kind.MODEL_POOL, make_model_pool(members=two_members()))
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
        for ref in snapshot.profiles:
            await self.reconciler.reconcile_profile(ref, snapshot, seen)
        for ref in snapshot.model_pools:
            await self.reconciler.reconcile_pool(ref, snapshot, seen)
        for ref in snapshot.llm_services:
            await self.reconciler.reconcile_service(ref, snapshot, seen)

    def traffic(self, rps: float, seconds: float = 15.0, service: str = "chat") -> TelemetrySnapshot:
        """Telemetry of the coming tick: every serving pod busy, the gateway sending `rps` as the weights say."""
        at = self.now + seconds
        parts: list[dict[str, list[Series]]] = [
            make_pod_series(pod["metadata"]["name"], at, rps / 2.0, 400.0)
            if pod["metadata"]["labels"].get(LABEL_SERVING, "true") == "true"
            else make_pod_series(pod["metadata"]["name"], at, 0.0, 100.0, running=0.0)
            for pod in self.cluster.objects[Kind.POD].values()
        ]
        weights = self.weights(service)
        total = sum(weights) or 1
        gateway = [self._count(service, i, at, rps * w / total, seconds) for i, w in enumerate(weights)]
        for i, member in enumerate(("small", "large")):
            share = weights[i] / total if i < len(weights) else 0.0
            satisfied, unsatisfied = self.judged.get((service, member), (0.0, 0.0))
            new = rps * seconds * share
            good = new * ACCURACY[member]
            self.judged[(service, member)] = (satisfied + good, unsatisfied + new - good)
        judged = [s for m in ACCURACY for s in make_feedback(service, m, at, *self.judged[(service, m)])]
        return make_telemetry(at, *parts, {"gateway": gateway, "feedback": judged})

    def _count(self, service: str, index: int, at_seconds: float, rps: float, seconds: float) -> Series:
        """The gateway's counter of one backend: it goes on from what it was, whatever the weights do."""
        sent = self.sent.get((service, index), SENT_BEFORE) + rps * seconds
        self.sent[(service, index)] = sent
        series = make_gateway_counter(service, index, at_seconds, rps)
        more = sent - series.samples[-1].value
        return replace(series, samples=tuple(Sample(one.value + more, one.at_seconds) for one in series.samples))

    def weights(self, service: str = "chat") -> list[int]:
        """Weights of a live route in its order; empty without one."""
        route = self.cluster.objects[Kind.HTTP_ROUTE].get(Ref(NAMESPACE, service))
        return [] if route is None else [ref["weight"] for ref in route["spec"]["rules"][0]["backendRefs"]]

    def condition(self, kind: Kind, ref: Ref, name: str) -> Manifest:
        """One condition of an object's status."""
        rows = self.cluster.objects[kind][ref]["status"]["conditions"]
        return next(row for row in rows if row["type"] == name)

    async def run(self, ticks: int, rps: float = 4.0) -> None:
        """Ticks with traffic; pods and the gateway follow at once."""
        for _ in range(ticks):
            self.cluster.run_pods(START_SECONDS - 60.0)
            self.cluster.accept_routes()
            await self.tick(self.traffic(rps))
        self.cluster.run_pods(START_SECONDS - 60.0)
        self.cluster.accept_routes()

    async def start(self, rps: float = 4.0) -> None:
        """From nothing to a running zoo with both members ready, the route accepted and some feedback."""
        await self.tick()
        await self.run(12, rps)
        self.cluster.writes.clear()
        self.events.notes.clear()
