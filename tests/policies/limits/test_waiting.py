"""Wrappers that wait: each with the harm that is done without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policies.limits.actor import Actor, MakeLaw, Pods, play
from wattzoo_policies.capacity.replicas import make_replica_rule
from wattzoo_policies.limits.plans import make_plan_law
from wattzoo_policies.limits.waiting import (
    break_even_seconds,
    contested_pools,
    with_down_stabilization,
    with_reachable_only,
    with_stale_hold,
    with_zero_gap,
)
from wattzoo_policies.protocols import ReplicaLaw
from wattzoo_policies.signals import ReplicaHistory, ReplicaPlan, ReplicaRequest, VariantDemand

SMALL = VariantDemand("8b", 10.0, 4.0, current_replicas=3, ready_replicas=3, min_replicas=0, max_replicas=10)
LARGE = replace(SMALL, variant="70b", accelerators_per_replica=4, start_joules=174_000.0, saved_watts=464.0)
"""A 70B on 4 H100: 300 s of start at 1.25 times 464 W."""


def decide(law: ReplicaLaw, *variants: VariantDemand, at: float = 0.0) -> ReplicaPlan:
    return law(ReplicaHistory(), ReplicaRequest(at, variants))[1]


def test_a_plan_is_followed_within_declared_bounds_and_what_it_does_not_name_stays() -> None:
    law = make_plan_law({"8b": 5, "70b": 12}, {"8b": "cheapest"})
    plan = decide(law, SMALL, LARGE, replace(SMALL, variant="other"), replace(SMALL, variant="8b", min_replicas=6))
    assert [entry.replicas for entry in plan.variants] == [5, 10, 3, 6]
    assert [entry.reason for entry in plan.variants] == ["Planned", "AtMaximum", "NotPlanned", "AtMinimum"]
    assert plan.variants[0].message == "cheapest"
    with pytest.raises(ValueError, match="planned replicas of 8b must be at least 0"):
        decide(make_plan_law({"8b": -1}), SMALL)


def test_plans_that_swing_start_servers_every_minute_without_the_window() -> None:
    swing = [{"8b": 4 if i % 2 == 0 else 2} for i in range(10)]

    def starts(make_law: MakeLaw) -> int:
        actor = Actor((SMALL,), {"8b": Pods(ready=4)})
        play(actor, make_law, swing, {}, {})
        return actor.pods["8b"].starts

    # Bare, 2 servers are stopped and started at every second plan: 4 times after the first.
    assert starts(make_plan_law) == 8
    assert starts(lambda plan: with_down_stabilization(make_plan_law(plan), 300.0)) == 0


def test_a_gap_shorter_than_a_start_is_worth_does_not_stop_the_last_replica() -> None:
    # Wanted for a minute, then not for 6 minutes, over and over. Bare: a start of 174 kJ per 7 minutes. Kept: 6 minutes
    # of 464 W, 167 kJ, and nobody waits 300 s for the start. Only after 1.5 * 174 kJ / 464 W = 562.5 s it goes.
    assert break_even_seconds(LARGE) == pytest.approx(375.0)
    cycle = [{"70b": 1}] + [{"70b": 0}] * 6
    plans = cycle * 3 + [{"70b": 0}] * 10

    def run(make_law: MakeLaw) -> tuple[int, list[int]]:
        actor = Actor((LARGE,), {"70b": Pods(ready=1)})
        moments = play(actor, make_law, plans, {}, {})
        return actor.pods["70b"].starts, [moment.replicas["70b"] for moment in moments]

    bare, _ = run(make_plan_law)
    starts, replicas = run(lambda plan: with_zero_gap(make_plan_law(plan)))
    assert bare == 2
    assert starts == 0
    # The last zero begins with plan 15 (900 s): at plan 24 the gap is 540 s, at plan 25 it is 600 s.
    assert replicas == [1] * 25 + [0] * 6


def test_a_known_gap_decides_at_once_and_an_unknown_worth_is_left_to_others() -> None:
    law = with_zero_gap(make_plan_law({"70b": 0}))
    assert decide(law, LARGE).variants[0].replicas == 1  # of three: the gap is 0 s so far
    assert decide(law, LARGE).variants[0].reason == "ShortGap"
    assert decide(law, replace(LARGE, expected_gap_seconds=563.0)).variants[0].replicas == 0
    assert decide(law, replace(LARGE, expected_gap_seconds=562.0)).variants[0].replicas == 1
    assert decide(law, replace(LARGE, saved_watts=None)).variants[0].replicas == 0


def test_the_last_replica_is_not_kept_from_those_who_wait_for_its_accelerators() -> None:
    law = with_zero_gap(make_plan_law({"70b": 0, "8b": 8}))
    large = replace(LARGE, current_replicas=1, ready_replicas=1, accelerator_pool="h100")
    small = replace(SMALL, current_replicas=4, accelerator_pool="h100")
    for cap, kept in ((8, 0), (12, 1)):  # 4 + 4 held: 4 more fit in 12 only
        _, plan = law(ReplicaHistory(), ReplicaRequest(0.0, (large, small), {"h100": cap}))
        assert plan.replicas() == {"70b": kept, "8b": 8}
        assert contested_pools(ReplicaRequest(0.0, (large, small), {"h100": cap}), plan) == (
            {"h100"} if kept == 0 else frozenset()
        )


def test_stale_or_unknown_demand_moves_nothing() -> None:
    # The scrape died at full load: the rule sees the 0 requests/s of a dead gateway and would stop all three servers.
    dead = replace(SMALL, demand_rps=0.0, observed_at_seconds=0.0)
    bare, law = make_replica_rule(0.0), with_stale_hold(make_replica_rule(0.0), 120.0)
    assert decide(bare, dead, at=121.0).variants[0].replicas == 0
    assert decide(law, dead, at=121.0).variants[0].replicas == 3
    assert decide(law, dead, at=121.0).variants[0].reason == "MetricsStale"
    assert decide(law, dead, at=120.0).variants[0].replicas == 0
    unknown = decide(with_stale_hold(make_plan_law({"8b": 9}), 120.0), replace(SMALL, demand_rps=None)).variants[0]
    assert (unknown.replicas, unknown.reason) == (3, "DemandUnknown")


def test_debt_starts_no_more_than_all_requests_could_use() -> None:
    # 10 requests/s come, and 600 of them are owed within a minute: a law that adds 10/s of debt wants 5 replicas, but
    # all that ever comes is 10/s, ceil(10 / 4) = 3.
    chased = replace(SMALL, demand_rps=20.0, current_replicas=1, ready_replicas=1)
    law = with_reachable_only(make_replica_rule(0.0))
    assert decide(law, chased).variants[0].replicas == 5
    bounded = decide(law, replace(chased, reachable_rps=10.0)).variants[0]
    assert (bounded.replicas, bounded.reason) == (3, "BeyondReach")
    # What runs is not stopped by it, a declared minimum stands, a reserve counts on top.
    assert decide(law, replace(chased, reachable_rps=10.0, current_replicas=4)).variants[0].replicas == 4
    assert decide(law, replace(chased, reachable_rps=0.0, min_replicas=2)).variants[0].replicas == 2
    reserved = with_reachable_only(make_replica_rule(0.0), reserve=0.3)
    assert decide(reserved, replace(chased, reachable_rps=10.0)).variants[0].replicas == 4  # 13 / 4


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.floats(1.0, 900.0))
def test_the_window_keeps_the_largest_plan_and_never_slows_an_increase(wishes: list[int], window: float) -> None:
    def make_law(plan: Mapping[str, int]) -> ReplicaLaw:
        return with_down_stabilization(make_plan_law(plan), window)

    actor = Actor((SMALL,), {"8b": Pods(ready=3)})
    moments = play(actor, make_law, [{"8b": wish} for wish in wishes], {}, {})
    for i, moment in enumerate(moments):
        recent = [wish for j, wish in enumerate(wishes[: i + 1]) if 60.0 * (i - j) <= window]
        assert moment.replicas["8b"] >= wishes[i]
        before = moments[i - 1].replicas["8b"] if i else 3
        assert moment.replicas["8b"] >= min(before, max(recent))


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_the_last_replica_goes_only_after_the_time_that_a_start_is_worth(wanted: list[bool]) -> None:
    def make_law(plan: Mapping[str, int]) -> ReplicaLaw:
        return with_zero_gap(make_plan_law(plan))

    actor = Actor((LARGE,), {"70b": Pods(ready=1)})
    moments = play(actor, make_law, [{"70b": int(want)} for want in wanted], {}, {})
    for i, moment in enumerate(moments):
        if moment.replicas["70b"] == 0:
            assert not any(wanted[max(0, i - 9) : i + 1])  # 562.5 s are nine steps and a bit
