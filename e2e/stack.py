"""Everything that an end-to-end scenario of the operator needs, started once: chart, emulated GPUs, gateway, operator.

A scenario brings a small zoo of its own in a fresh namespace (`e2e.scenarios.zoo`). It never sleeps: it waits for what
it can see, with a deadline. Reads go through the harness's own client, since kubectl costs a second of processor time.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import requests

from e2e.cluster import Cluster, CommandError
from e2e.cluster.api_client import ApiClient
from e2e.emulator.launch import LOAD, start_emulator, start_load
from e2e.operator_process import NAMESPACE, RELEASE, OperatorProcess, install_chart, read_audit

GATEWAY_NAMESPACE, GATEWAY, GATEWAY_PORT = "scenarios", "shared", 10081
STRICT_NAMESPACE, STRICT_GATEWAY, STRICT_PORT = "scenarios-strict", "own-namespace-only", 10082
LEASE = {"durationSeconds": 8, "renewDeadlineSeconds": 6, "retryPeriodSeconds": 1}
POOL_INTERVAL_SECONDS = 2
WINDOW_SECONDS = 15
LEASE_PATH = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{RELEASE}"
LOAD_URL = "http://10.96.255.1:9500/summary"
MEMBER_HEADER = "x-wattzoo-member"
PATHS = {
    "acceleratorpool": "/apis/wattzoo.dev/v1alpha1/acceleratorpools",
    "modelpool": "/apis/wattzoo.dev/v1alpha1/namespaces/{}/modelpools",
    "modelprofile": "/apis/wattzoo.dev/v1alpha1/namespaces/{}/modelprofiles",
    "llmservice": "/apis/wattzoo.dev/v1alpha1/namespaces/{}/llmservices",
    "httproute": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes",
    "deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "poddisruptionbudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "service": "/api/v1/namespaces/{}/services",
    "pod": "/api/v1/namespaces/{}/pods",
    "event": "/api/v1/namespaces/{}/events",
}
OWNED = ("deployment", "service", "poddisruptionbudget", "httproute")

Manifest = dict[str, Any]
T = TypeVar("T")


def eventually(look: Callable[[], T | None], timeout_seconds: float = 60.0, what: str = "what is awaited") -> T:
    """The first true answer of `look`; after the deadline an AssertionError that says what was seen last."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout_seconds:.0f} s: {what}; last seen: {found!r}"
        time.sleep(0.2)


@contextmanager
def fresh_namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of a name nobody else has, gone (with its pods and Gateways) when the block ends."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        # The namespace itself needs five seconds more; what other tests could meet is gone now: GPUs and the port.
        cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
        try:
            cluster.kubectl("delete", "gateways,pods", "--all", "--force", "--grace-period=0", "--namespace", name)
        except CommandError as error:
            if "NotFound" not in error.stderr:
                raise


class Stack:
    """A cluster in which WattZoo runs, and short ways to look at it."""

    def __init__(self, cluster: Cluster, table: Path) -> None:
        self.cluster = cluster
        self.table = table
        self.api = ApiClient(cluster.layout.certificates_dir)
        self.operator = OperatorProcess(cluster, 0)
        self.standby = OperatorProcess(cluster, 1)

    # Starting and ending

    def start(self, shared: Sequence[Manifest]) -> None:
        """Install the chart with short intervals, start emulator and operator, apply what all scenarios share."""
        prometheus = {"url": self.cluster.prometheus_url, "windowSeconds": WINDOW_SECONDS}
        values = {"lease": LEASE, "poolIntervalSeconds": POOL_INTERVAL_SECONDS, "prometheus": prometheus}
        install_chart(self.cluster, values)
        start_emulator(self.cluster, ["--table", str(self.table), "--drain-quiet-seconds", "1"])
        for namespace in (GATEWAY_NAMESPACE, STRICT_NAMESPACE):
            self.cluster.kubectl("create", "namespace", namespace, check=False)
        (strict,) = self.cluster.gateway_manifests(STRICT_NAMESPACE, STRICT_GATEWAY, STRICT_PORT)
        strict["spec"]["listeners"][0]["allowedRoutes"]["namespaces"]["from"] = "Same"
        self.apply(strict, *shared)
        self.url = self.cluster.apply_gateway(GATEWAY_NAMESPACE, GATEWAY, GATEWAY_PORT)
        self.operator.start(wait_ready=True)

    def stop(self) -> None:
        """Stop what `start` started; the chart stays installed, as another module would find it."""
        for process in (self.operator, self.standby):
            if process.alive():
                process.resume()
                process.stop()
        self.cluster.stop("emulator")
        self.cluster.kubectl("delete", "namespace", GATEWAY_NAMESPACE, STRICT_NAMESPACE, "--wait=false")
        self.cluster.kubectl("delete", "acceleratorpools", "--all", "--ignore-not-found")

    def settle(self) -> None:
        """Bring a stack that a scenario left in any state back to one replica that leads."""
        if self.cluster.alive(LOAD):
            self.cluster.stop(LOAD)
        if self.standby.alive():
            self.standby.resume()
            self.standby.stop()
        if self.operator.alive():
            self.operator.resume()
        began = datetime.now(UTC)
        eventually(lambda: self._leads_since(began), 60.0, "the operator leads")

    def _leads_since(self, began: datetime) -> bool:
        """Whether the Lease was renewed since; a replica that lost it while it was stopped ends and is started anew."""
        if not self.operator.alive():
            self.operator.start()
        lease = self.api.get(LEASE_PATH) or {"spec": {}}
        renewed = str(lease["spec"].get("renewTime") or "1970-01-01T00:00:00Z")
        return lease["spec"].get("holderIdentity") == self.operator.identity and datetime.fromisoformat(renewed) > began

    # Objects

    def apply(self, *manifests: Manifest) -> str:
        """`kubectl apply --server-side` as the administrator, as the demo's users do; returns kubectl's words.

        Without it kubectl would own the replicas that the API server defaults, and an adopted Deployment's are to be
        nobody's.
        """
        return self.cluster.kubectl("apply", "--server-side", "-f", "-", input=render_list(manifests))

    def patch(self, kind: str, namespace: str, name: str, body: Manifest) -> None:
        """`kubectl patch` with a merge patch."""
        self.cluster.kubectl("patch", kind, name, "-n", namespace, "--type=merge", "-p", json.dumps(body))

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """The object, or None."""
        return self.api.get(f"{PATHS[kind].format(namespace)}/{name}")

    def all(self, kind: str, namespace: str) -> list[Manifest]:
        """All objects of a kind in a namespace."""
        items: list[Manifest] = (self.api.get(PATHS[kind].format(namespace)) or {"items": []})["items"]
        return items

    def uids(self, namespace: str, *kinds: str) -> dict[tuple[str, str], str]:
        """(kind, name) -> uid of what exists and is not being deleted."""
        found = ((kind, item["metadata"]) for kind in kinds or OWNED for item in self.all(kind, namespace))
        return {(kind, meta["name"]): meta["uid"] for kind, meta in found if "deletionTimestamp" not in meta}

    def gpu_pods(self, namespace: str) -> dict[str, str]:
        """Name -> uid of the pods that are not being deleted."""
        return {name: uid for (_, name), uid in self.uids(namespace, "pod").items()}

    def replicas(self, namespace: str) -> dict[str, int]:
        """Deployment -> spec.replicas."""
        return {d["metadata"]["name"]: int(d["spec"]["replicas"]) for d in self.all("deployment", namespace)}

    def weights(self, namespace: str, service: str) -> dict[str, int]:
        """Backend Service -> weight of the live route; empty without a route."""
        route = self.get("httproute", namespace, service) or {"spec": {"rules": [{"backendRefs": []}]}}
        return {ref["name"]: int(ref["weight"]) for ref in route["spec"]["rules"][0]["backendRefs"]}

    def condition(self, kind: str, namespace: str, name: str, condition: str) -> tuple[str, str, str]:
        """(status, reason, message) of a condition judged for the present generation; empty strings without one."""
        obj = self.get(kind, namespace, name) or {"metadata": {}}
        for row in obj.get("status", {}).get("conditions", ()):
            if row["type"] == condition and row.get("observedGeneration") == obj["metadata"]["generation"]:
                return row["status"], row["reason"], row.get("message", "")
        return "", "", ""

    def wait_condition(
        self, kind: str, namespace: str, name: str, condition: str, status: str, reason: str = "", timeout: float = 60.0
    ) -> str:
        """Wait until a condition has this status (and reason); returns its message."""
        seen: list[tuple[str, str, str]] = []

        def holds() -> bool:
            seen[:] = [self.condition(kind, namespace, name, condition)]
            return seen[0][0] == status and reason in {"", seen[0][1]}

        try:
            eventually(holds, timeout, "")
        except AssertionError:
            wanted = f"{kind} {name}: {condition}={status} {reason}"
            raise AssertionError(f"not within {timeout:.0f} s: {wanted}; it is {seen[0]}") from None
        return seen[0][2]

    # Requests

    def ask(self, hostname: str, request_id: str = "chat-1") -> requests.Response:
        """One short request through the shared gateway."""
        body = {
            "model": "zoo",
            "request_id": request_id,
            "max_tokens": 4,
            "messages": [{"role": "user", "content": ""}],
        }
        url = f"{self.url}/v1/chat/completions"
        return requests.post(url, json=body, headers={"Host": hostname, "x-request-id": request_id}, timeout=30)

    def wait_answer(self, hostname: str, timeout: float = 60.0) -> str:
        """Wait until the gateway answers for this host; returns the member that did."""

        def look() -> str | None:
            answer = self.ask(hostname)
            return answer.headers.get(MEMBER_HEADER, "nobody") if answer.status_code == 200 else None

        return eventually(look, timeout, f"an answer for {hostname}")

    @contextmanager
    def load(self, target: str, rps: float, minutes: float = 5.0, arguments: Sequence[str] = ()) -> Iterator[Load]:
        """Send requests until the block ends; `target` is NAMESPACE/SERVICE=HOSTNAME. One load at a time."""
        output = self.table.parent / f"load-{target.partition('=')[0].replace('/', '-')}.json"
        argv = ["--table", str(self.table), "--service", target, "--model", "zoo", "--summary", str(output)]
        argv += ["--minutes", str(minutes), "--peak-rps", str(rps), "--gateway", self.url, *arguments]
        output.unlink(missing_ok=True)
        start_load(self.cluster, argv)
        self.cluster.wait_until(lambda: self.cluster.fetch(LOAD_URL) is not None, 30.0, "the load generator listens")
        try:
            yield Load(self.cluster, output)
        finally:
            if self.cluster.alive(LOAD):
                self.cluster.stop(LOAD, 60.0)

    # Writes

    def writes(self, namespace: str, since: int = 0) -> list[Manifest]:
        """The operator's accepted writes in a namespace, from the audit log; Events and the Lease are among them."""
        entries = read_audit(self.cluster)[since:]
        accepted = (entry for entry in entries if entry["responseStatus"]["code"] < 300)
        return [entry for entry in accepted if entry["objectRef"].get("namespace", "") == namespace]

    def audit_mark(self) -> int:
        """How many requests of the operator were audited so far."""
        return len(read_audit(self.cluster))


class Load:
    """A running load generator."""

    def __init__(self, cluster: Cluster, output: Path) -> None:
        self.cluster = cluster
        self.output = output

    def summary(self) -> Mapping[str, Any]:
        """What came of the requests so far."""
        found: dict[str, Any] = json.loads(self.cluster.fetch(LOAD_URL) or "{}")
        return found

    def wait_more(self, count: int, timeout: float = 60.0) -> None:
        """Wait until this many more requests have ended."""
        goal = int(self.summary()["sent"]) + count
        eventually(lambda: int(self.summary().get("sent", 0)) >= goal, timeout, f"{count} more requests")

    def finish(self) -> Mapping[str, Any]:
        """Send nothing more, wait for the last answer; returns the final summary."""
        if self.cluster.alive(LOAD):
            self.cluster.stop(LOAD, 60.0)
        found: dict[str, Any] = json.loads(self.output.read_text("utf-8"))
        return found


def render_list(manifests: Sequence[Manifest]) -> str:
    """A v1 List as JSON."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})


def shift(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Share of the traffic that moves when the weights go from `before` to `after`: 0 nothing, 1 all."""
    names = before.keys() | after.keys()
    return sum(abs(before.get(name, 0) - after.get(name, 0)) for name in names) / 2e6
