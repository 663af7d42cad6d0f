"""Arithmetic on raw samples: Prometheus' `increase()` extrapolates and hides how old its input is.

A reading is either a value with the time of its newest sample, or the reason why there is none. Unknown is never zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from wattzoo.api.conditions import Reason
from wattzoo.decisions import Finding
from wattzoo.model import Sample, Series
from wattzoo_policies.accuracy.ledger import ROUNDING

MIN_SAMPLES = 2
IMPLAUSIBLE_VALUE = 1e15
"""No counter or gauge we read comes near; above it a float no longer counts single requests."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A number with the time of its newest sample, or `problem`, which says why there is none."""

    value: float | None = None
    at_seconds: float | None = None
    span_seconds: float = 0.0
    problem: Finding | None = None

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return self.value is not None


def unknown(message: str, reason: Reason = Reason.NO_SAMPLES) -> Reading:
    """A reading without a value, and why."""
    return Reading(problem=Finding(reason, message))


def is_plausible(value: float) -> bool:
    """Whether a sample can be what it claims to be: finite, not negative, not absurdly large."""
    return math.isfinite(value) and 0.0 <= value < IMPLAUSIBLE_VALUE


def find_problem(series: Series, at_seconds: float, stale_after_seconds: float) -> Finding | None:
    """Why a series cannot be used: an implausible sample condemns it, an old newest one does too."""
    if not series.samples:
        return Finding(Reason.NO_SAMPLES, f"{series.name} has no samples")
    bad = next((s for s in series.samples if not is_plausible(s.value)), None)
    if bad is not None:
        return Finding(Reason.NON_FINITE_SAMPLE, f"{series.name} has the implausible sample {bad.value:g}")
    age = at_seconds - series.samples[-1].at_seconds
    if age > stale_after_seconds:
        return Finding(Reason.STALE_SAMPLES, f"the newest sample of {series.name} is {age:.0f} s old")
    return None


def estimate_latest(series: Series, at_seconds: float, stale_after_seconds: float) -> Reading:
    """The newest value of a gauge."""
    problem = find_problem(series, at_seconds, stale_after_seconds)
    if problem is not None:
        return Reading(problem=problem)
    return Reading(series.samples[-1].value, series.samples[-1].at_seconds)


def increase_between(samples: Iterable[Sample]) -> float:
    """What a counter grew by from the first to the last sample; after a reset it counts from zero again.

    A fall that rounding explains is none.
    """
    total, previous = 0.0, None
    for sample in samples:
        if previous is not None:
            is_reset = sample.value < previous * (1.0 - ROUNDING)
            total += sample.value if is_reset else max(0.0, sample.value - previous)
        previous = sample.value
    return total


def estimate_rate(
    series: Series, at_seconds: float, stale_after_seconds: float, since_seconds: float | None = None
) -> Reading:
    """Increase per second over the samples' own span, never extrapolated; only samples from `since_seconds` on."""
    problem = find_problem(series, at_seconds, stale_after_seconds)
    if problem is not None:
        return Reading(problem=problem)
    used = tuple(s for s in series.samples if since_seconds is None or s.at_seconds >= since_seconds)
    if len(used) < MIN_SAMPLES or used[-1].at_seconds <= used[0].at_seconds:
        return unknown(f"{series.name} has fewer than {MIN_SAMPLES} samples")
    span = used[-1].at_seconds - used[0].at_seconds
    return Reading(increase_between(used) / span, used[-1].at_seconds, span)


def sum_readings(readings: Iterable[Reading]) -> Reading:
    """The sum of readings that must all be known; unknown as soon as one is, or when there are none."""
    total, oldest, span, count = 0.0, math.inf, math.inf, 0
    for reading in readings:
        if reading.value is None:
            return reading
        total += reading.value
        oldest = min(oldest, reading.at_seconds if reading.at_seconds is not None else math.inf)
        span = min(span, reading.span_seconds)
        count += 1
    if not count:
        return unknown("there is no series")
    return Reading(total, oldest if math.isfinite(oldest) else None, span)


def read_problem(group: str, text: str) -> Finding:
    """A group that was not read, with the reason that its text stands for."""
    rejected = text.startswith(("HTTP 400", "HTTP 422", "the answer is larger"))
    reason = Reason.QUERY_REJECTED if rejected else Reason.PROMETHEUS_UNREACHABLE
    return Finding(reason, f"{group}: {text}")
