"""The closed loop: what is counted, that a recording replays, and that the demo's setting is a sound one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scripts.simulate_demo import Setting, make_scenario, run_wattzoo
from wattzoo_policies.baselines.hpa import HpaParameters
from wattzoo_policies.capacity.model import LatencyTarget, ReplicaModel, RequestShape
from wattzoo_policies.registry import make_policy
from wattzoo_policies.sim.closed_loop import replay_closed_loop, run_closed_loop
from wattzoo_policies.sim.comparison import run_largest_hpa, run_mixture_hpa
from wattzoo_policies.sim.controllers import DemandReplicas, FixedReplicas, FixedWeights, PolicyWeights
from wattzoo_policies.sim.fleet import Fleet, Variant
from wattzoo_policies.sim.request import PlantRequest
from wattzoo_policies.sim.scenario import LoopMoment, LoopRequest, PodLife, Scenario, ServiceTarget

# A token every 11 ms, no prefill time, starts of 5 s.
MODEL = ReplicaModel(0.010, 0.001, 0.0, 100_000, 64, 0.0, 100.0, 300.0, 500.0, 5.0, 625.0)
TARGET = ServiceTarget(0.6, LatencyTarget(1.0, 0.05), "good")


def make_small_scenario(count: int = 100, spacing: float = 0.5) -> Scenario:
    """One service, two members: `good` satisfies always, `bad` every other time."""
    requests = tuple(
        LoopRequest(i * spacing, "chat", str(i), 10, {"good": 20, "bad": 20}, {"good": True, "bad": bool(i % 2)})
        for i in range(count)
    )
    variants = (Variant("g", "good", MODEL, 0, 4, 1), Variant("b", "bad", MODEL, 0, 4, 1))
    return Scenario(requests, variants, {"chat": TARGET}, count * spacing)


def test_static_run_by_hand() -> None:
    scenario = make_small_scenario()
    result = run_closed_loop(
        scenario, FixedWeights({"chat": {"g": 1.0}}), FixedReplicas({"g": 1, "b": 1}), np.random.default_rng(0)
    )
    assert (result.failed, result.ttft_attainment, result.tpot_attainment) == (0, 1.0, 1.0)
    assert result.services["chat"].achieved == 1.0
    # Each request decodes alone for 20 * 11 ms at 300 + 200/11 W; both replicas idle at 100 W otherwise.
    busy = 100 * 20 * 0.011
    assert result.energy["g"].active_joules == pytest.approx(busy * (300 + 200 / 11))
    assert result.energy["g"].idle_joules == pytest.approx((50 - busy) * 100)
    assert result.energy["b"].joules == pytest.approx(50 * 100)
    assert result.energy["g"].replica_seconds == pytest.approx(50)


def test_weights_split_traffic_and_satisfaction() -> None:
    scenario = make_small_scenario(2000, 0.25)
    weights = FixedWeights({"chat": {"g": 0.25, "b": 0.75}})
    result = run_closed_loop(scenario, weights, FixedReplicas({}), np.random.default_rng(0))
    assert result.services["chat"].achieved == pytest.approx(0.25 + 0.75 * 0.5, abs=0.03)


def test_requests_without_a_ready_replica_fail_and_are_told() -> None:
    scenario = make_small_scenario(20)
    cold = replace(scenario, variants=tuple(replace(v, initial_replicas=0) for v in scenario.variants))
    result = run_closed_loop(
        cold, FixedWeights({"chat": {"g": 1.0}}), FixedReplicas({"g": 1}), np.random.default_rng(0)
    )
    assert result.failed == 10  # arrivals at 0, .5, ... 4.5 s; ready at 5 s
    assert result.ttft_attainment == pytest.approx(0.5)
    assert result.starts == 1


def test_scaling_takes_starting_replicas_first_and_drains_the_rest() -> None:
    fleet = Fleet({"g": Variant("g", "good", MODEL)})
    fleet.start("g", 0.0, started=True)
    fleet.submit({"g": 1.0}, {"g": PlantRequest("a", 0, 1000)}, 0.0, np.random.default_rng(0))
    fleet.scale("g", 3, 1.0)
    fleet.scale("g", 1, 2.0)
    fleet.advance(2.0)
    assert (fleet.counts("g").ready, fleet.counts("g").starting) == (1, 0)
    fleet.scale("g", 0, 3.0)
    fleet.advance(3.0)
    assert (fleet.counts("g").draining, fleet.open_requests()) == (1, 1)
    events = fleet.advance(20.0)
    assert [event.request.request_id for _, _, event in events][-1] == "a"
    assert fleet.counts("g").draining == 0
    assert fleet.energy("g", 20.0).starts == 2


def test_replay_of_pods_and_weights_gives_the_same_energy() -> None:
    scenario = make_small_scenario(400, 0.25)
    steps = (
        (0.0, {"chat": {"g": 0.5, "b": 0.5}}),
        (50.0, {"chat": {"g": 1.0}}),
    )
    pods = (
        PodLife("g", -20.0, -5.0),
        PodLife("b", -20.0, -5.0, 60.0, 63.0),
        PodLife("g", 30.0, 35.0),
        PodLife("b", 90.0),
    )
    result = replay_closed_loop(scenario, pods, steps, np.random.default_rng(0))
    # b idles or works from 0 to 63 s, and one pod starts at start power from 90 s to the end at 100 s.
    assert result.energy["b"].replica_seconds == pytest.approx(63.0 + 10.0)
    assert result.energy["b"].start_joules == pytest.approx(10.0 * 125.0)
    assert result.energy["g"].replica_seconds == pytest.approx(100.0 + 70.0)
    assert result.energy["g"].start_joules == pytest.approx(5.0 * 125.0)
    assert result.failed == 0


def make_single(arrivals: tuple[tuple[float, int], ...], end_seconds: float) -> Scenario:
    """One service of one variant `g`; each arrival is (when, tokens of the answer)."""
    requests = tuple(LoopRequest(at, "chat", str(at), 10, {"good": n}, {"good": True}) for at, n in arrivals)
    return Scenario(requests, (Variant("g", "good", MODEL, 0, 4, 0),), {"chat": TARGET}, end_seconds)


ALL_TO_G = ((0.0, {"chat": {"g": 1.0}}),)


def test_a_silent_replica_draws_idle_power_and_the_serving_one_takes_all() -> None:
    scenario = make_single(((0.0, 20),) * 4, 10.0)
    pods = (PodLife("g", -5.0, 0.0), PodLife("g", -5.0, 0.0, serving=((-5.0, False),)))
    result = replay_closed_loop(scenario, pods, ALL_TO_G, np.random.default_rng(0))
    # One replica decodes all four. The first begins at once, alone: a step of 11 ms. Its other 19 steps are those of a
    # batch of four, 14 ms each; then the three have a 20th step left, 13 ms. The other replica idles for all 10 s.
    watts = {batch: 300 + 200 * batch * 0.001 / (0.010 + batch * 0.001) for batch in (1, 3, 4)}
    busy = 0.011 + 19 * 0.014 + 0.013
    assert result.energy["g"].active_joules == pytest.approx(0.011 * watts[1] + 0.266 * watts[4] + 0.013 * watts[3])
    assert result.energy["g"].idle_joules == pytest.approx((10 + 10 - busy) * 100)
    assert result.failed == 0


def test_a_replica_that_falls_silent_finishes_and_the_woken_one_takes_what_comes() -> None:
    scenario = make_single(((0.0, 1000), (2.0, 20)), 20.0)
    pods = (
        PodLife("g", -5.0, 0.0, serving=((-5.0, True), (1.0, False))),
        PodLife("g", -5.0, 0.0, serving=((-5.0, False), (1.0, True))),
    )
    result = replay_closed_loop(scenario, pods, ALL_TO_G, np.random.default_rng(0))
    # Each request is alone in its replica: 1000 and 20 steps of 11 ms, 11 s and .22 s.
    assert result.energy["g"].active_joules == pytest.approx(11.22 * (300 + 200 / 11))
    assert result.energy["g"].idle_joules == pytest.approx((20 + 20 - 11.22) * 100)
    assert (result.failed, result.services["chat"].total) == (0, 2)


def test_a_replica_that_was_made_silent_while_starting_takes_nothing_until_it_is_woken() -> None:
    scenario = make_single(tuple((0.5 * turn, 20) for turn in range(20)), 10.0)
    pods = (PodLife("g", -1.0, 5.0, serving=((-1.0, False), (7.0, True))),)
    result = replay_closed_loop(scenario, pods, ALL_TO_G, np.random.default_rng(0))
    assert result.failed == 14  # arrivals at 0, .5, ... 6.5 s


def test_a_variant_whose_replicas_are_all_silent_gets_no_share() -> None:
    scenario = make_small_scenario(100)
    pods = (PodLife("g", -5.0, 0.0, serving=((-5.0, False),)), PodLife("b", -5.0, 0.0))
    steps = ((0.0, {"chat": {"g": 0.9, "b": 0.1}}),)
    result = replay_closed_loop(scenario, pods, steps, np.random.default_rng(0))
    assert result.energy["g"].joules == pytest.approx(50 * 100)  # idle for 50 s
    assert result.services["chat"].achieved == 0.5  # all by `bad`, which satisfies every other time


def test_recorded_decisions_replay_close_to_the_run_itself() -> None:
    setting = Setting(duration_seconds=120.0)
    scenario = replace(make_scenario(setting, 7), linger_seconds=0.0)
    shape = RequestShape(1000.0, 200.0)
    weights = PolicyWeights(make_policy("MESSPlus"), scenario, shape, 5.0)
    replicas = DemandReplicas(scenario, weights, shape, 5.0, 0.3, 30.0, 15.0, 30.0)
    original = run_closed_loop(scenario, weights, replicas, np.random.default_rng(1), moment_seconds=5.0)
    steps = tuple((moment.at_seconds, moment.weights) for moment in original.timeline)
    replayed = replay_closed_loop(scenario, lives_of(scenario, original.timeline), steps, np.random.default_rng(2))
    assert replayed.joules == pytest.approx(original.joules, rel=0.05)


def lives_of(scenario: Scenario, timeline: tuple[LoopMoment, ...]) -> tuple[PodLife, ...]:
    """Rebuild pod lives from the counts at each moment: the newest starts, the newest goes."""
    lives: list[PodLife] = []
    for variant in scenario.variants:
        alive = [PodLife(variant.name, 0.0, 0.0) for _ in range(variant.initial_replicas)]
        for after in timeline[1:]:
            ready, starting = after.replicas[variant.name]
            at = after.at_seconds
            while len(alive) < ready + starting:
                alive.append(PodLife(variant.name, at, at + variant.model.startup_seconds))
            while len(alive) > ready + starting:
                gone = alive.pop()
                lives.append(replace(gone, terminating_seconds=at))
        lives += alive
    return tuple(lives)


def test_the_demo_is_sound() -> None:
    setting = Setting(duration_seconds=300.0)
    scenario = make_scenario(setting, 1)
    ours = run_wattzoo(scenario, setting, "MESSPlus")
    hpa = HpaParameters(target_average=1.0).scaled(0.1)
    largest = run_largest_hpa(scenario, "large-h100", hpa, target_shares=(0.3, 0.5))
    assert ours.failed == 0
    assert min(ours.ttft_attainment or 0.0, ours.tpot_attainment or 0.0) >= 0.99
    assert largest.reached_goal
    assert ours.joules < 0.9 * largest.result.joules
    for outcome in ours.services.values():
        assert outcome.achieved is not None
        assert outcome.achieved >= 0.519 - 0.02


def test_mixture_baseline_takes_the_cheapest_shares() -> None:
    setting = Setting(duration_seconds=60.0)
    scenario = make_scenario(setting, 1)
    by_member = {variant.member: variant.name for variant in scenario.variants}
    run = run_mixture_hpa(scenario, by_member, HpaParameters(target_average=1.0).scaled(0.1), target_shares=(0.3,))
    assert run.mixture is not None
    assert set(run.mixture.weights) == {"small", "large"}
    assert run.mixture.satisfaction == pytest.approx(0.519)
    assert run.result.energy["medium-a100"].joules == 0.0
