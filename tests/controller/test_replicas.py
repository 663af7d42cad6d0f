"""Replicas: caps that are never exceeded, decreases that need proof, and what holds while nothing is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import NAMESPACE, START_SECONDS, make_llm_service, make_member, make_model_pool, make_variant
from wattzoo.api.conditions import Reason
from wattzoo.api.parse import parse_llm_service, parse_model_pool
from wattzoo.decide.caps import Headroom, held_accelerators, held_by_variant
from wattzoo.decide.demand import PoolInputs
from wattzoo.decide.estimate import PoolContext
from wattzoo.decide.memory import PoolEstimate, PoolMemory
from wattzoo.decide.replicas import decide_pool
from wattzoo.decisions import Capacity, PoolDecision, ServiceLoad, VariantSignals
from wattzoo.model import Backing, PodView, Ref, VariantKey, VariantState
from wattzoo_policies.signals import ReplicaHistory

SMALL, LARGE = VariantKey("small", "h100"), VariantKey("large", "h100")
CHAT = Ref(NAMESPACE, "chat")
ROOM = Headroom(accelerators=None, allocatable=100, watts=None, watts_per_accelerator=700.0)
OLD_HISTORY = ReplicaHistory({str(key): ((0.0, 0),) for key in (SMALL, LARGE)})
"""Wishes from long ago: stabilisation, which has its own tests, does not hold anything here."""
QUIET = VariantSignals(
    running=0.0,
    waiting=0.0,
    served_rps=0.0,
    arrived_rps=0.0,
    warm=1,
    observed_at_seconds=START_SECONDS + 1e6,
)


def make_state(key: VariantKey, desired: int, *, ready: int | None = None, terminating: int = 0) -> VariantState:
    count = desired if ready is None else ready
    pods = [PodView(f"{key}-{n}", 1, ready_since_seconds=0.0) for n in range(count)]
    pods += [PodView(f"{key}-t{n}", 1, ready_since_seconds=0.0, terminating=True) for n in range(terminating)]
    return VariantState(
        key=key,
        backing=Backing.SERVER,
        exists=True,
        desired=desired,
        pods=tuple(pods),
        service=str(key),
        port=8000,
        service_exists=True,
        accelerator_pool="h100",
        accelerators_per_replica=1,
    )


def make_inputs(
    states: Mapping[VariantKey, VariantState],
    rps: float | None,
    wish: Mapping[str, float],
    at: float = START_SECONDS,
    room: Headroom = ROOM,
    live: Mapping[VariantKey, int] | None = None,
    signals: VariantSignals = QUIET,
    least: int = 0,
) -> PoolInputs:
    """A pool whose replicas carry 10 requests/s each, with a service of `rps` that wishes for `wish`."""
    members = [make_member(key.member, [make_variant(minReplicas=least)]) for key in states]
    scaling = {"downStabilizationSeconds": 0, "reservePercent": 0, "drainTimeoutSeconds": 300}
    pool = parse_model_pool(make_model_pool(members=members, scaling=scaling))
    service = parse_llm_service(make_llm_service()).spec
    context = PoolContext(Ref(NAMESPACE, "zoo"), pool, tuple(states.values()), {}, {}, {CHAT: service})
    capacity = Capacity(rps=10.0, joules_per_request=50.0, idle_watts=100.0, max_watts=600.0)
    estimate = PoolEstimate(
        at_seconds=at,
        signals=dict.fromkeys(states, replace(signals, observed_at_seconds=at)),
        capacities=dict.fromkeys(states, capacity),
        loads={CHAT: ServiceLoad(total_rps=rps)},
    )
    live_weights = {} if live is None else {CHAT: live}
    return PoolInputs(context, estimate, {CHAT: wish}, live_weights, {"h100": room}, at)


def decide(inputs: PoolInputs, memory: PoolMemory | None = None) -> tuple[PoolDecision, PoolMemory]:
    return decide_pool(inputs, memory or PoolMemory(first_at_seconds=inputs.at_seconds, history=OLD_HISTORY))


def two(small: int, large: int) -> dict[VariantKey, VariantState]:
    return {SMALL: make_state(SMALL, small), LARGE: make_state(LARGE, large)}


def test_load_times_coming_weights_over_capacity() -> None:
    # 35 requests/s: 7 for the small member (1 replica of 10/s), 28 for the large one (3)
    decision, _ = decide(make_inputs(two(1, 1), 35.0, {"small": 0.2, "large": 0.8}))
    assert decision.replicas() == {SMALL: 1, LARGE: 3}


def test_traffic_that_still_arrives_keeps_its_servers() -> None:
    live = {SMALL: 1_000_000, LARGE: 0}
    decision, _ = decide(make_inputs(two(3, 1), 30.0, {"large": 1.0}, live=live))
    assert decision.replicas() == {SMALL: 3, LARGE: 3}


def test_unknown_load_holds_and_never_lowers() -> None:
    inputs = make_inputs(two(3, 5), None, {"large": 1.0}, live={SMALL: 500_000, LARGE: 500_000})
    inputs = replace(inputs, estimate=replace(inputs.estimate, signals=dict.fromkeys((SMALL, LARGE), VariantSignals())))
    memory = None
    for step in range(4):
        decision, memory = decide(replace(inputs, at_seconds=START_SECONDS + 15.0 * step), memory)
        assert decision.replicas() == {SMALL: 3, LARGE: 5}
        assert decision.held


def test_going_down_needs_two_observations_that_agree() -> None:
    wish = {"small": 0.5, "large": 0.5}
    first, memory = decide(make_inputs(two(2, 4), 20.0, wish))
    assert first.replicas() == {SMALL: 2, LARGE: 4}
    same, memory = decide(make_inputs(two(2, 4), 20.0, wish), memory)  # the same observation again is none
    assert same.replicas() == {SMALL: 2, LARGE: 4}
    second, _ = decide(make_inputs(two(2, 4), 20.0, wish, at=START_SECONDS + 15.0), memory)
    assert second.replicas() == {SMALL: 1, LARGE: 1}


def test_of_two_observations_the_larger_wish_counts() -> None:
    wish = {"large": 1.0}
    _, memory = decide(make_inputs(two(1, 6), 40.0, wish))
    second, _ = decide(make_inputs(two(1, 6), 10.0, wish, at=START_SECONDS + 15.0), memory)
    assert second.replicas()[LARGE] == 4


def test_the_last_replica_goes_only_without_traffic_and_after_an_idle_scrape() -> None:
    wish, live = {"large": 1.0}, {SMALL: 100_000, LARGE: 900_000}
    first, memory = decide(make_inputs(two(1, 1), 0.0, wish, live=live))
    assert memory.retiring == {SMALL}  # services are told to move away
    at = START_SECONDS + 15.0
    second, memory = decide(make_inputs(two(1, 1), 0.0, wish, live=live, at=at), memory)
    assert (first.replicas()[SMALL], second.replicas()[SMALL]) == (1, 1)
    away = {SMALL: 0, LARGE: 1_000_000}
    third, memory = decide(make_inputs(two(1, 1), 0.0, wish, live=away, at=at + 15.0), memory)
    assert third.replicas()[SMALL] == 1  # the scrape is as old as the weights
    busy = replace(QUIET, running=1.0)
    fourth, memory = decide(make_inputs(two(1, 1), 0.0, wish, live=away, at=at + 30.0, signals=busy), memory)
    assert fourth.replicas()[SMALL] == 1
    fifth, _ = decide(make_inputs(two(1, 1), 0.0, wish, live=away, at=at + 45.0), memory)
    assert fifth.replicas() == {SMALL: 0, LARGE: 1}


def test_a_request_that_never_ends_is_waited_for_until_the_drain_timeout() -> None:
    away, busy = {SMALL: 0, LARGE: 1_000_000}, replace(QUIET, running=1.0)
    memory = None
    for step in range(21):
        inputs = make_inputs(two(1, 1), 0.0, {"large": 1.0}, START_SECONDS + 15.0 * step, live=away, signals=busy)
        decision, memory = decide(inputs, memory)
        assert decision.replicas()[SMALL] == (1 if step < 20 else 0)  # 20 steps of 15 s are the 300 s


def test_the_last_ready_member_of_the_pool_stays() -> None:
    memory = None
    for step in range(5):
        inputs = make_inputs({LARGE: make_state(LARGE, 1)}, 0.0, {"large": 1.0}, START_SECONDS + 15.0 * step)
        decision, memory = decide(inputs, memory)
    assert decision.replicas() == {LARGE: 1}


def test_nothing_at_all_starts_one_safest_member() -> None:
    decision, _ = decide(make_inputs(two(0, 0), None, {}))
    assert decision.replicas() == {SMALL: 0, LARGE: 1}


def test_a_variant_whose_accelerators_may_not_be_used_is_left_alone() -> None:
    inputs = replace(make_inputs(two(2, 2), 0.0, {"large": 1.0}), headroom={})
    decision, _ = decide(inputs)
    assert decision.replicas() == {}


@pytest.mark.parametrize(
    ("room", "reason"),
    [
        (replace(ROOM, accelerators=3), Reason.MAX_ACCELERATORS_REACHED),
        (replace(ROOM, allocatable=3), Reason.ACCELERATORS_SHORT),
        (replace(ROOM, watts=2100.0), Reason.POWER_BUDGET_REACHED),
    ],
)
def test_what_cuts_the_wish_is_named(room: Headroom, reason: Reason) -> None:
    decision, _ = decide(make_inputs(two(1, 1), 90.0, {"large": 1.0}, room=room))
    assert decision.replicas() == {SMALL: 1, LARGE: 2}
    assert decision.binding_constraint == reason


def test_accelerators_of_terminating_pods_are_taken() -> None:
    states = {SMALL: make_state(SMALL, 0, terminating=2), LARGE: make_state(LARGE, 1)}
    decision, _ = decide(make_inputs(states, 90.0, {"large": 1.0}, room=replace(ROOM, accelerators=4)))
    assert decision.replicas() == {SMALL: 0, LARGE: 2}


def test_held_accelerators_are_what_is_asked_or_runs_and_what_leaves() -> None:
    running = [PodView(f"p{n}", 2) for n in range(3)]
    leaving = [PodView("old", 2, terminating=True)]
    assert held_accelerators(2, [*running, *leaving], 2) == 3 * 2 + 2
    assert held_accelerators(5, [*running, *leaving], 2) == 5 * 2 + 2


COUNTS = st.integers(0, 6)


@settings(max_examples=150)
@given(
    counts=st.tuples(COUNTS, COUNTS),
    terminating=st.tuples(COUNTS, COUNTS),
    least=st.integers(0, 8),
    cap=st.integers(0, 20),
    nodes=st.integers(0, 20),
    rates=st.lists(st.one_of(st.none(), st.floats(0.0, 500.0)), min_size=1, max_size=4),
    share=st.floats(0.0, 1.0),
)
def test_no_increase_ever_exceeds_a_cap(
    counts: tuple[int, int],
    terminating: tuple[int, int],
    least: int,
    cap: int,
    nodes: int,
    rates: list[float | None],
    share: float,
) -> None:
    """Whatever the load does: what is held stays within the cap, or is not more than it was."""
    states = {
        key: make_state(key, count, terminating=leaving)
        for key, count, leaving in zip((SMALL, LARGE), counts, terminating, strict=True)
    }
    room = Headroom(accelerators=cap, allocatable=nodes, watts=None, watts_per_accelerator=None)
    memory = None
    for step, rate in enumerate(rates):
        inputs = make_inputs(
            states, rate, {"small": share, "large": 1.0 - share}, START_SECONDS + 15.0 * step, room, least=least
        )
        decision, memory = decide(inputs, memory)
        before = sum(held_by_variant(state) for state in states.values())
        after = sum(held_by_variant(states[key], number) for key, number in decision.replicas().items())
        assert after <= max(before, min(cap, nodes))
        states = {key: replace(states[key], desired=number) for key, number in decision.replicas().items()}
