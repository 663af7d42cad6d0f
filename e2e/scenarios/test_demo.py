"""`make demo MINUTES=3` from end to end: what a short run must keep. Energy against the baselines is the long run's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.demo import settings
from e2e.emulator.launch import source_environment

MINUTES = 3
TIMEOUT_SECONDS = 900


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report's folder after one run, in a cluster of its own."""
    out = tmp_path_factory.mktemp("demo-report")
    command = [sys.executable, "-m", "e2e.demo", "--minutes", str(MINUTES), "--out", str(out), "--steady-seconds", "30"]
    done = subprocess.run(
        command,
        cwd=settings.REPOSITORY,
        env=os.environ | source_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    (out / "output.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return out


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return body


pytestmark = pytest.mark.timeout(TIMEOUT_SECONDS + 60)


def test_no_request_failed_and_the_emulator_kept_up(report: dict[str, Any]) -> None:
    assert report["valid"] is True
    assert report["requests"]["failed"] == 0
    assert report["requests"]["sent"] == pytest.approx(settings.MEAN_RPS * 60 * MINUTES, rel=0.1)
    assert report["emulator_lag_p99_ms"] <= 250


def test_every_answer_was_judged_and_members_were_mixed(report: dict[str, Any]) -> None:
    assert [service["name"] for service in report["services"]] == list(settings.SERVICES)
    for service in report["services"]:
        assert service["feedback_count"] == service["requests"] > 800
        assert service["achieved"] >= service["target"] - 0.05
        assert len(set(service["answered_by"]) & {"small", "medium", "large"}) >= 2


def test_latency_bounds_are_kept(report: dict[str, Any]) -> None:
    assert report["slo"]["requests"] == report["requests"]["sent"]
    assert report["slo"]["ttft_attainment"] >= 0.97
    assert report["slo"]["tpot_attainment"] >= 0.95


def test_the_replay_agrees_with_what_prometheus_measured(report: dict[str, Any]) -> None:
    energy = report["energy_joules"]
    assert min(energy.values()) > 0
    assert energy["replayed"] == pytest.approx(energy["measured"], rel=0.10)


def test_a_steady_service_writes_nothing_but_its_lease(report: dict[str, Any]) -> None:
    assert report["writes_when_steady"] == 0
    assert report["steady"]["lease"] > 0
    assert report["steady"]["status"] <= report["steady"]["status_checkpoints_allowed"]
    assert report["writes_under_load"]["changes"] > 0


def test_the_report_owns_up_to_what_it_is(report: dict[str, Any], folder: Path) -> None:
    assert {"load"} <= set(report["seeds"])
    assert report["squeezed"]
    assert "discrete-event model" in report["emulated"]
    text = (folder / "report.txt").read_text(encoding="utf-8")
    assert "always the largest model" in text
    assert "cheapest fixed mixture" in text
    assert (folder / "demo.png").stat().st_size > 20_000
    assert "everything taken down" in (folder / "output.txt").read_text(encoding="utf-8")
