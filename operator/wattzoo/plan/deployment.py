"""The Deployment of a server variant.

Whatever is rendered into the pod template for an unchanged spec must never change between versions of the operator: a
new byte there rolls every GPU pod of every user (golden test).
"""

from __future__ import annotations

from typing import Any

from wattzoo.api.accelerator_pool import AcceleratorPoolSpec, Toleration
from wattzoo.api.model_pool import Member, ModelPoolSpec, Variant
from wattzoo.api.server import EnvironmentVariable, Server
from wattzoo.labels import owner_reference, pod_labels, selector_labels, variant_labels, variant_name
from wattzoo.model import SERVER_PORT, Manifest, VariantKey

CONTAINER = "server"
PORT_NAME = "http"
CACHE_PATH = "/var/cache/models"
CACHE_VARIABLE = "HF_HOME"
SHARED_MEMORY_GIB_PER_ACCELERATOR = 4
PROBE_PERIOD_SECONDS = 5
READINESS_FAILURES = 3
TERMINATION_MARGIN_SECONDS = 30
ENDPOINT_REMOVAL_SECONDS = 5
PROGRESS_MARGIN_SECONDS = 300

DRAIN_SCRIPT = f"""
import time, urllib.request
end = time.monotonic() + %(timeout)d
time.sleep({ENDPOINT_REMOVAL_SECONDS})
while time.monotonic() < end:
    text = urllib.request.urlopen("http://127.0.0.1:{SERVER_PORT}/metrics", timeout=5).read().decode()
    busy = [l for l in text.splitlines() if l.startswith(("vllm:num_requests_running", "vllm:num_requests_waiting"))]
    if not any(float(l.rsplit(" ", 1)[1]) for l in busy):
        break
    time.sleep(1)
""".strip()
"""Runs before SIGTERM, at which vLLM drops what it is generating: leave once nothing runs, or at the drain timeout."""


def render_server_args(pool: ModelPoolSpec, member: Member, variant: Variant, server: Server) -> list[str]:
    """The operator's arguments first, then the user's; the API refuses users' arguments that would override ours."""
    return [
        f"--model={member.model}",
        f"--served-model-name={pool.served_model_name}",
        f"--tensor-parallel-size={variant.accelerators}",
        "--host=0.0.0.0",
        f"--port={SERVER_PORT}",
        *server.args,
    ]


def _render_environment(server: Server) -> list[dict[str, Any]]:
    rendered = [_render_variable(variable) for variable in server.env]
    if server.model_cache is not None and all(variable.name != CACHE_VARIABLE for variable in server.env):
        rendered.insert(0, {"name": CACHE_VARIABLE, "value": CACHE_PATH})
    return rendered


def _render_variable(variable: EnvironmentVariable) -> dict[str, Any]:
    if variable.secret_key_ref is not None:
        ref = {"name": variable.secret_key_ref.name, "key": variable.secret_key_ref.key}
        return {"name": variable.name, "valueFrom": {"secretKeyRef": ref}}
    if variable.config_map_key_ref is not None:
        ref = {"name": variable.config_map_key_ref.name, "key": variable.config_map_key_ref.key}
        return {"name": variable.name, "valueFrom": {"configMapKeyRef": ref}}
    return {"name": variable.name, "value": variable.value or ""}


def _render_volumes(variant: Variant, server: Server) -> list[dict[str, Any]]:
    shared = f"{SHARED_MEMORY_GIB_PER_ACCELERATOR * variant.accelerators}Gi"
    volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shared}}]
    cache = server.model_cache
    if cache is not None and cache.claim_name is not None:
        volumes.append({"name": "model-cache", "persistentVolumeClaim": {"claimName": cache.claim_name}})
    elif cache is not None and cache.empty_dir is not None:
        limit = cache.empty_dir.size_limit
        volumes.append({"name": "model-cache", "emptyDir": {} if limit is None else {"sizeLimit": limit}})
    return volumes


def _render_probe(failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": "/health", "port": PORT_NAME},
        "periodSeconds": PROBE_PERIOD_SECONDS,
        "failureThreshold": failures,
    }


def _render_container(
    pool: ModelPoolSpec, member: Member, variant: Variant, server: Server, resource_name: str
) -> dict[str, Any]:
    accelerators = str(variant.accelerators)
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108 (a mount point in a container)
    if server.model_cache is not None:
        mounts.append({"name": "model-cache", "mountPath": CACHE_PATH})
    drain = DRAIN_SCRIPT % {"timeout": pool.scaling.drain_timeout_seconds}
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": server.image,
        "args": render_server_args(pool, member, variant, server),
        "ports": [{"name": PORT_NAME, "containerPort": SERVER_PORT, "protocol": "TCP"}],
        "resources": {
            "requests": {"cpu": server.resources.cpu, "memory": server.resources.memory, resource_name: accelerators},
            "limits": {"memory": server.resources.memory, resource_name: accelerators},
        },
        "volumeMounts": mounts,
        "startupProbe": _render_probe(-(-server.startup.timeout_seconds // PROBE_PERIOD_SECONDS)),
        "readinessProbe": _render_probe(READINESS_FAILURES),
        "lifecycle": {"preStop": {"exec": {"command": ["python3", "-c", drain]}}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if environment := _render_environment(server):
        container["env"] = environment
    return container


def render_toleration(toleration: Toleration) -> dict[str, str]:
    """A toleration as Kubernetes writes it."""
    return {key: str(value) for key, value in toleration.to_manifest().items()}


def _render_pod_spec(
    pool: ModelPoolSpec, member: Member, variant: Variant, server: Server, hardware: AcceleratorPoolSpec
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [_render_container(pool, member, variant, server, hardware.resource_name)],
        "nodeSelector": dict(sorted(hardware.node_selector.items())),
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": pool.scaling.drain_timeout_seconds + TERMINATION_MARGIN_SECONDS,
        "volumes": _render_volumes(variant, server),
    }
    if hardware.tolerations:
        spec["tolerations"] = [render_toleration(toleration) for toleration in hardware.tolerations]
    if server.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret.name} for secret in server.image_pull_secrets]
    return spec


def render_deployment(
    owner: Manifest,
    pool: ModelPoolSpec,
    member: Member,
    variant: Variant,
    hardware: AcceleratorPoolSpec,
    replicas: int,
) -> Manifest:
    """The Deployment of a `server` variant with this many replicas, owned by the ModelPool.

    No surge: a rollout must not hold more accelerators than the cap was checked for.
    """
    if variant.server is None:
        raise ValueError(f"variant {variant.name} has no server to render")
    name, key = owner["metadata"]["name"], VariantKey(member.name, variant.name)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": variant_name(name, key),
            "namespace": owner["metadata"]["namespace"],
            "labels": variant_labels(name, key),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": variant.server.startup.timeout_seconds + PROGRESS_MARGIN_SECONDS,
            "selector": {"matchLabels": selector_labels(name, key)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": pod_labels(name, key, variant.accelerator_pool)},
                "spec": _render_pod_spec(pool, member, variant, variant.server, hardware),
            },
        },
    }


def render_scale(namespace: str, name: str, replicas: int) -> Manifest:
    """The only field of an adopted Deployment that is ours."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": replicas},
    }
