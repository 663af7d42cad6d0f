from __future__ import annotations

import pytest

from e2e.emulator.engine import Engine
from tests.emulator.plant_time import make_clock
from wattzoo_policies.capacity.model import ReplicaModel
from wattzoo_policies.sim.plant import Replica
from wattzoo_policies.sim.request import NotServingError, PlantRequest

MODEL = ReplicaModel(
    t0_seconds=0.010,
    t1_seconds=0.001,
    prefill_seconds_per_token=0.0001,
    kv_tokens=10_000,
    max_sequences=16,
    off_watts=50,
    idle_watts=100,
    active_watts=300,
    max_watts=400,
    startup_seconds=5.0,
    startup_joules=1000.0,
)


def test_a_replica_becomes_ready_by_itself_after_its_start() -> None:
    clock, loop = make_clock()
    engine = Engine(clock, MODEL)
    with pytest.raises(NotServingError):
        engine.submit(PlantRequest("early", 10, 1))
    loop.turn(4.9)
    states = [engine.ready]
    assert engine.power_watts() == 200.0  # 1000 J over 5 s
    loop.turn(0.2)
    assert [*states, engine.ready] == [False, True]


def test_one_request_takes_the_plants_time_and_wakes_a_handful_of_times() -> None:
    clock, loop = make_clock()
    engine = Engine(clock, MODEL, started=True)
    ticket = engine.submit(PlantRequest("q", 100, 200))
    # 100 prompt tokens take 10 ms; each of 200 steps of one sequence takes 11 ms
    fired = loop.turn(0.022)
    assert ticket.event is not None
    assert ticket.event.ttft_seconds == pytest.approx(0.021)
    finished = [ticket.finished]
    loop.turn(1.1)  # 1.122 s after the start: the first token and 100 steps more (1.101 s after it)
    assert ticket.tokens() == 101
    fired += loop.turn(1.2)
    assert [*finished, ticket.finished] == [False, True]
    assert ticket.tokens() == 200
    assert ticket.event.at_seconds == pytest.approx(0.010 + 200 * 0.011)
    assert fired == 2  # first token and completion, for 200 tokens
    assert engine.open_requests == 0


def test_being_late_changes_neither_times_nor_joules() -> None:
    clock, loop = make_clock()
    engine = Engine(clock, MODEL, started=True)
    punctual = Replica(MODEL, 0.0, started=True)
    for at, tokens in ((0.0, 50), (0.3, 20), (0.35, 80)):
        loop.turn(at - clock.now_seconds(), late_by=0.04)
        engine.submit(PlantRequest("q", 100, tokens))
        punctual.submit(PlantRequest("q", 100, tokens), clock.now_seconds())
    loop.turn(5.0, late_by=0.04)
    punctual.advance(clock.now_seconds())
    assert engine.metrics() == punctual.metrics(clock.now_seconds())


def test_a_client_that_leaves_frees_the_batch() -> None:
    clock, loop = make_clock()
    engine = Engine(clock, MODEL, started=True)
    ticket = engine.submit(PlantRequest("q", 100, 5000))
    loop.turn(1.0)
    ticket.cancel()
    loop.turn(0.1)
    assert engine.replica.running_requests == 0
    assert engine.metrics().requests_cut == 1
    assert not ticket.finished
    assert engine.power_watts() == 100.0


def test_stopping_loses_what_runs_and_ends_the_power() -> None:
    clock, loop = make_clock()
    engine = Engine(clock, MODEL, started=True)
    ticket = engine.submit(PlantRequest("q", 100, 5000))
    loop.turn(1.0)
    engine.stop()
    assert ticket.lost
    joules = engine.metrics().joules
    loop.turn(10.0)
    assert engine.metrics().joules == joules
    assert engine.power_watts() == 0.0
