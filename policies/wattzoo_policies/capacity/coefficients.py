"""Eight coefficients that predict an instance's throughput from a light profile, after arXiv 2504.15303.

That paper predicts prefill and decode times from a few timed batches by least squares; its equations were not at hand,
so the form is our formulation after its abstract:

    prefill of b prompts of l tokens   p1*b*l + p2*b + p3*l + p4   seconds
    one decode step, b sequences of c  p5*b*c + p6*b + p7*c + p8   seconds

Times cannot be negative at any batch, so neither can a coefficient. The error is stated twice: on the rows used, and
on each row when it is left out; a fit whose left-out error exceeds a threshold is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from wattzoo_policies.capacity.fit import FitError
from wattzoo_policies.capacity.model import ReplicaModel, RequestShape

Floats = NDArray[np.float64]
MAX_RELATIVE_ERROR = 0.20
"""Mean relative error on left-out rows above which nothing may be planned with a fit."""


class PoorFitError(FitError):
    """The eight coefficients do not describe the timed batches well enough to plan with."""


@dataclass(frozen=True, slots=True)
class TimedBatch:
    """A timed prefill (`tokens`: prompt length) or a timed decode step (`tokens`: mean context) of a batch."""

    batch: float
    tokens: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Coefficients:
    """p1..p4 of prefill and p5..p8 of decode, in seconds per token and sequence, sequence, token, and seconds."""

    prefill: tuple[float, float, float, float]
    decode: tuple[float, float, float, float]

    def prefill_seconds(self, batch: float, prompt_tokens: float) -> float:
        """Return the time to prefill that many prompts together."""
        return float(_design(np.array([batch]), np.array([prompt_tokens]))[0] @ np.array(self.prefill))

    def decode_seconds(self, batch: float, context_tokens: float) -> float:
        """Return the time of one decode step."""
        return float(_design(np.array([batch]), np.array([context_tokens]))[0] @ np.array(self.decode))

    def batch_seconds(self, batch: float, shape: RequestShape) -> float:
        """Return the time from prompts to last tokens of a batch; decode is summed over contexts I .. I + O - 1."""
        mean_context = shape.input_tokens + (shape.output_tokens - 1.0) / 2.0
        decode = shape.output_tokens * self.decode_seconds(batch, mean_context)
        return self.prefill_seconds(batch, shape.input_tokens) + decode

    def tokens_per_second(self, batch: float, shape: RequestShape) -> float:
        """Return prompt and output tokens per second of an instance that always holds such a batch."""
        return batch * (shape.input_tokens + shape.output_tokens) / self.batch_seconds(batch, shape)


@dataclass(frozen=True, slots=True)
class CoefficientFit:
    """Coefficients and their mean relative errors, on the rows used and on each row when it is left out."""

    coefficients: Coefficients
    prefill_error: float
    decode_error: float
    prefill_error_left_out: float
    decode_error_left_out: float


def fit_coefficients(
    prefill: Sequence[TimedBatch],
    decode: Sequence[TimedBatch],
    *,
    max_relative_error: float = MAX_RELATIVE_ERROR,
    subject: str = "profile",
) -> CoefficientFit:
    """Fit both halves by least squares of relative errors, coefficients at least 0.

    Each half needs at least five rows (four unknowns and one to check) with two batches and two lengths. Raises
    `FitError` otherwise and `PoorFitError` when the left-out error of a half exceeds `max_relative_error`.
    """
    halves = []
    for field, rows in (("prefill", prefill), ("decode", decode)):
        batch, tokens, seconds = _check(rows, field, subject)
        found, inside, left_out = _fit_half(batch, tokens, seconds)
        if left_out > max_relative_error:
            rule = f"mean error {left_out:.1%} on rows left out exceeds {max_relative_error:.1%}"
            raise PoorFitError(rule, field, subject)
        halves.append((found, inside, left_out))
    (first, first_in, first_out), (second, second_in, second_out) = halves
    return CoefficientFit(Coefficients(first, second), first_in, second_in, first_out, second_out)


def make_coefficients(model: ReplicaModel) -> Coefficients:
    """Return the coefficients of the straight-line law, which knows neither context nor prompts in parallel."""
    prefill = (model.prefill_seconds_per_token, 0.0, 0.0, 0.0)
    return Coefficients(prefill, (0.0, model.t1_seconds, 0.0, model.t0_seconds))


def _design(batch: Floats, tokens: Floats) -> Floats:
    """Return (N, 4): b*l, b, l, 1."""
    return np.stack([batch * tokens, batch, tokens, np.ones_like(batch)], axis=1)


def _solve(batch: Floats, tokens: Floats, seconds: Floats) -> Floats:
    design = _design(batch, tokens) / seconds[:, None]
    scale = np.linalg.norm(design, axis=0)
    found, _ = nnls(design / scale, np.ones_like(seconds))
    return np.asarray(found / scale, dtype=np.float64)


def _fit_half(batch: Floats, tokens: Floats, seconds: Floats) -> tuple[tuple[float, float, float, float], float, float]:
    """Return four coefficients, the mean relative error of the fit and that on rows left out one by one."""
    found = _solve(batch, tokens, seconds)
    inside = float(np.mean(np.abs(_design(batch, tokens) @ found / seconds - 1.0)))
    errors = []
    for row in range(len(seconds)):
        kept = np.arange(len(seconds)) != row
        without = _solve(batch[kept], tokens[kept], seconds[kept])
        errors.append(abs(_design(batch[[row]], tokens[[row]])[0] @ without / seconds[row] - 1.0))
    a, b, c, d = (float(value) for value in found)
    return (a, b, c, d), inside, float(np.mean(errors))


def _check(rows: Sequence[TimedBatch], field: str, subject: str) -> tuple[Floats, Floats, Floats]:
    for row in rows:
        for name, value in (("batch", row.batch), ("tokens", row.tokens), ("seconds", row.seconds)):
            if not math.isfinite(value) or value <= 0.0:
                raise FitError(f"must be a positive number, not {value}", f"{field}.{name}", subject)
    if len(rows) < 5 or min(len({row.batch for row in rows}), len({row.tokens for row in rows})) < 2:
        raise FitError("four coefficients need five rows with two batches and two lengths", field, subject)
    table = np.array([(row.batch, row.tokens, row.seconds) for row in rows])
    return table[:, 0], table[:, 1], table[:, 2]
