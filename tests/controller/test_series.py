"""Arithmetic on raw samples: resets, gaps, ages, and numbers that cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import make_series
from wattzoo.api.conditions import Reason
from wattzoo.decide.series import Reading, estimate_latest, estimate_rate, increase_between, sum_readings, unknown
from wattzoo.model import Sample


def test_a_rate_is_the_increase_over_the_samples_own_span() -> None:
    series = make_series("c", [(100.0, 10.0), (110.0, 30.0), (120.0, 40.0)])
    reading = estimate_rate(series, at_seconds=121.0, stale_after_seconds=60.0)
    assert reading.value == 30.0 / 20.0  # never extrapolated to the window's edges
    assert (reading.at_seconds, reading.span_seconds) == (120.0, 20.0)


def test_after_a_reset_the_counter_counts_from_zero() -> None:
    samples = [Sample(100.0, 0.0), Sample(120.0, 5.0), Sample(8.0, 10.0), Sample(10.0, 15.0)]
    assert increase_between(samples) == 20.0 + 8.0 + 2.0


def test_a_fall_that_rounding_explains_is_no_reset() -> None:
    assert increase_between([Sample(100.0, 0.0), Sample(100.0 - 1e-11, 5.0), Sample(101.0, 10.0)]) == pytest.approx(1.0)


def test_fewer_than_two_samples_are_unknown() -> None:
    reading = estimate_rate(make_series("c", [(100.0, 10.0)]), 101.0, 60.0)
    assert reading.value is None
    assert reading.problem is not None
    assert reading.problem.reason is Reason.NO_SAMPLES


def test_an_old_newest_sample_is_stale() -> None:
    reading = estimate_rate(make_series("c", [(10.0, 1.0), (20.0, 2.0)]), 100.0, 60.0)
    assert reading.problem is not None
    assert reading.problem.reason is Reason.STALE_SAMPLES
    assert "80 s old" in reading.problem.message


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), -1.0, 1e308])
def test_one_impossible_sample_condemns_its_series(bad: float) -> None:
    series = make_series("c", [(100.0, 10.0), (110.0, bad), (120.0, 40.0)])
    for reading in (estimate_rate(series, 121.0, 60.0), estimate_latest(series, 121.0, 60.0)):
        assert reading.value is None
        assert reading.problem is not None
        assert reading.problem.reason is Reason.NON_FINITE_SAMPLE


def test_samples_before_a_change_do_not_count() -> None:
    series = make_series("c", [(100.0, 0.0), (110.0, 1000.0), (120.0, 1010.0)])
    assert estimate_rate(series, 121.0, 60.0, since_seconds=105.0).value == 1.0


def test_a_sum_with_an_unknown_part_is_unknown_and_so_is_an_empty_one() -> None:
    assert sum_readings([Reading(1.0, 5.0), Reading(2.0, 3.0)]) == Reading(3.0, 3.0)
    assert sum_readings([Reading(1.0, 5.0), unknown("gone")]).value is None
    assert sum_readings([]).value is None


@given(st.lists(st.floats(0.0, 1e9), min_size=2, max_size=20))
def test_an_increase_is_never_negative_and_never_above_all_that_was_counted(values: list[float]) -> None:
    samples = [Sample(value, float(index)) for index, value in enumerate(values)]
    assert 0.0 <= increase_between(samples) <= sum(values) + 1e-6
