"""Regret by hand: what was burnt against the cheapest mixture that hindsight would have chosen."""

from __future__ import annotations

import pytest

from wattzoo_policies.accuracy.regret import MemberPast, estimate_regret

SMALL = MemberPast(served=400, satisfied=160, total=400, joules=10.0)
LARGE = MemberPast(served=600, satisfied=360, total=600, joules=100.0)


def test_the_ratio_is_to_the_blind_mixture_of_the_same_past() -> None:
    # .4 and .6 reach .5 half and half: 55 J; 40:60 cost 64 J, so 9 J more on each of 1,000 requests
    regret = estimate_regret([SMALL, LARGE], 0.5)
    assert regret is not None
    assert regret.blind_joules_per_request == pytest.approx(55.0)
    assert regret.joules_per_request == pytest.approx(64.0)
    assert regret.ratio == pytest.approx(64 / 55)
    assert regret.joules == pytest.approx(9000.0)


def test_requests_without_feedback_count_as_requests() -> None:
    # the same shares of satisfied ones from a tenth of the feedback
    judged = [MemberPast(400, 16, 40, 10.0), MemberPast(600, 36, 60, 100.0)]
    regret = estimate_regret(judged, 0.5)
    assert regret is not None
    assert regret.joules == pytest.approx(9000.0)


@pytest.mark.parametrize(
    "past",
    [
        [],
        [MemberPast(0, 0, 0, 10.0)],
        [MemberPast(400, 160, 400, None), LARGE],  # served at unknown joules
        [SMALL],  # .4 does not reach .5
        [SMALL, MemberPast(5, 4, 5, 100.0)],  # five outcomes say nothing of the other
    ],
)
def test_what_cannot_be_said_is_unknown(past: list[MemberPast]) -> None:
    assert estimate_regret(past, 0.5) is None


def test_a_member_that_served_nothing_may_have_unknown_joules() -> None:
    assert estimate_regret([SMALL, LARGE, MemberPast(0, 0, 0, None)], 0.5) == estimate_regret([SMALL, LARGE], 0.5)
