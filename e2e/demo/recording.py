"""What one run leaves behind: plain frozen data, saved as JSON, from which the report can be computed again.

Times are seconds on the run's own clock: 0 is the first moment of load, the warm-up before it is negative.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """One request as its client saw it. What the client could not see is None.

    ttft_seconds: from sending to the first token; tpot_seconds: mean time between the further tokens (None for answers
        of one token); done_at_seconds: when the answer was complete and its feedback was given.
    """

    service: str
    request_id: str
    sent_at_seconds: float
    done_at_seconds: float
    status: int
    member: str | None = None
    ttft_seconds: float | None = None
    tpot_seconds: float | None = None
    output_tokens: int | None = None
    satisfied: bool | None = None

    @property
    def failed(self) -> bool:
        """Anything but a complete answer: a refused connection (status 0), a cut stream, an error status."""
        return self.status != 200


@dataclass(frozen=True, slots=True)
class Replicas:
    """Pods of one variant at one moment; terminating pods still hold their GPUs."""

    desired: int
    ready: int
    starting: int
    terminating: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """One row of the live table: what the API server and Prometheus said at one moment.

    weights: share of each variant by service; power_watts: GPUs that pods of the pool own; decisions: reason and
        message by service.
    """

    at_seconds: float
    weights: Mapping[str, Mapping[str, float]]
    replicas: Mapping[str, Replicas]
    power_watts: float | None
    achieved: Mapping[str, float | None]
    joules_per_request: Mapping[str, float | None]
    request_rps: float | None = None
    decisions: Mapping[str, str] = field(default_factory=dict)
    ready: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodLife:
    """One GPU pod: when it took its GPUs, when it could serve and when it was gone; None for what did not happen.

    serving_steps: from when on traffic was meant for it (True) or it was silent (False), the first as it was first
        seen; None in recordings that did not look.
    """

    variant: str
    name: str
    started_at_seconds: float
    ready_at_seconds: float | None = None
    terminating_at_seconds: float | None = None
    gone_at_seconds: float | None = None
    serving_steps: tuple[tuple[float, bool], ...] | None = None


@dataclass(frozen=True, slots=True)
class EnergySample:
    """One scrape of one GPU's energy counter; `pod` owned the GPU then, None when nobody of ours did."""

    gpu: str
    pod: str | None
    at_seconds: float
    joules: float


@dataclass(frozen=True, slots=True)
class LatencyCount:
    """One scrape of one engine's latency histograms: requests so far, and those within the services' bounds."""

    pod: str
    at_seconds: float
    ttft_within: float
    ttft_total: float
    tpot_within: float
    tpot_total: float


@dataclass(frozen=True, slots=True)
class Write:
    """One successful write by the operator, from the API server's audit log."""

    at_seconds: float
    verb: str
    resource: str
    subresource: str
    name: str


@dataclass(frozen=True, slots=True)
class Recording:
    """One run, whole. `facts` holds what the report repeats word by word: versions, seeds, scales, the commit."""

    facts: Mapping[str, Any]
    load_seconds: float
    replies: tuple[Reply, ...]
    moments: tuple[Moment, ...]
    pods: tuple[PodLife, ...]
    energy: tuple[EnergySample, ...]
    latency: tuple[LatencyCount, ...]
    writes: tuple[Write, ...]
    steady_window: tuple[float, float]
    emulator_lag_p99_ms: float | None

    def save(self, path: Path) -> None:
        """Write the recording as one JSON file."""
        path.write_text(json.dumps(asdict(self), separators=(",", ":")) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read what `save` wrote."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        low, high = raw["steady_window"]
        return cls(
            facts=raw["facts"],
            load_seconds=raw["load_seconds"],
            replies=tuple(Reply(**row) for row in raw["replies"]),
            moments=tuple(_moment(row) for row in raw["moments"]),
            pods=tuple(_pod_life(row) for row in raw["pods"]),
            energy=tuple(EnergySample(**row) for row in raw["energy"]),
            latency=tuple(LatencyCount(**row) for row in raw["latency"]),
            writes=tuple(Write(**row) for row in raw["writes"]),
            steady_window=(low, high),
            emulator_lag_p99_ms=raw["emulator_lag_p99_ms"],
        )


def _pod_life(row: dict[str, Any]) -> PodLife:
    steps = row.pop("serving_steps", None)
    known = None if steps is None else tuple((at_seconds, serving) for at_seconds, serving in steps)
    return PodLife(serving_steps=known, **row)


def _moment(row: dict[str, Any]) -> Moment:
    replicas = {name: Replicas(**counts) for name, counts in row.pop("replicas").items()}
    return Moment(replicas=replicas, **row)
