"""How late this process served what the plant said had happened: the measure by which a run is valid or not."""

from __future__ import annotations

from bisect import bisect_left

LIMIT_SECONDS = 0.250
BOUNDS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 1.0, 2.0, 5.0)


class LagHistogram:
    """Counts delays in buckets; quantiles are interpolated inside a bucket and never below what was seen."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.total_seconds = 0.0
        self.largest_seconds = 0.0

    def add(self, lag_seconds: float) -> None:
        """Count one delay; a negative one is a clock error of nothing and counts as zero."""
        lag = max(0.0, lag_seconds)
        self.counts[bisect_left(BOUNDS_SECONDS, lag)] += 1
        self.total_seconds += lag
        self.largest_seconds = max(self.largest_seconds, lag)

    @property
    def count(self) -> int:
        """Return how many delays were counted."""
        return sum(self.counts)

    def quantile_seconds(self, q: float) -> float | None:
        """Return the q-quantile (0..1), None when nothing was counted."""
        total = self.count
        if not total:
            return None
        rank, seen = q * total, 0
        for i, count in enumerate(self.counts):
            if count and seen + count >= rank:
                low = BOUNDS_SECONDS[i - 1] if i else 0.0
                high = min(BOUNDS_SECONDS[i], self.largest_seconds) if i < len(BOUNDS_SECONDS) else self.largest_seconds
                return low + (max(low, high) - low) * max(0.0, rank - seen) / count
            seen += count
        return self.largest_seconds

    @property
    def valid(self) -> bool:
        """Return whether 99 % of the events were served within the limit."""
        p99 = self.quantile_seconds(0.99)
        return p99 is None or p99 <= LIMIT_SECONDS

    def render(self, name: str) -> list[str]:
        """Return the histogram in Prometheus' text format."""
        lines, seen = [f"# TYPE {name} histogram"], 0
        for bound, count in zip((*BOUNDS_SECONDS, float("inf")), self.counts, strict=True):
            seen += count
            label = "+Inf" if bound == float("inf") else f"{bound:g}"
            lines.append(f'{name}_bucket{{le="{label}"}} {seen}')
        return [*lines, f"{name}_sum {self.total_seconds:.6f}", f"{name}_count {seen}"]
