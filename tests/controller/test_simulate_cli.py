"""`wattzoo simulate`: the operator's plans over a trace, from kubectl's YAML, and one sentence for what is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.controller.zoo_files import profile, service, variant, write_csv, write_outcomes, write_trace, write_zoo, zoo
from wattzoo.__main__ import app
from wattzoo.cli.fleet_baselines import HOURLY_PRICES, read_prices
from wattzoo.cli.manifest_files import read_manifests
from wattzoo.cli.quiet import without_native_output

RUNNER = CliRunner()
ROOT = Path(__file__).resolve().parents[2]


def invoke(*arguments: object) -> tuple[int, str]:
    result = RUNNER.invoke(app, ["simulate", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Twenty minutes with all baselines, the bound and a picture."""
    path = tmp_path_factory.mktemp("simulate")
    zoo, trace, target = write_zoo(path / "zoo.yaml"), write_trace(path / "trace.csv"), path / "result.json"
    baselines = "joint,hpa,keda,melange,fixed-mix,static-peak"
    code, text = invoke(
        "-f", zoo, "--trace", trace, "--compare", baselines, "--bound", "--json", target, "--plot", path / "p.svg"
    )
    assert code == 0, text
    for name in ("wattzoo", *baselines.split(","), "accelerators by type", "a100", "h100"):
        assert name in text
    assert (path / "p.svg").read_text().startswith("<?xml")
    found: dict[str, Any] = json.loads(target.read_text())
    return found


def test_the_json_has_the_keys_that_it_promises(body: dict[str, Any]) -> None:
    assert set(body) == {"policies", "bound", "inputs", "commit"}
    names = [row["policy"] for row in body["policies"]]
    assert names == ["wattzoo", "joint", "hpa", "keda", "melange", "fixed-mix", "static-peak"]
    for row in body["policies"]:
        assert set(row) == {
            "policy",
            "wh_per_1000_requests",
            "wh",
            "slo",
            "accuracy",
            "starts_per_hour",
            "ratio_to_bound",
        }
        assert set(row["wh"]) == {"active", "idle", "start"}
        assert set(row["slo"]) == {"ttft", "tpot"}
        assert set(row["accuracy"]) == {"end", "worst_hour"}


def test_parts_of_the_energy_sum_to_it_and_the_bound_is_below_all(body: dict[str, Any]) -> None:
    for row in body["policies"]:
        assert sum(row["wh"].values()) == pytest.approx(row["wh_per_1000_requests"])
        assert row["ratio_to_bound"] == pytest.approx(row["wh_per_1000_requests"] / body["bound"])
        assert row["ratio_to_bound"] > 1.0


def test_one_model_alone_is_as_accurate_as_it_is_and_a_mixture_as_the_target(body: dict[str, Any]) -> None:
    rows = {row["policy"]: row for row in body["policies"]}
    requests = body["inputs"]["requests"]
    chance = 3.0 * (0.25 / requests) ** 0.5
    assert rows["static-peak"]["accuracy"]["end"] == pytest.approx(0.63, abs=chance)
    assert rows["fixed-mix"]["accuracy"]["end"] == pytest.approx(0.52, abs=chance)
    assert rows["wattzoo"]["accuracy"]["end"] >= 0.52 - chance
    assert rows["static-peak"]["starts_per_hour"] == 0.0


def test_a_seed_gives_the_same_figures_again(tmp_path: Path) -> None:
    zoo, trace = write_zoo(tmp_path / "zoo.yaml"), write_trace(tmp_path / "trace.csv", minutes=5.0)
    found = []
    for number in range(2):
        target = tmp_path / f"{number}.json"
        code, text = invoke("-f", zoo, "--trace", trace, "--seeds", 2, "--json", target)
        assert code == 0, text
        found.append(json.loads(target.read_text())["policies"])
    assert found[0] == found[1]
    assert found[0][0]["ratio_to_bound"] is None


def test_services_of_one_zoo_share_it(tmp_path: Path) -> None:
    objects = [*zoo(), service("search", target=600)]
    rows = [[n / 4, 800, 150, "demo/search" if n % 4 == 0 else "chat"] for n in range(1200)]
    trace = write_csv(tmp_path / "t.csv", ["t_s", "in_tokens", "out_tokens", "service"], rows)
    target = tmp_path / "r.json"
    written = write_zoo(tmp_path / "zoo.yaml", objects=objects)
    code, text = invoke("-f", written, "--trace", trace, "--json", target, "--compare", "fixed-mix")
    assert code == 0, text
    services = json.loads(target.read_text())["inputs"]["services"]
    assert {name: one["alpha"] for name, one in services.items()} == {"chat": 0.52, "search": 0.6}
    assert services["chat"]["requests"] == pytest.approx(3 * services["search"]["requests"], rel=0.02)


def test_a_scaled_load_has_that_many_times_the_requests(tmp_path: Path) -> None:
    zoo, trace = write_zoo(tmp_path / "zoo.yaml"), write_trace(tmp_path / "trace.csv", minutes=5.0)
    counts = []
    for factor in (1, 3):
        target = tmp_path / "r.json"
        code, text = invoke("-f", zoo, "--trace", trace, "--scale-load", factor, "--json", target)
        assert code == 0, text
        counts.append(json.loads(target.read_text())["inputs"]["requests"])
    assert counts[1] == pytest.approx(3 * counts[0], rel=0.05)  # mirrored at both ends


Arguments = Callable[[Path], list[object]]


def _zoo_and_trace(path: Path) -> list[object]:
    return ["-f", write_zoo(path / "zoo.yaml"), "--trace", write_trace(path / "t.csv", minutes=1.0)]


BAD: dict[str, tuple[Arguments, str]] = {
    "nothing": (lambda _: [], "-f is required"),
    "no trace": (lambda path: ["-f", write_zoo(path / "zoo.yaml")], "--trace is required"),
    "unknown baseline": (lambda path: [*_zoo_and_trace(path), "--compare", "hpa,magic"], "unknown baseline 'magic'"),
    "no seeds": (lambda path: [*_zoo_and_trace(path), "--seeds", 0], "--seeds must be at least 1"),
    "no load": (lambda path: [*_zoo_and_trace(path), "--scale-load", 0], "--scale-load must be above 0"),
    "unknown service": (lambda path: [*_zoo_and_trace(path), "--service", "mail"], "no LLMService 'mail'"),
    "a wrong price": (lambda path: [*_zoo_and_trace(path), "--price", "a100=free"], "--price must be POOL=NUMBER"),
    "a picture of no kind": (lambda path: [*_zoo_and_trace(path), "--plot", path / "p.txt"], "must end in .png"),
    "no such folder": (lambda path: [*_zoo_and_trace(path), "--json", path / "no" / "r.json"], "cannot be written"),
    "a contradiction": (
        lambda path: [*_zoo_and_trace(path), "--outcomes", write_outcomes(path / "o.csv", small=0.3, large=0.5)],
        "LLMService/demo/chat: spec.sla.accuracy.targetPerMille: no member reaches it: the best, large, satisfies 500",
    ),
    "outcomes of others": (
        lambda path: [
            *_zoo_and_trace(path),
            "--outcomes",
            write_csv(path / "o.csv", ["request_id", "correct_tiny"], [["q", 1]]),
        ],
        "o.csv, column model: has no outcomes of member small (org/small-8b); there are tiny",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_in_one_line(case: str, tmp_path: Path) -> None:
    arguments, message = BAD[case]
    code, text = invoke(*arguments(tmp_path))
    assert code == 2
    last = text.strip().splitlines()[-1]
    assert last.startswith("wattzoo: ")
    assert message in last


def test_recorded_outcomes_alone_are_still_replayed(tmp_path: Path) -> None:
    rows = [
        [f"q{n}", name, int(n % 10 < right), cost]
        for n in range(100)
        for name, right, cost in (("a", 4, 1.0), ("b", 8, 9.0))
    ]
    path = write_csv(tmp_path / "o.csv", ["request_id", "model", "correct", "energy_j"], rows)
    code, text = invoke(
        "control", "--outcomes", path, "--alpha", 0.6, "--seeds", 2, "--requests-count", 500, "--policy", "FixedMixture"
    )
    assert code == 0, text
    assert "blind optimum" in text


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    examples, target = ROOT / "examples", tmp_path / "r.json"
    folders = [part for name in ("demo", "profiles", "simulate") for part in ("-f", examples / name)]
    files = ("--trace", examples / "simulate/trace.csv.gz", "--outcomes", examples / "simulate/outcomes.csv.gz")
    code, text = invoke(*folders, *files, "--scale-load", 4, "--seeds", 4, "--json", target)
    assert code == 0, text
    row = json.loads(target.read_text())["policies"][0]
    assert min(row["slo"].values()) >= 0.99
    assert row["accuracy"]["end"] >= 0.519


def test_what_a_solver_prints_by_itself_is_not_part_of_the_output(capfd: pytest.CaptureFixture[str]) -> None:
    with without_native_output():
        os.write(1, b"HiGHS says something\n")
    os.write(1, b"kept\n")
    assert capfd.readouterr().out == "kept\n"


def test_plans_of_least_carbon_move_the_work_to_the_clean_pool(tmp_path: Path) -> None:
    """The small model runs on either pool at equal speed, on H100s at twice the watts and a sixth of the grams."""

    def change(objects: list[dict[str, Any]]) -> None:
        for pool, grams in zip(objects[:2], (600, 100), strict=True):
            pool["spec"]["carbonGramsPerKilowattHour"] = grams
        objects.insert(4, profile("small-h100", 11_800, 176, (160, 590, 800)))
        objects[5]["spec"]["members"][0]["variants"].append(variant("h100", "h100", "small-h100", 1))
        objects[6]["spec"]["sla"]["accuracy"]["targetPerMille"] = 400

    zoo, trace = write_zoo(tmp_path / "zoo.yaml", change), write_trace(tmp_path / "trace.csv", minutes=5.0)
    watt_hours, most = {}, {}
    for objective in ("Energy", "Carbon"):
        target = tmp_path / f"{objective}.json"
        code, text = invoke("-f", zoo, "--trace", trace, "--objective", objective, "--json", target)
        assert code == 0, text
        assert ("plans minimise Carbon" in text) == (objective == "Carbon")
        found = json.loads(target.read_text())
        assert found["inputs"]["objective"] == objective
        watt_hours[objective] = found["policies"][0]["wh_per_1000_requests"]
        lines = {line.split()[0]: line.split()[-1] for line in text.splitlines() if line.startswith("  ")}
        most[objective] = int(lines["a100"])  # accelerators held there at once
    assert most == {"Energy": 1, "Carbon": 0}
    assert watt_hours["Energy"] < watt_hours["Carbon"]  # what the cleaner electricity is worth
    missing = write_zoo(tmp_path / "zoo.yaml")
    code, text = invoke("-f", missing, "--trace", trace, "--objective", "Carbon")
    assert code == 2
    assert text.startswith("wattzoo: AcceleratorPool/a100: spec.carbonGramsPerKilowattHour: --objective Carbon needs")


def test_a_price_is_the_options_then_the_objects_then_the_products(tmp_path: Path) -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        objects[0]["spec"]["pricePerAcceleratorHourMilli"] = 3600

    found = read_manifests([write_zoo(tmp_path / "zoo.yaml", change)])
    built_in = HOURLY_PRICES["NVIDIA-H100-80GB-HBM3"] / 3600.0
    assert read_prices(found, []) == {"a100": pytest.approx(0.001), "h100": pytest.approx(built_in)}
    assert read_prices(found, ["a100=7.2"])["a100"] == pytest.approx(0.002)
