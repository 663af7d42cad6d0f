"""From what the API server and Prometheus answer to the rows of a recording. Pure: raw JSON in, frozen rows out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from e2e.demo.recording import EnergySample, LatencyCount, PodLife, Replicas
from wattzoo.model import LABEL_SERVING

Manifest = Mapping[str, Any]
RawSeries = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VariantView:
    """One variant of the watched pool and how to find its pieces: its backend's name, its Deployment's."""

    name: str
    member: str
    backend: str
    deployment: str


def list_variants(pool: Manifest) -> tuple[VariantView, ...]:
    """Return the scalable variants of a ModelPool in the order of its spec."""
    views = []
    for member in pool["spec"]["members"]:
        for variant in member["variants"]:
            backend = f"{pool['metadata']['name']}-{member['name']}-{variant['name']}"
            deployment = variant.get("workloadRef", {}).get("name", backend)
            views.append(VariantView(f"{member['name']}-{variant['name']}", member["name"], backend, deployment))
    return tuple(views)


def route_weights(route: Manifest, variants: Sequence[VariantView]) -> dict[str, float]:
    """Return the share of each variant in an HTTPRoute of one rule; empty when nothing is weighted."""
    names = {variant.backend: variant.name for variant in variants}
    weights: dict[str, float] = defaultdict(float)
    for backend in route["spec"]["rules"][0].get("backendRefs", ()):
        weights[names.get(backend["name"], backend["name"])] += backend.get("weight", 1)
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()} if total else {}


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Return whether all labels of the selector are there."""
    return all(labels.get(key) == value for key, value in selector.items())


def pod_variants(
    pods: Iterable[Manifest], deployments: Iterable[Manifest], variants: Sequence[VariantView]
) -> dict[str, list[Manifest]]:
    """Return the pods of each variant, by the selector of its Deployment."""
    selectors = {item["metadata"]["name"]: item["spec"]["selector"]["matchLabels"] for item in deployments}
    known = [(variant.name, selectors[variant.deployment]) for variant in variants if variant.deployment in selectors]
    found: dict[str, list[Manifest]] = {name: [] for name, _ in known}
    for pod in pods:
        for name, selector in known:
            if matches(pod["metadata"].get("labels", {}), selector):
                found[name].append(pod)
    return found


def is_ready(pod: Manifest) -> bool:
    """Return whether the pod can serve."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def is_leaving(pod: Manifest) -> bool:
    """Return whether somebody asked the pod to go."""
    return pod["metadata"].get("deletionTimestamp") is not None


def is_meant_to_serve(pod: Manifest) -> bool:
    """Return whether traffic goes to the pod once it is ready; pods that say nothing (adopted ones) take theirs."""
    return bool(pod["metadata"].get("labels", {}).get(LABEL_SERVING, "true") == "true")


def count_replicas(desired: int, pods: Sequence[Manifest]) -> Replicas:
    """Return pods by what they do at this moment."""
    staying = [pod for pod in pods if not is_leaving(pod)]
    ready = sum(is_ready(pod) for pod in staying)
    return Replicas(desired, ready, len(staying) - ready, len(pods) - len(staying))


def follow_pods(
    lives: Mapping[str, PodLife], pods: Mapping[str, Sequence[Manifest]], at_seconds: float
) -> dict[str, PodLife]:
    """Return the pods' lives after another look at them; a life begins when the pod holds GPUs of a node."""
    after = dict(lives)
    present: set[str] = set()
    for variant, members in pods.items():
        for pod in members:
            if not pod["spec"].get("nodeName"):
                continue
            uid = pod["metadata"]["uid"]
            present.add(uid)
            life = after.get(uid) or PodLife(variant, pod["metadata"]["name"], at_seconds)
            if life.ready_at_seconds is None and is_ready(pod):
                life = replace(life, ready_at_seconds=at_seconds)
            if life.terminating_at_seconds is None and is_leaving(pod):
                life = replace(life, terminating_at_seconds=at_seconds)
            steps, serving = life.serving_steps or (), is_meant_to_serve(pod)
            if not steps or steps[-1][1] is not serving:
                life = replace(life, serving_steps=(*steps, (at_seconds, serving)))
            after[uid] = life
    for uid, life in after.items():
        if uid not in present and life.gone_at_seconds is None:
            after[uid] = replace(life, gone_at_seconds=at_seconds)
    return after


def condition(item: Manifest, kind: str) -> Mapping[str, Any]:
    """Return a condition of an object, empty when it has none of that type."""
    conditions = item.get("status", {}).get("conditions", ())
    return next((entry for entry in conditions if entry["type"] == kind), {})


def decision_line(service: Manifest) -> str:
    """Return the last decision of an LLMService in one line; empty before the first."""
    decision = service.get("status", {}).get("decision") or {}
    return ": ".join(part for part in (decision.get("reason"), decision.get("message")) if part)


def achieved_shares(series: Iterable[RawSeries]) -> dict[str, float | None]:
    """Return the satisfied share by service from feedback counters (an instant query's result)."""
    counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in series:
        counts[row["metric"]["service"]][row["metric"]["outcome"]] += float(row["value"][1])
    shares: dict[str, float | None] = {}
    for service, outcomes in counts.items():
        total = sum(outcomes.values())
        shares[service] = outcomes["satisfied"] / total if total else None
    return shares


def scalar(series: Sequence[RawSeries]) -> float | None:
    """Return the value of an instant query that yields one number; None when it yields nothing."""
    return float(series[0]["value"][1]) if series else None


def energy_samples(series: Iterable[RawSeries], namespace: str, origin: float) -> list[EnergySample]:
    """Return the scrapes of GPU energy counters (millijoules) as joules, with the pod of ours that owned the GPU."""
    rows = []
    for entry in series:
        labels = entry["metric"]
        pod = labels.get("pod") if labels.get("namespace") == namespace else None
        rows += [EnergySample(labels["UUID"], pod or None, t - origin, float(v) / 1000) for t, v in entry["values"]]
    return rows


def latency_counts(
    series: Iterable[RawSeries], ttft_bound: float, tpot_bound: float, origin: float
) -> list[LatencyCount]:
    """Return the scrapes of engines' latency histograms: how many requests so far, how many within the bounds.

    A bound without a bucket of its own is refused, since the nearest bucket would be another promise.
    """
    wanted = {
        ("vllm:time_to_first_token_seconds_bucket", ttft_bound): "ttft_within",
        ("vllm:time_to_first_token_seconds_bucket", float("inf")): "ttft_total",
        ("vllm:request_time_per_output_token_seconds_bucket", tpot_bound): "tpot_within",
        ("vllm:request_time_per_output_token_seconds_bucket", float("inf")): "tpot_total",
    }
    table: dict[tuple[str, float], dict[str, float]] = defaultdict(dict)
    for entry in series:
        labels = entry["metric"]
        field = wanted.get((labels["__name__"], float(labels["le"])))
        if field is not None:
            for at_seconds, value in entry["values"]:
                table[labels["pod"], at_seconds - origin][field] = float(value)
    if series and not table:
        raise ValueError(f"no histogram has buckets at {ttft_bound} s (first token) and {tpot_bound} s (per token)")
    complete = [(pod, at, row) for (pod, at), row in sorted(table.items()) if len(row) == len(wanted)]
    return [LatencyCount(pod, at, **row) for pod, at, row in complete]


def unix_seconds(text: str) -> float:
    """Return a Kubernetes time as Unix seconds."""
    return datetime.fromisoformat(text).timestamp()
