"""The joint planner on a cluster: GPUs that never come, and a change of variant under load within a tight cap."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import pytest

from e2e.cluster.api_client import HOST, PORT
from e2e.scenarios.zoo import Zoo, member, of_ours, server
from e2e.stack import PATHS, Manifest, Stack, eventually

RPS = 4.0
"""Two or three replicas of small, four where chance adds to it: never twice as many within the cap."""
CAP = 5
RESOURCE = "nvidia.com/gpu"
TOLERATIONS = [{"key": RESOURCE, "operator": "Exists"}]
SCALING = {
    "planner": "Joint",
    "downStabilizationSeconds": 6,
    "drainTimeoutSeconds": 20,
    "staleAfterSeconds": 10,
    "placementTimeoutSeconds": 8,
}


@pytest.fixture(scope="module")
def accelerators(running_stack: Stack) -> Iterator[None]:
    """Two AcceleratorPools of these scenarios: one whose node others fill, one with a tight cap."""
    pools = []
    for name, product in (("taken", "NVIDIA-H200"), ("tight", "NVIDIA-B200")):
        selector = {"nvidia.com/gpu.product": product}
        spec = {"nodeSelector": selector, "resourceName": RESOURCE, "tolerations": TOLERATIONS}
        cap = {"allowedNamespaces": {"all": True}, "maxAccelerators": CAP}
        pools.append(of_ours("AcceleratorPool", f"scenario-{name}", {**spec, **cap}))
    running_stack.apply(*pools)
    yield
    for pool in pools:
        running_stack.cluster.kubectl("delete", "acceleratorpool", pool["metadata"]["name"])


def two_variants(zoo: Zoo, first: Manifest, second: Manifest) -> Manifest:
    """A planned pool with one member and two ways to serve it."""
    own = member("small", "l4")
    own["variants"] = [{"server": server("--max-num-seqs", "4"), **variant} for variant in (first, second)]
    pool = zoo.pool(own)
    pool["spec"]["scaling"] = SCALING
    return pool


def variant(name: str, pool: str, profile: str = "small-l4", **more: Any) -> Manifest:
    return {"name": name, "acceleratorPool": f"scenario-{pool}", "profile": profile, "maxReplicas": CAP, **more}


def foreign_pod(namespace: str) -> Manifest:
    """Somebody else's pod on the node's eight accelerators."""
    container = {"name": "other", "image": "other", "resources": {"limits": {RESOURCE: "8"}}}
    spec = {"containers": [container], "tolerations": TOLERATIONS, "terminationGracePeriodSeconds": 0}
    spec["nodeSelector"] = {"nvidia.com/gpu.product": "NVIDIA-H200"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "other", "namespace": namespace},
        "spec": spec,
    }


@pytest.mark.usefixtures("accelerators")
def test_accelerators_that_never_come_are_planned_around(stack: Stack, zoo: Zoo) -> None:
    """The first choice is a node that others have filled: told, taken back, carried by another variant."""
    namespace = zoo.namespace
    stack.apply(foreign_pod(namespace))
    eventually(lambda: stack.get("pod", namespace, "other") or {}, 10.0, "somebody else's pod")
    pool = two_variants(zoo, variant("scarce", "taken"), variant("plenty", "l4", minReplicas=1))
    # The scarce one is the better: half the power at the same speed.
    profiles = zoo.profiles()
    pool["spec"]["members"][0]["variants"][0]["profile"] = "better"
    stack.apply(*profiles, scaled(profiles[0], "better", 0.5), pool, zoo.service("chat", 400, members=("small",)))
    stack.wait_condition("llmservice", namespace, "chat", "Ready", "True", timeout=90.0)
    stack.wait_answer(zoo.hostname("chat"))
    with stack.load(zoo.target("chat"), RPS) as load:
        eventually(lambda: stack.replicas(namespace)["zoo-small-scarce"] > 0, 60.0, "the better variant is asked for")
        stack.wait_condition("modelpool", namespace, "zoo", "Placed", "False", "Unschedulable", timeout=60.0)
        eventually(lambda: stack.replicas(namespace)["zoo-small-scarce"] == 0, 60.0, "what waits is taken back")
        eventually(lambda: stack.replicas(namespace)["zoo-small-plenty"] >= 3, 60.0, "the other variant carries")
        short = stack.get("acceleratorpool", "", "scenario-taken") or {}
        assert short["status"]["shortSince"]
        load.wait_more(15)
        done = load.finish()
    assert done["failed"] == 0, done["errors"]


def scaled(profile: Manifest, name: str, factor: float) -> Manifest:
    """The profile of a server that is as fast and draws another power."""
    copy: Manifest = json.loads(json.dumps(profile))
    copy["metadata"]["name"] = name
    for point in copy["spec"]["points"]:
        point["powerWatts"] = max(1, round(point["powerWatts"] * factor))
    for field in {"idleWatts", "residentWatts"} & copy["spec"].keys():
        copy["spec"][field] = max(1, round(copy["spec"][field] * factor))
    return copy


@pytest.mark.usefixtures("accelerators")
def test_a_change_of_variant_under_load_stays_within_the_cap_at_every_instant(stack: Stack, zoo: Zoo) -> None:
    """A dear variant becomes a cheap one; accelerators for both at once are not there."""
    namespace, profiles = zoo.namespace, zoo.profiles()
    stack.apply(*profiles, scaled(profiles[0], "dear", 4.0), scaled(profiles[0], "cheap", 0.3))
    pool = two_variants(zoo, variant("old", "tight"), variant("new", "tight", "dear"))
    stack.apply(pool, zoo.service("chat", 400, members=("small",)))
    stack.wait_condition("llmservice", namespace, "chat", "Ready", "True", timeout=90.0)
    stack.wait_answer(zoo.hostname("chat"))
    with stack.load(zoo.target("chat"), RPS) as load, PodWatch(stack, namespace) as watch:
        eventually(lambda: stack.replicas(namespace)["zoo-small-old"] >= 3, 60.0, "the old variant carries the load")
        eventually(lambda: planner(stack, namespace) == "Joint", 30.0, "a joint plan")
        pool["spec"]["members"][0]["variants"][1]["profile"] = "cheap"
        stack.apply(pool)
        eventually(lambda: stack.replicas(namespace)["zoo-small-new"] >= 2, 120.0, "the new variant takes over")
        eventually(lambda: stack.replicas(namespace)["zoo-small-old"] == 0, 120.0, "the old one is gone")
        load.wait_more(10)
        done = load.finish()
    assert done["failed"] == 0, done["errors"]
    assert watch.events > 10
    assert watch.most <= CAP
    assert (stack.get("modelpool", namespace, "zoo") or {})["status"]["plan"]["watts"] > 0


def planner(stack: Stack, namespace: str) -> str:
    pool = stack.get("modelpool", namespace, "zoo") or {}
    found: str = pool["status"]["plan"]["planner"]
    return found


class PodWatch:
    """Every change of a namespace's pods as the API server tells it: the most accelerators held, leaving pods too."""

    def __init__(self, stack: Stack, namespace: str) -> None:
        listed = stack.api.get(PATHS["pod"].format(namespace)) or {}
        self.held = {pod["metadata"]["name"]: gpus(pod) for pod in listed["items"]}
        self.most, self.events = sum(self.held.values()), 0
        path = f"{PATHS['pod'].format(namespace)}?watch=1&resourceVersion={listed['metadata']['resourceVersion']}"
        self._connection = http.client.HTTPSConnection(HOST, PORT, context=stack.api.context, timeout=300)
        self._connection.request("GET", path)
        self._response = self._connection.getresponse()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection.sock is not None:
            self._connection.sock.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            for line in self._response:
                event = json.loads(line)
                name = event["object"]["metadata"]["name"]
                self.held[name] = 0 if event["type"] == "DELETED" else gpus(event["object"])
                self.most = max(self.most, sum(self.held.values()))
                self.events += 1


def gpus(pod: Manifest) -> int:
    """Accelerators that a pod requests."""
    return sum(int(c.get("resources", {}).get("limits", {}).get(RESOURCE, 0)) for c in pod["spec"]["containers"])
