"""Counters and histograms in the plant's own time, ready to be exposed under an engine's metric names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

TTFT_BUCKETS_SECONDS = (
    0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
)  # fmt: skip
TPOT_BUCKETS_SECONDS = (
    0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0,
)  # fmt: skip
E2E_BUCKETS_SECONDS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
)  # fmt: skip


@dataclass(slots=True)
class Histogram:
    """Counts by upper bound; the last count is that of everything above the last bound."""

    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float, times: int = 1) -> None:
        """Count a value, `times` over."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        """Return how many values were counted."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """Return (upper bound, values at most that) as Prometheus shows buckets, without the infinite one."""
        total = 0
        rows = []
        for bound, number in zip(self.bounds, self.counts, strict=False):
            total += number
            rows.append((bound, total))
        return rows

    def copy(self) -> Histogram:
        """Return an equal histogram that shares nothing."""
        return Histogram(self.bounds, list(self.counts), self.sum)


@dataclass(slots=True)
class ReplicaMetrics:
    """Everything an engine of one replica would expose, and its joules.

    The joules are split as reports need them: `start` while starting, `idle` with weights resident and nothing to
    do, `active` while anything runs; `busy_seconds` is the time that anything ran.
    """

    prompt_tokens: int = 0
    generation_tokens: int = 0
    requests_completed: int = 0
    requests_cut: int = 0
    active_joules: float = 0.0
    idle_joules: float = 0.0
    start_joules: float = 0.0
    busy_seconds: float = 0.0
    ttft: Histogram = field(default_factory=lambda: Histogram(TTFT_BUCKETS_SECONDS))
    tpot: Histogram = field(default_factory=lambda: Histogram(TPOT_BUCKETS_SECONDS))
    inter_token: Histogram = field(default_factory=lambda: Histogram(TPOT_BUCKETS_SECONDS))
    e2e: Histogram = field(default_factory=lambda: Histogram(E2E_BUCKETS_SECONDS))

    @property
    def joules(self) -> float:
        """Return all energy so far."""
        return self.active_joules + self.idle_joules + self.start_joules

    def copy(self) -> ReplicaMetrics:
        """Return equal metrics that share nothing."""
        return ReplicaMetrics(
            self.prompt_tokens,
            self.generation_tokens,
            self.requests_completed,
            self.requests_cut,
            self.active_joules,
            self.idle_joules,
            self.start_joules,
            self.busy_seconds,
            self.ttft.copy(),
            self.tpot.copy(),
            self.inter_token.copy(),
            self.e2e.copy(),
        )
