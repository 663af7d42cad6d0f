"""The cheapest mixture: exact, against linear programming and against what a reader can compute."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from wattzoo_policies.accuracy.frontier import estimate_price, solve_mixture
from wattzoo_policies.baselines.fixed_mixture import decide_mixture

SHARES = st.integers(0, 1000).map(lambda mille: mille / 1000.0)
JOULES = st.floats(0.1, 1000.0, allow_nan=False)
MEMBERS = st.lists(st.tuples(JOULES, SHARES), min_size=1, max_size=6)


def test_two_members_share_the_gap() -> None:
    # .5 lies two thirds of the way from .3 to .6, so two thirds go to the dear member: 10/3 + 90 * 2/3
    weights, reached = solve_mixture([10.0, 90.0], [0.3, 0.6], 0.5, [True, True])
    assert weights == pytest.approx([1 / 3, 2 / 3])
    assert reached
    assert weights @ np.array([10.0, 90.0]) == pytest.approx(10 / 3 + 60)


def test_a_member_above_the_line_is_left_out() -> None:
    # half way between 10 J at .3 and 90 J at .6 one pays 50 J for .45; the middle member asks 60 J for it
    weights, _ = solve_mixture([10.0, 60.0, 90.0], [0.3, 0.45, 0.6], 0.45, [True] * 3)
    assert weights == pytest.approx([0.5, 0.0, 0.5])


def test_out_of_reach_takes_the_most_accurate_and_the_cheaper_of_equals() -> None:
    weights, reached = solve_mixture([10.0, 90.0, 50.0], [0.3, 0.6, 0.6], 0.7, [True] * 3)
    assert not reached
    assert weights == pytest.approx([0.0, 0.0, 1.0])


def test_nothing_usable_is_no_weight() -> None:
    weights, reached = solve_mixture([10.0, 90.0], [0.3, 0.6], 0.5, [False, False])
    assert weights == pytest.approx([0.0, 0.0])
    assert not reached


@settings(max_examples=200, deadline=None)
@given(MEMBERS, SHARES)
def test_costs_what_linear_programming_says(members: list[tuple[float, float]], target: float) -> None:
    joules, accuracy = np.array(members).T
    weights, reached = solve_mixture(joules, accuracy, target, np.ones(len(members), dtype=bool))
    assert weights.min() >= 0.0
    assert weights.sum() == pytest.approx(1.0)
    if not reached:
        assert target > accuracy.max()
        return
    best = linprog(joules, A_ub=-accuracy[None], b_ub=[-target], A_eq=np.ones((1, len(members))), b_eq=[1.0])
    assert weights @ accuracy >= target - 1e-9
    if best.success:
        assert weights @ joules == pytest.approx(best.fun, rel=1e-6, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(MEMBERS, SHARES)
def test_agrees_with_the_fixed_mixture_of_the_demo(members: list[tuple[float, float]], target: float) -> None:
    names = [f"m{n}" for n in range(len(members))]
    joules, accuracy = np.array(members).T
    weights, reached = solve_mixture(joules, accuracy, target, np.ones(len(members), dtype=bool))
    named = decide_mixture(dict(zip(names, joules, strict=True)), dict(zip(names, accuracy, strict=True)), target)
    assert bool(reached) == named.feasible
    assert weights @ joules == pytest.approx(named.joules_per_request, rel=1e-6, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(MEMBERS, SHARES, SHARES)
def test_a_higher_target_never_costs_less(members: list[tuple[float, float]], one: float, other: float) -> None:
    joules, accuracy = np.array(members).T
    usable = np.ones(len(members), dtype=bool)
    (low, low_reached), (high, high_reached) = (
        solve_mixture(joules, accuracy, tau, usable) for tau in sorted((one, other))
    )
    assert low_reached or not high_reached
    if high_reached:
        assert low @ joules <= high @ joules + 1e-6


def test_the_price_is_the_slope_of_the_line_in_use() -> None:
    joules, accuracy = np.array([[10.0, 60.0, 90.0]]), np.array([[0.3, 0.45, 0.6]])
    assert estimate_price(joules, accuracy, np.array([[0.5, 0.0, 0.5]])) == pytest.approx([80.0 / 0.3])
    # all on the first: the cheapest way up is the line to the third, 267 J, not to the second, 333 J
    assert estimate_price(joules, accuracy, np.array([[1.0, 0.0, 0.0]])) == pytest.approx([80.0 / 0.3])
    assert np.isnan(estimate_price(joules, accuracy, np.array([[0.0, 0.0, 1.0]])))
