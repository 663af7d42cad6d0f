"""MESS+ as published: by hand, against the rule request by request, and under everything an operator may feed it."""

from __future__ import annotations

import json
import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattzoo_policies.accuracy.mess_plus import MESSPlus, MESSPlusParameters, MESSPlusState
from wattzoo_policies.accuracy.virtual_queue import Arm, estimate_choices, estimate_queue, make_hull
from wattzoo_policies.protocols import StateError
from wattzoo_policies.registry import PolicyParameterError, UnknownPolicyError, make_policy, policy_names
from wattzoo_policies.signals import (
    Constraint,
    DecisionRequest,
    Member,
    MemberCondition,
    Observation,
    OutcomeCounter,
    Reason,
)

RNG = np.random.default_rng(0)
ZOO = (Member("small", 0.4, 100), Member("medium", 0.5, 100), Member("large", 0.6, 100))
JOULES = {"small": 10.0, "medium": 100.0, "large": 300.0}


def request(
    ready: dict[str, bool] | None = None,
    joules: dict[str, float | None] | None = None,
    alpha: float = 0.55,
    expected: float | None = 100.0,
    safest: str | None = "large",
) -> DecisionRequest:
    members = tuple(
        MemberCondition(name, (ready or {}).get(name, True), (joules or {}).get(name, JOULES[name])) for name in JOULES
    )
    return DecisionRequest(members, alpha, expected, 0.0, safest)


def bare(v: float = 1e-4, exploration: float = 0.0) -> MESSPlus:
    return MESSPlus(MESSPlusParameters(v_per_joule=v, exploration=exploration, horizon_requests=1))


def counters(good: int, bad: int, member: str = "small") -> tuple[OutcomeCounter, ...]:
    return (
        OutcomeCounter(member, "pod", satisfied=True, count=good),
        OutcomeCounter(member, "pod", satisfied=False, count=bad),
    )


def test_queue_by_hand() -> None:
    # alpha .5: four failures add 2; four successes from 1.2 reach the floor; order does not matter in either.
    assert estimate_queue(0.0, 0.5, 0, 4) == pytest.approx(2.0)
    assert estimate_queue(1.2, 0.5, 4, 4) == 0.0
    # One good and one bad from 0: good first ends at .5 (the floor forgot the surplus), bad first at 0. Mean .25.
    assert estimate_queue(0.0, 0.5, 1, 2) == pytest.approx(0.25, abs=0.1)
    assert estimate_queue(7.0, 0.5, 0, 0) == 7.0


@given(st.floats(0, 50), st.floats(0.05, 0.95), st.integers(0, 60), st.integers(0, 60))
def test_queue_lies_between_best_and_worst_order(queue: float, alpha: float, good: int, bad: int) -> None:
    def walk(outcomes: list[int]) -> float:
        at = queue
        for outcome in outcomes:
            at = max(0.0, at + alpha - outcome)
        return at

    mean = estimate_queue(queue, alpha, good, good + bad)
    assert walk([0] * bad + [1] * good) - 1e-9 <= mean <= walk([1] * good + [0] * bad) + 1e-9


def test_play_by_hand() -> None:
    # V = .01/J: dearer arm once Q*(.9 - .1) > .01*(90 - 10), that is Q > 1. alpha .5 moves Q by +.4 and -.4.
    hull, breaks = make_hull([Arm("cheap", 10, 0.1), Arm("dear", 90, 0.9)], 0.01)
    assert breaks == [pytest.approx(1.0)]
    # Q: 0 .4 .8 | 1.2 .8 1.2 .8 ...: cheap three times, then dear and cheap in turns.
    counts, _ = estimate_choices(0.0, 0.5, hull, breaks, 11)
    assert counts == [7, 4]


zoos = st.lists(st.tuples(st.floats(1, 1e4), st.floats(0.01, 0.99)), min_size=1, max_size=6, unique_by=lambda a: a[0])


@given(zoos, st.floats(0, 30), st.floats(0.02, 0.98), st.sampled_from([1e-5, 1e-4, 1e-3, 1e-2]), st.integers(1, 300))
def test_play_is_the_rule_request_by_request(
    zoo: list[tuple[float, float]], queue: float, alpha: float, v: float, requests: int
) -> None:
    arms = [Arm(str(i), joules, accuracy) for i, (joules, accuracy) in enumerate(zoo)]
    hull, breaks = make_hull(arms, v)
    counts, _ = estimate_choices(queue, alpha, hull, breaks, requests)
    played = {arm.name: number for arm, number in zip(hull, counts, strict=True)}
    at, brute = queue, dict.fromkeys((arm.name for arm in arms), 0)
    margin = math.inf
    for _ in range(requests):
        values = sorted((v * arm.joules + at * (alpha - arm.accuracy), arm.joules, arm.name) for arm in arms)
        brute[values[0][2]] += 1
        margin = min([margin, *(second[0] - values[0][0] for second in values[1:])])
        at = max(0.0, at + alpha - next(arm.accuracy for arm in arms if arm.name == values[0][2]))
    if margin > 1e-9:  # ties decided by rounding may differ
        assert {name: number for name, number in brute.items() if number} == {
            name: number for name, number in played.items() if number
        }


def test_long_intervals_settle_into_the_mixture_that_holds_the_target() -> None:
    hull, breaks = make_hull([Arm("cheap", 10, 0.4), Arm("dear", 300, 0.6)], 1e-4)
    counts, _ = estimate_choices(0.0, 0.55, hull, breaks, 100_000)
    assert sum(counts) == pytest.approx(100_000)
    assert counts[1] / sum(counts) == pytest.approx(0.75, abs=0.01)  # .4 + .75 * .2 = .55


def test_debt_moves_traffic_to_the_accurate_and_says_so() -> None:
    policy = bare()
    state = policy.update(policy.initial_state(ZOO), Observation(0, 0.55, ()))
    calm = policy.decide(state, request(), RNG)
    indebted = policy.decide(policy.update(state, Observation(1, 0.55, counters(0, 100))), request(), RNG)
    assert indebted.weights["large"] > calm.weights["large"]
    assert (calm.reason, indebted.reason) == (Reason.HOLDING_TARGET, Reason.REPAYING_DEBT)
    # 100 failures at .55 make Q = 55: price Q/V = 550,000 J per satisfied request.
    assert indebted.price_joules_per_satisfied == pytest.approx(55 / 1e-4)
    assert indebted.binding_constraint is Constraint.ACCURACY
    assert indebted.runner_up is not None


def test_cheapest_alone_when_it_suffices() -> None:
    decision = bare().decide(bare().initial_state(ZOO), request(alpha=0.3), RNG)
    assert decision.weights == {"small": 1.0, "medium": 0.0, "large": 0.0}
    assert decision.reason is Reason.CHEAPEST_SUFFICES


def test_unreachable_target_is_said_with_what_is_reachable() -> None:
    decision = bare().decide(bare().initial_state(ZOO), request(alpha=0.9, expected=1000.0), RNG)
    assert decision.reason is Reason.TARGET_UNREACHABLE
    assert decision.reachable is not None
    assert list(decision.reachable) == pytest.approx([0.4, 0.6])
    assert decision.weights["large"] > 0.9


def test_exploration_follows_the_schedule() -> None:
    policy = MESSPlus(MESSPlusParameters(exploration=0.1))
    state = policy.update(policy.initial_state(ZOO), Observation(0, 0.3, ()))
    first = policy.decide(state, request(alpha=0.3, expected=1.0), RNG)
    assert first.weights["large"] == pytest.approx(0.1 / 3)  # p_1 = c
    state = policy.update(state, Observation(1, 0.3, counters(9_000, 999)))
    later = policy.decide(state, request(alpha=0.3, expected=1.0), RNG)
    assert later.weights["large"] == pytest.approx(0.01 / 3)  # p_10000 = c/10


def test_members_that_are_not_ready_get_nothing_but_stay_wished_for() -> None:
    decision = bare().decide(bare().initial_state(ZOO), request(ready={"large": False}), RNG)
    assert set(decision.weights) == {"small", "medium"}
    assert decision.wish["large"] > 0.0


def test_nobody_ready_is_a_decision() -> None:
    decision = bare().decide(bare().initial_state(ZOO), request(ready=dict.fromkeys(JOULES, False)), RNG)
    assert decision.weights == {}
    assert decision.reason is Reason.NO_READY_MEMBER
    assert sum(decision.wish.values()) == pytest.approx(1.0)


def test_without_any_knowledge_the_safest_serves() -> None:
    policy = MESSPlus()
    state = policy.initial_state(tuple(Member(name) for name in JOULES))
    decision = policy.decide(state, request(), RNG)
    assert decision.reason is Reason.NOTHING_KNOWN_YET
    assert decision.weights["large"] > 0.9
    assert sum(decision.weights.values()) == pytest.approx(1.0)
    lost = policy.decide(state, request(ready={"large": False}), RNG)
    assert lost.weights == {"medium": 0.5, "small": 0.5}
    assert lost.wish == {"large": 1.0}


@pytest.mark.parametrize("unknown", [None, math.nan, 0.0, -5.0, math.inf])
def test_unknown_joules_count_as_the_dearest(unknown: float | None) -> None:
    decision = bare().decide(bare().initial_state(ZOO), request(joules={"small": unknown}, alpha=0.3), RNG)
    assert decision.reason is Reason.JOULES_UNKNOWN
    assert decision.weights["medium"] == 1.0
    assert decision.expected_joules_per_request is None
    nobody = bare().decide(bare().initial_state(ZOO), request(joules=dict.fromkeys(JOULES, unknown)), RNG)
    assert nobody.weights == {"large": 1.0}


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.sampled_from(list(JOULES))), max_size=8),
    st.dictionaries(st.sampled_from(list(JOULES)), st.booleans()),
    st.floats(0.01, 0.99),
    st.one_of(st.none(), st.floats(0, 5000)),
)
@settings(deadline=None)
def test_weights_are_always_a_distribution_over_ready_members(
    history: list[tuple[int, int, str]], ready: dict[str, bool], alpha: float, expected: float | None
) -> None:
    policy = MESSPlus()
    state = policy.update(policy.initial_state(tuple(Member(name) for name in JOULES)), Observation(0, alpha, ()))
    total = dict.fromkeys(JOULES, (0, 0))
    for at, (good, bad, member) in enumerate(history, start=1):
        total[member] = (total[member][0] + good, total[member][1] + bad)
        seen = tuple(c for name, (g, b) in total.items() for c in counters(g, b, name))
        state = policy.update(state, Observation(at, alpha, seen))
        assert policy.update(state, Observation(at + 0.5, alpha, seen)).queue == state.queue
    decision = policy.decide(state, request(ready, alpha=alpha, expected=expected), RNG)
    serving = [name for name in JOULES if ready.get(name, True)]
    assert set(decision.weights) <= set(serving)
    assert all(weight >= 0.0 for weight in decision.weights.values())
    assert sum(decision.weights.values()) == pytest.approx(1.0 if serving else 0.0)
    assert policy.state_from_json(state.to_json()) == state


def test_order_of_members_changes_nothing() -> None:
    decisions = []
    for order in permutations(ZOO):
        policy = MESSPlus()
        state = policy.update(policy.initial_state(order), Observation(0, 0.55, ()))
        state = policy.update(state, Observation(1, 0.55, counters(10, 25)))
        asked = request()
        members = tuple(c for m in order for c in asked.members if c.name == m.name)
        decisions.append(policy.decide(state, DecisionRequest(members, 0.55, 100.0, 0.0), RNG).weights)
    assert all(weights == pytest.approx(decisions[0]) for weights in decisions)


def test_change_of_members_keeps_queue_and_ledger() -> None:
    policy = bare()
    state = policy.update(policy.initial_state(ZOO), Observation(0, 0.55, ()))
    state = policy.update(state, Observation(1, 0.55, counters(10, 30)))
    changed = policy.initial_state(ZOO[1:], state)
    assert changed.queue == state.queue
    assert policy.summary(changed).total == 40
    assert [m.name for m in changed.members] == ["medium", "large"]


def test_state_stays_below_four_kilobytes() -> None:
    policy = MESSPlus()
    names = [f"a-member-with-a-name-{i}" for i in range(16)]
    seen = tuple(
        OutcomeCounter(n, f"pod-{p}", good, 12345.0) for n in names for p in range(3) for good in (True, False)
    )
    state = policy.update(policy.initial_state(tuple(Member(n, 0.5, 10) for n in names)), Observation(0, 0.5, ()))
    state = policy.update(state, Observation(1, 0.5, seen))
    assert len(state.to_json()) < 4096


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"version": 99}, "version 99"),
        ({"policy": "Other"}, "Other"),
        ({"queue": -1.0}, "at least 0"),
        ({"ledger": {}}, "cannot be read"),
        ({"members": "x"}, "cannot be read"),
    ],
)
def test_damaged_states_are_refused(change: dict[str, object], match: str) -> None:
    body = json.loads(MESSPlusState(ZOO, MESSPlus().initial_state(ZOO).ledger).to_json()) | change
    with pytest.raises(StateError, match=match):
        MESSPlus().state_from_json(json.dumps(body))
    with pytest.raises(StateError):
        MESSPlus().state_from_json("{")


def test_registry_names_what_is_wrong() -> None:
    assert "MESSPlus" in policy_names()
    assert make_policy("MESSPlus", {"v_per_joule": 1e-3}).name == "MESSPlus"
    with pytest.raises(UnknownPolicyError, match="'Mess'"):
        make_policy("Mess")
    with pytest.raises(PolicyParameterError, match="no parameter speed"):
        make_policy("MESSPlus", {"speed": 1})
    with pytest.raises(PolicyParameterError, match="exploration must lie between 0 and 1"):
        make_policy("MESSPlus", {"exploration": 2.0})
    with pytest.raises(PolicyParameterError, match="v_per_joule"):
        make_policy("MESSPlus", {"v_per_joule": "high"})
