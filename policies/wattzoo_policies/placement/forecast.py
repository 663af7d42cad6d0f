"""How much load may come: a level, half of its rising trend, and how wrong that has been before.

Two questions. What may come within the time that a new replica takes (the lead): p = EWMA(.3) + half of the rise over
a lead window; err = mean of the three largest loads of the next window over p; the high load is p times the larger of
1.02 and err's 90 % quantile. And what may come in the very next interval: the same with one step and a higher
quantile, which says how full serving replicas may be. A product, not a sum: errors grow with the load.

Loads are of all services that share members, in replica-seconds per second of one reference variant, so that sizes of
requests count like their number. Errors are kept as a histogram that forgets; the memory is a few hundred bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

EWMA_WEIGHT = 0.3
NEXT_WEIGHT = 0.5
WINDOW_STEPS = 20
TREND_SHARE = 0.5
LEAST_RATIO = 1.02
UNKNOWN_RATIO = 1.30
LEAST_SAMPLES = 40
MEMORY_STEPS = 960
HIGH_QUANTILE = 0.90
NEXT_QUANTILE = 0.98
LARGEST = 3

_FIRST_EDGE = 1.0
_GROWTH = 1.03
_BINS = 80


@dataclass(frozen=True, slots=True)
class ErrorHistogram:
    """Ratios of what came to what was expected: logarithmic bins of 3 %, each sample fading over `MEMORY_STEPS`.

    Everything up to 1 is in the first bin: what is below expectation needs no reserve. samples: all ever seen.
    """

    counts: tuple[float, ...] = ()
    samples: int = 0

    def add(self, ratio: float) -> ErrorHistogram:
        """Return the histogram with one more ratio."""
        counts = [count * (1.0 - 1.0 / MEMORY_STEPS) for count in self.counts] or [0.0] * _BINS
        place = 0 if ratio <= _FIRST_EDGE else math.ceil(math.log(ratio / _FIRST_EDGE) / math.log(_GROWTH) - 1e-9)
        counts[min(_BINS - 1, place)] += 1.0
        return ErrorHistogram(tuple(round(count, 4) for count in counts), self.samples + 1)

    def quantile(self, share: float) -> float | None:
        """Return the ratio below which this share lies (upper edge of its bin, interpolated); `None` while unknown."""
        if self.samples < LEAST_SAMPLES:
            return None
        target, passed = share * sum(self.counts), 0.0
        for place, count in enumerate(self.counts):
            if passed + count >= target:
                inside = (target - passed) / count if count > 0.0 else 0.0
                return _FIRST_EDGE * _GROWTH ** (place - 1.0 + inside) if place else _FIRST_EDGE
            passed += count
        return _FIRST_EDGE * float(_GROWTH**_BINS)


@dataclass(frozen=True, slots=True)
class LoadMemory:
    """All that is remembered of one load: levels, the last window of loads and expectations, two error histograms."""

    level: float | None = None
    next_level: float | None = None
    loads: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()
    expected: tuple[float, ...] = ()
    errors: ErrorHistogram = field(default_factory=ErrorHistogram)
    next_errors: ErrorHistogram = field(default_factory=ErrorHistogram)


@dataclass(frozen=True, slots=True)
class LoadForecast:
    """level: what is expected. high: to be ready for within the lead. next_load, next_ratio: the coming interval's
    expectation and the factor that it rarely exceeds.
    """

    level: float
    high: float
    next_load: float
    next_ratio: float


def observe_load(memory: LoadMemory, load: float) -> LoadMemory:
    """Return the memory after an interval with this load."""
    if not (math.isfinite(load) and load >= 0.0):
        raise ValueError(f"load must be a number of at least 0, not {load}")
    level = load if memory.level is None else memory.level + EWMA_WEIGHT * (load - memory.level)
    following = load if memory.next_level is None else memory.next_level + NEXT_WEIGHT * (load - memory.next_level)
    loads = (*memory.loads, load)[-WINDOW_STEPS:]
    levels = (*memory.levels, level)[-WINDOW_STEPS - 1 :]
    errors, next_errors, expected = memory.errors, memory.next_errors, memory.expected
    if len(expected) >= WINDOW_STEPS:  # what was expected a window ago can be judged now
        if expected[-WINDOW_STEPS] > 0.0:
            largest = sorted(loads)[-LARGEST:]
            errors = errors.add(sum(largest) / len(largest) / expected[-WINDOW_STEPS])
        expected = expected[-WINDOW_STEPS + 1 :]
    if memory.next_level is not None and memory.next_level > 0.0:
        next_errors = next_errors.add(load / memory.next_level)
    return LoadMemory(level, following, loads, levels, (*expected, _expectation(level, levels)), errors, next_errors)


def forecast_load(memory: LoadMemory) -> LoadForecast | None:
    """Return what may come; `None` before the first observation."""
    if memory.level is None or memory.next_level is None:
        return None
    ratio = memory.errors.quantile(HIGH_QUANTILE)
    next_ratio = memory.next_errors.quantile(NEXT_QUANTILE)
    expected = _expectation(memory.level, memory.levels)
    high = expected * max(LEAST_RATIO, UNKNOWN_RATIO if ratio is None else ratio)
    next_load = memory.next_level
    following = max(LEAST_RATIO, UNKNOWN_RATIO if next_ratio is None else next_ratio)
    return LoadForecast(memory.level, max(high, next_load), next_load, following)


def _expectation(level: float, levels: Sequence[float]) -> float:
    return level + TREND_SHARE * max(0.0, level - levels[0]) if levels else level
