"""The placement benchmark's day as files: the manifests and the trace that `wattzoo simulate` takes.

    python -m benchmarks.day_files --data DIR --out DIR [--alpha 0.519] [--hours 24]
    wattzoo simulate -f OUT/zoo.yaml --trace OUT/trace.parquet --compare joint

Zoo, fleet and demand are those of `placement_world`; profiles are its laws at rising concurrency, so that what is
fitted to them is the same replica. A step's requests are spread evenly over it with the step's mean tokens, which is
all that the fluid plant sees of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.placement_runs import World, make_demand
from benchmarks.placement_world import ACCURACY, FIGURES, FLEET, LATENCY, make_model
from wattzoo_policies.capacity.model import ReplicaModel
from wattzoo_policies.sim.fluid.scenario import FluidDemand

API = "wattzoo.dev/v1alpha1"
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
PROMPT_TOKENS = 1024
PRODUCTS = {"h100": "NVIDIA-H100-80GB-HBM3", "b200": "NVIDIA-B200", "a100": "NVIDIA-A100-SXM4-80GB"}
PRIOR_SAMPLES = 200
NAMESPACE = "day"


def render_point(model: ReplicaModel, batch: int) -> dict[str, Any]:
    """Return one point of the law in the API's units; a prompt that finds no queue waits for two steps at most."""
    step = model.step_seconds(batch)
    first = PROMPT_TOKENS * model.prefill_seconds_per_token + step
    micros = round(step * 1e6)
    return {
        "runningRequests": batch,
        "contextTokens": PROMPT_TOKENS,
        "inputTokens": PROMPT_TOKENS,
        "outputTokensPerSecond": round(batch / step),
        "powerWatts": round(model.decode_watts(batch)),
        "timeToFirstTokenMicroseconds": {
            "p50": round(1e6 * first),
            "p95": round(1e6 * (first + step)),
        },
        "timePerOutputTokenMicroseconds": {"p50": micros, "p95": micros},
    }


def render_profile(member: str, gpu: str) -> dict[str, Any]:
    """Return the ModelProfile of one member on one GPU type."""
    model = make_model(member, gpu)
    spec = {
        "points": [render_point(model, batch) for batch in BATCHES],
        "kvCacheTokens": model.kv_tokens,
        "startup": {"seconds": round(model.startup_seconds), "joules": round(model.startup_joules)},
        "idleWatts": round(model.off_watts),
        "residentWatts": round(model.idle_watts),
        "provenance": {"kind": "Derived", "source": "benchmarks/placement_world.py"},
    }
    return {"apiVersion": API, "kind": "ModelProfile", "metadata": {"name": f"{member}-{gpu}"}, "spec": spec}


def render_manifests(alpha: float) -> list[dict[str, Any]]:
    """Return pools, profiles, the zoo with all its variants and the one service."""
    pools = [
        {
            "apiVersion": API,
            "kind": "AcceleratorPool",
            "metadata": {"name": gpu},
            "spec": {
                "nodeSelector": {"nvidia.com/gpu.product": PRODUCTS[gpu]},
                "allowedNamespaces": {"all": True},
                "maxAccelerators": count,
            },
        }
        for gpu, count in FLEET.items()
    ]
    members = [
        {
            "name": member,
            "model": f"example/{member}",
            "variants": [_render_variant(member, gpu) for of, gpu in FIGURES if of == member],
        }
        for member in ACCURACY
    ]
    zoo = {
        "apiVersion": API,
        "kind": "ModelPool",
        "metadata": {"name": "zoo", "namespace": NAMESPACE},
        "spec": {"servedModelName": "zoo", "scaling": {"planner": "Joint", "reservePercent": 0}, "members": members},
    }
    return [*pools, *(render_profile(*place) for place in FIGURES), zoo, _render_service(alpha)]


def _render_variant(member: str, gpu: str) -> dict[str, Any]:
    args = ["--max-num-seqs", "1024", "--max-num-batched-tokens", "8192"]
    return {
        "name": gpu,
        "acceleratorPool": gpu,
        "acceleratorsPerReplica": FIGURES[member, gpu][0],
        "profile": f"{member}-{gpu}",
        "server": {"image": "vllm/vllm-openai:v0.11.0", "args": args},
    }


def _render_service(alpha: float) -> dict[str, Any]:
    priors = [
        {"name": member, "accuracyPriorPerMille": round(1e3 * share), "priorSamples": PRIOR_SAMPLES}
        for member, share in ACCURACY.items()
    ]
    latency = {
        "timeToFirstToken": {"p95Milliseconds": round(1e3 * (LATENCY.ttft_seconds or 0.0))},
        "timePerOutputToken": {"p95Milliseconds": round(1e3 * (LATENCY.tpot_seconds or 0.0))},
    }
    spec = {
        "modelPoolRef": {"name": "zoo"},
        "safestMember": max(ACCURACY, key=lambda name: ACCURACY[name]),
        "members": priors,
        "sla": {"accuracy": {"targetPerMille": round(1e3 * alpha)}, "latency": latency},
        "traffic": {"parentRefs": [{"name": "gateway"}]},
        "feedback": {"prometheus": {"matchLabels": {"service": "chat"}}},
    }
    return {"apiVersion": API, "kind": "LLMService", "metadata": {"name": "chat", "namespace": NAMESPACE}, "spec": spec}


def write_trace(demand: FluidDemand, path: Path) -> None:
    """Write the requests of a demand of one service."""
    counts = demand.requests[:, 0].astype(np.int64)
    step = np.repeat(np.arange(demand.steps), counts)
    place = np.arange(step.size) - np.repeat(np.cumsum(counts) - counts, counts)
    at = (step + (place + 0.5) / counts[step]) * demand.step_seconds
    tokens = (demand.input_tokens[step, 0], demand.output_tokens[step, 0])
    pq.write_table(pa.table({"t_s": at, "in_tokens": tokens[0], "out_tokens": tokens[1]}), path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the public files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--alpha", type=float, default=0.519)
    parser.add_argument("--hours", type=float, default=24.0, help="fewer begin at seven o'clock")
    options = parser.parse_args(arguments)
    part = None if options.hours >= 24.0 else options.hours
    world = World("day", options.alpha, first_hour=0.0 if part is None else 7.0, hours=part)
    options.out.mkdir(parents=True, exist_ok=True)
    manifests = yaml.safe_dump_all(render_manifests(options.alpha), sort_keys=False)
    (options.out / "zoo.yaml").write_text(manifests, encoding="utf-8")
    write_trace(make_demand(world, options.data), options.out / "trace.parquet")


if __name__ == "__main__":
    main()
