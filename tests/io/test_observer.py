"""Snapshots: what is read how, and what a failure leaves unknown."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from wattzoo.errors import MetricsUnreachable, QueryRejected
from wattzoo.kube import ApiFailure
from wattzoo.model import ClusterSnapshot, Kind, Manifest, Ref, TelemetryNeeds
from wattzoo.observe.cluster import ClusterReader, referenced, render_selector
from wattzoo.observe.observer import Observer
from wattzoo.observe.profile import load_profile
from wattzoo.observe.prometheus import Answer
from wattzoo.telemetry import Telemetry


def obj(name: str, namespace: str = "n", **more: Any) -> Manifest:
    return {"metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}/{name}"}, **more}


POOL = obj(
    "zoo",
    spec={
        "members": [
            {"name": "m", "variants": [{"name": "v", "workloadRef": {"kind": "Deployment", "name": "old"}}]},
            {"name": "x", "variants": [{"name": "v", "serviceRef": {"name": "ext", "port": 80}}, {"server": {}}]},
        ]
    },
)
OLD = obj("old", spec={"selector": {"matchLabels": {"app": "old"}}})


class Source:
    """A cluster of objects by kind and selector; kinds in `broken` fail."""

    def __init__(self) -> None:
        self.broken: set[Kind] = set()
        self.lists: list[tuple[Kind, str, str]] = []
        self.objects: dict[tuple[Kind, str], list[Manifest]] = {
            (Kind.MODEL_POOL, ""): [POOL],
            (Kind.ACCELERATOR_POOL, ""): [
                {"metadata": {"name": "h100"}, "spec": {"nodeSelector": {"gpu": "h100", "a": "b"}}},
                {"metadata": {"name": "none"}, "spec": {}},
            ],
            (Kind.NODE, "a=b,gpu=h100"): [{"metadata": {"name": "node"}}],
            (Kind.POD, "wattzoo.dev/model-pool"): [obj("ours"), obj("both")],
            (Kind.POD, "app=old"): [obj("theirs"), obj("both")],
            (Kind.SERVICE, "app.kubernetes.io/managed-by=wattzoo"): [obj("managed")],
        }

    async def get(self, kind: Kind, ref: Ref) -> Manifest | None:
        if kind in self.broken:
            raise ApiFailure(503, "busy")
        return {Ref("n", "old"): OLD, Ref("n", "ext"): obj("ext")}.get(ref)

    async def list(self, kind: Kind, namespace: str = "", selector: str = "") -> Sequence[Manifest]:
        self.lists.append((kind, namespace, selector))
        if kind in self.broken:
            raise ApiFailure(403, f"may not list {kind}")
        found = self.objects.get((kind, selector), [])
        return [item for item in found if namespace in {"", item["metadata"].get("namespace")}]


async def test_a_snapshot_holds_ours_and_what_pools_refer_to() -> None:
    snapshot = await ClusterReader(Source(), Telemetry()).observe()
    assert set(snapshot.deployments) == {Ref("n", "old")}
    assert set(snapshot.services) == {Ref("n", "managed"), Ref("n", "ext")}
    assert sorted(pod["metadata"]["name"] for pod in snapshot.pods) == ["both", "ours", "theirs"]
    assert [node["metadata"]["name"] for node in snapshot.nodes] == ["node"]
    assert (set(snapshot.accelerator_pools), snapshot.unreadable) == ({"h100", "none"}, {})


async def test_a_kind_that_cannot_be_listed_is_unknown_not_absent() -> None:
    source, telemetry = Source(), Telemetry()
    source.broken = {Kind.POD}
    snapshot = await ClusterReader(source, telemetry).observe()
    assert (snapshot.pods, snapshot.unreadable) == ((), {Kind.POD: "may not list Pod"})
    assert set(snapshot.deployments) == {Ref("n", "old")}
    assert telemetry.registry.get_sample_value("wattzoo_unreadable_total", {"kind": "Pod"}) == 1.0


async def test_an_adopted_deployment_that_cannot_be_read_spoils_its_kind() -> None:
    source = Source()
    source.broken = {Kind.DEPLOYMENT}
    snapshot = await ClusterReader(source, Telemetry()).observe()
    assert snapshot.deployments == {}
    assert Kind.DEPLOYMENT in snapshot.unreadable


async def test_only_the_served_namespaces_are_read_but_for_what_has_none() -> None:
    source = Source()
    await ClusterReader(source, Telemetry(), ["n", "m"]).observe()
    assert {namespace for kind, namespace, _ in source.lists if kind in {Kind.ACCELERATOR_POOL, Kind.NODE}} == {""}
    assert {namespace for kind, namespace, _ in source.lists if kind is Kind.MODEL_POOL} == {"n", "m"}


def test_selectors_with_expressions() -> None:
    rules = [
        {"key": "a", "operator": "In", "values": ["x", "y"]},
        {"key": "b", "operator": "NotIn", "values": ["z"]},
        {"key": "c", "operator": "Exists"},
        {"key": "d", "operator": "DoesNotExist"},
    ]
    selector = {"matchLabels": {"q": "1", "p": "2"}, "matchExpressions": rules}
    assert render_selector(selector) == "p=2,q=1,a in (x,y),b notin (z),c,!d"


def test_a_pool_of_any_shape_refers_to_nothing_rather_than_breaking() -> None:
    shapes: list[Any] = [{}, {"members": 3}, {"members": [1, {"variants": "x"}, {"variants": [{"workloadRef": {}}]}]}]
    assert [list(referenced({"metadata": {}, "spec": shape})) for shape in shapes] == [[], [], []]


class Metrics:
    """Prometheus with a clock; groups whose query holds a word of `broken` fail."""

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.asked: list[tuple[str, float | None]] = []
        self.lock = threading.Lock()

    def query(self, promql: str, at_seconds: float | None = None) -> Answer:
        with self.lock:
            self.asked.append((promql, at_seconds))
        if any(word in promql for word in self.broken):
            raise (MetricsUnreachable if promql == "time()" else QueryRejected)(f"no {promql[:6]}")
        if promql == "time()":
            return Answer([1000.5, "1000.5"], ())
        power = {"metric": {"__name__": "DCGM_FI_DEV_POWER_USAGE", "UUID": "u"}, "values": [[990, "300"]]}
        return Answer([power] if "POWER" in promql else [], ("partial",) if "POWER" in promql else ())


class NoCluster:
    async def observe(self) -> ClusterSnapshot:
        raise NotImplementedError


def observer(metrics: Metrics, telemetry: Telemetry) -> Observer:
    return Observer(NoCluster(), metrics, load_profile(None), telemetry, clock=lambda: 5.0)


async def test_all_groups_are_of_one_instant_of_prometheus_clock() -> None:
    metrics, telemetry = Metrics(), Telemetry()
    observing = observer(metrics, telemetry)
    snapshot = await observing.observe_telemetry(TelemetryNeeds(frozenset({("f_total", "n")})))
    assert snapshot.at_seconds == 1000.5
    assert {at for promql, at in metrics.asked if promql != "time()"} == {1000.5}
    assert len(metrics.asked) == 8
    assert (len(snapshot.groups["gpu_power"]), snapshot.groups["feedback"], snapshot.problems) == (1, (), {})
    sample = telemetry.registry.get_sample_value
    assert sample("wattzoo_input_age_seconds", {"group": "gpu_power"}) == 10.5
    assert sample("wattzoo_input_age_seconds", {"group": "gateway"}) is None
    assert sample("wattzoo_telemetry_warnings_total", {"group": "gpu_power"}) == 1.0
    assert sample("wattzoo_telemetry_queries_per_tick") == 8.0
    observing.close()


async def test_one_group_that_cannot_be_read_leaves_the_others() -> None:
    observing = observer(Metrics("ENERGY"), Telemetry())
    snapshot = await observing.observe_telemetry(TelemetryNeeds())
    assert set(snapshot.problems) == {"gpu_energy"}
    assert "gpu_energy" not in snapshot.groups
    assert snapshot.groups["feedback"] == ()
    observing.close()


async def test_without_a_clock_nothing_more_is_asked() -> None:
    metrics = Metrics("time")
    observing = observer(metrics, Telemetry())
    snapshot = await observing.observe_telemetry(TelemetryNeeds(frozenset({("f_total", "n")})))
    assert (len(metrics.asked), snapshot.groups, snapshot.at_seconds) == (1, {}, 5.0)
    assert set(snapshot.problems) == {*load_profile(None), "feedback"}
    observing.close()


def asked_window(metrics: Metrics, word: str) -> str:
    """The range that the newest query with this word asks for."""
    return next(promql for promql, _ in reversed(metrics.asked) if word in promql).rpartition("[")[2]


async def test_feedback_is_read_back_to_the_checkpoint_once_and_then_as_usual() -> None:
    metrics = Metrics()
    observing = observer(metrics, Telemetry())
    needs = TelemetryNeeds(frozenset({("f_total", "n")}), feedback_since_seconds=300.5)
    await observing.observe_telemetry(needs)
    assert asked_window(metrics, "f_total") == "730s]"  # from 1000.5 back to 300.5 and 30 s more
    assert asked_window(metrics, "POWER") == "45s]"
    await observing.observe_telemetry(needs)
    assert asked_window(metrics, "f_total") == "45s]"
    observing.close()


async def test_a_long_answer_that_is_refused_is_asked_for_no_second_time() -> None:
    metrics = Metrics("730s")
    observing = observer(metrics, Telemetry())
    needs = TelemetryNeeds(frozenset({("f_total", "n")}), feedback_since_seconds=300.5)
    refused = await observing.observe_telemetry(needs)
    assert set(refused.problems) == {"feedback"}
    read = await observing.observe_telemetry(needs)
    assert asked_window(metrics, "f_total") == "45s]"
    assert read.problems == {}
    observing.close()
