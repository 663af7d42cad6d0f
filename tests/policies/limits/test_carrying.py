"""Changes under load: what is ready never leaves before what replaces it, and a cap holds at every instant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.policies.limits.actor import Actor, MakeLaw, Moment, Pods, play
from wattzoo_policies.limits.carrying import (
    Removal,
    split_removal,
    with_last_ready_kept,
    with_make_before_break,
    with_variant_change,
)
from wattzoo_policies.limits.plans import make_plan_law
from wattzoo_policies.limits.replicas import decide_planned_replicas, with_accelerator_cap, with_all_limits
from wattzoo_policies.protocols import ReplicaLaw
from wattzoo_policies.signals import ReplicaHistory, ReplicaRequest, ServiceDemand, VariantDemand, VariantReplicas

OLD = VariantDemand("old", 0.0, 10.0, 4, 4, 0, 20, accelerator_pool="h100", member="chat")
NEW = replace(OLD, variant="new", demand_rps=40.0, current_replicas=0, ready_replicas=0)
OTHER = replace(OLD, variant="other", member="small", demand_rps=0.0, accelerator_pool="l4")


def decide(
    law: ReplicaLaw,
    *variants: VariantDemand,
    caps: Mapping[str, int] | None = None,
    free: Mapping[str, int] | None = None,
    services: tuple[ServiceDemand, ...] = (),
) -> dict[str, VariantReplicas]:
    _, plan = law(ReplicaHistory(), ReplicaRequest(0.0, variants, caps or {}, free or {}, services))
    return {entry.variant: entry for entry in plan.variants}


def numbers(entries: Mapping[str, VariantReplicas]) -> list[int]:
    return [entry.replicas for entry in entries.values()]


def test_a_planned_change_without_make_before_break_serves_nobody_for_the_time_of_a_start() -> None:
    plans = [{"old": 0, "new": 4}] * 5
    demand = {"old": 0.0, "new": 40.0}

    def ready(law: MakeLaw) -> list[float]:
        actor = Actor((OLD, NEW), {"old": Pods(ready=4), "new": Pods(start_seconds=120.0)})
        return [moment.ready_rps for moment in play(actor, law, plans, demand, {})]

    # 40 requests/s come. Bare: 120 s of nothing. Kept: 4 * 10 all the time, 8 * 10 for the moment before the old go.
    assert ready(make_plan_law) == [0.0, 0.0, 40.0, 40.0, 40.0]
    assert ready(lambda plan: with_make_before_break(make_plan_law(plan))) == [40.0, 40.0, 40.0, 40.0, 40.0]


def test_the_old_leave_as_fast_as_the_new_carry() -> None:
    law = with_make_before_break(make_plan_law({"old": 0, "new": 4}))
    for ready, kept in ((0, 4), (1, 3), (3, 1), (4, 0)):
        assert decide(law, OLD, replace(NEW, current_replicas=4, ready_replicas=ready))["old"].replicas == kept


def test_another_member_with_room_for_the_requests_is_no_substitute() -> None:
    # `other` could take all 40 requests/s, but they were promised to the member `chat`.
    law = with_make_before_break(make_plan_law({"old": 0, "new": 4, "other": 4}))
    idle = replace(NEW, current_replicas=4)
    assert decide(law, OLD, idle, OTHER)["old"].replicas == 4
    # A plan that gives the requests to `other` lets `chat` go once those that it takes over from are not needed.
    moved = decide(law, OLD, replace(idle, demand_rps=0.0), replace(OTHER, demand_rps=40.0))
    assert moved["old"].replicas == 0


def test_the_whole_must_be_carried_and_every_service_by_members_it_may_use() -> None:
    # The plan moves 40 requests/s to `other`, of which one of four replicas is ready: three old ones stay.
    law = with_make_before_break(make_plan_law({"old": 0, "other": 4}))
    other = replace(OTHER, demand_rps=40.0, ready_replicas=1)
    assert decide(law, OLD, other)["old"].replicas == 3
    # Ready, `other` carries the whole; but the service `a` may not use it.
    ready = replace(other, ready_replicas=4)
    assert decide(law, OLD, ready)["old"].replicas == 0
    services = (ServiceDemand("a", ("chat",), 15.0), ServiceDemand("b", ("chat", "small"), 25.0))
    assert decide(law, OLD, ready, services=services)["old"].replicas == 2


def test_unknown_demand_stands_outside() -> None:
    law = with_make_before_break(make_plan_law({"old": 1}))
    unknown = replace(OTHER, demand_rps=None)
    assert decide(law, replace(OLD, demand_rps=10.0), unknown)["old"].replicas == 1
    assert decide(law, replace(OLD, demand_rps=10.0), replace(OTHER, capacity_rps=None))["old"].replicas == 1


def test_starting_replicas_are_cancelled_before_ready_ones() -> None:
    mixed = replace(OLD, current_replicas=5, ready_replicas=2, demand_rps=20.0)
    assert split_removal(mixed, 3) == Removal(starting=2, ready=0)
    assert split_removal(mixed, 1) == Removal(starting=3, ready=1)
    assert split_removal(mixed, 6) == Removal(0, 0)
    # So the three that start may go although both ready ones are needed; one more may not.
    assert decide(with_make_before_break(make_plan_law({"old": 2})), mixed)["old"].replicas == 2
    assert decide(with_make_before_break(make_plan_law({"old": 1})), mixed)["old"].replicas == 2


CHANGE = with_accelerator_cap(with_variant_change(make_plan_law({"old": 0, "new": 4, "other": 4})))


@pytest.mark.parametrize(
    ("cap", "rest_rps", "replicas", "reason"),
    [
        (8, 0.0, [4, 4], "WaitingForReady"),  # up first: room for both
        (6, 0.0, [4, 2], "NoRoomToChange"),  # what fits starts, nothing leaves: the rest does not carry 40
        (4, 0.0, [4, 0], "NoRoomToChange"),  # neither: hold
        (4, 40.0, [0, 0], "DownFirst"),  # the rest carries everything
        (6, 40.0, [2, 2], "DownFirst"),  # only as many leave as the waiting ones need
        (4, 20.0, [2, 0], "DownFirst"),  # and only as many as the rest can do without
        (1, 0.0, [4, 0], "NoRoomToChange"),  # a cap below use forbids increases and no more
    ],
)
def test_change_of_variant(cap: int, rest_rps: float, replicas: list[int], reason: str) -> None:
    rest = replace(OTHER, capacity_rps=max(rest_rps / 4, 1e-6))
    entries = decide(CHANGE, OLD, NEW, rest, caps={"h100": cap})
    assert numbers(entries)[:2] == replicas
    assert entries["old"].reason == reason


def test_free_accelerators_bind_like_a_cap() -> None:
    rest = replace(OTHER, capacity_rps=10.0)
    assert numbers(decide(CHANGE, OLD, NEW, rest, caps={"h100": 100}, free={"h100": 0}))[:2] == [0, 0]
    assert numbers(decide(CHANGE, OLD, NEW, rest, free={"h100": 4}))[:2] == [4, 4]


def test_terminating_replicas_count_against_the_cap_until_they_are_gone() -> None:
    """Four of four accelerators change hands while `other` carries the load: 30 s of leaving, then the new start."""
    plans = [{"old": 0, "new": 4, "other": 4}] * 6
    demand = {"old": 0.0, "new": 40.0, "other": 0.0}

    def run(law: MakeLaw) -> list[Moment]:
        pods = {"old": Pods(ready=4, drain_seconds=90.0), "new": Pods(), "other": Pods(ready=4)}
        return play(Actor((OLD, NEW, OTHER), pods), law, plans, demand, {"h100": 4})

    assert max(moment.held["h100"] for moment in run(make_plan_law)) == 8
    moments = run(lambda plan: with_accelerator_cap(with_variant_change(make_plan_law(plan))))
    assert [moment.held["h100"] for moment in moments] == [4] * 6
    assert [moment.replicas["new"] for moment in moments] == [0, 0, 4, 4, 4, 4]  # 90 s: gone at the third plan
    assert min(moment.ready_rps for moment in moments) == 40.0


def test_a_planned_decision_holds_what_there_is_for_a_window_after_a_restart() -> None:
    history, plan = decide_planned_replicas(ReplicaHistory(), ReplicaRequest(0.0, (OLD,)), {"old": 1}, 60.0)
    assert plan.replicas() == {"old": 4}
    assert plan.variants[0].reason == "DownStabilization"
    _, plan = decide_planned_replicas(history, ReplicaRequest(61.0, (OLD,)), {"old": 1}, 60.0, {"old": "night"})
    assert plan.replicas() == {"old": 1}
    assert plan.variants[0].message == "night"


def test_a_cap_wins_over_declared_minimum_replicas() -> None:
    wanted = replace(NEW, current_replicas=1, ready_replicas=1, min_replicas=3)
    law = with_accelerator_cap(make_plan_law({"new": 0}))
    assert decide(law, wanted, caps={"h100": 2})["new"].replicas == 2
    assert decide(law, wanted, caps={"h100": 0})["new"].replicas == 1


@pytest.mark.parametrize(
    "with_limits", [lambda law: with_accelerator_cap(with_variant_change(law)), lambda law: with_all_limits(law, 300.0)]
)
def test_an_overloaded_fleet_at_its_cap_changes_one_replica_at_a_time(
    with_limits: Callable[[ReplicaLaw], ReplicaLaw],
) -> None:
    """One accelerator each: 4 old carry 4 requests/s, 4 new would carry 40. Holding would overload it for ever."""
    slow = replace(OLD, capacity_rps=1.0)
    plans = [{"old": 0, "new": 4}] * 16
    pods = {"old": Pods(ready=4, drain_seconds=30.0), "new": Pods(start_seconds=90.0)}
    actor = Actor((slow, NEW), pods)
    moments = play(
        actor,
        lambda plan: with_limits(make_plan_law(plan)),
        plans,
        {"old": 0.0, "new": 40.0},
        {"h100": 4},
    )
    assert all(moment.held["h100"] <= 4 for moment in moments)
    assert min(moment.ready_rps for moment in moments) == 3.0  # one of the slow ones away, never more
    assert moments[0].replicas == {"old": 3, "new": 0}  # at once, whatever the window of wishes still holds
    assert moments[-1].replicas == {"old": 0, "new": 4}


def test_the_last_ready_replica_of_a_service_stays_without_a_replacement() -> None:
    plan = make_plan_law({"old": 0, "new": 2, "other": 1})
    idle = replace(OLD, demand_rps=0.0)
    law = with_last_ready_kept(plan)
    # `other` is ready, but the service may not use it; `new` has nothing that is ready.
    services = (ServiceDemand("a", ("chat",), 0.0),)
    assert numbers(decide(plan, idle, NEW, OTHER, services=services)) == [0, 2, 1]
    assert numbers(decide(law, idle, NEW, OTHER, services=services)) == [1, 2, 1]
    assert numbers(decide(law, idle, NEW, OTHER)) == [0, 2, 1]
    replaced = replace(NEW, current_replicas=1, ready_replicas=1)
    assert numbers(decide(law, idle, replaced, OTHER, services=services)) == [0, 2, 1]


WORLD = (
    VariantDemand("a", 0.0, 4.0, 0, 0, 0, 8, 1, "x", "m"),
    VariantDemand("b", 0.0, 9.0, 0, 0, 1, 8, 2, "x", "m"),
    VariantDemand("c", 0.0, 20.0, 0, 0, 0, 8, 4, "x", "n"),
    VariantDemand("d", 0.0, 5.0, 0, 0, 2, 8, 1, "y", "n"),
)

plans_drawn = st.fixed_dictionaries({variant.variant: st.integers(0, 8) for variant in WORLD})
pods_drawn = st.builds(Pods, st.sampled_from([30.0, 120.0, 300.0]), st.sampled_from([0.0, 30.0, 150.0]))
demand_drawn = st.fixed_dictionaries(
    {variant.variant: st.one_of(st.none(), st.sampled_from([0.0, 3.0, 20.0])) for variant in WORLD}
)


@pytest.mark.parametrize("with_limits", [with_accelerator_cap, lambda law: with_all_limits(law, 60.0)])
@given(
    st.lists(st.tuples(plans_drawn, st.integers(0, 24), st.integers(0, 6), demand_drawn), min_size=1, max_size=25),
    st.tuples(pods_drawn, pods_drawn, pods_drawn, pods_drawn),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_no_cap_is_ever_exceeded_at_any_instant(
    with_limits: Callable[[ReplicaLaw], ReplicaLaw],
    steps: list[tuple[dict[str, int], int, int, dict[str, float | None]]],
    pods: tuple[Pods, ...],
    ready: list[int],
) -> None:
    """Whatever is planned, wanted, capped and lowered: leaving ones included, nothing grows above a cap."""
    named = {
        v.variant: replace(p, ready=n, starting=[], terminating=[]) for v, p, n in zip(WORLD, pods, ready, strict=True)
    }
    actor = Actor(WORLD, named)
    before = {
        pool: sum(named[v.variant].held * v.accelerators_per_replica for v in WORLD if v.accelerator_pool == pool)
        for pool in ("x", "y")
    }
    for i, (plan, cap_x, cap_y, demand) in enumerate(steps):
        caps = {"x": cap_x, "y": cap_y}
        moment = actor.step(with_limits(make_plan_law(plan)), 60.0 * i, caps, demand)
        for pool, held in moment.held.items():
            assert held <= max(caps[pool], before[pool])
        before = moment.held


seen_drawn = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 2), st.floats(0.0, 60.0)), min_size=4, max_size=4
)


# One of b (9 a second) may go, and 99 of 100 remain, unless one more of d stays, which is in another pool.
@example([(0, 0, 0, 0.0), (2, 2, 0, 10.0), (4, 4, 0, 30.0), (3, 3, 0, 60.0)], {"a": 0, "b": 0, "c": 5, "d": 0}, 0)
@given(seen_drawn, plans_drawn, st.integers(0, 30))
def test_what_was_carried_before_a_decision_is_carried_after_it(
    seen: list[tuple[int, int, int, float]], plan: dict[str, int], cap: int
) -> None:
    variants = tuple(
        replace(
            v, current_replicas=current, ready_replicas=min(ready, current), terminating_replicas=gone, demand_rps=d
        )
        for v, (current, ready, gone, d) in zip(WORLD, seen, strict=True)
    )
    request = ReplicaRequest(0.0, variants, {"x": cap, "y": cap})
    _, bare = make_plan_law(plan)(ReplicaHistory(), request)
    _, changed = with_variant_change(make_plan_law(plan))(ReplicaHistory(), request)
    after = changed.replicas()
    rate = sum(v.demand_rps or 0.0 for v in variants)
    carried = sum(v.ready_replicas * (v.capacity_rps or 0.0) for v in variants)
    kept = sum(min(v.ready_replicas, after[v.variant]) * (v.capacity_rps or 0.0) for v in variants)
    if carried >= rate * (1 + 1e-9):
        assert kept >= rate * (1 - 1e-6) - 1e-6  # a load below that is none
    else:  # overloaded already: at most one waiting replica's accelerators are given up
        lost = sum(
            (v.ready_replicas - min(v.ready_replicas, after[v.variant])) * v.accelerators_per_replica for v in variants
        )
        assert lost <= 4 + 4
    assert all(after[v.variant] >= bare.replicas()[v.variant] for v in variants)
