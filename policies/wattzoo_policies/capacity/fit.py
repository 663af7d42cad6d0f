"""From the measured points of a profile to the handful of numbers of a `ReplicaModel`, with the error made on the way.

Step time and power are straight lines (in the batch and in the load), so both are least squares on two coefficients,
weighted to make relative errors count alike. Below batch 8 the law is known to be poor; where two points at 8 or
more exist, the others are left out of the fit and of its stated error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wattzoo_policies.capacity.model import START_POWER_RATIO, ReplicaModel

LAW_FROM_BATCH = 8
CONTRADICTION = 2.0
MEASURED_FIELDS = (
    "running_requests",
    "input_tokens",
    "output_tokens_per_second",
    "power_watts",
    "ttft_seconds",
    "tpot_seconds",
)


@dataclass(frozen=True, slots=True)
class ProfilePoint:
    """One replica held at one concurrency; medians."""

    running_requests: float
    input_tokens: float
    output_tokens_per_second: float
    power_watts: float
    ttft_seconds: float
    tpot_seconds: float


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """What a profile states besides its points. Watts are for all accelerators of the replica.

    startup_joules `None`: the start is assumed at 1.25 times idle power. off_watts: no process on the accelerators.
    """

    kv_tokens: int
    idle_watts: float
    startup_seconds: float
    startup_joules: float | None = None
    off_watts: float = 0.0
    max_sequences: int = 256
    accelerators: int = 1
    max_batched_tokens: int = 2048


@dataclass(frozen=True, slots=True)
class ReplicaFit:
    """A fitted model and its largest and mean relative errors on the points that it was fitted to."""

    model: ReplicaModel
    tpot_error_mean: float
    tpot_error_max: float
    power_error_mean: float
    power_error_max: float
    points_used: int


class FitError(ValueError):
    """The points cannot be a replica: too few, not numbers, or in contradiction. Names the object, field and rule."""

    def __init__(self, rule: str, field: str = "points", subject: str = "profile") -> None:
        self.rule, self.field, self.subject = rule, field, subject
        super().__init__(f"{subject}: {field}: {rule}")


def fit_replica_model(points: Sequence[ProfilePoint], facts: ReplicaFacts, subject: str = "profile") -> ReplicaFit:
    """Fit step time, prefill time and power to at least two concurrencies; `subject` is how errors call the profile.

    Raises `FitError` when fewer are given, when a value is not a positive number, when points contradict themselves or
    when a line has no positive step time. A power that does not rise with load is fitted as constant.
    """
    check_points(points, subject)
    lawful = [point for point in points if point.running_requests >= LAW_FROM_BATCH]
    used = lawful if len({point.running_requests for point in lawful}) >= 2 else list(points)
    batch = np.array([point.running_requests for point in used])
    tpot = np.array([point.tpot_seconds for point in used])
    t0, t1 = _line(batch, tpot)
    if t1 < 0.0:
        t0, t1 = float(tpot.mean()), 0.0
    if t0 <= 0.0:
        rule = f"the step time at batch 0 comes out as {t0 * 1e3:.3f} ms; it must be positive"
        raise FitError(rule, "tpot_seconds", subject)
    load = t1 * batch / (t0 + t1 * batch)
    watts = np.array([point.power_watts for point in used])
    active, slope = _line(load, watts) if np.ptp(load) > 0.0 else (float(watts.mean()), 0.0)
    if slope < 0.0:
        active, slope = float(watts.mean()), 0.0
    active = max(active, facts.idle_watts)
    start_joules = facts.startup_joules
    if start_joules is None:
        start_joules = START_POWER_RATIO * facts.idle_watts * facts.startup_seconds
    model = ReplicaModel(
        t0_seconds=t0,
        t1_seconds=t1,
        prefill_seconds_per_token=_prefill(points, t0, t1),
        kv_tokens=facts.kv_tokens,
        max_sequences=facts.max_sequences,
        off_watts=facts.off_watts,
        idle_watts=facts.idle_watts,
        active_watts=active,
        max_watts=active + slope,
        startup_seconds=facts.startup_seconds,
        startup_joules=start_joules,
        accelerators=facts.accelerators,
        max_batched_tokens=facts.max_batched_tokens,
    )
    tpot_errors = np.abs((t0 + t1 * batch) / tpot - 1.0)
    power_errors = np.abs((active + slope * load) / watts - 1.0)
    return ReplicaFit(
        model,
        float(tpot_errors.mean()),
        float(tpot_errors.max()),
        float(power_errors.mean()),
        float(power_errors.max()),
        len(used),
    )


def check_points(points: Sequence[ProfilePoint], subject: str = "profile") -> None:
    """Raise `FitError` when the points cannot be measurements of one replica.

    A batch of n gives n tokens per time per output token at most; medians and means differ, so twice that is refused.
    """
    if len({point.running_requests for point in points}) < 2:
        raise FitError("a replica needs points at two concurrencies at least", "points", subject)
    for point in points:
        where = f"(at {point.running_requests:g} requests)"
        for name in MEASURED_FIELDS:
            value = getattr(point, name)
            if not math.isfinite(value) or value <= 0.0:
                raise FitError(f"{name} must be a positive number, not {value} {where}", name, subject)
        most = point.running_requests / point.tpot_seconds
        if point.output_tokens_per_second > CONTRADICTION * most:
            rule = (
                f"{point.output_tokens_per_second:g} tokens/s contradict tpot_seconds, which allows {most:.0f} {where}"
            )
            raise FitError(rule, "output_tokens_per_second", subject)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return (intercept, slope) that minimise the sum of squared relative errors."""
    design = np.stack([1.0 / y, x / y], axis=1)
    solution, *_ = np.linalg.lstsq(design, np.ones_like(y), rcond=None)
    return float(solution[0]), float(solution[1])


def _prefill(points: Sequence[ProfilePoint], t0: float, t1: float) -> float:
    """Return the median time per prompt token that is left of the time to first token after one decode step."""
    left = [max(0.0, point.ttft_seconds - t0 - t1 * point.running_requests) / point.input_tokens for point in points]
    return float(np.median(left))
