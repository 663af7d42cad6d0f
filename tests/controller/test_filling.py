"""Full or silent: whole replicas are filled with the most accurate answers, for all services that share them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo.decide.filling import Caller, Coming, fill_replicas, find_kept, may_fill, may_give
from wattzoo.decide.memory import Asked, ServiceForecast
from wattzoo.model import TOTAL_WEIGHT, Ref, VariantKey
from wattzoo_policies.capacity.model import RequestShape
from wattzoo_policies.placement.joint_demand import ServiceLoad

SMALL, LARGE = VariantKey("small", "l4"), VariantKey("large", "h100")
CHAT, SEARCH = Ref("demo", "chat"), Ref("demo", "search")
ACCURACY = {"small": 0.4, "large": 0.6}
JOULES = {SMALL: 10.0, LARGE: 100.0}
CAPACITY = {SMALL: 90.0, LARGE: 9.0}  # nine tenths of the knee: 20 requests/s fill two of the large member's replicas
CARRIED = {SMALL: 4.5, LARGE: 0.9}  # shares of 20 requests/s
LOAD = ServiceLoad(20.0, 20.0, 20.0, RequestShape(1000.0, 200.0))
FULL = 1.0 - 1.5 / 300.0**0.5  # all services send 20 requests/s, 300 in the time of a count: .913
STEADY = ServiceForecast(LOAD, 1.0, 0.0, 20.0)  # no error is kept free: what comes is what is expected


def weights(large: float) -> dict[VariantKey, int]:
    return {SMALL: TOTAL_WEIGHT - round(large * TOTAL_WEIGHT), LARGE: round(large * TOTAL_WEIGHT)}


def caller(share: float, live: float, rate: float = 20.0, *, gain: bool = True, give: bool = False) -> Caller:
    forecast = replace(STEADY, load=replace(LOAD, rate_rps=rate, next_rps=rate, high_rps=rate))
    return Caller(rate, forecast, Asked({SMALL: 1 - share, LARGE: share}, gain, give), weights(live))


def fill_of(callers: dict[Ref, Caller], most: int, own: Ref = CHAT, room: float = 4.5) -> float:
    """The large member's share of one of these services; room: of the small one, as a share of all requests."""
    carried = {SMALL: room, LARGE: 0.9}
    split = callers[own].asked.split
    filled = fill_replicas(split, {LARGE: most}, carried, CAPACITY, ACCURACY, JOULES, Coming(own, callers), {})
    assert filled[SMALL] + filled[LARGE] == pytest.approx(1.0)
    return filled[LARGE]


def fill(share: float, live: float = 0.0, most: int = 2, *, give: bool = False) -> float:
    """The large member's share for a service alone that asks for one and has one."""
    return fill_of({CHAT: caller(share, live, give=give)}, most)


def test_a_replica_that_is_needed_in_part_is_filled() -> None:
    assert fill(0.4) == pytest.approx(FULL / 2, abs=1e-5)  # .8 of a replica
    assert fill(0.6) == pytest.approx(FULL, abs=1e-5)  # 1.2


def test_one_fewer_is_filled_only_when_clearly_fewer_are_needed() -> None:
    assert fill(0.4, live=FULL) == pytest.approx(FULL, abs=1e-5)
    assert fill(0.3, live=FULL) == pytest.approx(FULL / 2, abs=1e-5)
    assert fill(0.0, live=FULL) == pytest.approx(0.0, abs=1e-5)


def test_no_more_are_filled_than_may_be() -> None:
    assert fill(0.4, live=FULL, most=1) == pytest.approx(FULL / 2, abs=1e-5)
    assert fill(0.9, most=1) == pytest.approx(0.9)  # beyond all room: as the law asks


def test_who_holds_more_credit_than_needed_does_not_wake_one_more() -> None:
    assert fill(0.6, live=0.45, give=True) == pytest.approx(FULL / 2, abs=1e-5)
    assert fill(0.6, live=0.45) == pytest.approx(FULL, abs=1e-5)


def test_what_nobody_else_has_room_for_is_not_given_up_but_fills_what_it_keeps_awake() -> None:
    """The small one takes .5 * .913 at most, so .543 of 20 requests/s stay: 1.19 replicas, and two are filled."""
    callers = {CHAT: caller(0.6, 0.45, give=True)}
    assert fill_of(callers, 2, room=0.6) == pytest.approx(FULL / 2, abs=1e-5)  # .452 are left, for which one is enough
    assert fill_of(callers, 2, room=0.5) == pytest.approx(FULL, abs=1e-5)


def test_services_that_share_replicas_fill_them_together() -> None:
    callers = {CHAT: caller(0.3, 0.0, 10.0), SEARCH: caller(0.1, 0.0, 10.0)}  # 4 of 9.4 requests/s asked for
    chat, search = fill_of(callers, 2), fill_of(callers, 2, SEARCH)
    assert 10.0 * chat + 10.0 * search == pytest.approx(10.0 * FULL, abs=1e-3)
    assert (chat - 0.3) / 0.7 == pytest.approx((search - 0.1) / 0.9, abs=1e-5)  # the same part of the way


def test_who_may_not_be_given_more_keeps_what_it_asks_for() -> None:
    callers = {CHAT: caller(0.3, 0.0, 10.0), SEARCH: caller(0.1, 0.0, 10.0, gain=False)}
    assert fill_of(callers, 2) == pytest.approx(FULL - 0.1, abs=1e-5)


def test_one_with_credit_makes_room_for_one_that_owes() -> None:
    poor = caller(0.8, 0.45, 10.0)
    callers = {CHAT: poor, SEARCH: caller(0.4, 0.45, 10.0, give=True)}  # 12 requests/s asked for, one carries 9.4
    assert fill_of(callers, 2) == pytest.approx(0.8, abs=1e-5)
    assert fill_of(callers, 2, SEARCH) == pytest.approx(FULL - 0.8, abs=1e-5)
    both_owe = {CHAT: poor, SEARCH: caller(0.4, 0.45, 10.0)}
    assert fill_of(both_owe, 2) + fill_of(both_owe, 2, SEARCH) == pytest.approx(2 * FULL, abs=1e-4)


def test_what_keeps_estimates_alive_is_left_to_its_member() -> None:
    """All that the large one has room for but the small one's floor, of which no more than the law gave it is kept."""
    callers = {CHAT: caller(0.3, 0.9, 4.0)}
    split = callers[CHAT].asked.split

    def filled(floor: float) -> dict[VariantKey, float]:
        coming = Coming(CHAT, callers)
        floors = {"small": floor, "large": 0.02}
        return fill_replicas(split, {LARGE: 2}, CARRIED, CAPACITY, ACCURACY, JOULES, coming, floors)

    assert filled(0.0) == pytest.approx({SMALL: 0.0, LARGE: 1.0}, abs=1e-9)
    assert filled(0.01) == pytest.approx({SMALL: 0.01, LARGE: 0.99})
    assert filled(0.9) == pytest.approx({SMALL: 0.7, LARGE: 0.3})


def test_a_floor_is_split_as_its_member_is() -> None:
    old = VariantKey("large", "a100")
    kept = find_kept({SMALL: 0.6, LARGE: 0.3, old: 0.1}, {"large": 0.02, "small": 0.0})
    assert kept == pytest.approx({SMALL: 0.0, LARGE: 0.015, old: 0.005})
    assert find_kept({SMALL: 1.0, LARGE: 0.0}, {"large": 0.02}) == {SMALL: 0.0, LARGE: 0.0}


def test_what_is_not_known_fills_nothing() -> None:
    split, packed, coming = {SMALL: 0.6, LARGE: 0.4}, {LARGE: 2}, Coming(CHAT, {CHAT: caller(0.4, 0.4)})
    assert fill_replicas(split, packed, CARRIED, CAPACITY, {"large": 0.6}, JOULES, coming, {}) == split
    assert fill_replicas(split, packed, CARRIED, {SMALL: 90.0, LARGE: None}, ACCURACY, JOULES, coming, {}) == split
    assert fill_replicas(split, packed, CARRIED, CAPACITY, ACCURACY, {LARGE: 1.0}, coming, {}) == split


def test_a_surplus_that_an_hour_could_not_spend_unnoticed_is_not_added_to() -> None:
    assert may_fill(140.0, 40.0)  # two thousandths of 144,000 requests are 288: half of it is given at most
    assert not may_fill(150.0, 40.0)
    assert may_fill(10.0, 0.5)  # a standard deviation of 1,800 answers is 21
    assert not may_fill(None, 40.0)
    assert may_give(0.1)
    assert not may_give(0.0)
    assert not may_give(None)


@given(
    share=st.floats(0.0, 1.0),
    live=st.floats(0.0, 1.0),
    most=st.integers(0, 5),
    rate=st.floats(0.1, 200.0),
    floor=st.floats(0.0, 0.1),
)
def test_answers_are_never_less_accurate_than_asked_for(
    share: float, live: float, most: int, rate: float, floor: float
) -> None:
    """Of a law that has no credit to give; replicas of other services change nothing about that."""
    wide = replace(STEADY, next_ratio=1.2, care=1.0)
    own = replace(caller(share, live), recent_rps=rate, forecast=wide)
    callers = {CHAT: own, SEARCH: caller(0.5, live, give=True)}
    filled = fill_replicas(
        own.asked.split,
        {SMALL: 1, LARGE: most},
        CARRIED,
        CAPACITY,
        ACCURACY,
        JOULES,
        Coming(CHAT, callers),
        {"small": floor, "large": floor},
    )
    assert sum(filled.values()) == pytest.approx(1.0)
    assert filled[LARGE] >= share - 1e-9
    assert min(filled.values()) >= 0.0
    assert filled[SMALL] >= min(floor, 1 - share) - 1e-9
