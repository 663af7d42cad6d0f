"""`wattzoo plan`: the plan of a declared load with its reasons, and one clear sentence for what is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.controller.zoo_files import profile, variant, write_outcomes, write_zoo
from wattzoo.__main__ import app
from wattzoo.cli.fleet_model import make_fleet
from wattzoo.cli.manifest_files import read_manifests
from wattzoo_policies.capacity.model import RequestShape, capacity_rps
from wattzoo_policies.placement.joint import JointController
from wattzoo_policies.placement.signals import FleetObservation
from wattzoo_policies.placement.target import estimate_credit

RUNNER = CliRunner()


def invoke(*arguments: object) -> tuple[int, str]:
    result = RUNNER.invoke(app, ["plan", *map(str, arguments)])
    return result.exit_code, result.output


def planned(tmp_path: Path, zoo: Path, *arguments: object) -> dict[str, Any]:
    target = tmp_path / "plan.json"
    code, text = invoke("-f", zoo, *arguments, "--json", target)
    assert code == 0, text
    body: dict[str, Any] = json.loads(target.read_text())
    return body


def test_a_load_that_the_small_model_may_carry_alone(tmp_path: Path) -> None:
    zoo = write_zoo(
        tmp_path / "zoo.yaml", lambda objects: objects[5]["spec"]["sla"].update(accuracy={"targetPerMille": 400})
    )
    body = planned(tmp_path, zoo, "--load", "chat=20,1000x200")
    small, large = body["variants"]
    fleet = make_fleet(read_manifests([zoo]))
    each = capacity_rps(fleet.variants[0].model, RequestShape(1000.0, 200.0), fleet.services[0].latency, eta=0.9)
    assert each is not None
    assert small["replicas"] == math.ceil(20.0 * 1.3 / each)  # what stands by before anything is known
    assert small["requests_per_second"] == pytest.approx(20.0)
    assert large["replicas"] == 0
    assert body["short_requests_per_second"] == {}
    assert body["inputs"]["load"] == ["chat=20,1000x200"]


def test_the_mixture_of_two_members_reaches_the_target(tmp_path: Path) -> None:
    body = planned(tmp_path, write_zoo(tmp_path / "zoo.yaml"), "--load", "chat=8")
    flows = body["flows"]["chat"]
    reached = (0.43 * flows["small/a100"] + 0.63 * flows["large/h100"]) / 8.0
    assert sum(flows.values()) == pytest.approx(8.0)
    assert reached >= 0.52 - 1e-6
    assert body["price_joules_per_satisfied"]["chat"] > 0.0
    assert set(body["accelerator_value_watts"]) == {"a100", "h100"}
    assert body["binding"]
    assert body["runner_up"]["plan"]


@pytest.mark.parametrize("rate", [2.0, 8.0, 30.0])
def test_the_operators_controller_keeps_the_plan_where_it_finds_it_running(rate: float, tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo.yaml")
    body = planned(tmp_path, zoo, "--load", f"chat={rate},1000x200")
    replicas = {row["variant"]: row["replicas"] for row in body["variants"]}
    fleet = make_fleet(read_manifests([zoo]))
    running = tuple(
        replace(v, replicas=replicas[v.name], ready=replicas[v.name], serving=replicas[v.name]) for v in fleet.variants
    )
    controller = JointController()
    credit = estimate_credit(
        rate, controller.parameters.repay_seconds
    )  # earned: 1,000 requests that did that much better than the target
    seen = replace(
        fleet.services[0],
        rate_rps=rate,
        shape=RequestShape(1000.0, 200.0),
        satisfied=0.52 * 1000 + credit,
        total=1000.0,
    )
    observation = FleetObservation(0.0, 15.0, fleet.pools, running, (seen,))
    state, decision = controller.decide(controller.initial_state(), observation, np.random.default_rng(0))
    assert state.plan is not None
    assert dict(state.plan.replicas) == replicas
    assert dict(decision.replicas) == replicas


def test_watts_are_those_of_the_replicas_own_law(tmp_path: Path) -> None:
    body = planned(tmp_path, write_zoo(tmp_path / "zoo.yaml"), "--load", "chat=8")
    assert body["watts"] == pytest.approx(sum(row["watts"] for row in body["variants"]))
    for row in body["variants"]:
        idle, most = {"small": (80, 400), "large": (464, 2650)}[row["member"]]
        assert row["replicas"] * idle <= row["watts"] <= row["replicas"] * most * 1.001


def test_outcomes_replace_what_the_service_expects(tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo.yaml")
    good = write_outcomes(tmp_path / "good.csv", small=0.6, large=0.7)
    body = planned(tmp_path, zoo, "--load", "chat=8", "--outcomes", good)
    assert list(body["flows"]["chat"]) == ["small/a100"]


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    code, text = invoke("-f", write_zoo(tmp_path / "zoo.yaml"), "--load", "chat=5000")
    assert code == 0
    assert "short: chat lacks capacity for" in text


BAD_LOADS = {
    "chat": "--load must be SERVICE=RPS",
    "mail=3": "there is no LLMService 'mail'; there are chat",
    "chat=many": "requests/s must be a positive number, not 'many'",
    "chat=-2": "requests/s must be a positive number, not '-2'",
    "chat=0": "requests/s must be a positive number, not '0'",
    "chat=inf": "requests/s must be a positive number",
    "chat=2,1000": "tokens must be INxOUT",
    "chat=2,0x100": "tokens must be INxOUT",
}


@pytest.mark.parametrize("load", BAD_LOADS)
def test_a_wrong_load_is_told(load: str, tmp_path: Path) -> None:
    code, text = invoke("-f", write_zoo(tmp_path / "zoo.yaml"), "--load", load)
    assert code == 2
    assert BAD_LOADS[load] in text
    assert text.count("\n") == 1


def test_wrong_files_are_told_in_one_line(tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo.yaml", lambda objects: objects[2]["spec"]["points"][0].update(powerWatts=-1))
    code, text = invoke("-f", zoo, "--load", "chat=8")
    assert code == 2
    assert text.startswith("wattzoo: ModelProfile/demo/small-a100: spec.points[0].powerWatts: ")
    assert text.count("\n") == 1
    code, text = invoke("-f", write_zoo(tmp_path / "zoo.yaml"), "--load", "chat=8", "--load", "chat=9")
    assert (code, "chat is given twice" in text) == (2, True)
    unknown = write_zoo(tmp_path / "zoo.yaml", lambda objects: objects[5]["spec"].pop("members"))
    code, text = invoke("-f", unknown, "--load", "chat=8")
    assert code == 2
    assert "LLMService/demo/chat: spec.members: without --outcomes accuracyPriorPerMille of member small" in text


def test_degrees_are_proposed_among_the_profiles(tmp_path: Path) -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        slow = profile("large-h100x8", 12_000, 120, (928, 3200, 5200))  # twice the watts for 1.3 times the speed
        objects.insert(4, slow)
        objects[5]["spec"]["members"][1]["variants"].append(variant("h100x8", "h100", "large-h100x8", 8))

    body = planned(tmp_path, write_zoo(tmp_path / "zoo.yaml", change), "--load", "chat=8", "--propose-variants")
    chosen = {(row["member"], row["objective"]): row for row in body["proposals"]}
    assert chosen["large", "TokensPerJoule"]["variant"] == "large/h100"
    assert chosen["large", "TokensPerJoule"]["instances"] == 8  # 4 nodes of 8, 4 accelerators each
    assert chosen["small", "Throughput"]["tensor_parallel"] == 1


def with_figures(field: str, by_pool: dict[str, int]) -> Callable[[list[dict[str, Any]]], None]:
    """Both models on both pools, the figure at each: any pool could do all of the work."""

    def change(objects: list[dict[str, Any]]) -> None:
        for pool in objects[:2]:
            name = pool["metadata"]["name"]
            if name in by_pool:
                pool["spec"][field] = by_pool[name]
        objects.insert(4, profile("small-h100", 11_800, 176, (160, 590, 800)))  # the same speed at twice the watts
        objects[5]["spec"]["members"][0]["variants"].append(variant("h100", "h100", "small-h100", 1))
        objects[6]["spec"]["sla"]["accuracy"]["targetPerMille"] = 400

    return change


@pytest.mark.parametrize(
    ("objective", "field", "a100", "h100", "pool"),
    [
        ("Energy", "carbonGramsPerKilowattHour", 600, 100, "a100"),
        ("Carbon", "carbonGramsPerKilowattHour", 600, 100, "h100"),  # twice the watts at a sixth of the grams
        ("Carbon", "carbonGramsPerKilowattHour", 100, 100, "a100"),
        ("Cost", "pricePerAcceleratorHourMilli", 3000, 1000, "h100"),
        ("Cost", "pricePerAcceleratorHourMilli", 1000, 3000, "a100"),
    ],
)
def test_a_plan_goes_where_the_objective_is_least(
    objective: str, field: str, a100: int, h100: int, pool: str, tmp_path: Path
) -> None:
    zoo = write_zoo(tmp_path / "zoo.yaml", with_figures(field, {"a100": a100, "h100": h100}))
    body = planned(tmp_path, zoo, "--load", "chat=8", "--objective", objective)
    assert [row["pool"] for row in body["variants"] if row["replicas"]] == [pool]
    assert body["minimised"] == body["inputs"]["objective"] == objective
    counted = {"Energy": "W", "Carbon": "mg CO2e/s", "Cost": "millionths/s"}
    assert body["objective_unit"] == counted[objective]
    assert (body["price_joules_per_satisfied"] is None) == (objective != "Energy")
    if objective == "Cost":  # each accelerator at 1.00 an hour, and a trace of energy
        assert body["objective"] == pytest.approx(
            sum(row["accelerators"] for row in body["variants"]) * 1e6 / 3600.0, rel=0.01
        )


def test_the_objective_is_printed_in_its_units(tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo.yaml", with_figures("carbonGramsPerKilowattHour", {"a100": 600, "h100": 100}))
    code, text = invoke("-f", zoo, "--load", "chat=8", "--objective", "Carbon")
    assert code == 0
    assert "minimised: Carbon, " in text
    assert "g CO2e/h by the planner's law" in text
    assert "one more satisfied request of chat costs 0 mg CO2e" in text  # the target is below both members


@pytest.mark.parametrize(
    ("objective", "field"),
    [("Carbon", "carbonGramsPerKilowattHour"), ("Cost", "pricePerAcceleratorHourMilli")],
)
def test_a_missing_figure_is_an_error_that_names_it(objective: str, field: str, tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo.yaml", with_figures(field, {"a100": 600}))
    code, text = invoke("-f", zoo, "--load", "chat=8", "--objective", objective)
    assert code == 2
    assert text == (
        f"wattzoo: AcceleratorPool/h100: spec.{field}: --objective {objective} needs it of every AcceleratorPool in "
        "use (got nothing)\n"
    )
