"""Interpolated profiles: values by hand, agreement with the law they were made from, refusal beyond the points."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo_policies.capacity.fit import FitError, ProfilePoint, ReplicaFacts
from wattzoo_policies.capacity.interpolation import OutOfRangeError, ProfileCurves
from wattzoo_policies.capacity.model import ReplicaModel, RequestShape, concurrency, power_watts, tpot_seconds

FACTS = ReplicaFacts(kv_tokens=100_000, idle_watts=100.0, startup_seconds=60.0, max_sequences=128)
SHAPE = RequestShape(500.0, 100.0)


def point(batch: float, step_ms: float, watts: float, first_ms: float | None = None) -> ProfilePoint:
    """Steady decoding; a prompt of 500 tokens takes 50 ms."""
    step = step_ms / 1e3
    first = step + 0.05 if first_ms is None else first_ms / 1e3
    return ProfilePoint(batch, 500.0, batch / step, watts, first, step)


THREE = [point(1, 10, 300), point(8, 12, 400), point(64, 26, 700)]


def test_between_points_by_hand() -> None:
    seen = ProfileCurves(THREE, FACTS).estimate_at_batch(36, SHAPE)
    assert seen.step_seconds.value == pytest.approx(0.019)  # half-way from 8 to 64: 12 and 26 ms
    assert seen.power_watts.value == pytest.approx(400 + 300 * math.log(36 / 8) / math.log(8))
    assert seen.ttft_seconds.value == pytest.approx(0.05 + 0.019)
    assert seen.output_tokens_per_second == pytest.approx(36 / 0.019)
    assert seen.kv_tokens == pytest.approx(36 * 550)
    assert not seen.extrapolated


def test_the_band_is_the_error_of_leaving_the_inner_point_out() -> None:
    # Without the point at 8: power half-way in the logarithm (500 for 400), step 10 + 16 * 7/63 (11.78 for 12).
    seen = ProfileCurves(THREE, FACTS).estimate_at_batch(8, SHAPE)
    assert seen.power_watts.relative_error == pytest.approx(0.25)
    assert seen.power_watts.low == pytest.approx(300)
    assert seen.power_watts.high == pytest.approx(500)
    assert seen.step_seconds.relative_error == pytest.approx(1 - (10 + 16 * 7 / 63) / 12)
    two = ProfileCurves(THREE[:2], FACTS).estimate_at_batch(8, SHAPE)
    assert two.power_watts.relative_error is two.power_watts.low is two.power_watts.high is None


def test_beyond_the_points_is_refused_or_flagged() -> None:
    curves = ProfileCurves(THREE, FACTS, "profile chat-h100")
    with pytest.raises(OutOfRangeError, match="chat-h100: running_requests: 80 is outside the measured 1 to 64"):
        curves.estimate_at_batch(80, SHAPE)
    seen = curves.estimate_at_batch(80, SHAPE, extrapolate=True)
    assert seen.extrapolated
    assert seen.step_seconds.value == pytest.approx(0.030)  # 26 ms + 16 * .25 ms
    assert seen.power_watts.relative_error is None
    for batch in (0.0, -1.0, math.nan):
        with pytest.raises(OutOfRangeError, match="must be a positive number"):
            curves.estimate_at_batch(batch, SHAPE)


def test_the_cache_and_the_batch_limit_bound_the_batch() -> None:
    curves = ProfileCurves(THREE, replace(FACTS, kv_tokens=12_000))  # 12,000 / 600 = 20 sequences
    assert curves.largest_batch(SHAPE) == pytest.approx(20)
    assert curves.estimate_at_batch(20, SHAPE).kv_tokens == pytest.approx(11_000)
    with pytest.raises(OutOfRangeError, match=r"hold 20\.0"):
        curves.estimate_at_batch(21, SHAPE, extrapolate=True)
    assert ProfileCurves(THREE, replace(FACTS, max_sequences=4)).largest_batch(SHAPE) == 4


def test_a_rate_by_hand() -> None:
    # 2 requests/s: prompts take 2 * 500 * .1 ms = .1 of the time; n = 200 * step(n) / .9.
    seen = ProfileCurves(THREE, FACTS).estimate_at_rate(2.0, SHAPE)
    slope = 2.0 / 7 / 1e3  # 10 to 12 ms over 1 to 8
    batch = (200 / 0.9) * (0.010 - slope) / (1 - (200 / 0.9) * slope)
    assert seen.running_requests == pytest.approx(batch)
    assert seen.tpot_seconds.value == pytest.approx(seen.step_seconds.value / 0.9)
    assert seen.ttft_seconds.value == pytest.approx((0.05 + seen.step_seconds.value) / 0.9)
    decode = 300 + 100 * math.log(batch) / math.log(8)
    working = 0.1 * 700 + 0.9 * decode
    assert seen.power_watts.value == pytest.approx(100 + (1 - math.exp(-batch)) * (working - 100))


def test_no_load_is_idle_and_too_much_is_refused() -> None:
    curves = ProfileCurves(THREE, FACTS)
    still = curves.estimate_at_rate(0.0, SHAPE)
    assert (still.running_requests, still.power_watts.value) == (0.0, 100.0)
    for rate in (19.0, 1e6):
        with pytest.raises(OutOfRangeError):
            curves.estimate_at_rate(rate, SHAPE)
    for rate in (-1.0, math.nan, math.inf):
        with pytest.raises(OutOfRangeError, match="rate_rps: must be a number"):
            curves.estimate_at_rate(rate, SHAPE)


LAW = ReplicaModel(0.010, 0.0002, 0.0001, 1_000_000, 256, 50.0, 100.0, 400.0, 700.0, 60.0, 1e4)


@given(st.floats(0.1, 9.0))
def test_points_of_the_law_give_back_the_law(rate: float) -> None:
    batches = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    made = [point(b, LAW.step_seconds(b) * 1e3, LAW.decode_watts(b)) for b in batches]
    facts = replace(FACTS, kv_tokens=1_000_000, max_sequences=256)
    seen = ProfileCurves(made, facts).estimate_at_rate(rate, SHAPE)
    load = rate * (500 * 0.0001 + 100 * 0.0002)
    if seen.running_requests >= 1.0:  # below, a step is that of one sequence, not of a fraction of one
        assert seen.tpot_seconds.value == pytest.approx(tpot_seconds(LAW, load), rel=1e-6)
        assert seen.running_requests == pytest.approx(concurrency(LAW, SHAPE, rate), rel=1e-6)
    # The law counts prompts as load, the points as time at full power: the same but for how load rises with the batch.
    assert seen.power_watts.value == pytest.approx(power_watts(LAW, SHAPE, rate), rel=0.05)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (THREE[:1], "chat: points: a replica needs points at two concurrencies"),
        ([*THREE, point(8, 13, 410)], "chat: running_requests: two points at 8 requests contradict"),
        ([replace(THREE[0], power_watts=-5.0), *THREE[1:]], "chat: power_watts: .*positive number, not -5.0"),
        ([replace(THREE[0], power_watts=60.0), *THREE[1:]], "chat: power_watts: .*below the idle power of 100 W"),
        (
            [replace(THREE[1], output_tokens_per_second=5000.0), THREE[0]],
            "chat: output_tokens_per_second: 5000 tokens/s contradict tpot_seconds, which allows 667",
        ),
        ([replace(THREE[0], ttft_seconds=math.nan), THREE[1]], "chat: ttft_seconds: .* not nan"),
    ],
)
def test_bad_profiles_are_refused_by_name(bad: list[ProfilePoint], text: str) -> None:
    with pytest.raises(FitError, match=text):
        ProfileCurves(bad, FACTS, "chat")
