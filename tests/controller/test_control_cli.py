"""`wattzoo simulate control`: figures from files of the public schema, and one clear sentence for what is wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from wattzoo.cli.outcome_files import FileError, read_outcomes, read_stream
from wattzoo.cli.simulate_control import app

RUNNER = CliRunner()
MEMBERS = {"small": (0.4, 10.0), "large": (0.7, 100.0)}


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(list(header))
        writer.writerows(rows)
    return path


def outcome_rows(count: int = 300, members: dict[str, tuple[float, float]] | None = None) -> list[list[Any]]:
    rng = np.random.default_rng(0)
    return [
        [f"q{n}", name, int(rng.random() < p), joules * (1.0 + 0.1 * rng.random())]
        for n in range(count)
        for name, (p, joules) in (members or MEMBERS).items()
    ]


HEADER = ["request_id", "model", "correct", "energy_j"]


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "outcomes.csv", HEADER, outcome_rows())


def invoke(*arguments: object) -> tuple[int, str]:
    result = RUNNER.invoke(app, ["control", *map(str, arguments)])
    return result.exit_code, result.output


FAST = ("--seeds", 3, "--requests-count", 2000)


def test_prints_a_table_and_writes_json(outcomes: Path, tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    code, text = invoke("--outcomes", outcomes, "--alpha", 0.5, *FAST, "--json", target)
    assert code == 0, text
    assert "MESSPlusAnytime" in text
    assert "AlwaysLargest" in text
    body = json.loads(target.read_text())
    assert set(body) >= {"policies", "blind", "inputs", "commit"}
    rows = {row["policy"]: row for row in body["policies"]}
    ours = rows["MESSPlusAnytime"]
    assert set(ours["joules_ratio"]) == {"mean", "p5", "p95"}
    assert set(ours) >= {
        "met_share",
        "violated_share",
        "worst_deficit",
        "churn",
        "exploration_share",
        "decision_seconds_p99",
    }
    assert ours["met_share"] == 1.0
    assert ours["joules_ratio"]["mean"] < rows["AlwaysLargest"]["joules_ratio"]["mean"]
    assert sum(body["blind"]["weights"].values()) == pytest.approx(1.0)
    assert body["inputs"]["energy_column"] == "energy_j"


def test_replays_a_stream_by_its_clock_with_pool_events(outcomes: Path, tmp_path: Path) -> None:
    rows = [[0.05 * n, f"q{n % 300}", "leave small" if n == 1500 else ""] for n in range(3000)]
    stream = write_csv(tmp_path / "stream.csv", ["t_s", "request_id", "pool_event"], rows)
    options = ("--interval-seconds", 10, "--feedback-delay-seconds", 5, "--policy", "MESSPlusAnytime")
    target = tmp_path / "r.json"
    code, text = invoke(
        "--outcomes", outcomes, "--alpha", 0.5, "--stream", stream, "--seeds", 2, "--json", target, *options
    )
    assert code == 0, text
    body = json.loads(target.read_text())
    assert body["inputs"]["intervals"] == 15
    assert body["inputs"]["requests"] == 3000
    assert body["blind"]["weights"]["large"] == 1.0  # the small one is not there all the time


def test_any_number_of_members_from_the_same_columns(tmp_path: Path) -> None:
    members = {f"m{n}": (0.3 + 0.02 * n, 2.0 ** (n / 2)) for n in range(20)}
    path = write_csv(tmp_path / "many.csv", HEADER, outcome_rows(200, members))
    code, text = invoke("--outcomes", path, "--alpha", 0.5, *FAST, "--policy", "MESSPlusAnytime")
    assert code == 0, text
    crowd = write_csv(tmp_path / "crowd.csv", HEADER, outcome_rows(5, {f"m{n:02d}": (0.5, 1.0) for n in range(21)}))
    code, text = invoke("--outcomes", crowd, "--alpha", 0.5, *FAST)
    assert code == 2
    assert "at most 20 members" in text


def test_a_wide_file_takes_its_costs_from_the_command_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [[f"q{n}", int(rng.random() < 0.4), int(rng.random() < 0.8)] for n in range(300)]
    path = write_csv(tmp_path / "wide.csv", ["request_id", "correct_a", "correct_b"], rows)
    costs = ("--joules", "a=1", "--joules", "b=40")
    code, text = invoke("--outcomes", path, "--alpha", 0.6, *FAST, *costs, "--policy", "FixedMixture")
    assert code == 0, text
    code, text = invoke("--outcomes", path, "--alpha", 0.6, *FAST, "--joules", "a=1", "--joules", "c=2")
    assert code == 2
    assert "unknown model 'c'" in text


def test_parquet_is_read_too(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = list(zip(*outcome_rows(50), strict=True))
    path = tmp_path / "outcomes.parquet"
    parquet.write_table(arrow.table(dict(zip(HEADER, columns, strict=True))), path)
    recorded = read_outcomes(path, None, None, {}, None)
    assert recorded.zoo.members == ("small", "large")
    assert len(recorded.request_ids) == 50


def test_requests_without_an_outcome_at_every_member_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "o.csv", HEADER, outcome_rows(50)[:-1])
    recorded = read_outcomes(path, None, None, {}, None)
    assert (len(recorded.request_ids), recorded.dropped) == (49, 1)


BAD_ROWS: dict[str, tuple[list[str], list[list[Any]], str]] = {
    "no model": (["request_id", "correct", "energy_j"], [["q", 1, 1.0]], "column model: is missing"),
    "no correct": (["request_id", "model", "energy_j"], [["q", "a", 1.0]], "column correct: is missing"),
    "no energy": (["request_id", "model", "correct"], [["q", "a", 1]], "--energy-column"),
    "no rows": (HEADER, [], "the file has no rows"),
    "nan joules": (HEADER, [["q", "a", 1, "nan"]], "column energy_j: joules must be finite and positive"),
    "negative joules": (HEADER, [["q", "a", 1, -3.0]], "column energy_j: joules must be finite and positive"),
    "infinite joules": (HEADER, [["q", "a", 1, "inf"]], "column energy_j: joules must be finite and positive"),
    "outcome of 2": (HEADER, [["q", "a", 2, 1.0]], "column correct: every outcome must lie between 0 and 1"),
    "empty outcome": (HEADER, [["q", "a", "", 1.0]], "column correct: every outcome must lie between 0 and 1"),
    "text outcome": (HEADER, [["q", "a", "yes", 1.0]], "column correct: every outcome must be a number"),
    "twice": (HEADER, [["q", "a", 1, 1.0], ["q", "a", 1, 1.0]], "several rows for the same model"),
    "two zoos": (
        [*HEADER, "zoo"],
        [["q", "a", 1, 1.0, "x"], ["q", "a", 1, 1.0, "y"]],
        "column zoo: holds x, y: choose one",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_outcome_files_name_file_column_and_rule(tmp_path: Path, name: str) -> None:
    header, rows, rule = BAD_ROWS[name]
    path = write_csv(tmp_path / "bad.csv", header, rows)
    code, text = invoke("--outcomes", path, "--alpha", 0.5)
    assert code == 2
    assert str(path) in text
    assert rule in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("header", "rows", "rule"),
    [
        (["t_s"], [[0.0]], "column request_id: is missing"),
        (["t_s", "request_id"], [], "the stream is empty"),
        (["t_s", "request_id"], [[1.0, "q1"], [0.0, "q2"]], "in order of time"),
        (["t_s", "request_id"], [["soon", "q1"]], "finite number of seconds"),
        (["t_s", "request_id"], [[0.0, "elsewhere"]], "request elsewhere has no outcome"),
        (["t_s", "request_id", "pool_event"], [[0.0, "q1", "leave huge"]], "unknown model 'huge'"),
        (["t_s", "request_id", "pool_event"], [[0.0, "q1", "explode small"]], "must be `leave MEMBER`"),
    ],
)
def test_bad_streams_name_file_column_and_rule(
    outcomes: Path, tmp_path: Path, header: list[str], rows: list[list[Any]], rule: str
) -> None:
    path = write_csv(tmp_path / "stream.csv", header, rows)
    recorded = read_outcomes(outcomes, None, None, {}, None)
    with pytest.raises(FileError, match=r"stream\.csv") as caught:
        read_stream(path, recorded)
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--alpha", 0.9), "above the best member (large reaches"),
        (("--alpha", 0), "--alpha must lie above 0"),
        (("--alpha", 0.5, "--policy", "Magic"), "unknown policy 'Magic'"),
        (("--alpha", 0.5, "--zoo", "x"), "column zoo: is missing"),
        (("--alpha", 0.5, "--safest", "huge"), "unknown model 'huge'"),
        (("--alpha", 0.5, "--feedback", 0), "--feedback must lie above 0"),
        (("--alpha", 0.5, "--seeds", 0), "--seeds must be at least 1"),
        (("--alpha", 0.5, "--requests-count", 0), "--requests-count must be at least 1"),
        (("--alpha", 0.5, "--interval-requests", 0), "--interval-requests must be at least 1"),
        (("--alpha", 0.5, "--interval-seconds", 5), "need the times of a --stream"),
        (("--alpha", 0.5, "--order", "sorted"), "needs categories"),
        (("--alpha", 0.5, "--joules", "small"), "--joules must be MEMBER=NUMBER"),
        (("--alpha", 0.5, "--energy-column", "joules"), "column joules: is missing"),
        (("--alpha", 0.5, "--json", "/nonexistent/x.json", "--seeds", 1, "--requests-count", 10), "cannot be written"),
    ],
)
def test_bad_options_are_one_sentence_and_exit_2(outcomes: Path, options: tuple[object, ...], rule: str) -> None:
    code, text = invoke("--outcomes", outcomes, *options)
    assert code == 2
    assert rule in text


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    code, text = invoke("--outcomes", tmp_path / "none.csv", "--alpha", 0.5)
    assert code == 2
    assert "there is no such file" in text
