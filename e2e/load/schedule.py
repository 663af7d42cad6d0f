"""When which request is sent: the whole load of a run, computed before its first request.

Pure, so that a report can replay exactly the requests of a run in the simulator.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GRID_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """One service that is called: where its LLMService lives, under which host name, and its share of all requests."""

    namespace: str
    name: str
    hostname: str
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class RateStep:
    """From `at_seconds` on all rates are multiplied by `multiplier` (until the next step)."""

    at_seconds: float
    multiplier: float


@dataclass(frozen=True, slots=True)
class LoadShape:
    """How much load there is and when.

    curve: relative rates over the squeezed day, equally spaced and interpolated; the largest becomes `peak_rps`.
    streaming_share, feedback_share: probability that a request streams, and that its outcome is reported.
    """

    duration_seconds: float
    peak_rps: float
    curve: tuple[float, ...] = (1.0,)
    steps: tuple[RateStep, ...] = ()
    streaming_share: float = 0.5
    feedback_share: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a shape that means nothing."""
        if not self.curve or min(self.curve) < 0 or max(self.curve) <= 0:
            raise ValueError("the rate curve needs at least one positive value and no negative one")
        if self.duration_seconds <= 0 or self.peak_rps <= 0:
            raise ValueError("duration and peak rate must be positive")
        if not (0 <= self.streaming_share <= 1 and 0 <= self.feedback_share <= 1):
            raise ValueError("shares lie in [0, 1]")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when it is sent (seconds from the start), for which service, and which row of the table it is."""

    index: int
    at_seconds: float
    service: ServiceLoad
    request_id: str
    streaming: bool
    feedback: bool


def rate_rps(shape: LoadShape, at_seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the offered rate in requests per second at each of the times (shape of the input)."""
    knots = np.linspace(0.0, shape.duration_seconds, max(2, len(shape.curve)))
    values = np.asarray(shape.curve if len(shape.curve) > 1 else shape.curve * 2, dtype=float)
    rates = shape.peak_rps * np.interp(at_seconds, knots, values / values.max())
    factor = np.ones_like(rates)
    for step in sorted(shape.steps, key=lambda step: step.at_seconds):
        factor = np.where(at_seconds >= step.at_seconds, step.multiplier, factor)
    return np.asarray(rates * factor, dtype=np.float64)


def make_schedule(
    shape: LoadShape, services: Sequence[ServiceLoad], request_ids: Mapping[str, Sequence[str]], seed: int
) -> tuple[Arrival, ...]:
    """Return every request of a run in the order of sending; equal arguments give an equal schedule.

    Arrivals are an inhomogeneous Poisson process (the rate is constant over half a second). Each service walks through
    a shuffled order of its own of the ids listed under its name, anew when it has used all of them.
    """
    if not all(request_ids.get(service.name) for service in services) or sum(s.share for s in services) <= 0:
        raise ValueError("a schedule needs services with a positive share, and requests to sample")
    rng = np.random.default_rng(seed)
    times = _arrival_times(shape, rng)
    count = len(times)
    shares = np.array([service.share for service in services], dtype=float)
    chosen = rng.choice(len(services), size=count, p=shares / shares.sum())
    streaming = rng.random(count) < shape.streaming_share
    feedback = rng.random(count) < shape.feedback_share
    ids = np.empty(count, dtype=object)
    for number, service in enumerate(services):
        mine, known = np.flatnonzero(chosen == number), np.array(request_ids[service.name], dtype=object)
        rounds = [rng.permutation(known) for _ in range(-(-len(mine) // len(known)))]
        if rounds:
            ids[mine] = np.concatenate(rounds)[: len(mine)]
    return tuple(
        Arrival(i, float(times[i]), services[chosen[i]], str(ids[i]), bool(streaming[i]), bool(feedback[i]))
        for i in range(count)
    )


def read_curve(path: Path, service: str, day: int, column: str = "rate_norm") -> tuple[float, ...]:
    """Return one day (0-based, 86,400 s) of a CSV with the columns t_s, service and `column`, in the order of time."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row.get("service", service) == service]
    day_rows = [row for row in rows if day * 86_400 <= float(row["t_s"]) < (day + 1) * 86_400]
    if not day_rows:
        raise ValueError(f"{path.name} holds nothing of service {service!r} on day {day}")
    return tuple(float(row[column]) for row in sorted(day_rows, key=lambda row: float(row["t_s"])))


def _arrival_times(shape: LoadShape, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return sorted arrival times: uniform draws mapped through the inverse of the expected count."""
    cells = max(1, round(shape.duration_seconds / GRID_SECONDS))
    edges = np.linspace(0.0, shape.duration_seconds, cells + 1)
    expected = np.concatenate(([0.0], np.cumsum(rate_rps(shape, (edges[:-1] + edges[1:]) / 2) * np.diff(edges))))
    count = int(rng.poisson(expected[-1]))
    return np.asarray(np.interp(np.sort(rng.random(count)) * expected[-1], expected, edges), dtype=np.float64)
