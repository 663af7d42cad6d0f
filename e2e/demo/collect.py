"""After the load: gathers what clients, engines, GPUs and the audit log recorded into one `Recording`."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.commit import read_commit
from e2e.cluster import Cluster
from e2e.cluster.programs import ENVOY_VERSION, PROGRAMS
from e2e.demo import settings
from e2e.demo.audit import operator_writes
from e2e.demo.observer import RunObserver
from e2e.demo.recording import Moment, Recording, Reply, Write
from e2e.emulator.launch import read_stats
from wattzoo import __version__
from wattzoo.api.llm_service import LLMServiceSpec

MARGIN_SECONDS = 10.0


def read_replies(lines: Iterable[str]) -> Iterator[Reply]:
    """Yield what the load generator recorded, as its clients saw it."""
    for line in lines:
        row = json.loads(line)
        code = str(row["code"])
        tokens, first = row["output_tokens"], row["first_token_seconds"]
        rest = row["latency_seconds"] - first if first is not None else None
        yield Reply(
            service=row["service"],
            request_id=row["request_id"],
            sent_at_seconds=row["t_sent"],
            done_at_seconds=row["t_sent"] + row["latency_seconds"],
            status=int(code) if code.isdigit() else 0,
            member=row["member"],
            ttft_seconds=first,
            tpot_seconds=rest / (tokens - 1) if rest is not None and tokens is not None and tokens > 1 else None,
            output_tokens=tokens,
            satisfied=row["satisfied"] if row["feedback"] else None,
        )


def collect(
    cluster: Cluster,
    observer: RunObserver,
    moments: tuple[Moment, ...],
    steady_window_unix: tuple[float, float],
    run: settings.Run,
    work_dir: Path,
) -> Recording:
    """Return the run as it can be judged later, without a cluster."""
    facts = describe_run(cluster, run)
    with (work_dir / "load.jsonl").open(encoding="utf-8") as lines:
        replies = tuple(read_replies(lines))
    end = max([run.load_seconds, *(reply.done_at_seconds for reply in replies)])
    window = (observer.origin - MARGIN_SECONDS, observer.origin + end + MARGIN_SECONDS)
    bounds = facts["latency_bounds_seconds"]
    low, high = steady_window_unix
    return Recording(
        facts=facts,
        load_seconds=run.load_seconds,
        replies=replies,
        moments=moments,
        pods=tuple(observer.lives.values()),
        energy=observer.energy(*window),
        latency=observer.latency(*window, bounds["ttft"], bounds["tpot"]),
        writes=read_writes(cluster.audit_log, observer.origin),
        steady_window=(low - observer.origin, high - observer.origin),
        emulator_lag_p99_ms=read_lag(),
    )


def read_writes(audit_log: Path, origin: float) -> tuple[Write, ...]:
    """Return the operator's accepted writes."""
    with audit_log.open(encoding="utf-8") as lines:
        return tuple(operator_writes(lines, origin))


def read_lag() -> float | None:
    """Return the emulator's own lag (p99, milliseconds); None when it cannot be asked: the run is then not valid."""
    try:
        lag: float | None = read_stats()["lag"]["p99_ms"]
    except (OSError, KeyError, ValueError):
        return None
    return lag


def describe_run(cluster: Cluster, run: settings.Run) -> dict[str, Any]:
    """Return the facts that the report repeats: promises as applied, versions, commit, seeds, scales."""
    items = json.loads(cluster.kubectl("get", "llmservices", "-n", settings.NAMESPACE, "-o", "json"))["items"]
    specs = {item["metadata"]["name"]: LLMServiceSpec.model_validate(item["spec"]) for item in items}
    latency = [spec.sla.latency for spec in specs.values() if spec.sla.latency is not None]
    ttft = [bound.time_to_first_token.p95_milliseconds for bound in latency if bound.time_to_first_token]
    tpot = [bound.time_per_output_token.p95_milliseconds for bound in latency if bound.time_per_output_token]
    return settings.describe(run) | {
        "commit": read_commit(),
        "targets": {name: spec.sla.accuracy.target_per_mille / 1000 for name, spec in specs.items()},
        "policies": {name: spec.controller.policy for name, spec in specs.items()},
        "promised_from": {
            item["metadata"]["name"]: item.get("status", {}).get("sla", {}).get("promisedFromRequest") for item in items
        },
        "latency_bounds_seconds": {"ttft": min(ttft) / 1000, "tpot": min(tpot) / 1000},
        "versions": {
            "wattzoo": __version__,
            "python": platform.python_version(),
            "envoy": ENVOY_VERSION,
            **{program.name: program.version for program in PROGRAMS if program.name != "control-plane"},
            "kubernetes": next(program.version for program in PROGRAMS if program.name == "control-plane"),
        },
    }
