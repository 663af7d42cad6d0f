"""Packing in the operator: surplus pods fall silent, wake at once, and a scale-down takes only drained ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NAMESPACE, START_SECONDS, make_gauge, make_pod_series, make_silence, make_telemetry
from tests.controller.test_replicas import CHAT, LARGE, OLD_HISTORY, QUIET, make_inputs, make_state
from tests.controller.world import POOL, World
from wattzoo.decide.demand import PoolInputs
from wattzoo.decide.engines import PodSeries, index_series
from wattzoo.decide.memory import PoolMemory
from wattzoo.decide.packing import SETTLE_SECONDS, decide_packing, estimate_variant_rps, find_drained_pods
from wattzoo.decide.replicas import decide_pool
from wattzoo.decisions import ServiceLoad, VariantPacking
from wattzoo.model import LABEL_SERVING, Backing, Kind, Manifest, Signal, VariantState

COST = "controller.kubernetes.io/pod-deletion-cost"
AT = START_SECONDS
ALL_TO_LARGE = {LARGE: 1_000_000}


def silenced(state: VariantState, count: int) -> VariantState:
    """The state with its first pods silent."""
    pods = [replace(pod, serving=pod.serving and n >= count) for n, pod in enumerate(state.pods)]
    return replace(state, pods=tuple(pods))


def running(state: VariantState, requests: dict[int, float] | None = None, at: float = AT) -> PodSeries:
    """A scrape of every pod with so many requests inside."""
    counts = requests or {}
    parts = [make_pod_series(pod.name, at, 0.0, 100.0, counts.get(n, 0.0)) for n, pod in enumerate(state.pods)]
    return index_series(make_telemetry(at, *parts), 120.0)


def inputs_of(state: VariantState, rps: float | None, at: float = AT) -> PoolInputs:
    """Replicas of 10 requests/s each, everything sent to them."""
    return make_inputs({LARGE: state}, rps, {"large": 1.0}, at, live=ALL_TO_LARGE)


def pack(
    state: VariantState, rps: float | None, requests: dict[int, float] | None = None, memory: PoolMemory | None = None
) -> VariantPacking:
    known = memory or PoolMemory(first_at_seconds=AT - 1000.0)
    packed, _ = decide_packing(inputs_of(state, rps), {LARGE: state.desired or 0}, running(state, requests), known)
    return packed[LARGE]


def test_surplus_pods_fall_silent_those_with_the_fewest_requests_first() -> None:
    # 22 requests/s * 1.1 / 10 = 2.42: three of five serve, with a tenth of slack (2.66) too
    plan = pack(make_state(LARGE, 5), 22.0, {0: 9.0, 1: 2.0, 2: 7.0, 3: 1.0, 4: 8.0})
    assert plan.serving == 3
    assert plan.silence == ("large/h100-3", "large/h100-1")


def test_load_wakes_at_once_and_the_busiest_first() -> None:
    state = silenced(make_state(LARGE, 5), 4)
    plan = pack(state, 25.0, {2: 3.0})
    assert plan.wake == ("large/h100-2", "large/h100-0")


def test_waiting_requests_wake_replicas_before_the_rate_is_known_to_be_higher() -> None:
    state = silenced(make_state(LARGE, 5), 4)
    inputs = inputs_of(state, 5.0)
    queue = replace(QUIET, waiting=200.0)
    inputs = replace(inputs, estimate=replace(inputs.estimate, signals={LARGE: queue}))
    packed, _ = decide_packing(inputs, {LARGE: 5}, running(state), PoolMemory(AT - 1000.0))
    assert len(packed[LARGE].wake) == 2  # (5 + 200 / 10) * 1.1 / 10 = 2.75


def rate_of(latest: float | None, sent: float | None, arrived: float, weight: int = 1_000_000) -> float | None:
    """What a variant must take: its service's rate of the last 15 s, and what was sent and what came in 45 s."""
    inputs = make_inputs({LARGE: make_state(LARGE, 5)}, latest, {"large": 1.0}, AT, live={LARGE: weight})
    known = latest is not None and sent is not None
    load = ServiceLoad(latest, latest, {LARGE: sent or 0.0}) if known else ServiceLoad(problem="unread")
    signals = {LARGE: replace(QUIET, served_rps=arrived, arrived_rps=arrived)}
    return estimate_variant_rps(
        replace(inputs, estimate=replace(inputs.estimate, loads={CHAT: load}, signals=signals)), LARGE
    )


def test_a_fall_of_the_load_is_followed_before_the_window_has_forgotten_it() -> None:
    assert rate_of(latest=5.0, sent=15.0, arrived=15.0) == 5.0
    assert rate_of(latest=5.0, sent=15.0, arrived=14.0) == 5.0  # some of it went to servers that are gone


def test_what_did_not_come_through_our_routes_is_carried_besides() -> None:
    assert rate_of(latest=5.0, sent=5.0, arrived=25.0) == 25.0
    assert rate_of(latest=5.0, sent=15.0, arrived=35.0) == 25.0
    assert rate_of(latest=20.0, sent=5.0, arrived=25.0) == 40.0
    assert rate_of(latest=0.0, sent=0.0, arrived=20.0, weight=0) == 20.0


def test_what_our_routes_sent_is_not_guessed() -> None:
    assert rate_of(latest=None, sent=None, arrived=20.0) is None
    assert rate_of(latest=None, sent=None, arrived=20.0, weight=0) == 20.0  # all of it may be others'


@pytest.mark.parametrize(("inside", "warm", "needed"), [(0.0, 5, 5.0), (30.0, 5, None), (30.0, 0, 5.0)])
def test_busy_servers_whose_counters_say_nothing_may_be_busy_with_others_traffic(
    inside: float, warm: int, needed: float | None
) -> None:
    state = silenced(make_state(LARGE, 5), 3)
    inputs = inputs_of(state, 5.0)
    unread = replace(QUIET, running=inside, warm=warm, served_rps=None, arrived_rps=None)
    inputs = replace(inputs, estimate=replace(inputs.estimate, signals={LARGE: unread}))
    assert estimate_variant_rps(inputs, LARGE) == needed
    packed, _ = decide_packing(inputs, {LARGE: 5}, running(state), PoolMemory(AT - 1000.0))
    assert len(packed[LARGE].wake) == (3 if needed is None else 0)


def test_the_largest_need_of_the_last_interval_counts() -> None:
    spec = inputs_of(make_state(LARGE, 5), 5.0)
    needs = {LARGE: ((AT - 20.0, 5), (AT - 10.0, 4))}
    memory = PoolMemory(AT - 1000.0, needs=needs, packed_for=spec.live)
    pool = spec.context.pool.spec
    waiting = pool.model_copy(update={"scaling": pool.scaling.model_copy(update={"down_stabilization_seconds": 300})})
    context = replace(spec.context, pool=spec.context.pool.model_copy(update={"spec": waiting}))
    packed, after = decide_packing(replace(spec, context=context), {LARGE: 5}, running(make_state(LARGE, 5)), memory)
    assert packed[LARGE].serving == 4
    assert [number for _, number in after.needs[LARGE]] == [4, 1]
    moved = replace(memory, packed_for={})  # what was needed for other weights says nothing
    packed, _ = decide_packing(replace(spec, context=context), {LARGE: 5}, running(make_state(LARGE, 5)), moved)
    assert packed[LARGE].serving == 1


def test_unknown_load_lets_all_serve() -> None:
    state = silenced(make_state(LARGE, 5), 3)
    assert len(pack(state, None).wake) == 3


def test_unknown_load_silences_nothing_whatever_was_wished_before() -> None:
    state = silenced(make_state(LARGE, 5), 1)
    inputs = inputs_of(state, 5.0)
    unknown = replace(QUIET, running=None)  # the silent pod was not scraped
    inputs = replace(inputs, estimate=replace(inputs.estimate, signals={LARGE: unknown}))
    scraped = running(replace(state, pods=state.pods[1:]))
    packed, _ = decide_packing(inputs, {LARGE: 5}, scraped, PoolMemory(AT - 1000.0, pending={LARGE: 2}))
    assert packed[LARGE].silence == ()
    assert packed[LARGE].wake == state.silent


def test_while_pods_are_replaced_nothing_is_silenced_and_load_still_wakes() -> None:
    assert pack(replace(make_state(LARGE, 5), rolling=True), 5.0).silence == ()
    assert pack(replace(silenced(make_state(LARGE, 5), 4), rolling=True), 25.0).wake


def test_an_adopted_workload_is_never_touched() -> None:
    state = replace(silenced(make_state(LARGE, 5), 2), backing=Backing.WORKLOAD)
    assert pack(state, 5.0) == VariantPacking(LARGE, None, reason="AllServe")


def test_a_pod_that_no_scrape_knows_keeps_all_serving() -> None:
    state = make_state(LARGE, 3)
    packed, _ = decide_packing(inputs_of(state, 5.0), {LARGE: 3}, index_series(make_silence(AT), 120.0), PoolMemory(0))
    assert packed[LARGE].silence == ()


@given(
    pods=st.integers(0, 8),
    quiet=st.integers(0, 8),
    replicas=st.integers(0, 10),
    rps=st.one_of(st.none(), st.floats(0.0, 300.0)),
    pending=st.one_of(st.none(), st.integers(0, 8)),
    first=st.floats(0.0, AT),
)
def test_whatever_the_load_something_serves_and_the_rest_carries(
    pods: int, quiet: int, replicas: int, rps: float | None, pending: int | None, first: float
) -> None:
    state = silenced(make_state(LARGE, pods), quiet)
    memory = PoolMemory(first, pending={} if pending is None else {LARGE: pending})
    packed, _ = decide_packing(inputs_of(state, rps), {LARGE: replicas}, running(state), memory)
    plan = packed[LARGE]
    serving = (set(state.serving) | set(plan.wake)) - set(plan.silence)
    assert not (plan.wake and plan.silence)
    assert serving or not pods
    if plan.silence and rps is not None:
        assert len(serving) >= min(replicas, pending or replicas, -(-rps // 10.0))


def test_a_silent_pod_is_drained_when_a_later_scrape_sees_nothing_on_it() -> None:
    state = silenced(make_state(LARGE, 3), 2)
    names = dict.fromkeys(state.silent, AT)
    late = AT + SETTLE_SECONDS + 10.0

    def drained(index: PodSeries, at: float) -> frozenset[str]:
        return find_drained_pods(inputs_of(state, 5.0, at), index, names)[LARGE]

    assert drained(running(state, at=AT + 2.0), AT + 2.0) == frozenset()  # the gateway may not know yet
    assert drained(running(state, {1: 1.0}, at=late), late) == {"large/h100-0"}
    over = AT + 300.0 + SETTLE_SECONDS
    assert drained(running(state, {1: 1.0}, at=over), over) == {"large/h100-0", "large/h100-1"}


def test_a_scale_down_waits_for_silent_and_drained_pods() -> None:
    """Five pods, one needed: four are silent, and they go only when nothing runs on any of them."""
    state = silenced(make_state(LARGE, 5), 4)
    memory = PoolMemory(0.0, history=OLD_HISTORY, pending={LARGE: 1}, decided_at_seconds=AT - 15.0)
    inputs = inputs_of(state, 5.0)
    half = replace(inputs, drained={LARGE: frozenset(["large/h100-0", "large/h100-1"])})
    assert decide_pool(half, memory)[0].variants[0].reason == "Silencing"
    assert decide_pool(half, memory)[0].replicas() == {LARGE: 5}
    whole = replace(inputs, drained={LARGE: frozenset(state.silent)})
    assert decide_pool(whole, memory)[0].replicas() == {LARGE: 1}


def serving_pods(world: World) -> list[str]:
    pods = world.cluster.objects[Kind.POD].items()
    return [ref.name for ref, pod in pods if pod["metadata"]["labels"][LABEL_SERVING] == "true"]


def variant(world: World, member: str) -> Manifest:
    rows = world.cluster.objects[Kind.MODEL_POOL][POOL]["status"]["variants"]
    return next(row for row in rows if row["member"] == member)


async def grown() -> World:
    """A zoo with seven large replicas and load for one."""
    world = World()
    await world.start(rps=4.0)
    await world.run(4, rps=40.0)
    await world.run(15, rps=4.0)
    return world


async def test_a_pool_with_more_ready_than_needed_silences_the_rest_and_says_so() -> None:
    world = await grown()
    row = variant(world, "large")
    assert row["ready"] > row["serving"] >= 1
    assert row["ready"] == row["serving"] + row["silent"]
    budget = world.cluster.get(Kind.POD_DISRUPTION_BUDGET, "zoo-large-h100")
    assert budget["spec"]["minAvailable"] == row["serving"] - 1
    assert isinstance(budget["spec"]["minAvailable"], int)
    quiet = [
        pod for pod in world.cluster.objects[Kind.POD].values() if pod["metadata"]["labels"][LABEL_SERVING] != "true"
    ]
    assert quiet
    assert all(pod["metadata"]["annotations"] == {COST: "-100"} for pod in quiet)


async def test_a_step_of_load_wakes_them_in_the_next_pass() -> None:
    world = await grown()
    await world.tick(world.traffic(80.0))
    pods = world.cluster.objects[Kind.POD].values()
    assert len(serving_pods(world)) == len(pods)
    assert all(not pod["metadata"].get("annotations") for pod in pods)


async def test_a_restart_neither_silences_nor_wakes() -> None:
    world = await grown()
    before = serving_pods(world)
    world.restart()
    world.cluster.server_writes()
    for _ in range(3):
        await world.run(1, rps=4.0)
        assert serving_pods(world) == before
    assert [item for item in world.cluster.server_writes() if item.kind is Kind.POD_DISRUPTION_BUDGET] == []


async def test_a_serving_pod_that_dies_is_replaced_by_a_silent_one_in_the_next_pass() -> None:
    world = await grown()
    large = [name for name in serving_pods(world) if "large" in name]
    for name in large:
        pod = world.cluster.get(Kind.POD, name)
        pod["status"]["conditions"] = []
    await world.tick(world.traffic(4.0))
    awake = [name for name in serving_pods(world) if "large" in name and name not in large]
    assert awake


async def test_without_telemetry_all_wake() -> None:
    world = await grown()
    for _ in range(12):
        await world.tick(make_silence(world.now + 15.0))
    assert len(serving_pods(world)) == len(world.cluster.objects[Kind.POD])


async def test_packing_that_is_switched_off_lets_all_serve() -> None:
    world = await grown()
    pool = world.cluster.get(Kind.MODEL_POOL, "zoo")
    pool["spec"]["scaling"] = {"packing": "Disabled"}
    pool["metadata"]["generation"] += 1
    await world.tick(world.traffic(4.0))
    assert len(serving_pods(world)) == len(world.cluster.objects[Kind.POD])


async def test_a_scale_down_takes_no_pod_that_serves() -> None:
    world = await grown()
    for _ in range(24):
        before = serving_pods(world)
        await world.run(1, rps=4.0)
        now = {ref.name for ref in world.cluster.objects[Kind.POD]}
        assert set(before) <= now
    assert world.cluster.replicas("zoo-large-h100") == 1


@pytest.mark.parametrize("name", [Signal.REQUESTS_RUNNING, Signal.REQUESTS_WAITING])
def test_a_sample_that_is_not_a_number_is_no_proof_of_rest(name: Signal) -> None:
    state = silenced(make_state(LARGE, 2), 1)
    who = {"namespace": NAMESPACE, "pod": "large/h100-0"}
    at = AT + 60.0
    values = {Signal.REQUESTS_RUNNING: 0.0, Signal.REQUESTS_WAITING: 0.0, name: float("nan")}
    gauges = [make_gauge(signal, at, value, **who) for signal, value in values.items()]
    index = index_series(make_telemetry(at, {"engine_gauges": gauges}), 120.0)
    assert find_drained_pods(inputs_of(state, 5.0, at), index, {"large/h100-0": AT})[LARGE] == frozenset()
