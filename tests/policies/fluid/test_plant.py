"""The fluid plant's arithmetic, one replica at a time, and what is conserved whatever is decided."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policies.fluid.worlds import Scripted, hold, make_demand, make_scenario, make_variant
from wattzoo_policies.placement.signals import FleetDecision
from wattzoo_policies.sim.fluid.plant import FluidPlant
from wattzoo_policies.sim.fluid.result import FluidResult
from wattzoo_policies.sim.fluid.run import run_fluid
from wattzoo_policies.sim.fluid.scenario import FluidScenario


def run(scenario: FluidScenario, *script: FleetDecision) -> FluidResult:
    return run_fluid(scenario, Scripted(script or (hold(),)), np.random.default_rng(1))


def test_one_replica_at_a_known_load() -> None:
    # 60 requests in 15 s are 4/s of 100 tokens at 1 ms: load .4. A token takes 20/.6 = 33.3 ms, so 4 * 100 * .0333 =
    # 13.3 sequences run, the replica is never empty, and draws 300 + 400 * .4 = 460 W: 6,900 J.
    result = run(make_scenario(make_demand([60.0]), [make_variant("a")]))
    assert result.joules == pytest.approx(6900.0, rel=1e-5)
    assert result.idle_joules == pytest.approx(15.0 * 100.0 * math.exp(-40.0 / 3.0), rel=1e-6)
    assert result.wh_per_1000_requests == pytest.approx(6900.0 / 3600.0 / 60.0 * 1000.0, rel=1e-5)
    assert (result.ttft_attainment, result.tpot_attainment) == (1.0, 1.0)


def test_the_first_sequences_bring_the_jump_of_power() -> None:
    # 3 requests in 15 s: .2/s, load .02, n = .2 * 100 * .02/.98 = .408: 100 + (1 - e^-.408) * 200 + 400 * .02
    n = 0.2 * 100 * 0.020 / 0.98
    expected = 15.0 * (100.0 + (1.0 - math.exp(-n)) * 200.0 + 8.0)
    assert run(make_scenario(make_demand([3.0]), [make_variant("a")])).joules == pytest.approx(expected, rel=1e-9)


def test_silent_replicas_draw_idle_power_and_all_serving_ones_more() -> None:
    demand = make_demand([60.0])
    packed = run(make_scenario(demand, [make_variant("a", 3, serving=1)]))
    spread = run(make_scenario(demand, [make_variant("a", 3)]))
    assert packed.joules == pytest.approx(15.0 * (460.0 + 2 * 100.0), rel=1e-5)
    # three at 1.333/s each: load .1333, n = 3.08 each
    each = 100.0 + (1.0 - math.exp(-(4 / 3) * 100 * 0.020 / (1 - 0.4 / 3))) * 200.0 + 400.0 * 0.4 / 3
    assert spread.joules == pytest.approx(15.0 * 3 * each, rel=1e-5)
    assert packed.joules < spread.joules


@pytest.mark.parametrize(("requests", "within"), [(91, True), (93, False)])
def test_output_is_late_beyond_the_knee(requests: int, within: bool) -> None:
    # 50 ms and 2 % tolerance: 20/(1 - rho) <= 51 ms up to a load of .608, that is 91.2 requests in 15 s
    result = run(make_scenario(make_demand([requests]), [make_variant("a")]))
    assert result.tpot_attainment == (1.0 if within else 0.0)


def test_what_does_not_fit_waits_is_late_and_is_served_first() -> None:
    # the batch never gets fuller than a load of .97: 145.5 requests of .1 s in 15 s
    result = run(make_scenario(make_demand([200.0, 0.0]), [make_variant("a")]))
    service = result.services[0]
    assert service.served == pytest.approx(200.0)
    assert service.within_ttft == pytest.approx(145.5)
    assert (result.lost, result.backlog) == (0.0, 0.0)


def test_a_start_takes_its_time_and_its_joules() -> None:
    scenario = make_scenario(make_demand([15.0] * 6), [make_variant("a", 1)])
    result = run(scenario, FleetDecision({"a": 2}, {}, {}))
    assert result.starts == 1
    assert result.start_joules == pytest.approx(7500.0)
    assert result.replicas[:, 0].tolist() == [1, 1, 1, 1, 2, 2]  # 60 s are four steps
    assert result.serving[:, 0].tolist() == [1, 1, 1, 1, 2, 2]  # a new replica serves without anybody saying so


def test_a_cancelled_start_costs_what_it_has_burnt_and_a_drained_replica_holds_its_accelerators() -> None:
    scenario = make_scenario(make_demand([15.0] * 6), [make_variant("a", 2)])
    up, down, less = (FleetDecision({"a": number}, {}, {}) for number in (3, 2, 1))
    result = run(scenario, up, down, less, less)
    assert result.start_joules == pytest.approx(7500.0 / 4)
    assert result.accelerators["gpu"].tolist() == [3, 2, 2, 2, 1, 1]  # 30 s of draining are two steps


def test_caps_count_terminating_replicas() -> None:
    plant = FluidPlant(make_scenario(make_demand([0.0]), [make_variant("a", 2)], accelerators=2))
    plant.scale(0, 1)
    with pytest.raises(ValueError, match="3 accelerators of a pool that may hold 2"):
        plant.scale(0, 2)
    plant.begin_step()
    plant.begin_step()
    plant.scale(0, 2)
    assert plant.held.tolist() == [2]


def test_without_a_serving_replica_requests_are_lost() -> None:
    result = run(make_scenario(make_demand([30.0]), [make_variant("a", 0)]))
    assert (result.lost, result.attainment) == (30.0, 0.0)


def test_warmup_is_not_counted_and_the_ledger_begins_after_it() -> None:
    result = run(make_scenario(make_demand([60.0] * 4), [make_variant("a")], warmup_steps=10))
    assert result.arrived == 240.0
    assert result.services[0].outcomes == 240.0
    assert result.joules == pytest.approx(4 * 6900.0, rel=1e-5)


decisions = st.builds(
    lambda a, b, serving, share: FleetDecision(
        {"a": a, "b": b}, {"a": serving, "b": serving}, {"s0": {"a": share, "b": 1.0 - share}}
    ),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 4),
    st.floats(0.0, 1.0),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 600), min_size=1, max_size=12), st.lists(decisions, min_size=1, max_size=12))
def test_arrived_is_served_lost_or_waiting(requests: list[int], script: list[FleetDecision]) -> None:
    scenario = make_scenario(make_demand(requests), [make_variant("a"), make_variant("b", 2)])
    result = run_fluid(scenario, Scripted(tuple(script)), np.random.default_rng(2))
    served = sum(service.served for service in result.services)
    assert served + result.lost + result.backlog == pytest.approx(result.arrived, abs=1e-6)
    assert result.backlog >= 0.0
    assert 0.0 <= result.attainment <= 1.0 or not result.arrived
    assert result.accelerators["gpu"].max() <= 16
    assert result.joules == pytest.approx(float(result.power_watts.sum()) * 15.0)
