"""Write examples/profiles/*.yaml: ModelProfiles for kubectl, from the figures under examples/data.

Two kinds of source. A *law* (t0, t1, prefill, watts; published fits and figures derived from them) is evaluated at
rising concurrency. *Measured* rows of one GPU are taken as they are. Either way a point is steady decoding of so many
sequences, its time to first token that of a prompt which finds no queue: prefill and one step; its 95th percentile has
the prompt arrive just after a step began. Every profile is read back through the API model before it is written.

    python scripts/make_profiles.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wattzoo.api.model_profile import ModelProfile
from wattzoo_policies.capacity.model import START_POWER_RATIO

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "examples" / "data"
TARGET = ROOT / "examples" / "profiles"
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
CONTEXT_TOKENS = 1024
HEADER = "# Written by scripts/make_profiles.py from examples/data; see the README there for sources and licences.\n"


@dataclass(frozen=True)
class Point:
    """Steady decoding at one batch, and what a prompt token costs there."""

    batch: int
    step_seconds: float
    watts: float
    prefill_seconds_per_token: float


def main() -> None:
    """Write one profile per law and per measured (model, GPU)."""
    figures = json.loads((DATA / "replica_models.json").read_text(encoding="utf-8"))
    rows = json.loads((DATA / "gpu_measurements.json").read_text(encoding="utf-8"))
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, law in figures["laws"].items():
        provenance = {"kind": law["kind"], "source": law["source"]}
        write(
            name, spec_of(figures, law["model"], law["accelerator"], law["accelerators"], law_points(law), provenance)
        )
    for gpu in figures["measured"]["gpus"]:
        mine = [row for row in rows if row["gpu"] == gpu]
        for model in sorted({row["model"] for row in mine if row["phase"] == "decode"}):
            points = measured_points(
                [row for row in mine if row["model"] == model], figures["measured"]["prompt_tokens"]
            )
            provenance = {
                "kind": "Measured",
                "source": f"one {gpu.upper()}, {model} shape with random weights, CUDA graphs, context 1,024: a lower "
                "bound for a serving engine (gpu_measurements.json)",
                "sampleCount": len(points),
            }
            name = f"{model.replace('.', '-')}-{gpu}"
            write(name, spec_of(figures, model, gpu, 1, points, provenance))


def law_points(law: dict[str, Any]) -> list[Point]:
    """Evaluate t0 + t1*b and the affine power at the usual batches."""
    points = []
    for batch in BATCHES:
        step = (law["t0_ms"] + law["t1_ms"] * batch) / 1e3
        load = law["t1_ms"] / 1e3 * batch / step
        watts = law["active_watts"] + (law["max_watts"] - law["active_watts"]) * load
        points.append(Point(batch, step, watts, law["prefill_us_per_token"] / 1e6))
    return points


def measured_points(rows: Sequence[dict[str, Any]], prompt_tokens: int) -> list[Point]:
    """Return measured decode rows with the prefill time per token of the row with that prompt."""
    prefill = next(row for row in rows if row["phase"] == "prefill" and row["context"] == prompt_tokens)
    per_token = prefill["step_ms"] / 1e3 / prompt_tokens
    decode = sorted((row for row in rows if row["phase"] == "decode"), key=lambda row: row["batch"])
    return [Point(int(row["batch"]), row["step_ms"] / 1e3, row["watts"], per_token) for row in decode]


def spec_of(
    figures: dict[str, Any],
    model: str,
    accelerator: str,
    count: int,
    points: Sequence[Point],
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Return the profile's spec; the KV cache is what the weights and a reserve leave of the memory in use."""
    gpu, shape, memory = figures["accelerators"][accelerator], figures["models"][model], figures["memory"]
    usable_gb = count * (gpu["memory_gb"] * memory["used_share"] - memory["reserve_gb_per_accelerator"])
    kv_tokens = int((usable_gb - shape["weights_gb"]) * 1e9 / shape["kv_bytes_per_token"])
    resident = gpu["resident_watts"] * count
    return {
        "points": [point_of(point, resident) for point in points],
        "kvCacheTokens": kv_tokens,
        "startup": {
            "seconds": shape["startup_seconds"],
            "joules": round(START_POWER_RATIO * resident * shape["startup_seconds"]),
        },
        "idleWatts": gpu["off_watts"] * count,
        "residentWatts": resident,
        "provenance": provenance,
    }


def point_of(point: Point, resident_watts: int) -> dict[str, Any]:
    """Return one point in the API's units."""
    prefill = CONTEXT_TOKENS * point.prefill_seconds_per_token
    first, late = prefill + point.step_seconds, prefill + 2 * point.step_seconds
    return {
        "runningRequests": point.batch,
        "contextTokens": CONTEXT_TOKENS,
        "inputTokens": CONTEXT_TOKENS,
        "outputTokensPerSecond": round(point.batch / point.step_seconds),
        "powerWatts": max(resident_watts, round(point.watts)),
        "timeToFirstTokenMicroseconds": {"p50": round(first * 1e6), "p95": round(late * 1e6)},
        "timePerOutputTokenMicroseconds": {
            "p50": round(point.step_seconds * 1e6),
            "p95": round(point.step_seconds * 1e6),
        },
    }


def write(name: str, spec: dict[str, Any]) -> None:
    """Check the profile against the API model and write it."""
    body = {"apiVersion": "wattzoo.dev/v1alpha1", "kind": "ModelProfile", "metadata": {"name": name}, "spec": spec}
    ModelProfile.model_validate(body)
    text = yaml.safe_dump(body, sort_keys=False, width=120)
    path = TARGET / f"{name}.yaml"
    path.write_text(HEADER + text, encoding="utf-8")
    print(f"wrote {path.relative_to(ROOT)}: {len(spec['points'])} points, {spec['kvCacheTokens']} KV tokens")


if __name__ == "__main__":
    main()
