from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from e2e.load.schedule import LoadShape, RateStep, ServiceLoad, make_schedule, rate_rps, read_curve

CHAT = ServiceLoad("demo", "chat", "chat.example", 3.0)
SEARCH = ServiceLoad("demo", "search", "search.example", 1.0)
IDS = {"chat": tuple(f"c{i}" for i in range(50)), "search": ("s0", "s1", "s2")}


def test_equal_arguments_give_an_equal_schedule_and_seeds_differ() -> None:
    shape = LoadShape(60.0, 5.0)
    assert make_schedule(shape, [CHAT, SEARCH], IDS, 7) == make_schedule(shape, [CHAT, SEARCH], IDS, 7)
    assert make_schedule(shape, [CHAT, SEARCH], IDS, 7) != make_schedule(shape, [CHAT, SEARCH], IDS, 8)


def test_arrivals_are_ordered_inside_the_run_and_as_many_as_the_rate_says() -> None:
    schedule = make_schedule(LoadShape(1000.0, 20.0), [CHAT, SEARCH], IDS, 1)
    times = [arrival.at_seconds for arrival in schedule]
    assert all(a <= b for a, b in pairwise(times))
    assert times[0] >= 0.0
    assert times[-1] <= 1000.0
    assert abs(len(schedule) - 20_000) < 5 * 20_000**0.5  # five standard deviations of a Poisson count
    gaps = np.diff(times)
    assert abs(gaps.std() / gaps.mean() - 1.0) < 0.03  # exponential gaps: deviation equals mean
    assert [arrival.index for arrival in schedule] == list(range(len(schedule)))


def test_the_curve_is_interpolated_and_its_top_is_the_peak_rate() -> None:
    shape = LoadShape(100.0, 10.0, curve=(1.0, 2.0, 1.0))
    # knots at 0, 50 and 100 s with rates 5, 10 and 5
    assert rate_rps(shape, np.array([0.0, 25.0, 50.0, 100.0])).tolist() == [5.0, 7.5, 10.0, 5.0]
    schedule = make_schedule(LoadShape(1000.0, 10.0, curve=(0.0, 1.0)), [CHAT], IDS, 3)
    early = sum(arrival.at_seconds < 500.0 for arrival in schedule)
    assert abs(early / len(schedule) - 0.25) < 0.03  # a rate that grows from zero: a quarter comes in the first half


def test_a_step_multiplies_the_rate_until_the_next() -> None:
    shape = LoadShape(100.0, 10.0, steps=(RateStep(60.0, 1.0), RateStep(40.0, 5.0)))
    assert rate_rps(shape, np.array([39.0, 40.0, 59.0, 60.0])).tolist() == [10.0, 50.0, 50.0, 10.0]


def test_services_get_their_shares_and_each_uses_all_its_requests_before_one_again() -> None:
    schedule = make_schedule(LoadShape(400.0, 10.0), [CHAT, SEARCH], IDS, 5)
    chat = [arrival.request_id for arrival in schedule if arrival.service is CHAT]
    search = [arrival.request_id for arrival in schedule if arrival.service is SEARCH]
    assert abs(len(chat) / len(schedule) - 0.75) < 0.03
    assert set(chat[:50]) == set(IDS["chat"])
    assert set(chat[50:100]) == set(IDS["chat"])
    assert chat[:50] != chat[50:100]
    assert sorted(search[:3]) == ["s0", "s1", "s2"]


def test_shares_of_streaming_and_feedback() -> None:
    shape = LoadShape(400.0, 10.0, streaming_share=0.5, feedback_share=0.2)
    schedule = make_schedule(shape, [CHAT], IDS, 2)
    assert abs(np.mean([arrival.streaming for arrival in schedule]) - 0.5) < 0.04
    assert abs(np.mean([arrival.feedback for arrival in schedule]) - 0.2) < 0.04


def test_shapes_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="curve"):
        LoadShape(10.0, 1.0, curve=(0.0, 0.0))
    with pytest.raises(ValueError, match="positive"):
        LoadShape(0.0, 1.0)
    with pytest.raises(ValueError, match="requests to sample"):
        make_schedule(LoadShape(10.0, 1.0), [CHAT], {"chat": ()}, 1)


def test_one_day_of_a_curve_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("t_s,service,rate_norm\n87000,a,3\n86400,a,2\n0,a,1\n86400,b,9\n", "utf-8")
    assert read_curve(path, "a", 1) == (2.0, 3.0)
    with pytest.raises(ValueError, match="day 5"):
        read_curve(path, "a", 5)
