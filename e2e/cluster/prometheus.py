"""What Prometheus scrapes: pods by discovery, everything that plays hardware or a process by fixed address."""

from __future__ import annotations

from typing import Any

import yaml

from e2e.cluster.certificates import API_SERVER_URL, PROMETHEUS
from e2e.cluster.components import Layout
from e2e.cluster.init import HOST_IP

SCRAPE_INTERVAL = "2s"
ENVOY_ADMIN_PORT = 19901
EXPORTER_PORT = 9400
LOAD_PORT = 9500
OPERATOR_PORTS = (8080, 8082)


def render_static_job(name: str, ports: tuple[int, ...], **extra: Any) -> dict[str, Any]:
    """A job with fixed targets on the address that plays the host."""
    return {"job_name": name, "static_configs": [{"targets": [f"{HOST_IP}:{port}" for port in ports]}], **extra}


def render_pods_job(layout: Layout) -> dict[str, Any]:
    """Every pod with a container port named http. Ready or not, because a silent server still burns watts.

    Labels that change while a pod lives are never copied: each change would start new series.
    """
    tls = {"ca_file": layout.certificate("ca.crt")}
    tls |= {"cert_file": layout.certificate(f"{PROMETHEUS.file}.crt")}
    tls |= {"key_file": layout.certificate(f"{PROMETHEUS.file}.key")}
    discovery = {"role": "pod", "api_server": API_SERVER_URL, "tls_config": tls}
    source = "__meta_kubernetes_"
    relabel = [
        {"source_labels": [f"{source}pod_container_port_name"], "regex": "http", "action": "keep"},
        {"source_labels": [f"{source}pod_phase"], "regex": "Running", "action": "keep"},
        {"source_labels": [f"{source}namespace"], "target_label": "namespace"},
        {"source_labels": [f"{source}pod_name"], "target_label": "pod"},
        {"source_labels": [f"{source}pod_node_name"], "target_label": "node"},
    ]
    return {"job_name": "pods", "kubernetes_sd_configs": [discovery], "relabel_configs": relabel}


def render_config(layout: Layout) -> str:
    """prometheus.yaml."""
    files = {"files": [str(layout.prometheus_dir / "targets.d" / "*.json")], "refresh_interval": "5s"}
    jobs = [
        render_pods_job(layout),
        render_static_job("dcgm", (EXPORTER_PORT,), honor_labels=True),
        render_static_job("envoy", (ENVOY_ADMIN_PORT,), metrics_path="/stats/prometheus"),
        render_static_job("load", (LOAD_PORT,), honor_labels=True),
        render_static_job("wattzoo", OPERATOR_PORTS, honor_labels=True),
        {"job_name": "files", "honor_labels": True, "file_sd_configs": [files]},
    ]
    intervals = {"scrape_interval": SCRAPE_INTERVAL, "scrape_timeout": SCRAPE_INTERVAL, "evaluation_interval": "5s"}
    return yaml.safe_dump({"global": intervals, "scrape_configs": jobs}, sort_keys=False)


def render_access() -> list[dict[str, Any]]:
    """The right to discover pods, and nothing else."""
    group = "rbac.authorization.k8s.io"
    name = "prometheus-pods"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": PROMETHEUS.user}],
    }
    return [role, binding]
