"""The operator as a fleet controller: what it writes is what the plant obeys, and what it sees is the plant's past."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.controller.zoo_files import service, write_zoo
from wattzoo.cli.fleet_model import Fleet, make_fleet
from wattzoo.cli.manifest_files import Manifests, read_manifests
from wattzoo.cli.replay.cluster import Cluster
from wattzoo.cli.replay.controller import OperatorController, Replay
from wattzoo.model import Desired, Kind, Ref, Signal
from wattzoo.plan.pod import render_pod_serving
from wattzoo_policies.accuracy.state_text import read_state
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
        self.state: Replay | None = None

    def initial_state(self) -> Replay:
        return self.inner.initial_state()

    def decide(
        self, state: Replay, observation: FleetObservation, rng: np.random.Generator
    ) -> tuple[Replay, FleetDecision]:
        state, decision = self.inner.decide(state, observation, rng)
        self.rows.append((observation, decision))
        self.state = state
        return state, decision


def run_steps(
    files: tuple[Manifests, Fleet], rates: list[float], seed: int = 1, warmup_steps: int = 10
) -> tuple[FluidResult, Recorded]:
    """Run steps of 15 s at these rates, after some of the first one in which nothing counts."""
    found, fleet = files
    requests = np.rint(np.array(rates)[:, None] * 15.0)
    tokens = (np.full_like(requests, SHAPE.input_tokens), np.full_like(requests, SHAPE.output_tokens))
    demand = FluidDemand(15.0, ("chat",), requests, *tokens)
    scenario = FluidScenario(demand, fleet.pools, fleet.variants, fleet.services, ACCURACY, warmup_steps=warmup_steps)
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


def newest(controller: Recorded, group: str, name: str) -> dict[tuple[str, ...], float]:
    """The newest sample of every series of one name, by member and outcome, else by pod or backend."""
    assert controller.state is not None
    found = {}
    for series in controller.state.meters.snapshot().groups[group]:
        own = [series.labels.get(label, "") for label in ("member", "outcome", "pod", "envoy_cluster_name")]
        if series.name == name:
            found[tuple(text for text in own if text)] = series.samples[-1].value
    return found


def test_meters_count_what_the_plant_served(files: tuple[Manifests, Fleet]) -> None:
    """At a steady load no server is replaced, so that counters of engines and gateway tell of the same requests."""
    _, controller = run_steps(files, [6.0] * 60, warmup_steps=0)
    seen = controller.rows[-1][0].services[0]
    feedback = newest(controller, "feedback", Signal.FEEDBACK)
    assert sum(feedback.values()) == pytest.approx(seen.total)
    assert feedback["small", "satisfied"] + feedback["large", "satisfied"] == pytest.approx(seen.satisfied)
    for member, accuracy in ACCURACY["chat"].items():
        judged = feedback[member, "satisfied"] + feedback[member, "not-satisfied"]
        assert judged > 500.0
        assert feedback[member, "satisfied"] / judged == pytest.approx(accuracy, abs=4.0 * (0.25 / judged) ** 0.5)
    ended = sum(newest(controller, "engine_counters", Signal.REQUESTS_SUCCEEDED).values())
    sent = sum(newest(controller, "gateway", Signal.GATEWAY_REQUESTS).values())
    assert ended == pytest.approx(seen.total, rel=0.01)
    assert sent == pytest.approx((60 - 4 - 1) * 90.0)  # four steps until a server is ready, the last is not seen yet
    tokens = sum(newest(controller, "engine_counters", Signal.GENERATION_TOKENS).values())
    assert tokens == pytest.approx(200.0 * ended)


def test_a_promise_that_begins_anew_owes_and_owns_nothing(files: tuple[Manifests, Fleet]) -> None:
    """After the warm-up the ledger counts what came since; what was learned of the members stays."""
    _, controller = run_steps(files, [6.0] * 20, warmup_steps=40)
    assert controller.state is not None
    cluster, ref = controller.state.cluster, files[1].service_refs["chat"]
    rows = {row["name"]: row for row in cluster.status(ref)["members"]}
    body = read_state("MESSPlusAnytime", cluster.status(ref)["controller"]["state"])
    counted = sum(total for _, total in body["ledger"]["m"].values())
    assert 0.0 < counted <= 20 * 90.0 + 120.0  # and what came since the last checkpoint before
    assert set(rows) == {"small", "large"}
    assert sum(row[-1] for row in body["rows"]) > counted + 2000.0


def test_a_scale_down_takes_starting_pods_then_silent_ones(files: tuple[Manifests, Fleet]) -> None:
    found, fleet = files
    cluster = Cluster(found, fleet)
    three = replace(fleet.variants[0], replicas=3, ready=2, serving=2)
    cluster.follow([three, fleet.variants[1]], 1_700_000_000.0)
    own = cluster.replicas[three.name]
    first, second, third = own.staying
    assert [pod.ready for pod in own.staying] == [True, True, False]
    body = render_pod_serving(own.deployment.namespace, first.name, serving=False)
    asyncio.run(cluster.apply([Desired(Kind.POD, Ref(own.deployment.namespace, first.name), body, first.manifest)]))
    deployment = cluster.snapshot().deployments[own.deployment]
    for replicas, left in ((2, [first, second]), (1, [second])):
        body = {**deployment, "spec": {**deployment["spec"], "replicas": replicas}}
        asyncio.run(cluster.apply([Desired(Kind.DEPLOYMENT, own.deployment, body, deployment)]))
        assert own.staying == left
    assert own.leaving == [first]
    assert third.name not in {pod["metadata"]["name"] for pod in cluster.snapshot().pods}


def test_a_seed_gives_the_same_run_again(files: tuple[Manifests, Fleet]) -> None:
    first, again = (run_steps(files, [4.0] * 10 + [8.0] * 10, seed=3)[0] for _ in range(2))
    assert first.joules == again.joules
    assert (first.replicas == again.replicas).all()


def change_planner(objects: list[dict[str, Any]]) -> None:
    objects[4]["spec"]["scaling"] = {"planner": "PerVariant"}


def change_mode(objects: list[dict[str, Any]]) -> None:
    objects[4]["spec"]["scaling"] = {"mode": "KEDAMetrics"}


def change_mandate(objects: list[dict[str, Any]]) -> None:
    objects[4]["spec"]["mode"] = objects[5]["spec"]["mode"] = "Observe"


def change_workload(objects: list[dict[str, Any]]) -> None:
    """The small model runs already, in a Deployment of which the files say nothing."""
    variant = objects[4]["spec"]["members"][0]["variants"][0]
    variant["workloadRef"] = {"kind": "Deployment", "name": "vllm"}
    del variant["server"]


def change_services(objects: list[dict[str, Any]]) -> None:
    objects.append(service("search", target=600))


@pytest.mark.parametrize("change", [change_planner, change_mode, change_mandate, change_workload, change_services])
def test_whatever_the_files_say_the_load_is_served(
    change: Callable[[list[dict[str, Any]]], None], tmp_path: Path
) -> None:
    found = read_manifests([write_zoo(tmp_path / "zoo.yaml", change)])
    fleet = make_fleet(found)
    names = tuple(one.name for one in fleet.services)
    requests = np.full((20, len(names)), 60.0)
    tokens = (np.full_like(requests, SHAPE.input_tokens), np.full_like(requests, SHAPE.output_tokens))
    demand = FluidDemand(15.0, names, requests, *tokens)
    accuracy = dict.fromkeys(names, ACCURACY["chat"])
    scenario = FluidScenario(demand, fleet.pools, fleet.variants, fleet.services, accuracy, warmup_steps=20)
    controller = Recorded(found, fleet)
    result = run_fluid(scenario, controller, np.random.default_rng(1))
    assert result.attainment > 0.95
    assert (result.serving == result.replicas).all() or change is not change_mode  # nothing is silent for others
    for name in names:
        assert sum(controller.rows[-1][1].weights[name].values()) == pytest.approx(1.0)


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
