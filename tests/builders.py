"""Small valid objects for tests: every builder returns plain data that the API server would accept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from wattzoo.model import Manifest, Sample, Series, Signal, TelemetrySnapshot

NAMESPACE = "team-a"
START_SECONDS = 1_700_000_000.0
API_VERSION = "wattzoo.dev/v1alpha1"


def time_text(at_seconds: float) -> str:
    """A Kubernetes timestamp."""
    return datetime.fromtimestamp(at_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_meta(name: str, namespace: str | None = NAMESPACE, **more: Any) -> Manifest:
    """Metadata of an object that exists."""
    meta: Manifest = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1", "generation": 1, **more}
    return meta if namespace is None else {"namespace": namespace, **meta}


def make_accelerator_pool(name: str = "h100", product: str = "NVIDIA-H100-80GB-HBM3", **spec: Any) -> Manifest:
    """A pool of H100s that every namespace may use."""
    return {
        "apiVersion": API_VERSION,
        "kind": "AcceleratorPool",
        "metadata": make_meta(name, None),
        "spec": {
            "nodeSelector": {"nvidia.com/gpu.product": product},
            "resourceName": "nvidia.com/gpu",
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "allowedNamespaces": {"all": True},
            **spec,
        },
    }


def make_node(name: str = "h100-0", product: str = "NVIDIA-H100-80GB-HBM3", accelerators: int = 8) -> Manifest:
    """A ready node with accelerators."""
    amount = {"nvidia.com/gpu": str(accelerators)}
    return {
        "metadata": make_meta(name, None, labels={"nvidia.com/gpu.product": product}),
        "spec": {},
        "status": {
            "capacity": amount,
            "allocatable": amount,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def make_variant(name: str = "h100", profile: str = "fast", **more: Any) -> Manifest:
    """A rendered server on one accelerator of the pool of its own name."""
    variant: Manifest = {"name": name, "profile": profile, "acceleratorPool": name, "acceleratorsPerReplica": 1}
    if "workloadRef" not in more and "serviceRef" not in more:
        variant["server"] = {"image": "vllm/vllm-openai:v0.11.0"}
    if "serviceRef" in more:
        variant = {"name": name, "profile": profile}
    return {**variant, **more}


def make_member(name: str = "large", variants: Sequence[Manifest] | None = None) -> Manifest:
    """A member with one rendered variant."""
    return {"name": name, "model": f"example/{name}", "variants": list(variants or [make_variant()])}


def make_model_pool(name: str = "zoo", members: Sequence[Manifest] | None = None, **spec: Any) -> Manifest:
    """A zoo of a small and a large member, one variant each on H100s."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelPool",
        "metadata": make_meta(name),
        "spec": {
            "servedModelName": "chat",
            "members": list(members or [make_member("small"), make_member("large")]),
            **spec,
        },
    }


def make_profile(name: str = "fast", tokens_per_second: int = 1000, **spec: Any) -> Manifest:
    """A replica that makes 100 output tokens per request and, at 32 running requests, `tokens_per_second`.

    The time per output token rises from 10 ms at one running request to 32 ms at 32; power from 300 W to 600 W.
    """

    def point(running: int, tokens: int, watts: int, tpot: int) -> Manifest:
        return {
            "runningRequests": running,
            "contextTokens": 250,
            "inputTokens": 200,
            "outputTokensPerSecond": tokens,
            "powerWatts": watts,
            "timeToFirstTokenMicroseconds": {"p50": 50_000, "p95": 100_000},
            "timePerOutputTokenMicroseconds": {"p50": tpot, "p95": tpot},
        }

    return {
        "apiVersion": API_VERSION,
        "kind": "ModelProfile",
        "metadata": make_meta(name),
        "spec": {
            "points": [
                point(1, max(1, tokens_per_second // 10), 300, 10_000),
                point(32, tokens_per_second, 600, 32_000),
            ],
            "kvCacheTokens": 1_000_000,
            "startup": {"seconds": 60, "joules": 9000},
            "residentWatts": 100,
            "provenance": {"kind": "Derived", "source": "a test"},
            **spec,
        },
    }


def make_llm_service(name: str = "chat", pool: str = "zoo", target_per_mille: int = 800, **spec: Any) -> Manifest:
    """A service that promises 80 % and starts at the large member."""
    return {
        "apiVersion": API_VERSION,
        "kind": "LLMService",
        "metadata": make_meta(name),
        "spec": {
            "modelPoolRef": {"name": pool},
            "safestMember": "large",
            "sla": {"accuracy": {"targetPerMille": target_per_mille}},
            "traffic": {"parentRefs": [{"name": "inference-gateway"}]},
            "feedback": {"prometheus": {"metric": "wattzoo_feedback_total", "matchLabels": {"service": name}}},
            **spec,
        },
    }


def make_pod(
    name: str,
    labels: Mapping[str, str],
    *,
    ready_since: float | None = None,
    unplaced_since: float | None = None,
    terminating: bool = False,
    accelerators: int = 1,
    namespace: str = NAMESPACE,
) -> Manifest:
    """A pod that is ready since a time, or waits for a node since a time, or starts."""
    conditions = []
    if ready_since is not None:
        conditions.append({"type": "Ready", "status": "True", "lastTransitionTime": time_text(ready_since)})
    if unplaced_since is not None:
        conditions.append(
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
                "lastTransitionTime": time_text(unplaced_since),
            }
        )
    meta = make_meta(name, namespace, labels=dict(labels))
    if terminating:
        meta["deletionTimestamp"] = time_text(START_SECONDS)
    amount = {"nvidia.com/gpu": str(accelerators)} if accelerators else {}
    return {
        "metadata": meta,
        "spec": {"containers": [{"name": "server", "resources": {"requests": amount, "limits": amount}}]},
        "status": {"phase": "Running" if ready_since is not None else "Pending", "conditions": conditions},
    }


def make_series(name: str, points: Sequence[tuple[float, float]], **labels: str) -> Series:
    """A series from (seconds, value) pairs."""
    return Series(name, labels, tuple(Sample(value, at) for at, value in points))


def make_counter(name: str, at_seconds: float, rate: float, **labels: str) -> Series:
    """A counter that grows by `rate` per second, scraped every 5 s for 45 s up to `at_seconds`."""
    times = [at_seconds - 45.0 + 5.0 * step for step in range(10)]
    start = rate * (at_seconds - START_SECONDS + 1000.0)
    return make_series(name, [(at, start + rate * (at - at_seconds)) for at in times], **labels)


def make_gauge(name: str, at_seconds: float, value: float, **labels: str) -> Series:
    """A gauge with one fresh sample."""
    return make_series(name, [(at_seconds - 1.0, value)], **labels)


def make_pod_series(
    pod: str, at_seconds: float, rps: float, watts: float, running: float = 2.0
) -> dict[str, list[Series]]:
    """Everything that one busy server and its accelerator say: 200 prompt and 100 output tokens per request."""
    who = {"namespace": NAMESPACE, "pod": pod}
    return {
        "engine_gauges": [
            make_gauge(Signal.REQUESTS_RUNNING, at_seconds, running, **who),
            make_gauge(Signal.REQUESTS_WAITING, at_seconds, 0.0, **who),
        ],
        "engine_counters": [
            make_counter(Signal.REQUESTS_SUCCEEDED, at_seconds, rps, **who),
            make_counter(Signal.PROMPT_TOKENS, at_seconds, 200.0 * rps, **who),
            make_counter(Signal.GENERATION_TOKENS, at_seconds, 100.0 * rps, **who),
        ],
        "engine_latency": [],
        "gpu_power": [make_gauge(Signal.POWER_WATTS, at_seconds, watts, **who)],
        "gpu_energy": [make_counter(Signal.ENERGY_JOULES, at_seconds, watts, **who)],
    }


def make_gateway_counter(service: str, index: int, at_seconds: float, rps: float) -> Series:
    """Envoy's counter of one backendRef."""
    name = f"httproute/{NAMESPACE}/{service}/rule/0/backend/{index}"
    return make_counter(Signal.GATEWAY_REQUESTS, at_seconds, rps, envoy_cluster_name=name)


def make_feedback(service: str, member: str, at_seconds: float, satisfied: float, unsatisfied: float) -> list[Series]:
    """The application's two counters for one member."""
    labels = {"__name__": "wattzoo_feedback_total", "namespace": NAMESPACE, "service": service, "member": member}
    return [
        make_gauge(Signal.FEEDBACK, at_seconds, satisfied, outcome="satisfied", **labels),
        make_gauge(Signal.FEEDBACK, at_seconds, unsatisfied, outcome="unsatisfied", **labels),
    ]


def make_telemetry(at_seconds: float, *parts: Mapping[str, Sequence[Series]]) -> TelemetrySnapshot:
    """A snapshot in which every group was read."""
    names = ("engine_gauges", "engine_counters", "engine_latency", "gpu_power", "gpu_energy", "gateway", "feedback")
    groups: dict[str, list[Series]] = {name: [] for name in names}
    for part in parts:
        for group, series in part.items():
            groups[group] += series
    return TelemetrySnapshot(at_seconds, groups, {})


def make_silence(at_seconds: float, problem: str = "ConnectionError: refused") -> TelemetrySnapshot:
    """What is known while Prometheus does not answer."""
    names = ("engine_gauges", "engine_counters", "engine_latency", "gpu_power", "gpu_energy", "gateway", "feedback")
    return TelemetrySnapshot(at_seconds, {}, dict.fromkeys(names, problem))


NAN = math.nan
