"""The anytime law's arithmetic: what a reader can compute by hand, and what must hold whatever comes in."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wattzoo_policies.accuracy.anytime import fill_joules
from wattzoo_policies.accuracy.anytime_estimates import (
    AnytimeParameters,
    Increments,
    LawState,
    Situation,
    apply_increments,
    estimate_accuracy,
    estimate_buffers,
    estimate_credit,
    estimate_feedback,
    estimate_present_accuracy,
    estimate_promise_start,
    make_law_state,
)
from wattzoo_policies.accuracy.anytime_law import decide_weights

Floats = NDArray[np.float64]
PARAMETERS = AnytimeParameters()


def row(*values: float) -> Floats:
    return np.array([values], dtype=float)


def learned(accuracy: list[float], labels: float = 1000.0) -> LawState:
    members = len(accuracy)
    state = make_law_state(np.zeros(members), np.zeros(members), 1)
    counts = np.full((1, members), labels)
    return apply_increments(state, Increments(counts, counts, counts * np.array([accuracy])), 0.5)


def situation(joules: list[float], alpha: float = 0.5, credit: float = 0.0, **changes: object) -> Situation:
    members = len(joules)
    now = Situation(
        joules=row(*joules),
        ready=np.ones((1, members), dtype=bool),
        credit=np.array([credit]),
        pending=np.zeros((1, members)),
        alpha=alpha,
        expected=np.array([200.0]),
        current=np.zeros((1, members)),
        safest=np.arange(members) == members - 1,
    )
    return replace(now, **changes)  # type: ignore[arg-type]


def test_buffer_by_hand() -> None:
    # 200 requests under way and 200 to come: D = 400, H = 800, v = (400 + 400) / 4 = 200;
    # 4,000 requests so far are five horizons of four decisions: ln(1 / delta_k) = ln(.645 * 7^2 * 4 / .05);
    # the estimates rest on 1,900 outcomes each, half the traffic goes to each: e^2 = .25 * 2 * .24 / 1,902
    state = learned([0.4, 0.6], labels=1900.0)
    now = situation([1.0, 2.0], pending=row(100.0, 100.0), current=row(0.5, 0.5))
    b, u, horizon = estimate_buffers(state, now, PARAMETERS)
    assert horizon == pytest.approx([800.0])
    variance = 200.0 + 400.0**2 * 0.25 * 2.0 * 0.24 / 1902.0
    assert b == pytest.approx([math.sqrt(2.0 * variance * math.log(0.645 * 49.0 * 4.0 / 0.05))], rel=1e-3)
    assert u == pytest.approx([0.0])  # all feedback came


def test_full_feedback_leaves_nothing_open() -> None:
    state = learned([0.4, 0.6])
    state = apply_increments(state, Increments(row(70.0, 130.0), row(70.0, 130.0), row(1.0, 130.0)), 0.5)
    assert state.open_credit == pytest.approx([0.0])
    assert estimate_feedback(state) == pytest.approx(row(1.0, 1.0))


def test_silent_requests_count_at_their_estimate_and_are_corrected_by_those_that_speak() -> None:
    # 1,000 of 1,000 spoke before (p = 501/1002 = .5); now 50 of 100 do, 30 of them satisfied, target .4
    state = learned([0.5])
    after = apply_increments(state, Increments(row(100.0), row(50.0), row(30.0)), 0.4)
    feedback = (1050.0 + 20.0 * 1050.0 / 1100.0) / 1120.0
    expected = 50.0 * (0.5 - 0.4) + (30.0 - 50.0 * 0.5) * (1.0 - feedback) / feedback
    assert after.open_credit == pytest.approx([expected])


def test_partial_feedback_estimates_the_true_credit_without_bias() -> None:
    rng = np.random.default_rng(5)
    runs, alpha, feedback = 400, 0.55, 0.2
    truth = np.array([0.45, 0.65])
    state = make_law_state(np.zeros(2), np.zeros(2), runs)
    credit, true_credit = np.zeros((2, runs))
    for _ in range(25):
        served = np.tile([120.0, 80.0], (runs, 1))
        good = rng.binomial(served.astype(int), truth)
        labels_good = rng.binomial(good, feedback)
        labels = labels_good + rng.binomial(served.astype(int) - good, feedback)
        state = apply_increments(state, Increments(served, labels.astype(float), labels_good.astype(float)), alpha)
        credit += (labels_good - alpha * labels).sum(1)
        true_credit += (good - alpha * served).sum(1)
    error = estimate_credit(state, credit, np.zeros((runs, 2)), alpha) - true_credit
    promised = math.sqrt(5000 * 0.24 * 0.8 / 0.2)
    assert abs(error.mean()) < 3.0 * promised / math.sqrt(runs) + 5.0
    assert error.std() == pytest.approx(promised, rel=0.15)


def test_a_gap_is_closed_over_the_horizon_and_fast_beyond_half_the_buffer() -> None:
    state = learned([0.4, 0.6], labels=5000.0)
    rich = decide_weights(state, situation([10.0, 100.0], credit=1000.0), PARAMETERS)
    assert rich.target[0] == pytest.approx(0.5 + (rich.buffer[0] - 1000.0) / 400.0)
    poor = decide_weights(state, situation([10.0, 100.0], credit=0.0), PARAMETERS)
    b = poor.buffer[0]
    assert poor.target[0] == pytest.approx(0.5 + b / 400.0 + (b / 2.0) / 200.0)


def test_the_start_is_half_safest_half_even() -> None:
    state = make_law_state(np.zeros(3), np.zeros(3), 1)
    choice = decide_weights(state, situation([1.0, 2.0, 3.0]), PARAMETERS)
    assert choice.starting.all()
    assert choice.weights == pytest.approx(row(1 / 6, 1 / 6, 4 / 6))


def test_a_prior_ends_the_start_at_once() -> None:
    state = make_law_state(np.array([0.4, 0.6]), np.array([200.0, 200.0]), 1)
    assert not decide_weights(state, situation([10.0, 100.0]), PARAMETERS).starting.any()


def test_a_changed_member_forgets_and_an_unchanged_one_does_not() -> None:
    state = learned([0.8, 0.5], labels=2000.0)
    for _ in range(3):
        state = apply_increments(state, Increments(row(100.0, 100.0), row(100.0, 100.0), row(30.0, 50.0)), 0.5)
    accuracy = estimate_accuracy(state)[0]
    assert accuracy[0] < 0.6  # 90 % of 2,000 outcomes are gone, 300 at .3 weigh as much as what is left
    assert accuracy[1] == pytest.approx(0.5, abs=0.01)


def test_a_starved_member_is_tried_again_when_nobody_seems_to_reach_alpha() -> None:
    # the safest member was unlucky in its first 62 outcomes (.37 instead of .63): it must not be written off
    state = make_law_state(np.zeros(2), np.zeros(2), 1)
    seen = Increments(row(1000.0, 62.0), row(1000.0, 62.0), row(450.0, 23.0))
    choice = decide_weights(apply_increments(state, seen, 0.52), situation([10.0, 100.0], alpha=0.52), PARAMETERS)
    assert choice.weights[0, 1] > 0.9


LABELS = st.floats(0.0, 5000.0)
ARM = st.tuples(st.floats(0.01, 0.99), LABELS, st.floats(0.01, 1e4), st.booleans(), st.floats(0.0, 300.0))


def draw_state(arms: list[tuple[float, float, float, bool, float]]) -> tuple[LawState, Situation]:
    accuracy, labels, joules, ready, pending = (np.array(column) for column in zip(*arms, strict=True))
    state = make_law_state(np.zeros(len(arms)), np.zeros(len(arms)), 1)
    state = apply_increments(state, Increments(labels[None], labels[None], (accuracy * labels)[None]), 0.5)
    now = situation(list(joules), ready=ready.astype(bool)[None], pending=pending[None])
    return state, now


@settings(max_examples=200, deadline=None)
@given(st.lists(ARM, min_size=1, max_size=7), st.floats(0.05, 0.95), st.floats(-3000.0, 3000.0), st.floats(1.0, 5000.0))
def test_weights_are_always_a_distribution_over_ready_members(
    arms: list[tuple[float, float, float, bool, float]], alpha: float, credit: float, expected: float
) -> None:
    state, now = draw_state(arms)
    now = replace(now, alpha=alpha, credit=np.array([credit]), expected=np.array([expected]))
    choice = decide_weights(state, now, PARAMETERS)
    for weights in (choice.weights, choice.wish):
        assert weights.min() >= -1e-12
        assert (weights[~now.ready] == 0.0).all()
        assert weights.sum() == pytest.approx(1.0 if now.ready.any() else 0.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(ARM, min_size=2, max_size=6), st.floats(0.05, 0.95), st.randoms(use_true_random=False))
def test_the_order_of_members_changes_nothing(
    arms: list[tuple[float, float, float, bool, float]], alpha: float, random: object
) -> None:
    arms = [(p, labels, joules + 1e-3 * n, ready, due) for n, (p, labels, joules, ready, due) in enumerate(arms)]
    order = np.random.default_rng(random.randint(0, 10**6)).permutation(len(arms))  # type: ignore[attr-defined]
    state, now = draw_state(arms)
    other_state, other_now = draw_state([arms[n] for n in order])
    now = replace(now, alpha=alpha, safest=np.zeros(len(arms), dtype=bool))
    other_now = replace(other_now, alpha=alpha, safest=np.zeros(len(arms), dtype=bool))
    if len(np.unique(estimate_accuracy(state).round(6))) < len(arms):
        return  # equal members may take each other's place
    one, other = decide_weights(state, now, PARAMETERS), decide_weights(other_state, other_now, PARAMETERS)
    mean = (one.weights * now.joules).sum(), (other.weights * other_now.joules).sum()
    assert one.target == pytest.approx(other.target)
    assert mean[0] == pytest.approx(mean[1], rel=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 0.9), st.floats(1.0, 1e3)), min_size=2, max_size=6), st.data())
def test_a_higher_alpha_never_plans_less_satisfaction(members: list[tuple[float, float]], data: st.DataObject) -> None:
    accuracy = [p for p, _ in members]
    state = learned(accuracy)
    levels = estimate_present_accuracy(state)[0]
    low, high = sorted(data.draw(st.tuples(*(st.floats(0.05, float(levels.max())) for _ in range(2)))))
    plans = [
        decide_weights(state, situation([e for _, e in members], alpha=alpha, credit=30.0), PARAMETERS).wish[0] @ levels
        for alpha in (low, high)
    ]
    assert plans[0] <= plans[1] + 1e-9


def test_two_equal_members_are_one() -> None:
    state = learned([0.5, 0.5])
    choice = decide_weights(state, situation([20.0, 20.0], alpha=0.25), PARAMETERS)
    assert choice.reached.all()
    assert (choice.weights[0] @ np.array([20.0, 20.0])) == pytest.approx(20.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -5.0, 0.0])
def test_joules_that_cannot_be_count_as_the_dearest(bad: float) -> None:
    assert fill_joules(row(10.0, bad, 30.0)) == pytest.approx(row(10.0, 30.0, 30.0))
    assert fill_joules(row(bad, bad)) == pytest.approx(row(1.0, 1.0))


def test_promise_start_by_hand() -> None:
    # edge .05, and the start owes 400 * (.5762 - (.6262 + .5) / 2) = 5.2: (2 b + 5.2) / .05 with b about 53
    accuracy = np.array([0.3738, 0.6262])
    start = estimate_promise_start(0.5762, accuracy, 200.0, 1.0, 1.0, PARAMETERS)
    b = math.sqrt(400.0 * math.log(0.645 * (start / 800.0 + 2.0) ** 2 * 4.0 / 0.05))
    assert start == pytest.approx((2.0 * b + 400.0 * 0.0131) / 0.05, rel=1e-3)
    assert estimate_promise_start(0.7, accuracy, 200.0, 1.0, 1.0, PARAMETERS) == math.inf
    assert estimate_promise_start(0.519, accuracy, 200.0, 1.0, 0.05, PARAMETERS) > 5000


def test_many_members_take_time_to_know() -> None:
    # far below the best, 1,000 requests would do; twenty members of 200 requests each take 4,000
    few, many = np.linspace(0.4, 0.9, 5), np.linspace(0.4, 0.9, 20)
    assert estimate_promise_start(0.6, few, 50.0, 0.0, 1.0, PARAMETERS) == pytest.approx(1000.0)
    assert estimate_promise_start(0.6, many, 50.0, 0.0, 1.0, PARAMETERS) == pytest.approx(4000.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("delta", 0.0),
        ("delta", 0.5),
        ("delta", math.nan),
        ("drift_buffer_requests", -1.0),
        ("feedback_delay_seconds", -1),
    ],
)
def test_parameters_that_make_no_sense_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        AnytimeParameters(**{field: value})  # type: ignore[arg-type]
