"""Arithmetic on raw samples: Prometheus' `increase()` extrapolates and hides how old its input is.

A reading is either a value with the time of its newest sample, or the reason why there is none. Unknown is never zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from wattzoo.model import Sample, Series

MIN_SAMPLES = 2
IMPLAUSIBLE_VALUE = 1e15
"""No counter or gauge we read comes near; above it a float no longer counts single requests."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A number with the time of its newest sample, or `problem`, which says why there is none."""

    value: float | None = None
    at_seconds: float | None = None
    span_seconds: float = 0.0
    problem: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return self.value is not None


def unknown(problem: str) -> Reading:
    """A reading without a value, and why."""
    return Reading(problem=problem)


def is_plausible(value: float) -> bool:
    """Whether a sample can be what it claims to be: finite, not negative, not absurdly large."""
    return math.isfinite(value) and 0.0 <= value < IMPLAUSIBLE_VALUE


def read_samples(series: Series, at_seconds: float, stale_after_seconds: float) -> tuple[tuple[Sample, ...], str]:
    """The samples to work with, or none and why: implausible ones condemn the series, an old newest one does too."""
    if not series.samples:
        return (), f"{series.name} has no samples"
    bad = next((s for s in series.samples if not is_plausible(s.value)), None)
    if bad is not None:
        return (), f"{series.name} has the implausible sample {bad.value:g}"
    age = at_seconds - series.samples[-1].at_seconds
    if age > stale_after_seconds:
        return (), f"{series.name} is {age:.0f} s old"
    return series.samples, ""


def estimate_latest(series: Series, at_seconds: float, stale_after_seconds: float) -> Reading:
    """The newest value of a gauge."""
    samples, problem = read_samples(series, at_seconds, stale_after_seconds)
    if not samples:
        return unknown(problem)
    return Reading(samples[-1].value, samples[-1].at_seconds)


def increase_between(samples: Iterable[Sample]) -> float:
    """What a counter grew by from the first to the last sample; after a reset it counts from zero again."""
    total, previous = 0.0, None
    for sample in samples:
        if previous is not None:
            total += sample.value - previous if sample.value >= previous else sample.value
        previous = sample.value
    return total


def estimate_rate(
    series: Series, at_seconds: float, stale_after_seconds: float, since_seconds: float | None = None
) -> Reading:
    """Increase per second over the samples' own span, never extrapolated; only samples from `since_seconds` on."""
    samples, problem = read_samples(series, at_seconds, stale_after_seconds)
    if not samples:
        return unknown(problem)
    used = tuple(s for s in samples if since_seconds is None or s.at_seconds >= since_seconds)
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
