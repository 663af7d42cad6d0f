"""What happened in the whole run: energy by variant, latency attainment by variant and host, and the lag."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from e2e.emulator.fleet import PlayedPod
from e2e.emulator.lag import LIMIT_SECONDS, LagHistogram
from wattzoo_policies.sim.metrics import ReplicaMetrics
from wattzoo_policies.sim.request import PlantEvent


@dataclass(frozen=True, slots=True)
class LatencyBounds:
    """The bounds that attainment is counted against, in seconds."""

    ttft_seconds: float
    tpot_seconds: float


@dataclass(slots=True)
class Attainment:
    """Completed requests and how many kept each bound; one-token answers have no time per token and count as kept."""

    requests: int = 0
    ttft_kept: int = 0
    tpot_kept: int = 0
    satisfied: int = 0

    def add(self, event: PlantEvent, bounds: LatencyBounds, *, satisfied: bool) -> None:
        """Count one completed request."""
        tpot = event.tpot_seconds
        self.requests += 1
        self.ttft_kept += event.ttft_seconds <= bounds.ttft_seconds
        self.tpot_kept += tpot is None or tpot <= bounds.tpot_seconds
        self.satisfied += satisfied


@dataclass(slots=True)
class VariantTotals:
    """Energy and work of all replicas of a variant, those that are gone included."""

    pods: int = 0
    active_joules: float = 0.0
    idle_joules: float = 0.0
    start_joules: float = 0.0
    busy_seconds: float = 0.0
    requests_completed: int = 0
    requests_cut: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0

    def add(self, metrics: ReplicaMetrics) -> None:
        """Add one replica."""
        self.pods += 1
        self.active_joules += metrics.active_joules
        self.idle_joules += metrics.idle_joules
        self.start_joules += metrics.start_joules
        self.busy_seconds += metrics.busy_seconds
        self.requests_completed += metrics.requests_completed
        self.requests_cut += metrics.requests_cut
        self.prompt_tokens += metrics.prompt_tokens
        self.generation_tokens += metrics.generation_tokens


@dataclass(slots=True)
class RunStats:
    """Everything counted since the emulator's start. `request_log` gets one JSON line for each completed request."""

    bounds: LatencyBounds
    request_log: IO[str] | None = None
    started_epoch_seconds: float = field(default_factory=time.time)
    lag: LagHistogram = field(default_factory=LagHistogram)
    by_variant: defaultdict[str, Attainment] = field(default_factory=lambda: defaultdict(Attainment))
    by_host: defaultdict[str, Attainment] = field(default_factory=lambda: defaultdict(Attainment))
    retired: defaultdict[str, VariantTotals] = field(default_factory=lambda: defaultdict(VariantTotals))
    unknown_outcomes: int = 0
    refused: int = 0

    def retire(self, pod: PlayedPod) -> None:
        """Keep what a pod that is gone has done."""
        if pod.engine is not None and pod.role is not None:
            self.retired[pod.role.variant].add(pod.engine.metrics())

    def complete(self, pod: PlayedPod, host: str, event: PlantEvent, *, satisfied: bool) -> None:
        """Count a completed request."""
        variant = pod.role.variant if pod.role else ""
        self.by_variant[variant].add(event, self.bounds, satisfied=satisfied)
        self.by_host[host].add(event, self.bounds, satisfied=satisfied)
        if self.request_log is not None:
            row = {
                "at_seconds": round(event.at_seconds, 4),
                "arrived_seconds": round(event.arrived_seconds, 4),
                "ttft_seconds": round(event.ttft_seconds, 5),
                "tpot_seconds": None if event.tpot_seconds is None else round(event.tpot_seconds, 6),
                "request_id": event.request.request_id,
                "prompt_tokens": event.request.input_tokens,
                "output_tokens": event.request.output_tokens,
                "host": host,
                "variant": variant,
                "pod": pod.name,
                "satisfied": satisfied,
            }
            self.request_log.write(json.dumps(row) + "\n")

    def variant_totals(self, pods: Iterable[PlayedPod]) -> dict[str, VariantTotals]:
        """Return totals by variant, with what the given live pods have done so far."""
        totals: defaultdict[str, VariantTotals] = defaultdict(VariantTotals)
        for variant, retired in self.retired.items():
            totals[variant] = VariantTotals(**asdict(retired))
        for pod in pods:
            if pod.engine is not None and pod.role is not None:
                totals[pod.role.variant].add(pod.engine.metrics())
        return dict(totals)

    def to_dict(self, pods: Iterable[PlayedPod], at_seconds: float) -> dict[str, Any]:
        """Return the run so far as JSON; `valid` is false when this process lagged too much to be believed."""
        p99 = self.lag.quantile_seconds(0.99)
        lag = {
            "count": self.lag.count,
            "p50_ms": _milliseconds(self.lag.quantile_seconds(0.5)),
            "p99_ms": _milliseconds(p99),
            "max_ms": _milliseconds(self.lag.largest_seconds),
            "limit_ms": _milliseconds(LIMIT_SECONDS),
        }
        return {
            "at_seconds": round(at_seconds, 3),
            "started_epoch_seconds": self.started_epoch_seconds,
            "valid": self.lag.valid,
            "verdict": "valid" if self.lag.valid else f"INVALID: the emulator lagged, p99 {lag['p99_ms']} ms",
            "lag": lag,
            "bounds": asdict(self.bounds),
            "variants": {name: asdict(totals) for name, totals in self.variant_totals(pods).items()},
            "attainment_by_variant": {name: asdict(row) for name, row in self.by_variant.items()},
            "attainment_by_host": {name: asdict(row) for name, row in self.by_host.items()},
            "unknown_outcomes": self.unknown_outcomes,
            "refused": self.refused,
        }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)
