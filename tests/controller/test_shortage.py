"""Accelerators that do not come: planned around, taken back, asked for again ever more rarely."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import (
    START_SECONDS,
    make_accelerator_pool,
    make_llm_service,
    make_member,
    make_model_pool,
    make_pod,
    make_variant,
)
from tests.controller.test_replicas import CHAT, LARGE, OLD_HISTORY, QUIET, ROOM, make_inputs, make_state
from tests.controller.world import POOL, World
from tests.fakes import FakeCluster
from wattzoo.api.conditions import Reason
from wattzoo.api.parse import parse_llm_service, parse_model_pool
from wattzoo.decide.caps import find_drains
from wattzoo.decide.demand import PoolInputs
from wattzoo.decide.memory import PoolEstimate, PoolMemory
from wattzoo.decide.replicas import decide_pool
from wattzoo.decide.shortage import (
    FIRST_DELAY_SECONDS,
    LEAVING_MARGIN_SECONDS,
    MAX_DELAY_SECONDS,
    Shortage,
    note_shortages,
)
from wattzoo.decisions import Capacity, ServiceLoad
from wattzoo.labels import pod_labels
from wattzoo.model import Kind, Manifest, PodView, VariantKey, VariantState

AT = START_SECONDS
TIMEOUT = 60.0
CHEAP, DEAR = VariantKey("large", "b200"), VariantKey("large", "h100")


def waiting(state: VariantState, count: int, since: float) -> VariantState:
    """The state with pods that have no node."""
    pods = [PodView(f"w{n}", 1, waiting_since_seconds=since, waiting_message="no GPU") for n in range(count)]
    return replace(state, desired=(state.desired or 0) + count, pods=(*state.pods, *pods))


def note(state: VariantState, before: Shortage | None, at: float) -> Shortage | None:
    return note_shortages([state], {} if before is None else {state.key: before}, at, TIMEOUT, {}).get(state.key)


def test_a_pod_that_waits_too_long_makes_its_variant_short() -> None:
    state = waiting(make_state(LARGE, 2), 3, AT)
    assert note(state, None, AT + TIMEOUT - 1.0) is None
    found = note(state, None, AT + TIMEOUT)
    assert found == Shortage(AT + TIMEOUT, 1, AT + TIMEOUT + FIRST_DELAY_SECONDS, 2, "no GPU")
    assert found.most_replicas(AT + TIMEOUT) == 2
    assert found.most_replicas(found.retry_at_seconds) == 3  # one asks again


def test_each_try_that_fails_doubles_the_time_to_the_next() -> None:
    state, at, delays = make_state(LARGE, 2), AT, []
    found = note(waiting(state, 1, at - TIMEOUT), None, at)
    for _ in range(6):
        assert found is not None
        delays.append(found.retry_at_seconds - at)
        asked = found.retry_at_seconds
        assert note(state, found, asked) == found  # the one that asks has not been judged
        at = asked + TIMEOUT
        found = note(waiting(state, 1, asked), found, at)
    assert delays == [120.0, 240.0, 480.0, 960.0, 1800.0, 1800.0]


def test_what_comes_ends_it() -> None:
    found = note(waiting(make_state(LARGE, 2), 1, AT - TIMEOUT), None, AT)
    assert found is not None
    assert note(make_state(LARGE, 3), found, found.retry_at_seconds + 5.0) is None


def test_a_shortage_that_nobody_asks_about_is_forgotten() -> None:
    found = note(waiting(make_state(LARGE, 2), 1, AT - TIMEOUT), None, AT)
    assert found is not None
    assert note(make_state(LARGE, 2), found, found.retry_at_seconds + MAX_DELAY_SECONDS) is None


def two_variants(cheap: VariantState, dear: VariantState, rps: float, at: float = AT) -> PoolInputs:
    """One member with two variants of 10 requests/s each; b200 needs fewer joules."""
    variants = [make_variant("b200"), make_variant("h100")]
    scaling = {"downStabilizationSeconds": 0, "reservePercent": 0}
    pool = parse_model_pool(make_model_pool(members=[make_member("large", variants)], scaling=scaling))
    base = make_inputs({DEAR: dear}, rps, {"large": 1.0}, at)
    states = tuple(replace(s, accelerator_pool=s.key.variant) for s in (cheap, dear))
    capacities = {
        CHEAP: Capacity(rps=10.0, joules_per_request=20.0, idle_watts=100.0, max_watts=600.0),
        DEAR: Capacity(rps=10.0, joules_per_request=50.0, idle_watts=100.0, max_watts=600.0),
    }
    estimate = PoolEstimate(
        at_seconds=at,
        signals={key: replace(QUIET, observed_at_seconds=at) for key in capacities},
        capacities=capacities,
        loads={CHAT: ServiceLoad(total_rps=rps)},
    )
    context = replace(
        base.context, pool=pool, states=states, services={CHAT: parse_llm_service(make_llm_service()).spec}
    )
    return replace(base, context=context, estimate=estimate, headroom={"b200": ROOM, "h100": ROOM})


def test_the_load_of_a_short_variant_is_planned_elsewhere_and_its_pods_are_taken_back() -> None:
    """40 requests/s: four of the cheap variant, of which one came; three of the other carry the rest."""
    cheap = waiting(make_state(CHEAP, 1), 3, AT - TIMEOUT)
    memory = PoolMemory(0.0, history=OLD_HISTORY, pending={CHEAP: 1}, decided_at_seconds=AT - 15.0)
    short = note_shortages([cheap], {}, AT, TIMEOUT, {})
    inputs = replace(two_variants(cheap, make_state(DEAR, 0), 40.0), shortages=short)
    decision, _ = decide_pool(inputs, memory)
    assert decision.replicas() == {CHEAP: 1, DEAR: 3}
    limit = decision.variants[0].limited_by
    assert limit is not None
    assert limit.reason is Reason.UNSCHEDULABLE
    assert "again at 2023-" in limit.message


def test_the_first_try_asks_for_one() -> None:
    cheap, dear = make_state(CHEAP, 1), make_state(DEAR, 3)
    short = Shortage(AT - 200.0, 1, AT - 1.0, 1, "no GPU")
    inputs = replace(two_variants(cheap, dear, 40.0), shortages={CHEAP: short})
    decision, _ = decide_pool(inputs, PoolMemory(0.0, history=OLD_HISTORY))
    assert decision.replicas() == {CHEAP: 2, DEAR: 3}


@given(
    steps=st.lists(st.tuples(st.floats(0.0, 400.0), st.integers(0, 4), st.integers(0, 3)), max_size=30),
)
def test_whatever_happens_no_more_than_one_beyond_what_came_may_ask(steps: list[tuple[float, int, int]]) -> None:
    found, at = None, AT
    for seconds, placed, stuck in steps:
        at += seconds
        state = waiting(make_state(LARGE, placed), stuck, at - TIMEOUT)
        found = note(state, found, at)
        if stuck:
            assert found is not None
        if found is not None:
            assert found.most_replicas(at) <= placed + 1
            assert found.retry_at_seconds <= at + MAX_DELAY_SECONDS


def test_pods_that_wait_for_others_to_finish_are_not_short() -> None:
    """A rollout without surge: the old pod drains for minutes and holds what the new one waits for."""
    state = waiting(make_state(LARGE, 2), 1, AT)
    late = AT + TIMEOUT + 240.0
    assert note_shortages([state], {}, late, TIMEOUT, {"h100": 300.0}) == {}
    assert LARGE in note_shortages([state], {}, late, TIMEOUT, {})
    stuck = AT + TIMEOUT + 300.0 + LEAVING_MARGIN_SECONDS  # nobody drains for so long: the node is lost
    assert LARGE in note_shortages([state], {}, stuck, TIMEOUT, {"h100": 300.0})
    assert LARGE in note_shortages([state], {}, late, TIMEOUT, {"b200": 300.0})


def leaving(key: VariantKey, pool: str = "zoo", placed: str = "h100") -> Manifest:
    """A pod that ends, of a server on the accelerators of `placed`."""
    return make_pod(f"{pool}-{key.member}-gone", pod_labels(pool, key, placed), ready_since=AT, terminating=True)


def test_draining_pods_are_looked_for_in_all_pools() -> None:
    small = VariantKey("small", "h100")
    cluster = FakeCluster()
    for name in ("h100", "b200"):
        cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool(name))
    own = parse_model_pool(make_model_pool(members=[make_member("large", [make_variant()])]))
    slow = {"drainTimeoutSeconds": 900}
    other = parse_model_pool(make_model_pool("other", members=[make_member("small", [make_variant()])], scaling=slow))

    def drains() -> dict[str, float]:
        return find_drains(cluster.snapshot(), [own, other], 300.0)

    assert drains() == {}
    cluster.add(Kind.POD, leaving(VariantKey("old", "b200"), "gone", "b200"))  # nobody knows its pool any more
    assert drains() == {"b200": 300.0}
    cluster.add(Kind.POD, leaving(LARGE))
    assert drains() == {"b200": 300.0, "h100": float(own.spec.scaling.drain_timeout_seconds)}
    cluster.add(Kind.POD, leaving(small, "other"))
    assert drains() == {"b200": 300.0, "h100": 900.0}


@pytest.mark.parametrize("draining", [True, False])
async def test_accelerators_that_another_pool_drains_are_waited_for(draining: bool) -> None:
    world = World()
    world.cluster.add(Kind.MODEL_POOL, make_model_pool("other", members=[make_member("small", [make_variant()])]))
    await world.start(rps=4.0)
    late = world.now - 300.0  # asked for before, beyond the placement timeout
    world.cluster.add(Kind.POD, make_pod("late", pod_labels("zoo", LARGE, "h100"), unplaced_since=late))
    if draining:
        world.cluster.add(Kind.POD, leaving(VariantKey("small", "h100"), "other"))
    await world.tick(world.traffic(4.0))
    placed = world.condition(Kind.MODEL_POOL, POOL, "Placed")
    assert placed["reason"] == (Reason.STARTING if draining else Reason.UNSCHEDULABLE)


@pytest.mark.parametrize("rolling", [True, False])
def test_a_rollout_that_finds_no_node_does_not_take_the_old_pods(rolling: bool) -> None:
    """Fewer replicas amid a rollout let the Deployment's controller end another old pod, and so on to the last."""
    state = replace(waiting(make_state(LARGE, 2), 1, AT), rolling=rolling)
    shortage = Shortage(AT, 1, AT + 1000.0, 2, "no GPU")
    memory = None
    for step in range(3):
        inputs = make_inputs({LARGE: state}, 25.0, {"large": 1.0}, AT + 15.0 * step)
        decision, memory = decide_pool(
            replace(inputs, shortages={LARGE: shortage}), memory or PoolMemory(AT, history=OLD_HISTORY)
        )
    assert decision.replicas() == {LARGE: 3 if rolling else 2}
    assert decision.variants[0].limited_by is not None
