"""What the model servers' latency histograms say: quantiles for people, and what share of requests was late."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from wattzoo.decide.engines import PodSeries
from wattzoo.decide.series import estimate_rate
from wattzoo.model import PodView, Signal
from wattzoo_policies.capacity.model import LatencyTarget

LEAST_TAIL = 0.01
"""Where the next bucket's edge has seen nobody: so much of what passed the edge before, for the tail between them."""
EDGE_TOLERANCE = 1e-6


def _count_buckets(namespace: str, pods: Iterable[PodView], index: PodSeries, name: str) -> list[tuple[float, float]]:
    """(upper edge, requests per second at most that slow) of all these pods together, edges rising."""
    counts: dict[float, float] = {}
    for pod in pods:
        for series in index.find(namespace, pod.name, name):
            reading = estimate_rate(series, index.at_seconds, index.stale_after_seconds)
            edge = _edge(series.labels.get("le", ""))
            if reading.value is not None and edge is not None:
                counts[edge] = counts.get(edge, 0.0) + reading.value
    return sorted(counts.items())


def _edge(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def estimate_quantile(
    namespace: str, pods: Sequence[PodView], index: PodSeries, name: str, quantile: float
) -> float | None:
    """A quantile over what all these pods' histograms counted in the window; None without observations.

    Linear inside a bucket. In the last, unbounded one the answer is its lower edge: at least that much.
    """
    counts = _count_buckets(namespace, pods, index, name)
    if not counts or counts[-1][1] <= 0.0:
        return None
    wanted, below_edge, below_count = quantile * counts[-1][1], 0.0, 0.0
    for edge, count in counts:
        if count >= wanted:
            if math.isinf(edge) or count == below_count:
                return below_edge
            return below_edge + (edge - below_edge) * (wanted - below_count) / (count - below_count)
        below_edge, below_count = edge, count
    return below_edge


def estimate_late_share(
    namespace: str, pods: Sequence[PodView], index: PodSeries, bounds: LatencyTarget
) -> float | None:
    """Share of the window's requests that broke a bound, the worse of the two; None while that is not known."""
    shares = []
    for name, bound in (
        (Signal.TIME_TO_FIRST_TOKEN_SECONDS, bounds.ttft_seconds),
        (Signal.TIME_PER_OUTPUT_TOKEN_SECONDS, bounds.tpot_seconds),
    ):
        share = None if bound is None else _share_above(_count_buckets(namespace, pods, index, name), bound)
        if bound is not None and share is None:
            return None
        shares.append(share or 0.0)
    return max(shares) if bounds != LatencyTarget() else None


def _share_above(counts: Sequence[tuple[float, float]], bound: float) -> float | None:
    """Share of requests slower than a bound; inside a bucket the tail falls by a constant factor per second.

    A straight line would take a bucket whose requests all lie at its lower edge for one that is evenly filled, and most
    of them for late.
    """
    if not counts or counts[-1][1] <= 0.0 or not math.isinf(counts[-1][0]):
        return None
    total = counts[-1][1]
    below_edge, above_below = 0.0, 1.0
    for edge, count in counts:
        above = max(0.0, 1.0 - count / total)
        if abs(edge - bound) <= EDGE_TOLERANCE * bound:
            return above
        if edge > bound:
            if math.isinf(edge):
                return above_below  # nobody knows how far beyond the last edge: all of them may be late
            way = (bound - below_edge) / (edge - below_edge)
            return float(above_below ** (1.0 - way) * max(above, LEAST_TAIL * above_below) ** way)
        below_edge, above_below = edge, above
    return None
