"""The plant's promises: energy and work are conserved, memory is never exceeded, and looking changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattzoo_policies.capacity.model import ReplicaModel
from wattzoo_policies.sim.plant import Replica
from wattzoo_policies.sim.request import (
    EventKind,
    NotServingError,
    PlantEvent,
    PlantRequest,
    RequestTooLargeError,
)

# Round numbers: a step of b sequences lasts 10 + b ms, a prompt token 0.1 ms.
MODEL = ReplicaModel(
    t0_seconds=0.010,
    t1_seconds=0.001,
    prefill_seconds_per_token=0.0001,
    kv_tokens=2000,
    max_sequences=4,
    off_watts=50.0,
    idle_watts=100.0,
    active_watts=300.0,
    max_watts=500.0,
    startup_seconds=10.0,
    startup_joules=1250.0,
)

Arrival = tuple[float, PlantRequest]


@st.composite
def arrivals(draw: st.DrawFn) -> list[Arrival]:
    gaps = draw(st.lists(st.sampled_from([0.0, 0.001, 0.011, 0.05, 0.3, 2.0]), min_size=1, max_size=25))
    times, now = [], 0.0
    for gap in gaps:
        now += gap
        times.append(now)
    return [
        (at, PlantRequest(str(i), draw(st.integers(0, 900)), draw(st.integers(1, 120)))) for i, at in enumerate(times)
    ]


def run(load: list[Arrival], looks: list[float] | None = None) -> tuple[Replica, list[PlantEvent]]:
    """Submit everything and run to the end, stopping by at each of `looks` on the way."""
    replica = Replica(MODEL, started=True)
    events = []
    stops = sorted(
        [(at, 0, None) for at in looks or []] + [(at, 1, request) for at, request in load], key=lambda s: s[:2]
    )
    for at, _, request in stops:
        if request is None:
            events += replica.advance(at)
            replica.metrics(at)
        else:
            replica.submit(request, at)
    return replica, events + replica.advance(1000.0)


def test_one_request_by_hand() -> None:
    replica = Replica(MODEL, started=True)
    ticket = replica.submit(PlantRequest("a", 100, 3), 1.0)
    # Prefill 100 * 0.1 ms = 10 ms, then three steps of 11 ms: tokens at 1.021, 1.032, 1.043.
    assert replica.advance(1.02) == []
    first, done = replica.advance(2.0)
    assert (first.kind, done.kind, done.ticket) == (EventKind.FIRST_TOKEN, EventKind.COMPLETED, ticket)
    assert first.at_seconds == pytest.approx(1.021)
    assert done.at_seconds == pytest.approx(1.043)
    assert done.ttft_seconds == pytest.approx(0.021)
    assert done.tpot_seconds == pytest.approx(0.011)
    # 10 ms at 500 W, 33 ms at 300 + 200/11 W, the rest of 2 s at 100 W.
    metrics = replica.metrics(2.0)
    assert metrics.active_joules == pytest.approx(0.010 * 500 + 0.033 * (300 + 200 / 11))
    assert metrics.idle_joules == pytest.approx((2.0 - 0.043) * 100)
    assert (metrics.prompt_tokens, metrics.generation_tokens, metrics.requests_completed) == (100, 3, 1)


def test_second_request_joins_at_the_next_step() -> None:
    replica = Replica(MODEL, started=True)
    replica.submit(PlantRequest("a", 0, 100), 0.0)
    replica.submit(PlantRequest("b", 0, 1), 0.025)
    # Steps of "a" end at .011, .022, .033; "b" joins there and both take a step of 12 ms.
    events = {(e.kind, e.request.request_id): e.at_seconds for e in replica.advance(10.0)}
    assert events[EventKind.COMPLETED, "b"] == pytest.approx(0.045)
    assert events[EventKind.COMPLETED, "a"] == pytest.approx(0.045 + 96 * 0.011)


@given(arrivals())
@settings(max_examples=60, deadline=None)
def test_everything_completes_and_is_counted_exactly(load: list[Arrival]) -> None:
    replica, events = run(load)
    done = [event for event in events if event.kind is EventKind.COMPLETED]
    metrics = replica.metrics(1000.0)
    assert sorted(e.request.request_id for e in done) == sorted(r.request_id for _, r in load)
    assert metrics.generation_tokens == sum(r.output_tokens for _, r in load)
    assert metrics.prompt_tokens == sum(r.input_tokens for _, r in load)
    assert metrics.ttft.count == metrics.e2e.count == len(load)
    assert metrics.inter_token.count == sum(r.output_tokens - 1 for _, r in load)
    assert replica.kv_reserved_tokens == 0
    for event in done:
        assert event.arrived_seconds < event.first_token_seconds <= event.at_seconds


@given(arrivals())
@settings(max_examples=60, deadline=None)
def test_admission_is_first_come_first_served(load: list[Arrival]) -> None:
    firsts = [event for event in run(load)[1] if event.kind is EventKind.FIRST_TOKEN]
    assert [event.ticket for event in firsts] == list(range(1, len(load) + 1))


@given(arrivals())
@settings(max_examples=40, deadline=None)
def test_memory_and_batch_limits_hold_at_every_segment(load: list[Arrival]) -> None:
    replica = Replica(MODEL, started=True)
    for at, request in load:
        while (due := replica.next_event_seconds()) is not None and due <= at:
            replica.advance(due)
            assert replica.kv_reserved_tokens <= MODEL.kv_tokens
        replica.submit(request, at)
        assert replica.kv_reserved_tokens <= MODEL.kv_tokens
        assert replica.running_requests <= MODEL.max_sequences
        assert 0.0 <= replica.kv_usage(at) <= replica.kv_reserved_tokens / MODEL.kv_tokens


@given(arrivals(), st.lists(st.floats(0.0, 60.0), max_size=60))
@settings(max_examples=60, deadline=None)
def test_looking_changes_nothing(load: list[Arrival], looks: list[float]) -> None:
    replica, events = run(load)
    watched, seen = run(load, looks)
    assert seen == events
    assert watched.metrics(1000.0) == replica.metrics(1000.0)  # joules bit for bit


@given(arrivals())
@settings(max_examples=30, deadline=None)
def test_joules_are_the_integral_of_power(load: list[Arrival]) -> None:
    replica = Replica(MODEL, started=True)
    joules = tolerance = last = 0.0
    samples = 100

    def integrate(until: float) -> None:
        """Sample power between two events; it changes at most once there, where prefill turns into decoding."""
        nonlocal joules, tolerance, last
        width = (until - last) / samples
        joules += sum(replica.power_watts(last + (k + 0.5) * width) for k in range(samples)) * width
        tolerance += (MODEL.max_watts - MODEL.active_watts) * width
        last = until
        replica.advance(until)

    for at, request in [*load, (load[-1][0] + 30.0, None)]:
        while (due := replica.next_event_seconds()) is not None and due <= at:
            integrate(due)
        integrate(at)
        if request is not None:
            replica.submit(request, at)
    assert replica.metrics(last).joules == pytest.approx(joules, abs=tolerance + 1e-6)


def test_metrics_inside_a_segment_follow_the_clock() -> None:
    replica = Replica(MODEL, started=True)
    ticket = replica.submit(PlantRequest("a", 0, 1000), 0.0)
    replica.advance(1.1)  # 100 steps of 11 ms: the last ends right now
    assert replica.tokens_generated(ticket, 1.1) in (99, 100)
    assert replica.tokens_generated(ticket, 1.105) == 100
    replica.advance(1.105)
    assert replica.metrics(1.105).generation_tokens == 100
    assert replica.metrics(1.105).inter_token.count == 99
    assert replica.kv_usage(1.105) == pytest.approx(100 / 2000)


def test_life_cycle_and_its_joules() -> None:
    replica = Replica(MODEL, 5.0)
    with pytest.raises(NotServingError, match="starting"):
        replica.submit(PlantRequest("a", 1, 1), 6.0)
    assert replica.next_event_seconds() == 15.0
    replica.advance(15.0)
    assert str(replica.phase) == "Ready"
    replica.submit(PlantRequest("a", 0, 100), 20.0)  # ends at 21.1
    replica.drain(20.5)
    assert str(replica.phase) == "Draining"
    replica.submit(PlantRequest("late", 0, 1), 20.6)
    done = [event.request.request_id for event in replica.advance(30.0) if event.kind is EventKind.COMPLETED]
    assert done == ["late", "a"]
    assert str(replica.phase) == "Gone"
    assert replica.gone_seconds == pytest.approx(21.1, abs=0.01)
    metrics = replica.metrics(30.0)
    assert metrics.start_joules == pytest.approx(1250.0)
    assert metrics.idle_joules == pytest.approx(5.0 * 100.0)
    assert replica.power_watts(30.0) == 0.0
    with pytest.raises(NotServingError, match="gone"):
        replica.submit(PlantRequest("b", 1, 1), 31.0)


def test_draining_idle_replica_lingers() -> None:
    replica = Replica(MODEL, started=True)
    replica.drain(1.0, linger_seconds=2.0)
    replica.submit(PlantRequest("late", 0, 1), 2.0)
    replica.advance(10.0)
    assert replica.gone_seconds == pytest.approx(3.0)


def test_kill_cuts_requests_and_keeps_the_counters() -> None:
    replica = Replica(MODEL, started=True)
    tickets = [replica.submit(PlantRequest(str(i), 0, 100), 0.0) for i in range(6)]
    replica.advance(0.1)
    before = replica.metrics(0.1)
    assert sorted(replica.kill(0.1)) == tickets
    assert replica.metrics(5.0).joules == before.joules
    assert replica.metrics(5.0).requests_cut == 6
    assert replica.advance(5.0) == []


@given(arrivals(), st.integers(0, 24), st.floats(0.0, 3.0))
@settings(max_examples=60, deadline=None)
def test_cancelled_requests_leave_and_the_others_complete(load: list[Arrival], which: int, later: float) -> None:
    replica = Replica(MODEL, started=True)
    for at, request in load:
        replica.submit(request, at)
    at = load[-1][0] + later
    gone = replica.cancel(which + 1, at) if which < len(load) else False
    events = replica.advance(1000.0)
    done = sum(event.kind is EventKind.COMPLETED for event in events)
    assert done == len(load) - gone
    assert replica.metrics(1000.0).requests_cut == gone
    assert replica.kv_reserved_tokens == 0
    assert math.isinf(replica.next_event_seconds() or math.inf)


def test_impossible_requests_are_refused() -> None:
    replica = Replica(MODEL, started=True)
    with pytest.raises(RequestTooLargeError, match="2001 tokens"):
        replica.submit(PlantRequest("big", 2000, 1), 0.0)
    with pytest.raises(ValueError, match="at least 1"):
        PlantRequest("none", 1, 0)
    replica.advance(1.0)
    with pytest.raises(ValueError, match="backwards"):
        replica.advance(0.5)


@given(st.integers(1, 64))
def test_larger_batches_burn_more_watts_and_fewer_joules_per_token(batch: int) -> None:
    model = replace(MODEL, max_sequences=64)
    watts, more_watts = model.decode_watts(batch), model.decode_watts(batch + 1)
    assert model.idle_watts < watts < more_watts <= model.max_watts
    assert more_watts * model.step_seconds(batch + 1) / (batch + 1) < watts * model.step_seconds(batch) / batch
