"""MESSPlusAnytime as the operator runs it: counters in, weights and words out, one value of text as state."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from wattzoo_policies.accuracy.anytime import AnytimeState, MESSPlusAnytime
from wattzoo_policies.accuracy.anytime_estimates import AnytimeParameters
from wattzoo_policies.accuracy.mess_plus import MESSPlus
from wattzoo_policies.protocols import StateError
from wattzoo_policies.signals import (
    Constraint,
    DecisionRequest,
    Member,
    MemberCondition,
    Observation,
    OutcomeCounter,
    Reason,
    ServedCounter,
)

NAMES = ("large", "small")
RNG = np.random.default_rng(0)
POLICY = MESSPlusAnytime()


def observe(
    at_seconds: float,
    satisfied: tuple[float, ...],
    unsatisfied: tuple[float, ...],
    served: tuple[float, ...] | None = None,
    alpha: float = 0.5,
    names: tuple[str, ...] = NAMES,
) -> Observation:
    outcomes = [
        OutcomeCounter(name, "pod-0", satisfied=kind, count=float(value))
        for kind, values in ((True, satisfied), (False, unsatisfied))
        for name, value in zip(names, values, strict=True)
    ]
    counted = None
    if served is not None:
        counted = tuple(ServedCounter(name, "gw", float(value)) for name, value in zip(names, served, strict=True))
    return Observation(at_seconds, alpha, tuple(outcomes), counted)


def request(
    joules: tuple[float | None, ...] = (100.0, 10.0),
    ready: tuple[bool, ...] = (True, True),
    alpha: float = 0.5,
    at_seconds: float = 60.0,
    current: dict[str, float] | None = None,
    names: tuple[str, ...] = NAMES,
) -> DecisionRequest:
    members = tuple(MemberCondition(*entry) for entry in zip(names, ready, joules, strict=True))
    return DecisionRequest(members, alpha, 200.0, at_seconds, "large", current_weights=current)


def begin(names: tuple[str, ...] = NAMES, policy: MESSPlusAnytime = POLICY) -> AnytimeState:
    state = policy.initial_state(tuple(Member(name) for name in names))
    zeros = (0.0,) * len(names)
    return policy.update(state, observe(0.0, zeros, zeros, zeros, names=names))


def learned() -> AnytimeState:
    """Return a state of 3,000 requests: large .65, small .45, all with feedback."""
    return POLICY.update(begin(), observe(15.0, (650.0, 900.0), (350.0, 1100.0), (1000.0, 2000.0)))


def test_credit_is_the_ledger_by_hand() -> None:
    # 3,000 outcomes, 1,550 satisfied, target .5: 50 to the good; then 200 at .6 with 110 satisfied: 10 lost
    state = learned()
    assert POLICY.summary(state).debt_requests == pytest.approx(-50.0)
    state = POLICY.update(state, observe(30.0, (700.0, 960.0), (400.0, 1140.0), (1100.0, 2100.0), alpha=0.6))
    assert POLICY.summary(state).debt_requests == pytest.approx(-40.0)
    assert state.open_credit == pytest.approx(0.0)


def test_the_same_counters_again_change_nothing() -> None:
    state = learned()
    again = POLICY.update(state, observe(15.0, (650.0, 900.0), (350.0, 1100.0), (1000.0, 2000.0)))
    assert again == state
    assert POLICY.update(state, observe(14.0, (9.0, 9.0), (9.0, 9.0))) == state  # older than what is known
    assert POLICY.update(state, replace(observe(30.0, (0.0, 0.0), (0.0, 0.0)), outcomes=None)) == state  # no answer


def test_a_restart_of_the_exposing_pod_is_a_reset_of_its_counters_alone() -> None:
    state = POLICY.update(learned(), observe(30.0, (10.0, 910.0), (5.0, 1105.0), (1015.0, 2015.0)))
    summary = POLICY.summary(state)
    assert summary.counter_resets == 2
    assert summary.total == 3000 + 15 + 15
    assert summary.satisfied == 1550 + 10 + 10


def test_the_state_survives_as_text() -> None:
    state = learned()
    back = POLICY.state_from_json(state.to_json())
    assert back == state
    one, other = POLICY.decide(state, request(), RNG), POLICY.decide(back, request(), RNG)
    assert one == other


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: body | {"version": 3},
        lambda body: body | {"policy": "MESSPlus"},
        lambda body: body | {"rows": body["rows"][:1]},
        lambda body: body | {"rows": [[-1.0] * 8, [0.0] * 8]},
        lambda body: body | {"open": math.nan},
        lambda body: {key: value for key, value in body.items() if key != "ledger"},
    ],
)
def test_a_damaged_state_is_refused(damage: object) -> None:
    body = json.loads(learned().to_json())
    with pytest.raises(StateError):
        POLICY.state_from_json(json.dumps(damage(body)))  # type: ignore[operator]


def test_sixteen_members_fit_into_four_kilobytes() -> None:
    names = tuple(f"llama-3-{n:02d}b-instruct" for n in range(16))
    state = begin(names)
    rng = np.random.default_rng(1)
    good, bad, served = (np.zeros(16) for _ in range(3))
    for tick in range(1, 40):
        served = served + rng.integers(10, 90, 16)
        good, bad = good + rng.integers(0, 20, 16), bad + rng.integers(0, 20, 16)
        state = POLICY.update(state, observe(15.0 * tick, tuple(good), tuple(bad), tuple(served), names=names))
    assert len(state.to_json()) < 4096


def grown(members: int, pods: int, name_length: int, step: float) -> AnytimeState:
    """A state after 40 intervals in which every pod judges every member both ways, counts in the millions."""
    rng = np.random.default_rng(1)
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789")
    names = tuple("".join(rng.choice(letters, name_length)) for _ in range(members))
    state = POLICY.initial_state(tuple(Member(name, 0.5, 100.0) for name in names))
    counts = rng.integers(0, 10**7, (members, 2, pods)).astype(float) + step
    served = counts.sum((1, 2))
    for tick in range(40):
        outcomes = tuple(
            OutcomeCounter(name, f"pod-{pod}", satisfied=bool(kind), count=float(counts[index, kind, pod]))
            for index, name in enumerate(names)
            for kind in (0, 1)
            for pod in range(pods)
        )
        counted = tuple(ServedCounter(name, "gw", float(value)) for name, value in zip(names, served, strict=True))
        state = POLICY.update(state, Observation(1.8e9 + 15.0 * tick, 0.519, outcomes, counted))
        fresh = rng.integers(0, 5, counts.shape) * (1.0 + step)
        counts, served = counts + fresh, served + fresh.sum((1, 2)) + rng.integers(0, 3, members)
    return state


@pytest.mark.parametrize(
    ("members", "pods", "name_length", "step", "most"),
    [(10, 3, 12, 0.0, 3000), (10, 8, 12, 0.0, 4096), (10, 8, 63, 0.0, 5200), (16, 6, 63, 0.1, 7800)],
)
def test_a_state_stays_small_whatever_exposes_feedback(
    members: int, pods: int, name_length: int, step: float, most: int
) -> None:
    state = grown(members, pods, name_length, step)
    assert len(state.ledger.counters) == members * 2 * pods
    text = state.to_json()
    assert len(text) < most
    assert POLICY.state_from_json(text).ledger == state.ledger
    assert POLICY.state_from_json(text).to_json() == text


def test_traffic_starts_on_the_safest_member() -> None:
    decision = POLICY.decide(begin(), request(), RNG)
    assert decision.weights == pytest.approx({"large": 0.75, "small": 0.25})
    assert decision.reason is Reason.NOTHING_KNOWN_YET
    assert decision.binding_constraint is Constraint.KNOWLEDGE


def test_a_running_service_holds_its_target_and_says_what_it_pays() -> None:
    decision = POLICY.decide(learned(), request(), RNG)
    assert decision.reason is Reason.HOLDING_TARGET
    assert decision.price_joules_per_satisfied == pytest.approx(90.0 / 0.2, rel=0.02)
    assert decision.reachable == pytest.approx((0.45, 0.65), abs=0.01)
    assert decision.weights["small"] > decision.weights["large"] > 0.1
    assert decision.runner_up is not None
    assert decision.runner_up.member == "large"


def test_weights_in_force_are_kept_in_part() -> None:
    # smoothing: .7 of what is new and .3 of what is in force. Servers are for the mixture behind them: they stay
    state = learned()
    a = POLICY.decide(state, request(current={"large": 1.0}), RNG)
    b = POLICY.decide(state, request(current={"small": 1.0}), RNG)
    assert a.weights["large"] - b.weights["large"] == pytest.approx(0.3, abs=0.02)
    assert a.wish == b.wish


def test_the_order_in_which_members_are_given_changes_nothing() -> None:
    asked = request()
    turned = replace(asked, members=asked.members[::-1])
    assert POLICY.decide(learned(), asked, RNG) == POLICY.decide(learned(), turned, RNG)


def test_a_member_that_is_away_gets_nothing_but_stays_wished_for() -> None:
    decision = POLICY.decide(learned(), request(ready=(True, False)), RNG)
    assert decision.weights == {"large": 1.0}
    assert decision.wish["small"] > 0.5
    assert decision.reason is Reason.ONLY_READY_MEMBER
    nobody = POLICY.decide(learned(), request(ready=(False, False)), RNG)
    assert nobody.weights == {}
    assert nobody.reason is Reason.NO_READY_MEMBER
    assert nobody.wish["small"] > 0.5


def test_one_member_takes_everything() -> None:
    state = begin(("large",))
    decision = POLICY.decide(state, request(joules=(100.0,), ready=(True,), names=("large",)), RNG)
    assert decision.weights == {"large": 1.0}


def test_no_member_at_all_is_a_decision_too() -> None:
    decision = POLICY.decide(begin(()), DecisionRequest((), 0.5, None, 0.0), RNG)
    assert decision.weights == {}
    assert decision.reason is Reason.NO_READY_MEMBER


def test_a_member_that_joins_late_is_tried_without_a_new_start() -> None:
    state = POLICY.initial_state((Member("large"), Member("small"), Member("tiny")), learned())
    assert POLICY.summary(state).total == 3000
    asked = request(joules=(100.0, 10.0, 1.0), ready=(True, True, True), names=("large", "small", "tiny"))
    decision = POLICY.decide(state, asked, RNG)
    assert decision.reason is not Reason.NOTHING_KNOWN_YET
    assert 0.01 < decision.weights["tiny"] <= 0.05 + 1e-9


def test_a_change_of_policy_keeps_the_ledger_and_what_was_learned() -> None:
    old = MESSPlus()
    before = old.initial_state((Member("large"), Member("small")))
    before = old.update(before, observe(0.0, (0.0, 0.0), (0.0, 0.0)))
    before = old.update(before, observe(15.0, (650.0, 900.0), (350.0, 1100.0)))
    state = POLICY.initial_state((Member("large"), Member("small")), before)
    assert POLICY.summary(state).debt_requests == pytest.approx(-50.0)
    assert POLICY.decide(state, request(), RNG).reason is Reason.HOLDING_TARGET


def test_an_unreachable_target_is_said_and_served_best() -> None:
    decision = POLICY.decide(learned(), request(alpha=0.8), RNG)
    assert decision.reason is Reason.TARGET_UNREACHABLE
    assert decision.weights["large"] > 0.95
    assert POLICY.promise(learned(), request(alpha=0.8)).from_request is None


@pytest.mark.parametrize("joules", [math.nan, math.inf, -1.0, None])
def test_unknown_joules_count_as_the_dearest(joules: float | None) -> None:
    decision = POLICY.decide(learned(), request(joules=(100.0, joules)), RNG)
    assert decision.reason is Reason.JOULES_UNKNOWN
    assert sum(decision.weights.values()) == pytest.approx(1.0)
    assert decision.expected_joules_per_request is None


def test_requests_without_feedback_wait_until_their_time_is_over() -> None:
    # half of 400 requests say nothing: they are under way until 15 s after they were served
    policy = MESSPlusAnytime(AnytimeParameters(feedback_delay_seconds=15.0))
    state = learned()
    served = (1200.0, 2200.0)
    state = policy.update(state, observe(30.0, (690.0, 930.0), (360.0, 1120.0), served))
    assert sum(row[6] for row in state.rows) == pytest.approx(3100.0)  # 100 outcomes came at once
    state = policy.update(state, observe(45.0, (720.0, 950.0), (380.0, 1150.0), served))
    assert sum(row[6] for row in state.rows) == pytest.approx(3400.0)
    assert sum(row[7] for row in state.rows) == pytest.approx(3200.0)
    promise = POLICY.promise(state, request())
    assert promise.feedback_share == pytest.approx(3200 / 3400, abs=0.02)


def test_minutes_without_a_request_change_no_estimate() -> None:
    state = learned()
    quiet = state
    for tick in range(2, 30):
        quiet = POLICY.update(quiet, observe(15.0 * tick, (650.0, 900.0), (350.0, 1100.0), (1000.0, 2000.0)))
    assert POLICY.summary(quiet).debt_requests == POLICY.summary(state).debt_requests
    assert POLICY.summary(quiet).members == POLICY.summary(state).members


def test_the_promise_says_from_which_request_on() -> None:
    promise = POLICY.promise(learned(), request(alpha=0.6))
    assert promise.from_request is not None
    assert 1000.0 < promise.from_request < 4000.0
    assert promise.credit == pytest.approx(1550 - 0.5 * 3000)
    strict = MESSPlusAnytime(AnytimeParameters(delta=0.01)).promise(learned(), request(alpha=0.6))
    assert strict.from_request is not None
    assert strict.from_request > promise.from_request
