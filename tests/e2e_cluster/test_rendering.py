from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import components, gateway, kwok, manifests, prometheus
from e2e.cluster.api_client import collection_path
from e2e.cluster.components import Layout
from e2e.cluster.stack import served_resources

LAYOUT = Layout(Path("/run/x"))


def test_nodes_have_their_own_pod_networks_inside_the_one_that_is_routed() -> None:
    nodes = kwok.render_nodes({"l4": 2, "h100": 1, "cpu": 1}, "v1.2.3")

    assert [node["metadata"]["name"] for node in nodes] == ["l4-0", "l4-1", "h100-0", "cpu-0"]
    networks = [ipaddress.ip_network(node["spec"]["podCIDR"]) for node in nodes]
    assert not any(a.overlaps(b) for i, a in enumerate(networks) for b in networks[:i])
    whole = ipaddress.IPv4Network("10.244.0.0/16")
    assert all(isinstance(net, ipaddress.IPv4Network) and net.subnet_of(whole) for net in networks)


def test_only_gpu_nodes_are_tainted_and_hold_gpus() -> None:
    gpu, cpu = kwok.render_nodes({"b200": 1, "cpu": 1}, "v1.2.3")

    assert gpu["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-B200"
    assert gpu["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert [taint["effect"] for taint in gpu["spec"]["taints"]] == ["NoSchedule"]
    assert "taints" not in cpu["spec"]
    assert "nvidia.com/gpu" not in cpu["status"]["allocatable"]


FACTS: dict[str, tuple[dict[str, Any], ...]] = {
    kwok.GPU_QUERY: (kwok.HAS_GPU, kwok.HAS_NO_GPU),
    ".metadata.deletionTimestamp": (kwok.ALIVE, kwok.LEAVING),
    kwok.annotation(kwok.DRAINED_ANNOTATION): (kwok.DRAINED, kwok.NOT_DRAINED),
    ".status.phase": (kwok.PENDING, kwok.match(".status.phase", "In", "Running")),
}


def test_at_most_one_pod_stage_matches_any_pod() -> None:
    # kwok picks by chance among matching stages, so for every two of them some fact must hold in one and not in the
    # other: alive or leaving, with or without GPU, drained or not, pending or running.
    opposites = {frozenset(map(str, pair)) for pair in FACTS.values()}
    stages = [stage for stage in kwok.render_stages() if stage["spec"]["resourceRef"]["kind"] == "Pod"]
    for i, one in enumerate(stages):
        for other in stages[:i]:
            pairs = {
                frozenset({str(a), str(b)})
                for a in one["spec"]["selector"]["matchExpressions"]
                for b in other["spec"]["selector"]["matchExpressions"]
            }
            assert pairs & opposites, f"{one['metadata']['name']} and {other['metadata']['name']} may both match"


def test_status_templates_differ_only_in_readiness() -> None:
    ready, waiting = kwok.render_pod_status(ready=True), kwok.render_pod_status(ready=False)

    assert ready.replace('"True"', "?").replace("true", "?") == waiting.replace('"True"', "?").replace(
        '"False"', "?"
    ).replace("false", "?").replace("true", "?")
    assert 'status: "False", type: Ready' in waiting


def test_prometheus_configuration_covers_the_agreed_jobs() -> None:
    jobs = {job["job_name"]: job for job in yaml.safe_load(prometheus.render_config(LAYOUT))["scrape_configs"]}

    assert set(jobs) == {"pods", "dcgm", "envoy", "load", "wattzoo", "files"}
    assert jobs["dcgm"]["honor_labels"]
    assert jobs["wattzoo"]["static_configs"] == [{"targets": ["10.96.255.1:8080", "10.96.255.1:8082"]}]
    targets = {rule.get("target_label") for rule in jobs["pods"]["relabel_configs"]} - {None}
    assert targets == {"namespace", "pod", "node"}  # never a label that changes while a pod lives


def test_prometheus_may_only_look_at_pods() -> None:
    role, binding = prometheus.render_access()

    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    assert binding["subjects"][0]["name"] == "prometheus"


def test_gateway_takes_routes_of_every_namespace_and_uses_our_class() -> None:
    rendered = gateway.render_gateway("team")
    proxy, gateway_class = gateway.render_class()

    assert rendered["metadata"] == {"name": "inference-gateway", "namespace": "team"}
    assert rendered["spec"]["gatewayClassName"] == gateway_class["metadata"]["name"]
    assert rendered["spec"]["listeners"][0]["allowedRoutes"] == {"namespaces": {"from": "All"}}
    assert gateway_class["spec"]["parametersRef"]["name"] == proxy["metadata"]["name"]


def test_no_two_components_share_a_port() -> None:
    fixed = [gateway.LISTENER_PORT, gateway.KEEPER_PORT, prometheus.ENVOY_ADMIN_PORT, prometheus.EXPORTER_PORT]
    fixed += [prometheus.LOAD_PORT, *prometheus.OPERATOR_PORTS, components.PROMETHEUS_PORT, 2379, 2380, 6443, 10247]
    assert len(fixed) == len(set(fixed))


def test_audit_policy_counts_writes_once_and_reads_never() -> None:
    policy = yaml.safe_load(components.AUDIT_POLICY)

    assert policy["omitStages"] == ["RequestReceived"]
    never, pods, rest = policy["rules"]
    assert never == {"level": "None", "verbs": ["get", "list", "watch"]}
    assert pods["level"] == "RequestResponse"  # bodies, of two verbs on pods alone: `e2e.held` replays them
    assert (pods["verbs"], pods["resources"]) == (["create", "delete"], [{"group": "", "resources": ["pods"]}])
    assert rest == {"level": "Metadata"}


CRD = """\
{{- if .Values.crds.enabled }}
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  names: {plural: things, kind: Thing}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {description: long, type: object,
      properties: {description: {type: string, description: a field that is called description}}}}}
  - {name: v1alpha1, served: false, storage: false}
{{- end }}
"""


def test_slim_definitions_lose_prose_and_dead_versions_but_no_field() -> None:
    (definition,) = map(manifests.slim, manifests.parse_objects(CRD))

    (version,) = definition["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    assert schema == {"type": "object", "properties": {"description": {"type": "string"}}}
    assert served_resources([definition]) == {"example.com/v1": {"things"}}


@pytest.mark.parametrize(
    ("api_version", "kind", "namespace", "path"),
    [
        ("v1", "Node", None, "/api/v1/nodes"),
        ("gateway.networking.k8s.io/v1", "Gateway", "a", "/apis/gateway.networking.k8s.io/v1/namespaces/a/gateways"),
        ("gateway.networking.k8s.io/v1", "GatewayClass", None, "/apis/gateway.networking.k8s.io/v1/gatewayclasses"),
    ],
)
def test_collection_paths(api_version: str, kind: str, namespace: str | None, path: str) -> None:
    metadata = {"name": "x"} | ({"namespace": namespace} if namespace else {})
    assert collection_path({"apiVersion": api_version, "kind": kind, "metadata": metadata}) == path
