"""What a load does to one replica, read from the measured points of its profile instead of a fitted law.

The law of `capacity.model` needs five numbers and is poor below batch 8 and where a GPU runs into its power limit.
Here values between two measured points are interpolated: step time and time to first token along the batch, power
along its logarithm (on tabulated rows left out the straight line errs 1.1 to 1.6 times as much). How far that may be
wrong is stated: every inner point is left out in turn, and the largest relative error so made is the band of every
estimate. A profile of two points has no inner point, so its band is unknown. Beyond the measured points nothing is
known; that is refused, or flagged when the caller asks for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.capacity.fit import FitError, ProfilePoint, ReplicaFacts, check_points
from wattzoo_policies.capacity.model import RequestShape

Floats = NDArray[np.float64]


class OutOfRangeError(ValueError):
    """A load for which the profile has no measured point, or which the replica cannot carry."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the relative error that leaving points out has shown; `None`: too few points to tell."""

    value: float
    relative_error: float | None

    @property
    def low(self) -> float | None:
        """Return the lower end of the band."""
        return None if self.relative_error is None else self.value * max(0.0, 1.0 - self.relative_error)

    @property
    def high(self) -> float | None:
        """Return the upper end of the band."""
        return None if self.relative_error is None else self.value * (1.0 + self.relative_error)


@dataclass(frozen=True, slots=True)
class LoadEstimate:
    """One replica under a load. kv_tokens: cache in use. extrapolated: the batch lies outside the measured points."""

    running_requests: float
    step_seconds: Estimate
    tpot_seconds: Estimate
    ttft_seconds: Estimate
    power_watts: Estimate
    output_tokens_per_second: float
    kv_tokens: float
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class _Curve:
    """Values over rising batches, straight between them in `scale` of the batch."""

    batches: Floats
    values: Floats
    scale: Callable[[Floats], Floats]

    def at(self, batch: float) -> float:
        """Return the value; beyond the points the outer segment goes on, but never below half of its end."""
        x, y = self.scale(self.batches), self.values
        at = float(self.scale(np.array([batch]))[0])
        if x[0] <= at <= x[-1]:
            return float(np.interp(at, x, y))
        near, far = (0, 1) if at < x[0] else (-1, -2)
        slope = (y[near] - y[far]) / (x[near] - x[far])
        return float(max(y[near] + slope * (at - x[near]), 0.5 * y[near]))

    def relative_error(self) -> float | None:
        """Return the largest relative error at an inner point that is left out."""
        x, y = self.scale(self.batches), self.values
        inner = range(1, len(x) - 1)
        errors = [abs(np.interp(x[i], np.delete(x, i), np.delete(y, i)) / y[i] - 1.0) for i in inner]
        return float(max(errors)) if errors else None


def _same(batch: Floats) -> Floats:
    return batch


class ProfileCurves:
    """Step time, prefill time and power of one replica over the measured batches of its profile."""

    def __init__(self, points: Sequence[ProfilePoint], facts: ReplicaFacts, subject: str = "profile") -> None:
        """Take at least two points.

        Raises `FitError`, naming the subject, the field and the rule, when a value is not positive, two points share
        a batch, a point burns less than the idle replica, or more tokens come out than the batch can give.
        """
        check_points(points, subject)
        ordered = sorted(points, key=lambda point: point.running_requests)
        batches = np.array([point.running_requests for point in ordered])
        for point, after in itertools.pairwise(ordered):
            if point.running_requests == after.running_requests:
                rule = f"two points at {point.running_requests:g} requests contradict each other"
                raise FitError(rule, "running_requests", subject)
        for point in ordered:
            if point.power_watts < facts.idle_watts:
                rule = f"{point.power_watts:g} W at {point.running_requests:g} requests is below the idle power of "
                raise FitError(f"{rule}{facts.idle_watts:g} W", "power_watts", subject)
        self.subject, self.facts = subject, facts
        self.batches = batches
        self._step = _Curve(batches, np.array([point.tpot_seconds for point in ordered]), _same)
        self._first = _Curve(batches, np.array([point.ttft_seconds for point in ordered]), _same)
        self._power = _Curve(batches, np.array([point.power_watts for point in ordered]), np.log)
        self.max_watts = float(self._power.values.max())
        self.prefill_seconds_per_token = float(
            np.median([max(0.0, p.ttft_seconds - p.tpot_seconds) / p.input_tokens for p in ordered])
        )

    def largest_batch(self, shape: RequestShape) -> float:
        """Return how many sequences fit: measured range, batch limit and KV cache of whole requests."""
        return min(float(self.batches[-1]), float(self.facts.max_sequences), self._kv_sequences(shape))

    def estimate_at_batch(self, batch: float, shape: RequestShape, *, extrapolate: bool = False) -> LoadEstimate:
        """Return step time, TPOT, TTFT and power while that many sequences decode and no other prompt comes in.

        Raises `OutOfRangeError` outside the measured batches (unless `extrapolate`: flagged then, bands unknown) and
        when the KV cache or the batch limit cannot hold the sequences.
        """
        outside = self._check_batch(batch, shape, extrapolate)
        step = self._step.at(batch)
        first = shape.input_tokens * self.prefill_seconds_per_token + step
        return self._estimate(batch, shape, (step, step, first, self._power.at(batch)), outside)

    def estimate_at_rate(self, rate_rps: float, shape: RequestShape, *, extrapolate: bool = False) -> LoadEstimate:
        """Return what a steady rate of such requests does to the replica; the counterpart of `model.power_watts`.

        Prompts take the share u = rate * I * tp of the time at full power, so an output token takes step(n)/(1 - u)
        and n = rate * O * step(n)/(1 - u) sequences run. With few of them the replica is at times idle: busy with
        probability 1 - exp(-n). Raises `OutOfRangeError` like `estimate_at_batch`, and when no batch carries the rate.
        """
        if not (math.isfinite(rate_rps) and rate_rps >= 0.0):
            raise OutOfRangeError(f"{self.subject}: rate_rps: must be a number of at least 0, not {rate_rps}")
        prefill = rate_rps * shape.input_tokens * self.prefill_seconds_per_token
        batch = None if prefill >= 1.0 else self._solve_batch(rate_rps * shape.output_tokens / (1.0 - prefill))
        if batch is None:
            raise OutOfRangeError(f"{self.subject}: rate_rps: no batch carries {rate_rps:g} requests per second")
        outside = batch > 0.0 and self._check_batch(max(batch, 1.0), shape, extrapolate)
        step = self._step.at(max(batch, 1.0))
        first = (shape.input_tokens * self.prefill_seconds_per_token + step) / (1.0 - prefill)
        working = prefill * self.max_watts + (1.0 - prefill) * self._power.at(max(batch, 1.0))
        watts = self.facts.idle_watts - math.expm1(-batch) * (working - self.facts.idle_watts)
        return self._estimate(batch, shape, (step, step / (1.0 - prefill), first, watts), outside)

    def _solve_batch(self, tokens_per_second: float) -> float | None:
        """Return the smallest n with n = k * step(n), k in tokens per second of decoding time; `None` without one."""
        if tokens_per_second * self._step.at(1.0) <= 1.0:
            return tokens_per_second * self._step.at(1.0)
        ends = sorted({1.0, *map(float, self.batches), 2.0 * float(self.batches[-1])})
        for left, right in itertools.pairwise(ends):
            at_left, at_right = self._step.at(left), self._step.at(right)
            slope = (at_right - at_left) / (right - left)
            rising = 1.0 - tokens_per_second * slope
            if rising > 0.0:
                batch = tokens_per_second * (at_left - slope * left) / rising
                if left <= batch <= right:
                    return batch
        return None

    def _check_batch(self, batch: float, shape: RequestShape, extrapolate: bool) -> bool:
        """Return whether the batch lies outside the measured points."""
        if not (math.isfinite(batch) and batch > 0.0):
            raise OutOfRangeError(f"{self.subject}: running_requests: must be a positive number, not {batch}")
        fits = min(float(self.facts.max_sequences), self._kv_sequences(shape))
        if batch > fits * (1.0 + 1e-9):
            reason = f"{batch:g} sequences do not fit; KV cache and batch limit hold {fits:.1f} of this shape"
            raise OutOfRangeError(f"{self.subject}: running_requests: {reason}")
        outside = not self.batches[0] <= batch <= self.batches[-1] * (1.0 + 1e-9)
        if outside and not extrapolate:
            span = f"{self.batches[0]:g} to {self.batches[-1]:g}"
            raise OutOfRangeError(f"{self.subject}: running_requests: {batch:g} is outside the measured {span}")
        return bool(outside)

    def _kv_sequences(self, shape: RequestShape) -> float:
        return self.facts.kv_tokens / (shape.input_tokens + shape.output_tokens)

    def _estimate(
        self, batch: float, shape: RequestShape, values: tuple[float, float, float, float], outside: bool
    ) -> LoadEstimate:
        step, tpot, first, watts = values
        step_error = None if outside else self._step.relative_error()
        return LoadEstimate(
            running_requests=batch,
            step_seconds=Estimate(step, step_error),
            tpot_seconds=Estimate(tpot, step_error),
            ttft_seconds=Estimate(first, None if outside else self._first.relative_error()),
            power_watts=Estimate(watts, None if outside else self._power.relative_error()),
            output_tokens_per_second=batch / tpot,
            kv_tokens=batch * (shape.input_tokens + 0.5 * shape.output_tokens),
            extrapolated=outside,
        )
