"""Replicas: the plain rule's arithmetic, and what each wrapper around it prevents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo_policies.capacity.replicas import (
    estimate_max_shares,
    estimate_peak_rps,
    estimate_variant_demand,
    make_replica_rule,
)
from wattzoo_policies.limits.carrying import with_last_ready_kept, with_make_before_break
from wattzoo_policies.limits.replicas import decide_replicas, with_accelerator_cap
from wattzoo_policies.limits.waiting import with_down_stabilization
from wattzoo_policies.limits.weights import cap_weights, with_capacity_cap
from wattzoo_policies.protocols import ReplicaLaw
from wattzoo_policies.registry import make_policy
from wattzoo_policies.signals import (
    Constraint,
    DecisionRequest,
    Member,
    MemberCondition,
    ReplicaHistory,
    ReplicaRequest,
    VariantDemand,
)

BASE = VariantDemand("v", 10.0, 4.0, current_replicas=1, ready_replicas=1, min_replicas=0, max_replicas=10, member="m")


def decide(law: ReplicaLaw, *variants: VariantDemand, caps: dict[str, int] | None = None) -> list[int]:
    _, plan = law(ReplicaHistory(), ReplicaRequest(0.0, variants, caps or {}))
    return [entry.replicas for entry in plan.variants]


def play(law: ReplicaLaw, demands: Sequence[tuple[float, float | None]], current: int) -> list[int]:
    """Feed one variant (at, demand) in turn, obeying each answer at once."""
    history, answers = ReplicaHistory(), []
    for at, demand in demands:
        variant = replace(BASE, demand_rps=demand, current_replicas=current, ready_replicas=current)
        history, plan = law(history, ReplicaRequest(at, (variant,)))
        history = ReplicaHistory.from_json(history.to_json())
        current = plan.variants[0].replicas
        answers.append(current)
    return answers


@pytest.mark.parametrize(
    ("change", "replicas", "reason"),
    [
        ({}, 4, "DemandMet"),  # 10 * 1.3 / 4 = 3.25
        ({"demand_rps": 0.0}, 0, "DemandMet"),
        ({"demand_rps": 0.0, "min_replicas": 2}, 2, "AtMinimum"),
        ({"max_replicas": 3}, 3, "AtMaximum"),
        ({"demand_rps": None, "current_replicas": 7}, 7, "DemandUnknown"),
        ({"demand_rps": float("nan"), "current_replicas": 7}, 7, "DemandUnknown"),
        ({"capacity_rps": None, "current_replicas": 7}, 7, "CapacityUnknown"),
        ({"capacity_rps": 0.0, "current_replicas": 7}, 7, "CapacityUnknown"),
    ],
)
def test_rule(change: dict[str, float], replicas: int, reason: str) -> None:
    _, plan = make_replica_rule(0.3)(ReplicaHistory(), ReplicaRequest(0.0, (replace(BASE, **change),)))  # type: ignore[arg-type]
    assert (plan.variants[0].replicas, plan.variants[0].reason) == (replicas, reason)


def test_accelerator_cap_cuts_the_largest_increase_and_never_what_runs() -> None:
    big = replace(BASE, variant="big", accelerators_per_replica=4, accelerator_pool="p", current_replicas=2)
    small = replace(BASE, variant="small", accelerator_pool="p", current_replicas=3, ready_replicas=3)
    # Wishes 4 * 4 + 4 = 20 of 12: big goes back to the 2 it has, small may have its fourth.
    law = with_accelerator_cap(make_replica_rule(0.3))
    assert decide(law, big, small, caps={"p": 12}) == [2, 4]
    assert decide(law, big, small, caps={"p": 1}) == [2, 3]


def test_down_only_to_the_largest_wish_of_the_window() -> None:
    law = with_down_stabilization(make_replica_rule(0.0), 60.0)
    # wishes 5, 1, 3, 1, 1, 1: the 5 holds until it is older than 60 s, then the 3.
    demands = [(0, 20.0), (20, 4.0), (40, 12.0), (60, 4.0), (80, 4.0), (110, 4.0)]
    assert play(law, demands, current=1) == [5, 5, 5, 5, 3, 1]
    assert play(make_replica_rule(0.0), demands, current=1) == [5, 1, 3, 1, 1, 1]


def test_up_at_once_even_inside_the_window() -> None:
    assert play(with_down_stabilization(make_replica_rule(0.0), 300.0), [(0, 4.0), (1, 40.0)], current=1) == [1, 10]


def test_a_controller_without_history_holds_a_whole_window() -> None:
    law = with_down_stabilization(make_replica_rule(0.0), 60.0)
    assert play(law, [(0, 0.0), (30, 0.0), (59, 0.0), (61, 0.0)], current=6) == [6, 6, 6, 0]


def test_make_before_break_waits_for_those_that_start() -> None:
    law = with_make_before_break(make_replica_rule(0.0))
    waiting = replace(BASE, current_replicas=5, ready_replicas=1)  # needs 3, has 1 ready: the other 4 still start
    assert decide(law, waiting) == [5]
    assert decide(law, replace(waiting, ready_replicas=3)) == [3]
    assert decide(make_replica_rule(0.0), waiting) == [3]


def test_last_ready_member_stays() -> None:
    law = with_last_ready_kept(make_replica_rule(0.0))
    idle = replace(BASE, demand_rps=0.0)
    cold = replace(BASE, variant="cold", ready_replicas=0, current_replicas=0)
    assert decide(law, idle, replace(idle, variant="w", ready_replicas=2, current_replicas=2)) == [0, 1]
    assert decide(law, idle, cold) == [1, 3]  # a wish for replicas is not a replica
    assert decide(make_replica_rule(0.0), idle, cold) == [0, 3]


variants = st.builds(
    VariantDemand,
    variant=st.just("v"),
    demand_rps=st.one_of(st.none(), st.floats(0, 100)),
    capacity_rps=st.one_of(st.none(), st.floats(0.1, 10)),
    current_replicas=st.integers(0, 8),
    ready_replicas=st.integers(0, 8),
    min_replicas=st.integers(0, 3),
    max_replicas=st.integers(3, 8),
    accelerators_per_replica=st.sampled_from([1, 2, 4]),
    accelerator_pool=st.sampled_from(["a", "b"]),
)


@given(st.lists(variants, min_size=1, max_size=5), st.integers(0, 40))
def test_default_law_never_raises_use_above_a_cap(drawn: list[VariantDemand], cap: int) -> None:
    named = tuple(
        replace(v, variant=str(i), ready_replicas=min(v.ready_replicas, v.current_replicas))
        for i, v in enumerate(drawn)
    )
    request = ReplicaRequest(0.0, named, {"a": cap, "b": cap})
    _, plan = decide_replicas(ReplicaHistory(), request)
    for pool in ("a", "b"):
        inside = [(v, plan.replicas()[v.variant]) for v in named if v.accelerator_pool == pool]
        use = sum(n * v.accelerators_per_replica for v, n in inside)
        least = sum(v.current_replicas * v.accelerators_per_replica for v, _ in inside)
        assert use <= max(cap, least)


def test_cap_applies_again_around_wrappers() -> None:
    held = replace(BASE, accelerator_pool="p", current_replicas=2, ready_replicas=2)
    assert decide(with_accelerator_cap(make_replica_rule(0.3)), held, caps={"p": 3}) == [3]


def test_peak_takes_the_largest_recent_rate_and_carries_a_rise_on() -> None:
    samples = [(0.0, 50.0), (10.0, 4.0), (20.0, 6.0), (30.0, 8.0), (40.0, 10.0)]
    assert estimate_peak_rps(samples, 40.0, 30.0) == 10.0
    # halves (15 s, 5/s) and (35 s, 9/s): .2/s per second, 25 s on from 35 s: 9 + .2 * 25 = 14
    assert estimate_peak_rps(samples, 40.0, 30.0, lead_seconds=20.0) == pytest.approx(14.0)
    falling = [(40.0 - at, rate) for at, rate in reversed(samples[1:])]
    assert estimate_peak_rps(falling, 30.0, 30.0, lead_seconds=20.0) == 10.0  # a fall is not carried on
    assert estimate_peak_rps([(0.0, 5.0)], 100.0, 30.0) is None


def test_demand_adds_services_and_unknown_stays_unknown_only_where_it_reaches() -> None:
    splits = {"small": {"small-l4": 1.0}, "large": {"large-h100": 0.75, "large-a100": 0.25}}
    demand = estimate_variant_demand([(8.0, {"small": 0.5, "large": 0.5}), (4.0, {"small": 1.0})], splits)
    assert demand == {"small-l4": 8.0, "large-h100": 3.0, "large-a100": 1.0}
    unknown = estimate_variant_demand([(8.0, {"large": 1.0}), (None, {"small": 1.0})], splits)
    assert unknown == {"small-l4": None, "large-h100": 6.0, "large-a100": 2.0}


def test_weights_are_capped_to_ready_capacity() -> None:
    assert cap_weights({"a": 0.8, "b": 0.2}, {"a": 0.5, "b": None}) == {"a": 0.5, "b": 0.5}
    assert cap_weights({"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.2}) == {"a": 0.5, "b": 0.5}  # overload: alike
    assert cap_weights({"a": 0.9, "b": 0.1}, {"a": 3.0, "b": 0.0}) == {"a": 1.0, "b": 0.0}
    assert cap_weights({"a": 0.9, "b": 0.1}, {"a": 0.0, "b": 0.0}) == {"a": 0.9, "b": 0.1}


JOULES = {"small": 10.0, "medium": 30.0, "large": 200.0}
ACCURACY = {"small": 0.4, "medium": 0.45, "large": 0.65}


def test_what_does_not_fit_goes_where_it_costs_least_and_satisfies_as_many() -> None:
    """.8 * .4 + .2 * .65 = .45 was meant, and .1 fits the small member: the medium one takes .8, all that it has room
    for, and with the rest .1 * .4 + .8 * .45 + .1 * .65 = .465 are satisfied.
    """
    law = {"small": 0.8, "medium": 0.0, "large": 0.2}
    capped = cap_weights(law, {"small": 0.1, "medium": None, "large": None}, JOULES, ACCURACY)
    assert capped == pytest.approx({"small": 0.1, "medium": 0.8, "large": 0.1})
    by_room = cap_weights(law, {"small": 0.1, "medium": None, "large": None})
    assert by_room["large"] > 0.5  # in proportion to room: dear, and more satisfied than anybody wants


def test_where_as_many_cannot_be_satisfied_it_is_as_many_as_can() -> None:
    law = {"small": 0.2, "medium": 0.0, "large": 0.8}
    capped = cap_weights(law, {"small": None, "medium": 0.3, "large": 0.25}, JOULES, ACCURACY)
    assert capped == pytest.approx({"small": 0.51, "medium": 0.24, "large": 0.25})  # .8 of .3 is the medium one's room


@given(
    st.lists(
        st.tuples(st.floats(0.01, 1), st.one_of(st.none(), st.floats(0, 2)), st.floats(1, 500), st.floats(0, 1)),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
def test_capped_weights_sum_to_one_and_keep_caps_where_they_can(
    rows: list[tuple[float, float | None, float, float]],
    known: bool,
) -> None:
    total = sum(weight for weight, _, _, _ in rows)
    weights = {str(i): weight / total for i, (weight, _, _, _) in enumerate(rows)}
    caps = {str(i): cap for i, (_, cap, _, _) in enumerate(rows)}
    joules = {str(i): row[2] for i, row in enumerate(rows)}
    accuracy = {str(i): row[3] for i, row in enumerate(rows)}
    capped = cap_weights(weights, caps, joules, accuracy) if known else cap_weights(weights, caps)
    assert sum(capped.values()) == pytest.approx(1.0)
    if sum(1.0 if cap is None else min(1.0, cap) for cap in caps.values()) > 1.0:
        assert all(cap is None or capped[name] <= min(1.0, cap) + 1e-9 for name, cap in caps.items())


def test_policies_of_the_registry_say_when_capacity_binds() -> None:
    policy = make_policy("MESSPlus")
    state = policy.initial_state((Member("a", 0.2, 10), Member("b", 0.9, 10)))
    members = (MemberCondition("a", ready=True, joules_per_request=1.0), MemberCondition("b", True, 2.0, 0.25))  # noqa: FBT003
    decision = policy.decide(state, DecisionRequest(members, 0.85, 50.0, 0.0), np.random.default_rng(0))
    assert decision.weights == pytest.approx({"a": 0.75, "b": 0.25})
    assert decision.binding_constraint is Constraint.CAPACITY
    assert decision.wish["b"] > 0.8


def test_max_shares_count_ready_replicas_alone() -> None:
    seen = [replace(BASE, ready_replicas=2), replace(BASE, variant="w", ready_replicas=1, capacity_rps=2.0)]
    assert estimate_max_shares(seen, 20.0) == {"m": pytest.approx((2 * 4 + 2) / 20)}
    assert estimate_max_shares([replace(BASE, capacity_rps=None)], 20.0) == {}
    assert estimate_max_shares(seen, None) == {}


def test_damaged_history_is_refused() -> None:
    for text in ("{", "[]", '{"version": 2, "wishes": {}}', '{"version": 1, "wishes": {"v": [[1]]}}'):
        with pytest.raises(ValueError, match="replica history"):
            ReplicaHistory.from_json(text)
    assert with_capacity_cap(make_policy("MESSPlus")).name == "MESSPlus"
