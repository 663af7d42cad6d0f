"""The joint controller where fleets are small, loads come in bursts and replicas leave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.policies.fluid.test_joint import ACCURACY, Watched, draw_counts, make_zoo
from tests.policies.fluid.worlds import make_demand
from wattzoo_policies.placement import joint
from wattzoo_policies.placement.filling import count_serving, fill_serving, with_route_noise
from wattzoo_policies.placement.joint import JointController
from wattzoo_policies.placement.joint_demand import Group, estimate_groups, group_services, learn_care
from wattzoo_policies.placement.joint_state import JointState
from wattzoo_policies.placement.problem import PlanService
from wattzoo_policies.placement.signals import FleetDecision, FleetObservation
from wattzoo_policies.placement.weights import Weights, decide_weights
from wattzoo_policies.sim.fluid.run import run_fluid

Step = tuple[FleetObservation, FleetDecision, JointState]


def watch(counts: list[float], *, warmup_steps: int = 0) -> list[Step]:
    seen: list[Step] = []
    scenario = make_zoo(make_demand(counts), warmup_steps=warmup_steps)
    run_fluid(scenario, Watched(JointController(), seen), np.random.default_rng(2))
    return seen


def group_of(observation: FleetObservation, state: JointState) -> Group:
    services = group_services(observation, state.services)
    return estimate_groups(observation, services, state.services, state.loads)[0][0]


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    return watch(draw_counts(100, 150.0))


def test_what_leaves_now_carries_nothing_any_more() -> None:
    """Load falls to a tenth: replicas leave, and their share with them in the same decision."""
    left = 0
    for observation, decision, _ in watch([300.0] * 30 + [30.0] * 50):
        for variant in observation.variants:
            stays = min(variant.ready, decision.replicas.get(variant.name, variant.ready))
            left += stays < variant.ready
            assert decision.serving.get(variant.name, 0) <= stays
            assert stays > 0 or decision.weights.get("s0", {}).get(variant.name, 0.0) == 0.0
    assert left > 0


def test_what_was_sent_nothing_yet_leaves_room_for_chance_too(steps: list[Step]) -> None:
    observation, _, state = steps[-1]
    group = group_of(observation, state)
    variants = [joint._plan_variant(v, 0.6, is_short=False) for v in observation.variants]
    service = PlanService("s0", 10.0, 10.0, 0.5, {"small": 0.1, "large": 0.1}, ACCURACY)
    sent = Weights({"s0": {"small": 1.0}})
    ready = {"small": 2, "large": 1}
    small, large = with_route_noise(variants, sent, [service], ready, group, 1.0, 15.0)
    assert small.knee_load == pytest.approx(0.6 * group.next_ratio / group.widened(0.0, 1.0))  # all of them: no chance
    assert small.knee_load is not None
    assert large.knee_load is not None
    assert large.knee_load < small.knee_load


def test_a_small_service_is_served_by_either_member_in_turn() -> None:
    """Half a request a second, 2,700 in all: filled with its best answers for ever it would reach .8, not .5.

    The first 26 satisfied beyond the target are the credit (3 * sqrt(50)) and the way to the small member (.1 * 50).
    """
    counts = [float(n) for n in np.random.default_rng(5).poisson(7.5, 360)]
    result = run_fluid(make_zoo(make_demand(counts), warmup_steps=40), JointController(), np.random.default_rng(6))
    assert 0.5 <= result.accuracy_end <= 0.5 + 50.0 / 2700.0
    assert result.attainment >= 0.99
    assert result.starts <= 2


def test_a_plan_counts_one_nearly_empty_replica_as_active(steps: list[Step]) -> None:
    """Requests/s times 100 tokens of 20 ms, slower by the load, are inside: one nearly always, whatever the load."""
    counts = [15.0] * 20
    observation, _, state = watch(counts)[-1]
    view = JointController()._view(state, observation, [group_of(observation, state)])
    variant = view.variants()[0]
    counted = joint._with_light_load(variant, view)
    rate = view.loads["s0"].rate_rps
    load = rate * view.work["s0"][variant.name]
    assert variant.knee_load is not None
    as_planned = (counted.active_watts - counted.idle_watts) * load / variant.knee_load
    busy = 1.0 - np.exp(-rate * 100.0 * 0.020 / (1.0 - load))
    assert as_planned == pytest.approx(busy * (variant.active_watts - variant.idle_watts))
    assert counted.max_watts - counted.active_watts == pytest.approx(variant.max_watts - variant.active_watts)
    observation, _, state = steps[-1]  # 10/s need two replicas: they are full or silent, nothing is added
    view = JointController()._view(state, observation, [group_of(observation, state)])
    assert joint._with_light_load(view.variants()[0], view) == view.variants()[0]


def test_care_is_learnt_by_requests_not_by_intervals(steps: list[Step]) -> None:
    observation, _, state = steps[-1]
    group = group_of(observation, state)

    def learn(weight: float) -> float:
        return learn_care(1.0, replace(group, weight=weight), observation, state.services) - 1.0

    assert learn(0.0) == 0.0
    assert learn(1.0) != 0.0
    assert learn(2.0) == pytest.approx(2.0 * learn(1.0))
    assert learn(50.0) == pytest.approx(learn(5.0))  # no burst counts for more than five intervals


def test_what_was_measured_to_be_late_counts_rather_than_what_a_count_at_one_moment_says(steps: list[Step]) -> None:
    observation, _, state = steps[-1]
    group = replace(group_of(observation, state), weight=1.0)

    def learn(running: float, late_share: float | None) -> float:
        seen = [replace(v, running=running, waiting=0.0, late_share=late_share) for v in observation.variants]
        return learn_care(1.0, group, replace(observation, variants=tuple(seen)), state.services) - 1.0

    assert learn(1000.0, None) == pytest.approx(0.5 * (1.0 - 0.006))  # so many at a time, all are taken for late
    assert learn(1000.0, 0.002) == pytest.approx(0.5 * (0.002 - 0.006))
    assert learn(1000.0, 0.02) == pytest.approx(0.5 * (0.02 - 0.006))


def test_care_makes_no_burst_smaller_than_the_last_ones(steps: list[Step]) -> None:
    """Expected 1, peak 8, bound 10 (a peak's own error is a quarter): no care still leaves room for 8, not for 1."""
    group = group_of(steps[-1][0], steps[-1][2])
    forecast = replace(group.forecast, next_load=1.0, next_base=8.0, next_high=10.0)
    bursty = replace(group, forecast=forecast)
    assert bursty.widened(0.0, 0.0) == pytest.approx(8.0)
    assert bursty.widened(0.0, 1.0) == pytest.approx(10.0)
    assert bursty.widened(0.0, 2.0) == pytest.approx(12.0)


def test_services_that_share_replicas_are_raised_together_as_far_as_what_serves_allows(steps: list[Step]) -> None:
    """Loads of .1 per request on knees of .5: one large replica carries 5/s of the 8/s, the two targets need 3/s of it.

    (.6 - .4) / .4 of 4/s and (.5 - .4) / .4 of 4/s; the 2/s that are left raise both by the same share of their way.
    """
    variants = [replace(joint._plan_variant(v, 0.5, is_short=False)) for v in steps[-1][0].variants]
    work = {"small": 0.1, "large": 0.1}
    services = [PlanService(n, 4.0, 4.0, alpha, work, ACCURACY) for n, alpha in (("a", 0.6), ("b", 0.5))]
    ready = {"small": 3, "large": 3}
    found = decide_weights(services, variants, ready, eta=1.0)
    used = count_serving(found, services, variants, ready, 1.0)
    assert used == {"small": 1, "large": 1}
    filled = fill_serving(found, services, variants, used, 1.0, {})

    def reached(weights: Weights, name: str) -> float:
        return sum(share * ACCURACY[member] for member, share in weights.shares[name].items())

    shares = [(reached(filled, s.name) - s.alpha) / (0.8 - s.alpha) for s in services]
    # x of .2 and x of .3, .4 apart per request: 4 x (.5 / .4) = 2 at x = .4
    assert shares == pytest.approx([0.4, 0.4], abs=1.0 / 32.0)
    assert filled.overload == 0.0
    assert [reached(found, s.name) for s in services] == pytest.approx([0.6, 0.5])
