"""The operator as a fleet controller: what it writes is what the plant obeys, and what it sees is the plant's past."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.controller.zoo_files import write_zoo
from wattzoo.cli.fleet_model import Fleet, make_fleet
from wattzoo.cli.manifest_files import Manifests, read_manifests
from wattzoo.cli.replay.controller import OperatorController, Replay
from wattzoo_policies.capacity.model import RequestShape
from wattzoo_policies.placement.signals import FleetDecision, FleetObservation
from wattzoo_policies.sim.fluid.result import FluidResult
from wattzoo_policies.sim.fluid.run import run_fluid
from wattzoo_policies.sim.fluid.scenario import FluidDemand, FluidScenario

SHAPE = RequestShape(1000.0, 200.0)
ACCURACY = {"chat": {"small": 0.43, "large": 0.63}}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Manifests, Fleet]:
    found = read_manifests([write_zoo(tmp_path / "zoo.yaml")])
    return found, make_fleet(found)


class Recorded:
    """The controller, with every observation and decision kept."""

    def __init__(self, found: Manifests, fleet: Fleet) -> None:
        self.inner, self.name = OperatorController(found, fleet), "recorded"
        self.rows: list[tuple[FleetObservation, FleetDecision]] = []

    def initial_state(self) -> Replay:
        return self.inner.initial_state()

    def decide(
        self, state: Replay, observation: FleetObservation, rng: np.random.Generator
    ) -> tuple[Replay, FleetDecision]:
        state, decision = self.inner.decide(state, observation, rng)
        self.rows.append((observation, decision))
        return state, decision


def run_steps(files: tuple[Manifests, Fleet], rates: list[float], seed: int = 1) -> tuple[FluidResult, Recorded]:
    """Run steps of 15 s at these rates, after ten of the first one."""
    found, fleet = files
    requests = np.rint(np.array(rates)[:, None] * 15.0)
    tokens = (np.full_like(requests, SHAPE.input_tokens), np.full_like(requests, SHAPE.output_tokens))
    demand = FluidDemand(15.0, ("chat",), requests, *tokens)
    scenario = FluidScenario(demand, fleet.pools, fleet.variants, fleet.services, ACCURACY, warmup_steps=10)
    controller = Recorded(found, fleet)
    return run_fluid(scenario, controller, np.random.default_rng(seed)), controller


def test_replicas_follow_a_step_of_load_within_the_cap(files: tuple[Manifests, Fleet]) -> None:
    result, controller = run_steps(files, [4.0] * 30 + [16.0] * 30)
    before, after = result.replicas[29].sum(), result.replicas[59].sum()
    assert after > before >= 2
    caps = {pool.name: pool.accelerators for pool in files[1].pools}
    for name, held in result.accelerators.items():
        assert held.max() <= caps[name]
    for _, decision in controller.rows[5:]:
        assert sum(decision.weights["chat"].values()) == pytest.approx(1.0)
        for name, serving in decision.serving.items():
            assert serving <= decision.replicas[name]
    assert any(decision.planned for _, decision in controller.rows)
    assert result.attainment > 0.8
    assert result.services[0].accuracy_end == pytest.approx(0.53, abs=0.04)


def test_a_seed_gives_the_same_run_again(files: tuple[Manifests, Fleet]) -> None:
    first, again = (run_steps(files, [4.0] * 10 + [8.0] * 10, seed=3)[0] for _ in range(2))
    assert first.joules == again.joules
    assert (first.replicas == again.replicas).all()


def test_what_is_unknown_is_held(files: tuple[Manifests, Fleet]) -> None:
    _, controller = run_steps(files, [8.0] * 30)
    found, fleet = files
    operator, rng = OperatorController(found, fleet), np.random.default_rng(1)
    state = operator.initial_state()
    for observation, _ in controller.rows:
        state, known = operator.decide(state, observation, rng)
    last = controller.rows[-1][0]
    for step in range(1, 41):  # ten minutes, twice the window in which replicas go down
        blind = replace(
            last,
            at_seconds=last.at_seconds + 15.0 * step,
            variants=tuple(
                replace(
                    variant,
                    replicas=known.replicas[variant.name],
                    ready=known.replicas[variant.name],
                    serving=known.serving[variant.name],
                    running=None,
                    waiting=None,
                )
                for variant in last.variants
            ),
            services=tuple(replace(service, rate_rps=None) for service in last.services),
        )
        state, decision = operator.decide(state, blind, rng)
        assert all(decision.replicas[name] >= count for name, count in known.replicas.items())
        known = decision
