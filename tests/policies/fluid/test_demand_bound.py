"""Demand by step, the bound below everything, and the two plants side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policies.fluid.worlds import LATENCY, Scripted, hold, make_demand, make_model, make_scenario, make_variant
from wattzoo_policies.capacity.model import RequestShape
from wattzoo_policies.sim.closed_loop import run_closed_loop
from wattzoo_policies.sim.controllers import FixedReplicas, FixedWeights
from wattzoo_policies.sim.fleet import Variant
from wattzoo_policies.sim.fluid.bound import bound_energy, least_joules
from wattzoo_policies.sim.fluid.demand import Burstiness, bin_trace, draw_counts, draw_curve, with_jump
from wattzoo_policies.sim.fluid.run import run_fluid
from wattzoo_policies.sim.scenario import LoopRequest, Scenario, ServiceTarget


def test_a_trace_is_binned_and_its_unfinished_last_step_left_out() -> None:
    at = np.array([100.0, 101.0, 114.0, 116.0, 131.0])
    demand = bin_trace(at, np.array([10.0, 20.0, 30.0, 40.0, 50.0]), np.full(5, 7.0))
    assert demand.requests[:, 0].tolist() == [3.0, 1.0]
    assert demand.input_tokens[:, 0].tolist() == [20.0, 40.0]


def test_times_that_fall_are_refused() -> None:
    with pytest.raises(ValueError, match="must not fall"):
        bin_trace(np.array([1.0, 0.5]), np.ones(2), np.ones(2))


def test_counts_have_the_dispersion_that_is_asked_for() -> None:
    counts = draw_counts(np.full(20_000, 50.0), 2.0, np.random.default_rng(1))
    assert counts.mean() == pytest.approx(50.0, rel=0.01)
    assert counts.var() / counts.mean() == pytest.approx(2.0, rel=0.05)


def test_the_day_has_its_mean_and_wanders_as_said() -> None:
    at = np.linspace(0.0, 86_400.0, 145)
    tokens = np.full(10, 100.0), np.full(10, 50.0)
    law = Burstiness(dispersion=1.0)
    demand = draw_curve(at, np.ones(145), tokens, np.random.default_rng(3), mean_rps=40.0, burstiness=law)
    rate = demand.requests[:, 0] / 15.0
    assert demand.steps == 5760
    assert rate.mean() == pytest.approx(40.0, rel=0.02)
    # exp(AR(1)) of .10 and Poisson counts of 600: sqrt(.10^2 + 1/600) = .108
    assert rate.std() / rate.mean() == pytest.approx(0.108, rel=0.05)
    steps = np.log(rate[1:]) - np.log(rate[:-1])
    # .10 * sqrt(2 (1 - .88)) = .049 and twice the counts' variance: sqrt(.049^2 + 2/600) = .0757
    assert steps.std() == pytest.approx(0.0757, rel=0.05)


def test_a_jump_multiplies_its_steps_alone() -> None:
    demand = with_jump(make_demand([100.0] * 10), 5.0, 4, 6, np.random.default_rng(1))
    assert demand.requests[:4, 0].tolist() == [100.0] * 4
    assert demand.requests[4:6, 0] == pytest.approx([500.0, 500.0], rel=0.2)
    assert demand.requests[6:, 0].tolist() == [100.0] * 4


def test_the_warm_up_runs_backwards_into_the_beginning() -> None:
    demand = make_demand([1.0, 2.0, 3.0]).mirrored(5)
    assert demand.requests[:, 0].tolist() == [2.0, 3.0, 3.0, 2.0, 1.0, 1.0, 2.0, 3.0]


def test_the_bound_of_one_variant_is_its_power_at_the_knee() -> None:
    # knee 1 - 20/50 = .6 is 6 requests/s and 300 + 400 * .6 = 540 W, so 90 J per request and 25 Wh per 1,000
    demand = make_demand([60.0] * 8)
    assert least_joules(make_model(), RequestShape(10.0, 100.0), 0.6) == pytest.approx(90.0, rel=1e-3)
    bound = bound_energy(make_scenario(demand, [make_variant("a")]))
    assert bound.wh_per_1000_requests == pytest.approx(25.0, rel=1e-3)
    assert bound.served_share == 1.0


def test_the_bound_mixes_members_for_the_target() -> None:
    # alpha .5 of .4 and .8: a quarter on the dear one, which takes three times the power: 25 * (.75 + .25 * 3) Wh
    dear: dict[str, Any] = {"idle_watts": 300.0, "active_watts": 900.0, "max_watts": 2100.0}
    scenario = make_scenario(
        make_demand([60.0] * 8),
        [make_variant("small"), make_variant("large", **dear)],
        accuracy={"small": 0.4, "large": 0.8},
    )
    assert bound_energy(scenario).wh_per_1000_requests == pytest.approx(37.5, rel=1e-3)


def test_more_demand_than_accelerators_is_told() -> None:
    # 16 replicas carry 96/s at the knee, twice that is asked for
    bound = bound_energy(make_scenario(make_demand([15.0 * 192.0] * 8), [make_variant("a")]))
    assert bound.served_share == pytest.approx(0.5, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(20, 80), min_size=4, max_size=20),
    st.integers(1, 4),
    st.floats(0.25, 0.75),
)
def test_nobody_who_keeps_the_bounds_gets_below_the_bound(counts: list[int], replicas: int, share: float) -> None:
    dear: dict[str, Any] = {"idle_watts": 200.0, "active_watts": 700.0, "max_watts": 1500.0}
    accuracy = {"small": 0.4, "large": 0.8}
    variants = [make_variant("small", replicas), make_variant("large", replicas, **dear)]
    alpha = 0.4 + 0.4 * share
    scenario = make_scenario(make_demand(counts), variants, accuracy=accuracy, alpha=alpha)
    result = run_fluid(scenario, Scripted((hold(small=1.0 - share, large=share),)), np.random.default_rng(5))
    if result.attainment < 1.0:
        return
    # the same mixture in fact: the draw of routes moves what was promised
    reached = (result.services[0].correct / result.services[0].outcomes) if result.services[0].outcomes else alpha
    slack = max(0.0, alpha - reached) + 0.1  # outcomes are drawn too
    bound = bound_energy(scenario, bucket_steps=1, accuracy_slack=slack)
    assert result.joules >= bound.joules * (1.0 - 1e-9)


def test_both_plants_agree_on_energy_within_five_percent() -> None:
    rng = np.random.default_rng(7)
    seconds, rate = 1800.0, 5.0
    at = np.sort(rng.uniform(0.0, seconds, int(rate * seconds)))
    weights = {"small": 0.6, "large": 0.4}
    dear: dict[str, Any] = {"t0_seconds": 0.03, "idle_watts": 200.0, "active_watts": 700.0, "max_watts": 1500.0}
    variants = [make_variant("small"), make_variant("large", **dear)]
    ticks = np.concatenate([[0.0], at, [seconds]])  # bins from 0 on; the last one is left out with the last tick
    demand = bin_trace(ticks, np.full(ticks.size, 10.0), np.full(ticks.size, 100.0), services=("s0",))
    scenario = make_scenario(demand, variants, accuracy={"small": 0.4, "large": 0.8})
    fluid = run_fluid(scenario, Scripted((hold(**weights),)), np.random.default_rng(8))
    loop = Scenario(
        requests=tuple(
            LoopRequest(float(t), "s0", f"r{n}", 10, {"small": 100, "large": 100}, {"small": True, "large": True})
            for n, t in enumerate(at)
        ),
        variants=tuple(Variant(v.name, v.member, v.model) for v in variants),
        services={"s0": ServiceTarget(0.5, LATENCY)},
        end_seconds=seconds,
    )
    replicas = FixedReplicas({"small": 1, "large": 1})
    events = run_closed_loop(loop, FixedWeights({"s0": weights}), replicas, np.random.default_rng(9))
    assert fluid.joules == pytest.approx(events.joules, rel=0.05)
