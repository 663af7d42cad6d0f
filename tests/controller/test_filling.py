"""Full or silent: whole replicas are filled with the most accurate answers, never fewer than the law asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo.decide.filling import FULL, Coming, fill_replicas, may_fill
from wattzoo.decide.memory import ServiceForecast
from wattzoo.model import TOTAL_WEIGHT, VariantKey
from wattzoo_policies.capacity.model import RequestShape
from wattzoo_policies.placement.joint_demand import ServiceLoad

SMALL, LARGE = VariantKey("small", "l4"), VariantKey("large", "h100")
ACCURACY = {"small": 0.4, "large": 0.6}
JOULES = {SMALL: 10.0, LARGE: 100.0}
CAPACITY = {SMALL: 90.0, LARGE: 9.0}  # nine tenths of the knee: 20 requests/s fill two of the large member's replicas
LOAD = ServiceLoad(20.0, 20.0, 20.0, RequestShape(1000.0, 200.0))
STEADY = Coming(20.0, ServiceForecast(LOAD, 1.0, 0.0, 20.0))  # no error is kept free: what comes is what is expected


def fill(share: float, live: float = 0.0, most: int = 2) -> float:
    """The large member's share for one that its law asks for and one that the route has."""
    weights = {SMALL: TOTAL_WEIGHT - round(live * TOTAL_WEIGHT), LARGE: round(live * TOTAL_WEIGHT)}
    packed = {SMALL: 1, LARGE: most}
    filled = fill_replicas({SMALL: 1 - share, LARGE: share}, packed, CAPACITY, ACCURACY, JOULES, weights, STEADY)
    assert filled[SMALL] + filled[LARGE] == pytest.approx(1.0)
    return filled[LARGE]


def test_a_replica_that_is_needed_in_part_is_filled() -> None:
    assert fill(0.4) == pytest.approx(FULL / 2, abs=1e-5)  # .8 of a replica
    assert fill(0.6) == pytest.approx(FULL, abs=1e-5)  # 1.2


def test_one_fewer_is_filled_only_when_clearly_fewer_are_needed() -> None:
    assert fill(0.4, live=FULL) == pytest.approx(FULL, abs=1e-5)
    assert fill(0.3, live=FULL) == pytest.approx(FULL / 2, abs=1e-5)
    assert fill(0.0, live=FULL) == 0.0


def test_no_more_are_filled_than_may_be() -> None:
    assert fill(0.4, live=FULL, most=1) == pytest.approx(FULL / 2, abs=1e-5)
    assert fill(0.9, most=1) == pytest.approx(0.9)  # beyond all room: as the law asks


def test_what_is_not_known_fills_nothing() -> None:
    split, packed, live = {SMALL: 0.6, LARGE: 0.4}, {SMALL: 1, LARGE: 2}, {SMALL: 600_000, LARGE: 400_000}
    assert fill_replicas(split, packed, CAPACITY, {"large": 0.6}, JOULES, live, STEADY) == split
    assert fill_replicas(split, packed, {SMALL: 90.0, LARGE: None}, ACCURACY, JOULES, live, STEADY) == split
    assert fill_replicas(split, packed, CAPACITY, ACCURACY, {LARGE: 1.0}, live, STEADY) == split


def test_a_surplus_that_an_hour_could_not_spend_unnoticed_is_not_added_to() -> None:
    assert may_fill(280.0, 40.0)  # two thousandths of 144,000 requests are 288
    assert not may_fill(300.0, 40.0)
    assert may_fill(20.0, 0.5)  # a standard deviation of 1,800 answers is 21
    assert not may_fill(None, 40.0)


@given(share=st.floats(0.0, 1.0), live=st.floats(0.0, 1.0), most=st.integers(0, 5), rate=st.floats(0.1, 200.0))
def test_answers_are_never_less_accurate_than_asked_for(share: float, live: float, most: int, rate: float) -> None:
    coming = Coming(rate, ServiceForecast(LOAD, 1.2, 1.0, 20.0))
    weights = {SMALL: TOTAL_WEIGHT - round(live * TOTAL_WEIGHT), LARGE: round(live * TOTAL_WEIGHT)}
    split = {SMALL: 1.0 - share, LARGE: share}
    filled = fill_replicas(split, {SMALL: 1, LARGE: most}, CAPACITY, ACCURACY, JOULES, weights, coming)
    assert sum(filled.values()) == pytest.approx(1.0)
    assert filled[LARGE] >= share - 1e-9
    assert min(filled.values()) >= 0.0
