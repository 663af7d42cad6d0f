"""Write examples/profiles/*.yaml: ModelProfiles for kubectl, from the figures under examples/data.

Three kinds of source. A *law* (t0, t1, prefill, watts; published fits and figures derived from them) is evaluated at
rising concurrency. *Measured* rows of one GPU, and *published* rows of serving engines, are taken as they are. In all
of them a point is steady decoding of so many sequences, its time to first token that of a prompt which finds no queue:
prefill and one step; its 95th percentile has the prompt arrive just after a step began. Every profile is read back
through the API model and fitted before it is written, and names where its figures come from and under which licence.

    python scripts/make_profiles.py [--check]
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
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
    input_tokens: int = CONTEXT_TOKENS
    context_tokens: int = CONTEXT_TOKENS
    p95_step_seconds: float = 0.0


def main() -> None:
    """Write every profile, or say which differ from what is written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    profiles = render_profiles()
    if parser.parse_args().check:
        found = {path.name: path.read_text(encoding="utf-8") for path in TARGET.glob("*.yaml")}
        differing = sorted(name for name in {*found, *profiles} if found.get(name) != profiles.get(name))
        if differing:
            raise SystemExit(f"not what scripts/make_profiles.py writes: {', '.join(differing)}")
        return
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, text in profiles.items():
        (TARGET / name).write_text(text, encoding="utf-8")
    print(f"wrote {len(profiles)} profiles")


def render_profiles() -> dict[str, str]:
    """Return file name -> text: one profile per law, per measured (model, GPU) and per published configuration."""
    figures = json.loads((DATA / "replica_models.json").read_text(encoding="utf-8"))
    specs: dict[str, dict[str, Any]] = {}
    for name, law in figures["laws"].items():
        place = (law["model"], law["accelerator"], law["accelerators"])
        specs[name] = spec_of(figures, place, law_points(law), provenance_of(law["kind"], law))
    specs |= measured_specs(figures)
    specs |= published_specs(figures)
    return {f"{name}.yaml": render(name, spec) for name, spec in sorted(specs.items())}


def measured_specs(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return one spec per model and GPU that we measured."""
    rows = json.loads((DATA / "gpu_measurements.json").read_text(encoding="utf-8"))
    specs = {}
    for gpu in figures["measured"]["gpus"]:
        mine = [row for row in rows if row["gpu"] == gpu]
        for model in sorted({row["model"] for row in mine if row["phase"] == "decode"}):
            points = measured_points(
                [row for row in mine if row["model"] == model], figures["measured"]["prompt_tokens"]
            )
            text = f"one {gpu.upper()}, {model} shape with random weights, CUDA graphs, context 1,024: a lower bound "
            text += "for a serving engine (gpu_measurements.json)"
            facts = {"source": text, "licence": figures["measured"]["licence"]}
            provenance = provenance_of("Measured", facts) | {"sampleCount": len(points)}
            specs[f"{model.replace('.', '-')}-{gpu}"] = spec_of(figures, (model, gpu, 1), points, provenance)
    return specs


def published_specs(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return one spec per source, model, GPU and count of GPUs of the published rows."""
    with (DATA / "published_measurements.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    specs = {}
    for source, model, gpu, count in sorted(
        {(r["source"], r["model"], r["accelerator"], int(r["accelerators"])) for r in rows}
    ):
        key = [source, model, gpu, str(count)]
        mine = [r for r in rows if [r["source"], r["model"], r["accelerator"], r["accelerators"]] == key]
        shape, accelerator = figures["models"][model], figures["accelerators"][gpu]
        flops = 2 * shape["active_parameters_billion"] * 1e9
        rule_seconds = flops / (0.5 * count * accelerator["peak_tflops"] * 1e12)
        points = merged([published_point(row, rule_seconds) for row in mine])
        provenance = provenance_of("Published", figures["published"][source])
        name = f"{model.replace('.', '-')}-{gpu}x{count}-{source}"
        specs[name] = spec_of(figures, (model, gpu, count), points, provenance)
    return specs


def published_point(row: dict[str, str], rule_seconds: float) -> Point:
    """Return a published row; prompts cost what was measured alone, else what the rule says per token."""
    prompt, output = int(row["input_tokens"]), int(row["output_tokens"])
    measured = float(row["prefill_ms"]) / 1e3 / prompt if row["prefill_ms"] else None
    return Point(
        batch=round(float(row["batch"])),
        step_seconds=float(row["step_ms"]) / 1e3,
        watts=float(row["watts"]),
        prefill_seconds_per_token=rule_seconds if measured is None else measured,
        input_tokens=prompt,
        context_tokens=prompt + output // 2,
        p95_step_seconds=float(row["p95_step_ms"]) / 1e3,
    )


def merged(points: Sequence[Point]) -> list[Point]:
    """Return one point per batch; runs repeated at the same batch are averaged."""
    result = []
    for batch in sorted({point.batch for point in points}):
        same = [point for point in points if point.batch == batch]
        step, p95 = fmean(p.step_seconds for p in same), fmean(p.p95_step_seconds for p in same)
        watts = fmean(p.watts for p in same)
        result.append(replace(same[0], step_seconds=step, p95_step_seconds=p95, watts=watts))
    return result


def provenance_of(kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return where the figures come from, the licence in the same line."""
    return {"kind": kind, "source": f"{facts['source']}. Licence: {facts['licence']}"}


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
    figures: dict[str, Any], place: tuple[str, str, int], points: Sequence[Point], provenance: dict[str, Any]
) -> dict[str, Any]:
    """Return the profile's spec; the KV cache is what the weights and a reserve leave of the memory in use."""
    model, accelerator, count = place
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
    prefill = point.input_tokens * point.prefill_seconds_per_token
    first, late = prefill + point.step_seconds, prefill + 2 * point.step_seconds
    return {
        "runningRequests": point.batch,
        "contextTokens": point.context_tokens,
        "inputTokens": point.input_tokens,
        "outputTokensPerSecond": round(point.batch / point.step_seconds),
        "powerWatts": max(resident_watts, round(point.watts)),
        "timeToFirstTokenMicroseconds": {"p50": round(first * 1e6), "p95": round(late * 1e6)},
        "timePerOutputTokenMicroseconds": {
            "p50": round(point.step_seconds * 1e6),
            "p95": round(max(point.step_seconds, point.p95_step_seconds) * 1e6),
        },
    }


def render(name: str, spec: dict[str, Any]) -> str:
    """Check the profile against the API model and return its YAML."""
    body = {"apiVersion": "wattzoo.dev/v1alpha1", "kind": "ModelProfile", "metadata": {"name": name}, "spec": spec}
    ModelProfile.model_validate(body)
    return HEADER + yaml.safe_dump(body, sort_keys=False, width=120)


if __name__ == "__main__":
    main()
