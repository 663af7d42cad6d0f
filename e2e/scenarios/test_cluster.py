"""The harness itself: nodes, pods, weighted routes through a real Envoy, Prometheus, the audit log, faults."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import signal
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from e2e.cluster import Cluster, CommandError
from e2e.cluster.kwok import DEFAULT_NODES, DRAINED_ANNOTATION, GPUS, LOADED_ANNOTATION
from e2e.stack import eventually

SERVER_PORT = 8000
MEMBER_HEADER = "x-wattzoo-member"


def get(cluster: Cluster, *arguments: str) -> Any:
    return json.loads(cluster.kubectl("get", *arguments, "-o", "json"))


def apply(cluster: Cluster, *objects: dict[str, Any]) -> None:
    cluster.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def pod(
    namespace: str, name: str, gpus: int = 0, product: str = "NVIDIA-L4", grace_seconds: int = 30
) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "server",
        "image": "example.com/server:1",
        "ports": [{"name": "http", "containerPort": SERVER_PORT}],
    }
    spec: dict[str, Any] = {"containers": [container], "terminationGracePeriodSeconds": grace_seconds}
    if gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
        spec["nodeSelector"] = {"nvidia.com/gpu.product": product}
        spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def condition(thing: dict[str, Any], kind: str) -> str | None:
    return next((c["status"] for c in thing["status"].get("conditions", []) if c["type"] == kind), None)


def running(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = get(cluster, "pod", name, "-n", namespace)
        return found if found["status"]["phase"] == "Running" else None

    return eventually(look)


def query(cluster: Cluster, expression: str) -> list[dict[str, Any]]:
    url = f"{cluster.prometheus_url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=5) as response:
        result: list[dict[str, Any]] = json.load(response)["data"]["result"]
    return result


def test_nodes_are_ready_and_labelled_as_a_mixed_gpu_fleet(cluster: Cluster) -> None:
    nodes = {node["metadata"]["name"]: node for node in get(cluster, "nodes")["items"]}

    assert len(nodes) == sum(DEFAULT_NODES.values())
    assert {condition(node, "Ready") for node in nodes.values()} == {"True"}
    for kind, gpu in GPUS.items():
        node = nodes[f"{kind}-0"]
        assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == gpu.product
        assert node["status"]["capacity"]["nvidia.com/gpu"] == "8"
        assert node["spec"]["taints"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    assert "taints" not in nodes["cpu-0"]["spec"]
    assert "nvidia.com/gpu" not in nodes["cpu-0"]["status"]["capacity"]


def test_versions_are_those_that_are_pinned(cluster: Cluster) -> None:
    versions = json.loads(cluster.kubectl("version", "-o", "json"))

    assert versions["serverVersion"]["gitVersion"] == versions["clientVersion"]["gitVersion"] == "v1.36.4"
    assert cluster.helm("version", "--template", "{{.Version}}").startswith("v4.2")


def test_ports_of_the_emulator_the_load_and_the_operator_are_left_free(cluster: Cluster) -> None:
    taken = cluster.exec(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout.split()

    ports = {address.rsplit(":", 1)[1] for address in taken if ":" in address}
    assert {"6443", "9090", "19901"} <= ports
    assert not ports & {"8000", "8080", "8081", "8082", "8083", "9400", "9500"}


def test_gpu_pod_is_ready_only_when_its_model_is_loaded(cluster: Cluster, namespace: str) -> None:
    apply(cluster, pod(namespace, "server", gpus=1))

    found = running(cluster, namespace, "server")
    assert found["spec"]["nodeName"].startswith("l4-")
    assert found["status"]["podIP"].startswith("10.244.")
    time.sleep(1)  # that something does not happen takes time to see
    assert condition(get(cluster, "pod", "server", "-n", namespace), "Ready") == "False"

    cluster.kubectl("annotate", "pod", "server", "-n", namespace, f"{LOADED_ANNOTATION}=true")
    eventually(lambda: condition(get(cluster, "pod", "server", "-n", namespace), "Ready") == "True")


def test_gpu_pod_leaves_when_drained_and_at_the_latest_after_its_grace_period(cluster: Cluster, namespace: str) -> None:
    apply(cluster, pod(namespace, "drained", gpus=1, grace_seconds=60), pod(namespace, "slow", gpus=1, grace_seconds=4))
    running(cluster, namespace, "drained")
    running(cluster, namespace, "slow")

    asked_at = time.monotonic()
    cluster.kubectl("delete", "pods", "--all", "--wait=false", "-n", namespace)
    cluster.kubectl("annotate", "pod", "drained", "-n", namespace, f"{DRAINED_ANNOTATION}=true")
    eventually(lambda: "drained" not in cluster.kubectl("get", "pods", "-n", namespace, "-o", "name"), 3)
    eventually(lambda: not get(cluster, "pods", "-n", namespace)["items"])
    assert 2.5 < time.monotonic() - asked_at < 10


def test_pod_without_gpu_is_ready_at_once_and_avoids_gpu_nodes(cluster: Cluster, namespace: str) -> None:
    apply(cluster, pod(namespace, "plain"))

    eventually(lambda: condition(get(cluster, "pod", "plain", "-n", namespace), "Ready") == "True")
    assert get(cluster, "pod", "plain", "-n", namespace)["spec"]["nodeName"] == "cpu-0"


def test_pod_that_fits_nowhere_stays_unscheduled(cluster: Cluster, namespace: str) -> None:
    apply(cluster, pod(namespace, "huge", gpus=9))

    found = eventually(
        lambda: (p := get(cluster, "pod", "huge", "-n", namespace)) and condition(p, "PodScheduled") == "False" and p
    )
    assert next(c for c in found["status"]["conditions"] if c["type"] == "PodScheduled")["reason"] == "Unschedulable"


class PodServer(BaseHTTPRequestHandler):
    """Answers for every pod IP; the address that was asked is the body."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one segment; two would wait 40 ms for each other

    def do_GET(self) -> None:
        body = self.connection.getsockname()[0].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class PodServers(ThreadingHTTPServer):
    """Takes its connections with it when it ends, as a pod does.

    Prometheus keeps its own alive for minutes: left open, they would answer for the next pod that gets the address.
    """

    def __init__(self) -> None:
        super().__init__(("0.0.0.0", SERVER_PORT), PodServer)
        self.connections: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):  # it has been closed
                connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def pod_server() -> Iterator[None]:
    with PodServers() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def service(namespace: str, name: str) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": SERVER_PORT}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def route(namespace: str, weights: dict[str, int]) -> dict[str, Any]:
    references = [
        {
            "name": name,
            "port": SERVER_PORT,
            "weight": weight,
            "filters": [
                {
                    "type": "ResponseHeaderModifier",
                    "responseHeaderModifier": {"set": [{"name": MEMBER_HEADER, "value": name}]},
                }
            ],
        }
        for name, weight in weights.items()
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "chat", "namespace": namespace},
        "spec": {"parentRefs": [{"name": "inference-gateway"}], "rules": [{"backendRefs": references}]},
    }


def ask(url: str) -> tuple[str, str] | None:
    """(member header, body), or None while the gateway answers with an error."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.headers[MEMBER_HEADER], response.read().decode()
    except urllib.error.URLError:
        return None


def count_members(url: str, requests: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    with contextlib.closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)) as connection:
        for _ in range(requests):
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            assert response.status == http.HTTPStatus.OK
            counts[response.headers[MEMBER_HEADER]] += 1
    return counts


@pytest.mark.usefixtures("pod_server")
def test_route_weights_are_honoured_and_counted_per_backend(cluster: Cluster, namespace: str) -> None:
    apply(cluster, *(make(namespace, name) for name in ("small", "large") for make in (pod, service)))
    ips = {name: running(cluster, namespace, name)["status"]["podIP"] for name in ("small", "large")}
    url = cluster.apply_gateway(namespace)
    assert url == cluster.gateway_url
    apply(cluster, route(namespace, {"small": 900_000, "large": 100_000}))
    warm_up: Counter[str] = Counter()

    def both_answer() -> bool:
        for _ in range(10):
            if answer := ask(url):
                warm_up[answer[0]] += 1
        return warm_up.keys() == ips.keys()

    # One member's answer says nothing of the other, whose endpoints may reach the gateway seconds later.
    eventually(both_answer, what="an answer of each member")

    counts = count_members(url, requests := 1000)

    # 1000 draws at p = .1: mean 100, standard deviation sqrt(1000 * .1 * .9) = 9.5; five of them is one in a million.
    assert abs(counts["large"] - 100) < 5 * math.sqrt(1000 * 0.1 * 0.9)
    members = {ask(url) for _ in range(60)}
    assert members == set(ips.items())
    expected = requests + 60 + warm_up.total()

    def counted() -> float:
        name = f"httproute/{namespace}/chat/rule/0/backend/"
        result = query(cluster, f'sum(envoy_cluster_upstream_rq_total{{envoy_cluster_name=~"{name}[01]"}})')
        return float(result[0]["value"][1]) if result else 0.0

    eventually(lambda: counted() == expected)

    apply(cluster, route(namespace, {"small": 0, "large": 100_000}))
    # While the gateway takes a route in it may answer one request with 500: waited for here, as for the old weights.
    eventually(lambda: {answer[0] if (answer := ask(url)) else "error" for _ in range(20)} == {"large"})

    cluster.kill("envoy-gateway", signal.SIGKILL)
    cluster.restart("envoy-gateway")
    apply(cluster, route(namespace, {"small": 1, "large": 0}))
    eventually(lambda: (answer := ask(url)) is not None and answer[0] == "small")


@pytest.mark.usefixtures("pod_server")
def test_prometheus_discovers_pods_and_reads_dropped_in_targets(cluster: Cluster, namespace: str) -> None:
    apply(cluster, pod(namespace, "scraped"))
    ip = running(cluster, namespace, "scraped")["status"]["podIP"]

    found = eventually(lambda: query(cluster, f'up{{job="pods",namespace="{namespace}"}}'))
    assert found[0]["metric"] | {"pod": "scraped", "node": "cpu-0", "instance": f"{ip}:8000"} == found[0]["metric"]

    targets = cluster.run_dir / "prometheus" / "targets.d" / f"{namespace}.json"
    targets.write_text(json.dumps([{"targets": ["10.96.255.1:9090"], "labels": {"origin": namespace}}]))
    eventually(lambda: query(cluster, f'up{{job="files",origin="{namespace}"}} == 1'))
    targets.unlink()


def test_audit_log_holds_each_write_by_the_time_it_is_answered(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "serviceaccount", "writer", "-n", namespace)
    cluster.kubectl("get", "serviceaccount", "writer", "-n", namespace)

    events = [json.loads(line) for line in cluster.audit_log.read_text().splitlines()]
    ours = [e for e in events if e["objectRef"].get("name") == "writer" and e["objectRef"]["namespace"] == namespace]
    assert [(e["verb"], e["user"]["username"], e["responseStatus"]["code"]) for e in ours] == [
        ("create", "kubernetes-admin", 201)
    ]


def test_token_kubeconfig_carries_the_service_account_and_no_more(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "serviceaccount", "reader", "-n", namespace)

    kubeconfig = str(cluster.token_kubeconfig(namespace, "reader"))

    who = json.loads(cluster.kubectl("--kubeconfig", kubeconfig, "auth", "whoami", "-o", "json"))
    assert who["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:reader"
    with pytest.raises(CommandError, match="forbidden"):
        cluster.kubectl("--kubeconfig", kubeconfig, "get", "pods", "-n", namespace)


def test_each_process_can_be_paused_killed_and_restarted_alone(cluster: Cluster, namespace: str) -> None:
    cluster.kill("kube-scheduler")
    eventually(lambda: not cluster.alive("kube-scheduler"))
    apply(cluster, pod(namespace, "waiting"))
    time.sleep(1)  # that something does not happen takes time to see
    assert "nodeName" not in get(cluster, "pod", "waiting", "-n", namespace)["spec"]

    cluster.restart("kube-scheduler")
    running(cluster, namespace, "waiting")
    assert all(cluster.alive(name) for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kwok"))


def test_ended_processes_leave_no_zombies(cluster: Cluster) -> None:
    cluster.start("short", ["/bin/sh", "-c", "(sleep 0.2; true) & exit 7"])

    eventually(lambda: cluster.processes()["short"]["exit_code"] == 7)
    of_process_one = ["ps", "--ppid", "1", "-o", "stat="]  # whoever else has children collects them himself
    eventually(lambda: "Z" not in cluster.exec(of_process_one, capture_output=True, text=True).stdout)
