"""The Kubernetes HorizontalPodAutoscaler for a per-pod metric with a target average value.

Rebuilt from the controller's documented algorithm (autoscaling/v2): the ratio of the metric's mean to the target, a
tolerance, pods without a metric counted against the direction of the change, the largest recommendation of a window
before going down, and rate policies. Windows are parameters, so that a demonstration that squeezes a day can squeeze
them alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class HpaParameters:
    """Defaults are those of Kubernetes.

    target_average: wished mean of the metric per pod. up_percent, up_pods: within a period replicas may grow by the
    larger of the two; down_percent: within a period at most this share goes.
    """

    target_average: float
    min_replicas: int = 1
    max_replicas: int = 64
    tolerance: float = 0.1
    sync_seconds: float = 15.0
    down_window_seconds: float = 300.0
    up_window_seconds: float = 0.0
    period_seconds: float = 15.0
    up_percent: float = 100.0
    up_pods: int = 4
    down_percent: float = 100.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.target_average) and self.target_average > 0.0):
            raise ValueError(f"target_average must be a positive number, not {self.target_average}")
        if not 0 <= self.min_replicas <= self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} and max_replicas {self.max_replicas} contradict")

    def with_target(self, target_average: float) -> HpaParameters:
        """Return the same autoscaler with another target."""
        return replace(self, target_average=target_average)

    def scaled(self, factor: float) -> HpaParameters:
        """Return the same autoscaler with every window and period multiplied by `factor`."""
        return replace(
            self,
            sync_seconds=self.sync_seconds * factor,
            down_window_seconds=self.down_window_seconds * factor,
            up_window_seconds=self.up_window_seconds * factor,
            period_seconds=self.period_seconds * factor,
        )


@dataclass(frozen=True, slots=True)
class HpaObservation:
    """Pods of one workload at one sync.

    metrics: values of the pods that have one. missing: running pods without one. pending: pods not running yet.
    """

    replicas: int
    metrics: tuple[float, ...]
    missing: int = 0
    pending: int = 0


@dataclass(frozen=True, slots=True)
class HpaState:
    """Recommendations and changes that the windows still see, as (at_seconds, number)."""

    recommendations: tuple[tuple[float, int], ...] = ()
    changes: tuple[tuple[float, int], ...] = ()


def decide_hpa(
    state: HpaState, observation: HpaObservation, parameters: HpaParameters, at_seconds: float
) -> tuple[HpaState, int]:
    """Return the state to keep and the desired replicas at a sync."""
    wished = estimate_replicas(observation, parameters)
    return stabilise_hpa(state, observation.replicas, wished, parameters, at_seconds)


def stabilise_hpa(
    state: HpaState, current: int, wished: int, parameters: HpaParameters, at_seconds: float
) -> tuple[HpaState, int]:
    """Return the state to keep and the desired replicas after bounds, windows and rate policies."""
    wished = max(parameters.min_replicas, min(parameters.max_replicas, wished))
    longest = max(parameters.down_window_seconds, parameters.up_window_seconds)
    past = state.recommendations or ((at_seconds, current),)  # a new autoscaler begins with what it finds
    recommendations = (*_since(past, at_seconds - longest), (at_seconds, wished))
    desired = _stabilise(recommendations, current, parameters, at_seconds)
    changes = _since(state.changes, at_seconds - parameters.period_seconds)
    desired = _limit_rate(desired, current, changes, parameters)
    if desired != current:
        changes = (*changes, (at_seconds, desired - current))
    return HpaState(recommendations, changes), desired


def estimate_replicas(observation: HpaObservation, parameters: HpaParameters) -> int:
    """Return the replicas that bring the metric's mean to the target; without any metric, those there are."""
    current, target = observation.replicas, parameters.target_average
    values = [value for value in observation.metrics if math.isfinite(value)]
    missing = observation.missing + len(observation.metrics) - len(values)
    if current == 0 or not values:
        return current
    ratio = sum(values) / len(values) / target
    if missing == 0 and (observation.pending == 0 or ratio <= 1.0):
        return current if abs(1.0 - ratio) <= parameters.tolerance else math.ceil(ratio * len(values))
    # pods that say nothing: at the target when going down, at zero when going up
    values += [target if ratio < 1.0 else 0.0] * missing
    if ratio > 1.0:
        values += [0.0] * observation.pending
    careful = sum(values) / len(values) / target
    if abs(1.0 - careful) <= parameters.tolerance or (ratio < 1.0) != (careful < 1.0):
        return current
    replicas = math.ceil(careful * len(values))
    if (careful < 1.0 and replicas > current) or (careful > 1.0 and replicas < current):
        return current
    return replicas


def _stabilise(
    recommendations: Sequence[tuple[float, int]], current: int, parameters: HpaParameters, at_seconds: float
) -> int:
    """Move from the present number no further than every recommendation of the direction's window agrees to."""
    now = recommendations[-1][1]
    highest = max([now, *(n for at, n in recommendations if at > at_seconds - parameters.down_window_seconds)])
    lowest = min([now, *(n for at, n in recommendations if at > at_seconds - parameters.up_window_seconds)])
    return min(max(current, lowest), highest)


def _limit_rate(desired: int, current: int, changes: Sequence[tuple[float, int]], parameters: HpaParameters) -> int:
    """Apply the rate policies: growth and shrinkage per period count from where the period began."""
    if desired > current:
        base = current - sum(change for _, change in changes if change > 0)
        most = max(base + parameters.up_pods, math.ceil(base * (1.0 + parameters.up_percent / 100.0)))
        return max(current, min(desired, most))
    if desired < current:
        base = current + sum(-change for _, change in changes if change < 0)
        least = math.floor(base * (1.0 - parameters.down_percent / 100.0))
        return min(current, max(desired, least))
    return desired


def _since(entries: Sequence[tuple[float, int]], since: float) -> tuple[tuple[float, int], ...]:
    return tuple(entry for entry in entries if entry[0] > since)
