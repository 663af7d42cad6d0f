"""How much load may come: what two simple expectations say, times how wrong each has been before.

Two questions. What may come within the time that a new replica takes (the lead, a window as long as the longest start),
as the mean of the three largest loads of it; and what may come in the very next interval, which says how full serving
replicas may be. Each is asked of two expectations: a *level* (an average, and half of its rise over a window), good for
load that wanders, and a *peak* (the largest load of the last ten minutes), good for load that comes in bursts with
silence between. An expectation's bound is its value times a quantile of (what came / what was expected), for the next
interval weighted by what came: the share of requests, not of intervals, is promised to somebody. The expectation whose
bound has been lower on average is believed. A product, not a sum: errors grow with the load.

Two corrections of what errors of the past cannot know. A rise over the window that is larger than rises usually are is
no chance: what it is larger by goes on (`RISE_POWER`), or a ramp, which is rare, is always met too late. And nothing
far above the largest load of the last hours is expected, whatever a quantile of few samples says.

Loads are of all services that share members, in replica-seconds per second of one reference variant, so that sizes of
requests count like their number. Errors are kept as histograms that forget; the memory is about a kilobyte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

EWMA_WEIGHT = 0.3
NEXT_WEIGHT = 0.5
WINDOW_STEPS = 20
"""The window where it is not known how long a start takes."""
LEAST_WINDOW_STEPS = 4
PEAK_STEPS = 40
TREND_SHARE = 0.5
LEAST_RATIO = 1.02
UNKNOWN_RATIO = 1.30
LEAST_SAMPLES = 40
MEMORY_STEPS = 960
HIGH_QUANTILE = 0.90
NEXT_QUANTILE = 0.97
RISE_QUANTILE = 0.90
"""Rises over the window up to this quantile are taken for chance."""
RISE_POWER = 1.5
"""A start takes a window; to be ready for the end of a plan's life too, a rise is carried on for half of one more."""
MOST_USUAL_RISE = 2.0
MOST_OVER_LARGEST = 1.5
LARGEST = 3

_FIRST_EDGE = 0.5
_GROWTH = 1.03
BINS = 100
_LAST_EDGE = _FIRST_EDGE * _GROWTH ** (BINS - 1)


@dataclass(frozen=True, slots=True)
class ErrorHistogram:
    """Ratios of what came to what was expected: logarithmic bins of 3 %, each sample fading over `MEMORY_STEPS`.

    samples: how many were ever seen.
    """

    counts: tuple[float, ...] = ()
    samples: int = 0

    def add(self, ratio: float, weight: float = 1.0) -> ErrorHistogram:
        """Return the histogram with one more ratio."""
        counts = [count * (1.0 - 1.0 / MEMORY_STEPS) for count in self.counts] or [0.0] * BINS
        place = 0 if ratio <= _FIRST_EDGE else math.ceil(math.log(ratio / _FIRST_EDGE) / math.log(_GROWTH) - 1e-9)
        counts[min(BINS - 1, place)] += weight
        return ErrorHistogram(tuple(counts), self.samples + 1)

    def quantile(self, share: float) -> float | None:
        """Return the ratio below which this share lies (inside its bin, interpolated); `None` while unknown.

        Infinite when it lies beyond the last bin: then the expectation says nothing.
        """
        total = sum(self.counts)
        if self.samples < LEAST_SAMPLES or total <= 0.0:
            return None
        target, passed = share * total, 0.0
        for place, count in enumerate(self.counts[:-1]):
            if passed + count >= target:
                inside = (target - passed) / count if count > 0.0 else 0.0
                return _FIRST_EDGE * _GROWTH ** (place - 1.0 + inside) if place else _FIRST_EDGE
            passed += count
        return math.inf


@dataclass(frozen=True, slots=True)
class Expectation:
    """One way to expect, as far as it is remembered.

    values: what was expected in the steps that cannot be judged yet. errors: of those that could. mean_bound: average
    of its `bounds` bounds so far, later ones fading over `MEMORY_STEPS` (`None`: none yet).
    """

    values: tuple[float, ...] = ()
    errors: ErrorHistogram = field(default_factory=ErrorHistogram)
    mean_bound: float | None = None
    bounds: int = 0

    def judge(self, came: float, steps: int) -> Expectation:
        """Return it after the oldest of `steps` pending values has been judged by what came."""
        if len(self.values) < steps:
            return self
        errors = self.errors
        if self.values[-steps] > 0.0 and came > 0.0:
            errors = errors.add(came / self.values[-steps], came if steps == 1 else 1.0)
        return replace(self, errors=errors, values=self.values[-steps + 1 :] if steps > 1 else ())

    def expect(self, value: float, quantile: float) -> Expectation:
        """Return it with a new value pending."""
        bound, values = self.bound(value, quantile), (*self.values, value)
        if bound is None:
            return replace(self, values=values)
        bounds, mean = min(self.bounds + 1, MEMORY_STEPS), self.mean_bound or 0.0
        mean += (min(bound, value * _LAST_EDGE) - mean) / bounds
        return replace(self, values=values, mean_bound=mean, bounds=bounds)

    def scaled(self, factor: float, weight: float = 1.0) -> Expectation:
        """Return it for a load that is so many times as large; errors are ratios and stay, whatever they `weight`."""
        mean = None if self.mean_bound is None else factor * self.mean_bound
        errors = replace(self.errors, counts=tuple(weight * count for count in self.errors.counts))
        return replace(self, values=tuple(factor * value for value in self.values), errors=errors, mean_bound=mean)

    def bound(self, value: float, quantile: float) -> float | None:
        """Return what is rarely exceeded when `value` is expected; `None` while that is not known."""
        ratio = self.errors.quantile(quantile)
        return None if ratio is None else value * max(ratio, LEAST_RATIO)


@dataclass(frozen=True, slots=True)
class LoadMemory:
    """All that is remembered of one load: averages, the last loads and averages, and four expectations.

    rises: of the average over a window. largest: load, fading over `MEMORY_STEPS`. mean: over as many of `steps`.
    window: steps within which a new replica is ready.
    """

    level: float | None = None
    next_level: float | None = None
    loads: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()
    lead: tuple[Expectation, Expectation] = (Expectation(), Expectation())
    following: tuple[Expectation, Expectation] = (Expectation(), Expectation())
    rises: ErrorHistogram = field(default_factory=ErrorHistogram)
    largest: float = 0.0
    mean: float = 0.0
    steps: int = 0
    window: int = WINDOW_STEPS

    @property
    def weight(self) -> float:
        """Return the last load over the mean one: how much of all requests the last interval stands for."""
        return self.loads[-1] / self.mean if self.loads and self.mean > 0.0 else 1.0

    def scaled(self, factor: float) -> LoadMemory:
        """Return it for a load that is so many times as large, as if it had always been (next errors weigh by it)."""
        return replace(
            self,
            level=None if self.level is None else factor * self.level,
            next_level=None if self.next_level is None else factor * self.next_level,
            loads=tuple(factor * load for load in self.loads),
            levels=tuple(factor * level for level in self.levels),
            lead=(self.lead[0].scaled(factor), self.lead[1].scaled(factor)),
            following=(self.following[0].scaled(factor, factor), self.following[1].scaled(factor, factor)),
            largest=factor * self.largest,
            mean=factor * self.mean,
        )


@dataclass(frozen=True, slots=True)
class LoadForecast:
    """level: what is expected. high: to be ready for within the lead.

    next_load, next_high: the coming interval's expectation and what it rarely exceeds. next_base: what the latter is a
    multiple of: the expectation, or the peak where that is believed.
    """

    level: float
    high: float
    next_load: float
    next_high: float
    next_base: float


def lead_steps(start_seconds: float, step_seconds: float) -> int:
    """Return the steps of a window within which a start that takes so long is done; the last peak's steps at most."""
    return min(PEAK_STEPS, max(LEAST_WINDOW_STEPS, math.ceil(start_seconds / step_seconds - 1e-9)))


def observe_load(memory: LoadMemory, load: float, window: int = WINDOW_STEPS) -> LoadMemory:
    """Return the memory after an interval with this load; `window`: steps that a new replica takes now."""
    if not (math.isfinite(load) and load >= 0.0):
        raise ValueError(f"load must be a number of at least 0, not {load}")
    level = load if memory.level is None else memory.level + EWMA_WEIGHT * (load - memory.level)
    next_level = load if memory.next_level is None else memory.next_level + NEXT_WEIGHT * (load - memory.next_level)
    loads = (*memory.loads, load)[-PEAK_STEPS:]
    levels = (*memory.levels, level)[-window - 1 :]
    highest = sorted(loads[-window:])[-LARGEST:]
    came = sum(highest) / len(highest)
    peak = max(loads) if len(loads) == PEAK_STEPS else 0.0  # a peak of less than all its steps is no sample
    lead = _move(memory.lead, came, window, (_with_trend(level, levels), peak), HIGH_QUANTILE)
    following = _move(memory.following, load, 1, (next_level, peak), NEXT_QUANTILE)
    rise = _rise(levels, window)
    rises = memory.rises if rise is None else memory.rises.add(rise)
    largest = max(load, memory.largest * (1.0 - 1.0 / MEMORY_STEPS))
    steps = min(memory.steps + 1, MEMORY_STEPS)
    mean = memory.mean + (load - memory.mean) / steps
    return LoadMemory(level, next_level, loads, levels, lead, following, rises, largest, mean, steps, window)


def forecast_load(memory: LoadMemory) -> LoadForecast | None:
    """Return what may come; `None` before the first observation."""
    if memory.level is None or memory.next_level is None:
        return None
    peak = max(memory.loads)
    most = MOST_OVER_LARGEST * max(memory.largest, peak)
    expected = _with_trend(memory.level, memory.levels)
    _, high = _believed(memory.lead, (expected, peak), HIGH_QUANTILE, most, UNKNOWN_RATIO * expected)
    high = min(high * _unusual_rise(memory) ** RISE_POWER, most)
    unknown = max(UNKNOWN_RATIO * memory.next_level, peak)
    base, next_high = _believed(memory.following, (memory.next_level, peak), NEXT_QUANTILE, most, unknown)
    next_high = min(next_high, most)
    return LoadForecast(
        memory.level, max(high, memory.next_level), memory.next_level, next_high, min(base, next_high / LEAST_RATIO)
    )


def _move(
    pair: tuple[Expectation, Expectation], came: float, steps: int, values: tuple[float, float], quantile: float
) -> tuple[Expectation, Expectation]:
    level, peak = (e.judge(came, steps).expect(value, quantile) for e, value in zip(pair, values, strict=True))
    return level, peak


def _believed(
    pair: tuple[Expectation, Expectation], values: tuple[float, float], quantile: float, most: float, unknown: float
) -> tuple[float, float]:
    """Return value and bound of the expectation whose bounds have been lower; of equally good ones the steadier peak.

    `unknown` until one is known; where the level has been judged and says nothing, `most`.
    """
    known = []
    for expectation, value, unsteady in zip(pair, values, (LEAST_RATIO, 1.0), strict=True):
        bound = expectation.bound(value, quantile)
        if bound is not None and math.isfinite(bound) and expectation.mean_bound is not None:
            known.append((unsteady * expectation.mean_bound, value, bound))
    if known:
        _, value, bound = min(known)
        return value, bound
    is_judged = pair[0].errors.samples >= LEAST_SAMPLES
    return values[0], most if is_judged else unknown


def _with_trend(level: float, levels: Sequence[float]) -> float:
    return level + TREND_SHARE * max(0.0, level - levels[0]) if levels else level


def _rise(levels: Sequence[float], window: int) -> float | None:
    """Return the average over what it was a window ago; `None` while that is not known."""
    return levels[-1] / levels[0] if len(levels) > window and levels[0] > 0.0 else None


def _unusual_rise(memory: LoadMemory) -> float:
    """Return by what factor the present rise exceeds what rises usually are; 1 when it does not.

    Where the average often doubles within a window, in bursts between silence, its rise says nothing.
    """
    rise, usual = _rise(memory.levels, memory.window), memory.rises.quantile(RISE_QUANTILE)
    if rise is None or usual is None or usual > MOST_USUAL_RISE:
        return 1.0
    return max(1.0, rise / max(LEAST_RATIO, usual))
