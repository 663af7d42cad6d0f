"""The eight coefficients: sums by hand, recovery from noisy timings, refusal of what they cannot describe."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo_policies.capacity.coefficients import (
    Coefficients,
    PoorFitError,
    TimedBatch,
    fit_coefficients,
    make_coefficients,
)
from wattzoo_policies.capacity.fit import FitError
from wattzoo_policies.capacity.model import ReplicaModel, RequestShape

TRUE = Coefficients((3e-5, 1e-3, 2e-6, 5e-3), (4e-8, 8e-5, 1e-7, 7e-3))
BATCHES, LENGTHS = (1, 4, 16, 64), (128, 512, 2048)
HELD_OUT = [(b, RequestShape(i, o)) for b, i, o in itertools.product((2, 8, 32, 48), (256, 1024), (64, 400))]


def timings(noise: float = 0.0, seed: int = 0) -> tuple[list[TimedBatch], list[TimedBatch]]:
    rng = np.random.default_rng(seed)
    prefill, decode = [], []
    for batch, tokens in itertools.product(BATCHES, LENGTHS):
        error = 1.0 + noise * rng.standard_normal(2)
        prefill.append(TimedBatch(batch, tokens, TRUE.prefill_seconds(batch, tokens) * error[0]))
        decode.append(TimedBatch(batch, tokens, TRUE.decode_seconds(batch, tokens) * error[1]))
    return prefill, decode


def test_times_by_hand() -> None:
    assert TRUE.prefill_seconds(2, 100) == pytest.approx(3e-5 * 200 + 1e-3 * 2 + 2e-6 * 100 + 5e-3)
    assert TRUE.decode_seconds(2, 100) == pytest.approx(4e-8 * 200 + 8e-5 * 2 + 1e-7 * 100 + 7e-3)
    shape = RequestShape(100.0, 5.0)
    steps = sum(TRUE.decode_seconds(2, 100 + j) for j in range(5))
    assert TRUE.batch_seconds(2, shape) == pytest.approx(TRUE.prefill_seconds(2, 100) + steps)
    assert TRUE.tokens_per_second(2, shape) == pytest.approx(2 * 105 / TRUE.batch_seconds(2, shape))


def test_exact_timings_give_back_the_coefficients() -> None:
    fit = fit_coefficients(*timings())
    assert fit.coefficients.prefill == pytest.approx(TRUE.prefill, rel=1e-6)
    assert fit.coefficients.decode == pytest.approx(TRUE.decode, rel=1e-6)
    assert max(fit.prefill_error, fit.decode_error, fit.decode_error_left_out) < 1e-9


def test_two_percent_noise_leaves_throughput_within_five_percent_on_held_out_points() -> None:
    means = []
    for seed in range(50):
        found = fit_coefficients(*timings(0.02, seed)).coefficients
        errors = [abs(found.tokens_per_second(b, s) / TRUE.tokens_per_second(b, s) - 1.0) for b, s in HELD_OUT]
        means.append(np.mean(errors))
    assert max(means) < 0.05


@given(st.floats(1, 200), st.floats(1, 8000), st.integers(0, 1000))
def test_no_batch_takes_negative_time(batch: float, tokens: float, seed: int) -> None:
    found = fit_coefficients(*timings(0.02, seed)).coefficients
    assert found.prefill_seconds(batch, tokens) > 0.0
    assert found.decode_seconds(batch, tokens) > 0.0


def test_what_the_form_cannot_describe_is_refused() -> None:
    prefill, decode = timings()
    wild = [replace(row, seconds=row.seconds * (4.0 if n % 2 else 1.0)) for n, row in enumerate(decode)]
    with pytest.raises(PoorFitError, match=r"llama-h100: decode: mean error .* exceeds 20\.0%"):
        fit_coefficients(prefill, wild, subject="llama-h100")
    assert fit_coefficients(prefill, wild, max_relative_error=9.0).decode_error_left_out > 0.1


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([TimedBatch(1, 128, 0.01)] * 6, "x: prefill: four coefficients need five rows"),
        ([TimedBatch(b, 128, 0.01) for b in range(1, 9)], "two lengths"),
        ([*timings()[0], TimedBatch(1, 128, -0.01)], r"x: prefill\.seconds: must be a positive number, not -0\.01"),
        ([*timings()[0], TimedBatch(math.nan, 128, 0.01)], r"x: prefill\.batch: must be a positive number"),
    ],
)
def test_bad_rows_are_refused_by_name(rows: list[TimedBatch], text: str) -> None:
    with pytest.raises(FitError, match=text):
        fit_coefficients(rows, timings()[1], subject="x")


def test_the_straight_line_law_as_coefficients() -> None:
    law = ReplicaModel(0.007, 9e-5, 3e-5, 10_000, 256, 50.0, 100.0, 400.0, 700.0, 60.0, 1e4)
    made = make_coefficients(law)
    assert made.decode_seconds(16, 900) == pytest.approx(law.step_seconds(16))
    assert made.prefill_seconds(4, 100) == pytest.approx(4 * 100 * 3e-5)
