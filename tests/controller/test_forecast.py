"""What services may send: sampled by time, learned as the simulated controller learns it, never below what is there."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.builders import START_SECONDS, make_llm_service, make_pod_series, make_telemetry
from tests.controller.test_replicas import LARGE, QUIET, make_inputs, make_state
from tests.controller.world import CHAT, POOL, World
from wattzoo.decide.demand import BACKLOG_SECONDS
from wattzoo.decide.engines import index_series
from wattzoo.decide.estimate import PoolContext
from wattzoo.decide.forecast import (
    estimate_coming_rps,
    estimate_present_rps,
    estimate_rates,
    observe_forecasts,
)
from wattzoo.decide.forecast_text import restore_forecasts
from wattzoo.decide.memory import ForecastMemory, PoolEstimate, PoolMemory, ServiceForecast
from wattzoo.decide.packing import decide_packing
from wattzoo.decisions import Capacity, ServiceLoad
from wattzoo.model import Kind, Ref, VariantKey
from wattzoo_policies.capacity.model import LatencyTarget, ReplicaModel, RequestShape
from wattzoo_policies.placement.forecast import LEAST_SAMPLES, UNKNOWN_RATIO, WINDOW_STEPS
from wattzoo_policies.placement.joint import JointController
from wattzoo_policies.placement.joint_demand import MOST_RAISE
from wattzoo_policies.placement.joint_demand import ServiceLoad as ExpectedLoad
from wattzoo_policies.placement.signals import FleetObservation, FleetPool, FleetService, FleetVariant

AT = START_SECONDS
MODEL = ReplicaModel(
    t0_seconds=0.01,
    t1_seconds=0.001,
    prefill_seconds_per_token=0.0,
    kv_tokens=1_000_000,
    max_sequences=64,
    off_watts=70.0,
    idle_watts=100.0,
    active_watts=300.0,
    max_watts=600.0,
    startup_seconds=60.0,
    startup_joules=9000.0,
)
"""100 output tokens are .1 s of a replica: a request per second is a load of .1."""
SHAPE = RequestShape(200.0, 100.0)
LEARNED = LEAST_SAMPLES + WINDOW_STEPS + 1


def seen_at(at_seconds: float, rps: float | None) -> tuple[PoolContext, PoolEstimate]:
    """A pool with one large replica of a known law, and what one pass knows of it."""
    inputs = make_inputs({LARGE: make_state(LARGE, 1)}, rps, {"large": 1.0}, at_seconds)
    capacity = Capacity(rps=8.0, model=MODEL, shape=SHAPE)
    signals = replace(QUIET, running=None)  # nothing to learn care from
    estimate = replace(inputs.estimate, capacities={LARGE: capacity}, signals={LARGE: signals})
    return inputs.context, estimate


def observed(rates: list[float | None], seconds: float = 15.0) -> ForecastMemory:
    """The memory after passes this far apart."""
    memory = ForecastMemory()
    for step, rps in enumerate(rates):
        memory = observe_forecasts(*seen_at(AT + seconds * step, rps), memory)
    return memory


def samples(memory: ForecastMemory) -> int:
    (load,) = memory.state.loads.values()
    return len(load.loads)


def test_rates_are_sampled_by_time_however_often_a_pass_comes() -> None:
    # passes at 0, 2, ... 60 s: samples at 0, 14, 28, 42 and 56 s
    assert samples(observed([10.0] * 31, seconds=2.0)) == 5
    assert samples(observed([10.0] * 5, seconds=15.0)) == 5


def test_a_gap_adds_nothing_and_is_no_zero() -> None:
    before, after = observed([10.0] * 3), observed([10.0, 10.0, 10.0, None, None, None])
    assert after == before
    assert samples(observed([10.0, 10.0, 10.0, None, None, 10.0])) == 4


def test_a_forecast_begins_with_a_fixed_reserve_and_learns_its_own() -> None:
    young, old = observed([10.0]).services[CHAT].load, observed([10.0] * LEARNED).services[CHAT]
    assert young.rate_rps == pytest.approx(10.0)
    assert 10.0 * UNKNOWN_RATIO <= young.high_rps <= 10.0 * UNKNOWN_RATIO * MOST_RAISE
    assert observed([10.0]).services[CHAT].next_ratio is None
    assert old.next_ratio is not None
    assert 1.0 < old.next_ratio < 1.1  # a load that never moved
    assert 10.0 < old.load.high_rps < 10.0 * UNKNOWN_RATIO


def test_it_is_what_the_simulated_controller_learns_from_the_same_rates() -> None:
    rates = list(np.random.default_rng(3).gamma(20.0, 0.5, 70))
    controller = JointController()
    state = controller.initial_state()
    pool, variant = FleetPool("h100", 8), FleetVariant("large/h100", "large", "h100", MODEL, 1, 1, 1)
    for step, rps in enumerate(rates):
        service = FleetService(str(CHAT), 0.5, ("large",), LatencyTarget(), rps, SHAPE, 0.0, 0.0, {"large": 0.9})
        seen = FleetObservation(AT + 15.0 * step, 15.0, (pool,), (variant,), (service,))
        state, _ = controller.decide(state, seen, np.random.default_rng(0))
    memory = observed([float(rps) for rps in rates])
    assert memory.state.loads == state.loads
    assert memory.state.care == state.care


def test_sizes_count_like_numbers() -> None:
    """Twice as long answers are twice the load; as requests per second they are what they were."""
    context, estimate = seen_at(AT, 10.0)
    longer = replace(estimate.capacities[LARGE], shape=RequestShape(200.0, 200.0))
    memory = observe_forecasts(context, replace(estimate, capacities={LARGE: longer}), ForecastMemory())
    (load,) = memory.state.loads.values()
    assert load.loads == pytest.approx((2.0,))  # 10/s * 200 tokens * 1 ms
    assert memory.services[CHAT].load.rate_rps == pytest.approx(10.0)


def test_measured_sizes_replace_the_profiles() -> None:
    context, estimate = seen_at(AT, 10.0)
    signals = replace(QUIET, served_rps=10.0, input_tokens=50.0, output_tokens=300.0)
    memory = observe_forecasts(context, replace(estimate, signals={LARGE: signals}), ForecastMemory())
    assert memory.services[CHAT].load.shape == RequestShape(50.0, 300.0)


def test_services_that_share_members_are_one_load() -> None:
    context, estimate = seen_at(AT, 10.0)
    other = Ref("team-a", "draft")
    both = replace(context, services={CHAT: context.services[CHAT], other: context.services[CHAT]})
    estimate = replace(estimate, loads={CHAT: ServiceLoad(10.0), other: ServiceLoad(30.0)})
    memory = observe_forecasts(both, estimate, ForecastMemory())
    (load,) = memory.state.loads.values()
    assert load.loads == pytest.approx((4.0,))  # 40/s * 100 tokens * 1 ms
    assert memory.services[other].load.high_rps == pytest.approx(3.0 * memory.services[CHAT].load.high_rps)
    assert memory.services[other].group_rps == pytest.approx(40.0)
    half_known = replace(estimate, at_seconds=AT + 15.0, loads={CHAT: ServiceLoad(90.0), other: ServiceLoad()})
    after = observe_forecasts(both, half_known, memory)
    assert after.state.loads == memory.state.loads  # a part is not the whole


def test_learning_begins_with_the_first_request_and_silence_counts_from_then_on() -> None:
    assert observed([0.0] * 3) == ForecastMemory()
    assert observed([0.0, 0.0, 10.0]).state == observed([10.0]).state
    assert samples(observed([0.0, 10.0, 0.0, 0.0])) == 3
    assert observed([10.0, 0.0]).services[CHAT].load.next_rps == pytest.approx(5.0)


def rates_of(
    forecasts: ForecastMemory, loads: ServiceLoad, waiting: float = 0.0, past: tuple[tuple[float, float], ...] = ()
) -> tuple[float, float]:
    _, estimate = seen_at(AT + 100.0, None)
    estimate = replace(estimate, loads={CHAT: loads}, signals={LARGE: replace(QUIET, waiting=waiting)})
    return estimate_rates(estimate, PoolMemory(AT, rates={CHAT: past}, forecasts=forecasts), CHAT)


def test_a_plan_is_for_the_forecast_and_never_for_less_than_there_is() -> None:
    forecasts = observed([10.0] * LEARNED)
    high = forecasts.services[CHAT].load.high_rps
    assert rates_of(forecasts, ServiceLoad(9.0)) == pytest.approx((10.0, high))
    assert rates_of(forecasts, ServiceLoad(50.0)) == pytest.approx((10.0, 50.0))
    assert rates_of(ForecastMemory(), ServiceLoad(9.0)) == pytest.approx((9.0, 9.0 * UNKNOWN_RATIO))


def test_where_requests_wait_the_recent_peak_and_the_backlog_count() -> None:
    forecasts, past = observed([10.0] * LEARNED), ((AT + 80.0, 30.0), (AT + 95.0, 12.0))
    assert rates_of(forecasts, ServiceLoad(9.0), 0.0, past)[1] < 13.0
    assert rates_of(forecasts, ServiceLoad(9.0), 60.0, past)[1] == pytest.approx(30.0 + 60.0 / BACKLOG_SECONDS)


def test_what_is_unknown_is_never_more_than_what_was_forecast() -> None:
    forecasts = observed([10.0] * 3)
    _, estimate = seen_at(AT + 100.0, None)
    assert estimate_present_rps(estimate, PoolMemory(AT, forecasts=forecasts), CHAT) == pytest.approx(10.0)


def forecast(next_rps: float, ratio: float | None, care: float, together: float | None = None) -> ServiceForecast:
    load = ExpectedLoad(next_rps, next_rps, next_rps, SHAPE)
    return ServiceForecast(load, ratio, care, next_rps if together is None else together)


def test_a_variant_keeps_free_the_forecasts_error_as_often_as_late_requests_have_taught() -> None:
    whole = {CHAT: {LARGE: 1_000_000}}
    # all of it goes there, so that no route is drawn: 10 * (1 + 2 * .1)
    assert estimate_coming_rps({CHAT: forecast(10.0, 1.1, 2.0)}, whole, LARGE) == pytest.approx(12.0)
    # half of 20: 150 expected of 300, two standard deviations of 2 * sqrt(.5 / 150) besides
    half = {CHAT: {LARGE: 500_000, replace(LARGE, member="small"): 500_000}}
    width = math.hypot(0.1, 2.0 * math.sqrt(0.5 / 150.0))
    assert estimate_coming_rps({CHAT: forecast(20.0, 1.1, 2.0)}, half, LARGE) == pytest.approx(10.0 * (1 + 2 * width))
    assert estimate_coming_rps({CHAT: forecast(10.0, None, 1.0)}, whole, LARGE) is None
    assert estimate_coming_rps({}, whole, LARGE) is None
    assert estimate_coming_rps({}, {CHAT: {LARGE: 0}}, LARGE) == 0.0


def test_care_is_learned_from_the_requests_that_were_late() -> None:
    """Of .006 that may be late each step takes .5 * .006; a twentieth that was late adds .5 * .044."""
    small = VariantKey("small", "l4")
    inputs = make_inputs({key: make_state(key, 1) for key in (small, LARGE)}, 10.0, {"large": 1.0}, AT)
    busy, capacity = replace(QUIET, running=5.0, waiting=0.0), Capacity(rps=8.0, model=MODEL, shape=SHAPE)
    signals = {LARGE: replace(busy, late_share=0.0), small: replace(busy, late_share=0.1)}
    estimate = replace(inputs.estimate, signals=signals, capacities=dict.fromkeys(signals, capacity))
    memory = observe_forecasts(inputs.context, estimate, ForecastMemory())
    assert memory.services[CHAT].care == pytest.approx(1.2 + 0.5 * 0.044)
    none = {key: replace(signals[LARGE], late_share=0.0) for key in signals}
    memory = observe_forecasts(inputs.context, replace(estimate, signals=none), ForecastMemory())
    assert memory.services[CHAT].care == pytest.approx(1.2 - 0.5 * 0.006)


def test_a_believed_peak_is_kept_free_whatever_the_care() -> None:
    # silence between bursts of three times the expected: 10 * 3 * (1 + .25 * .1), all of it to one variant
    burst = replace(forecast(10.0, 3.3, 0.25), base_ratio=3.0)
    assert estimate_coming_rps({CHAT: burst}, {CHAT: {LARGE: 1_000_000}}, LARGE) == pytest.approx(30.0 * 1.025)


@pytest.mark.parametrize(
    ("rps", "care", "needed"),
    [
        (
            20.0,
            0.25,
            2,
        ),  # 20 * (1 + .25 * .1) = 20.5 at knees of 10 / .9, where a fixed margin took three
        (20.0, 2.5, 3),  # 20 * 1.25 = 25
        (30.0, 0.25, 3),  # more is there than was to come: 30
    ],
)
def test_packing_fills_to_the_knee_over_the_learned_margin(rps: float, care: float, needed: int) -> None:
    state = make_state(LARGE, 5)
    inputs = make_inputs({LARGE: state}, rps, {"large": 1.0}, AT, live={LARGE: 1_000_000})
    inputs = replace(inputs, forecasts={CHAT: forecast(20.0, 1.1, care)})
    index = index_series(make_telemetry(AT, *(make_pod_series(pod.name, AT, 0.0, 100.0) for pod in state.pods)), 120.0)
    packed, _ = decide_packing(inputs, {LARGE: 5}, index, PoolMemory(AT - 1000.0))
    assert packed[LARGE].serving == needed


async def test_a_pass_feeds_the_forecast_and_a_restart_goes_on_from_the_status() -> None:
    world = World()
    world.cluster.add(Kind.LLM_SERVICE, make_llm_service())
    await world.start(rps=10.0)
    (memory,) = world.reconciler._pools.values()
    assert samples(memory.forecasts) == 12
    assert memory.forecasts.services[CHAT].load.next_rps == pytest.approx(10.0, rel=0.05)
    text = world.cluster.get(Kind.MODEL_POOL, POOL.name)["status"]["scaling"]["forecast"]
    written = samples(restore_forecasts(text, [CHAT], world.now, 15.0))
    assert 12 - 4 < written <= 12  # a status is written at least once a minute, which is four passes
    world.restart()
    await world.run(1, rps=10.0)
    assert samples(world.reconciler._pools[(POOL, "uid-zoo")].forecasts) == written + 1
    del world.cluster.get(Kind.MODEL_POOL, POOL.name)["status"]["scaling"]["forecast"]
    world.restart()
    await world.run(1, rps=10.0)
    assert samples(world.reconciler._pools[(POOL, "uid-zoo")].forecasts) == 1
