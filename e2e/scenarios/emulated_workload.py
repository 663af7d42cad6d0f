"""A small workload to play: one ModelProfile, a Deployment of GPU pods, its Service and an HTTPRoute to it."""

from __future__ import annotations

from typing import Any

PROFILE = "medium-a100"
MEMBER_HEADER = "x-wattzoo-member"
# An 8B model on one A100: steps of 11.8 + .176 b milliseconds, 295 W with one request, 400 W saturated, 105 us a
# prompt token. The points are that law at three concurrencies.
T0_MICROSECONDS, T1_MICROSECONDS, ACTIVE_WATTS, MAX_WATTS, PREFILL_MICROSECONDS = 11_800, 176, 295, 400, 105


def render_profile(namespace: str, name: str = PROFILE, startup_seconds: int = 5) -> dict[str, Any]:
    """Return the ModelProfile."""
    spec = {
        "points": [_render_point(batch) for batch in (8, 32, 128)],
        "kvCacheTokens": 400_000,
        "startup": {"seconds": startup_seconds, "joules": 100 * startup_seconds},
        "idleWatts": 53,
        "residentWatts": 80,
        "provenance": {"kind": "Derived", "source": "step time and power law of an 8B model on one A100"},
    }
    return _render("wattzoo.dev/v1alpha1", "ModelProfile", namespace, name, spec)


def _render_point(batch: int) -> dict[str, Any]:
    step = T0_MICROSECONDS + T1_MICROSECONDS * batch
    load = T1_MICROSECONDS * batch / step
    first = step + 512 * PREFILL_MICROSECONDS
    return {
        "runningRequests": batch,
        "contextTokens": 768,
        "inputTokens": 512,
        "outputTokensPerSecond": round(1e6 * batch / step),
        "powerWatts": round(ACTIVE_WATTS + (MAX_WATTS - ACTIVE_WATTS) * load),
        "timeToFirstTokenMicroseconds": {"p50": first, "p95": first},
        "timePerOutputTokenMicroseconds": {"p50": step, "p95": step},
    }


def render_workload(namespace: str, name: str, replicas: int, hostname: str, member: str) -> list[dict[str, Any]]:
    """Return Deployment, Service and HTTPRoute; the route names the member in the answer, as the operator's does."""
    labels = {"app": name}
    container = {
        "name": "server",
        "image": "example.invalid/server:1",
        "args": ["--max-num-seqs", "128"],
        "ports": [{"name": "http", "containerPort": 8000}],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
    }
    template = {
        "metadata": {"labels": labels, "annotations": _annotations(member)},
        "spec": {
            "terminationGracePeriodSeconds": 120,
            "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "containers": [container],
        },
    }
    deployment = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    service = {"selector": labels, "ports": [{"name": "http", "port": 8000, "targetPort": "http"}]}
    header = {"set": [{"name": MEMBER_HEADER, "value": member}]}
    backend = {
        "name": name,
        "port": 8000,
        "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": header}],
    }
    route = {
        "parentRefs": [{"name": "inference-gateway"}],
        "hostnames": [hostname],
        "rules": [{"backendRefs": [backend], "timeouts": {"request": "0s"}}],
    }
    return [
        _render("apps/v1", "Deployment", namespace, name, deployment),
        _render("v1", "Service", namespace, name, service),
        _render("gateway.networking.k8s.io/v1", "HTTPRoute", namespace, name, route),
    ]


def _annotations(member: str) -> dict[str, str]:
    return {"emulator.wattzoo.dev/profile": PROFILE, "emulator.wattzoo.dev/member": member}


def _render(api_version: str, kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": name}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}
