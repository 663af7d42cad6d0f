"""A small zoo as files: two models on two kinds of GPU, one service, and traces to replay on it."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

API = "wattzoo.dev/v1alpha1"


def accelerator_pool(name: str, accelerators: int | None, product: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "nodeSelector": {"nvidia.com/gpu.product": product},
        "allowedNamespaces": {"names": ["demo"]},
    }
    if accelerators is not None:
        spec["maxAccelerators"] = accelerators
    return {"apiVersion": API, "kind": "AcceleratorPool", "metadata": {"name": name}, "spec": spec}


def profile(name: str, step_us: float, per_request_us: float, watts: tuple[int, int, int]) -> dict[str, Any]:
    """Points of the law: a step of b requests lasts step + b * per_request; watts idle, with one request, saturated."""
    idle, active, most = watts
    points = []
    for batch in (1, 8, 32, 64):
        step = step_us + batch * per_request_us
        load = batch * per_request_us / step
        first = int(step + 1024 * 50)
        points.append(
            {
                "runningRequests": batch,
                "contextTokens": 1024,
                "inputTokens": 1024,
                "outputTokensPerSecond": int(batch / step * 1e6),
                "powerWatts": int(active + (most - active) * load),
                "timeToFirstTokenMicroseconds": {"p50": first, "p95": first},
                "timePerOutputTokenMicroseconds": {"p50": int(step), "p95": int(step)},
            }
        )
    spec = {
        "points": points,
        "kvCacheTokens": 400_000,
        "startup": {"seconds": 60, "joules": 60 * idle},
        "residentWatts": idle,
        "provenance": {"kind": "Derived", "source": "test"},
    }
    return {"apiVersion": API, "kind": "ModelProfile", "metadata": {"name": name}, "spec": spec}


def variant(name: str, pool: str, profile_name: str, accelerators: int) -> dict[str, Any]:
    return {
        "name": name,
        "acceleratorPool": pool,
        "acceleratorsPerReplica": accelerators,
        "profile": profile_name,
        "server": {"image": "vllm/vllm-openai:v0.11.0"},
    }


def service(name: str = "chat", target: int = 520, pool: str = "zoo") -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": "LLMService",
        "metadata": {"name": name, "namespace": "demo"},
        "spec": {
            "modelPoolRef": {"name": pool},
            "safestMember": "large",
            "members": [
                {"name": "small", "accuracyPriorPerMille": 430, "priorSamples": 200},
                {"name": "large", "accuracyPriorPerMille": 630, "priorSamples": 200},
            ],
            "sla": {
                "accuracy": {"targetPerMille": target},
                "latency": {
                    "timeToFirstToken": {"p95Milliseconds": 2000},
                    "timePerOutputToken": {"p95Milliseconds": 60},
                },
            },
            "traffic": {"parentRefs": [{"name": "gateway"}]},
            "feedback": {"prometheus": {"matchLabels": {"service": name}}},
        },
    }


def zoo() -> list[dict[str, Any]]:
    """Objects by index: 0 and 1 accelerator pools, 2 and 3 profiles, 4 the ModelPool, 5 the LLMService."""
    members = [
        {"name": "small", "model": "org/small-8b", "variants": [variant("a100", "a100", "small-a100", 1)]},
        {"name": "large", "model": "org/large-70b", "variants": [variant("h100", "h100", "large-h100x4", 4)]},
    ]
    pool = {
        "apiVersion": API,
        "kind": "ModelPool",
        "metadata": {"name": "zoo", "namespace": "demo"},
        "spec": {"servedModelName": "zoo", "members": members},
    }
    return [
        accelerator_pool("a100", 8, "NVIDIA-A100-SXM4-80GB"),
        accelerator_pool("h100", 32, "NVIDIA-H100-80GB-HBM3"),
        profile("small-a100", 11_800, 176, (80, 295, 400)),
        profile("large-h100x4", 16_300, 138, (464, 1664, 2650)),
        pool,
        service(),
    ]


def write_zoo(
    path: Path,
    change: Callable[[list[dict[str, Any]]], None] | None = None,
    objects: list[dict[str, Any]] | None = None,
) -> Path:
    """Write the zoo as one multi-document file, changed by `change`."""
    written = copy.deepcopy(zoo() if objects is None else objects)
    if change is not None:
        change(written)
    path.write_text(yaml.safe_dump_all(written), encoding="utf-8")
    return path


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(list(header))
        writer.writerows(rows)
    return path


def write_trace(path: Path, minutes: float = 20.0, rate_rps: float = 5.0) -> Path:
    """Poisson arrivals of one service with prompts of about 1,000 tokens and answers of about 200."""
    rng = np.random.default_rng(7)
    times = np.cumsum(rng.exponential(1.0 / rate_rps, int(minutes * 60 * rate_rps)))
    tokens = zip(rng.integers(500, 1500, len(times)), rng.integers(50, 350, len(times)), strict=True)
    rows = [[f"{at:.3f}", first, further] for at, (first, further) in zip(times, tokens, strict=True)]
    return write_csv(path, ["t_s", "in_tokens", "out_tokens"], rows)


def write_outcomes(path: Path, small: float = 0.43, large: float = 0.63, count: int = 400) -> Path:
    rows = [[f"q{n}", int(n < small * count), int(n < large * count)] for n in range(count)]
    return write_csv(path, ["request_id", "correct_small", "correct_large"], rows)
