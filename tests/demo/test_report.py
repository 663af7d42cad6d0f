from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from e2e.demo.measures import Slo
from e2e.demo.picture import draw_picture
from e2e.demo.prose import render_text
from e2e.demo.recording import EnergySample, LatencyCount, Moment, PodLife, Recording, Replicas, Reply, Write
from e2e.demo.report import Comparison, PlantRun, make_report

FACTS: dict[str, Any] = {
    "commit": "abc",
    "minutes": 1.0,
    "targets": {"chat": 0.5},
    "latency_bounds_seconds": {"ttft": 2.0, "tpot": 0.06},
    "emulated": "GPUs and model servers",
    "squeezed": {"day": "into a minute"},
}


def make_recording() -> Recording:
    replies = tuple(
        Reply("chat", str(i), i * 0.05, i * 0.05 + 1.0, 200, "small", 0.2, 0.03, 50, satisfied=i % 2 == 0)
        for i in range(1200)
    )
    return Recording(
        facts=FACTS,
        load_seconds=60.0,
        replies=replies,
        moments=(
            Moment(0.0, {"chat": {"large": 1.0}}, {"large": Replicas(1, 1, 0)}, 500.0, {"chat": None}, {"chat": None}),
            Moment(30.0, {"chat": {"small": 1.0}}, {"small": Replicas(2, 1, 1)}, 100.0, {"chat": 0.5}, {"chat": 9.0}),
        ),
        pods=(PodLife("small", "p", -10.0, -5.0),),
        energy=(EnergySample("g", "p", -1.0, 0.0), EnergySample("g", "p", 99.0, 10_000.0)),
        latency=(LatencyCount("p", 60.5, 1194.0, 1200.0, 1200.0, 1200.0),),
        writes=(Write(-30.0, "update", "leases", "", "wattzoo"), Write(5.0, "patch", "httproutes", "", "chat")),
        steady_window=(-60.0, 0.0),
        emulator_lag_p99_ms=40.0,
    )


def make_comparison(largest_joules: float = 12_190.0) -> Comparison:
    slo = Slo(0.999, 1.0, 1200)
    run = PlantRun(6_000.0, slo, {"chat": 0.5}, "as recorded", reached_goal=True)
    return Comparison(run, replace(run, energy_joules=largest_joules), replace(run, energy_joules=5_000.0))


def test_the_fields_that_others_read() -> None:
    report = make_report(make_recording(), make_comparison())
    assert report["valid"] is True
    assert report["requests"]["sent"] == 1200
    assert report["requests"]["failed"] == 0
    # 10 kJ over 100 s; the load's last answer comes at 1199 * .05 + 1 = 60.95 s
    assert abs(report["energy_joules"]["measured"] - 6_095.0) < 1e-6
    assert report["energy_joules"]["replayed"] == 6_000.0
    assert report["slo"]["ttft_attainment"] == 1194 / 1200
    assert report["writes_when_steady"] == 0
    assert report["steady"]["lease"] == 1
    assert report["writes_under_load"]["changes"] == 1
    service = report["services"][0]
    assert (service["name"], service["target"], service["achieved"], service["feedback_count"]) == (
        "chat",
        0.5,
        0.5,
        1200,
    )
    assert service["worst_deficit"] == 0.0
    assert service["violated_after_n0"] is False
    json.dumps(report, allow_nan=False)


def test_half_the_energy_is_called_half() -> None:
    report = make_report(make_recording(), make_comparison(largest_joules=12_190.0))
    assert round(report["plant"]["hpa_largest"]["measured_against_it_percent"]) == -50
    assert "50 % less energy than always the largest model" in render_text(report)
    assert "as recorded" in render_text(report)  # what of the run was replayed


def test_worse_is_called_worse() -> None:
    report = make_report(make_recording(), make_comparison())
    text = render_text(report)
    assert "22 % MORE energy than the cheapest fixed mixture" in text
    assert any("more energy than fixed_mix_hpa" in warning for warning in report["warnings"])


def test_a_failed_request_makes_the_report_invalid_and_counts_against_latency() -> None:
    recording = make_recording()
    broken = replace(recording.replies[0], status=503, ttft_seconds=None, tpot_seconds=None, satisfied=None)
    report = make_report(replace(recording, replies=(broken, *recording.replies[1:])), None)
    assert report["valid"] is False
    assert report["requests"]["failed_by_status"] == {"503": 1}
    assert report["slo"]["client_ttft_attainment"] == 1199 / 1200
    assert "draw no conclusion" in render_text(report)


def test_lag_unknown_or_too_large_makes_the_report_invalid() -> None:
    for lag in (None, 251.0):
        assert make_report(replace(make_recording(), emulator_lag_p99_ms=lag), None)["valid"] is False


def test_missing_energy_is_unknown_not_zero() -> None:
    report = make_report(replace(make_recording(), energy=()), make_comparison())
    assert report["energy_joules"]["measured"] is None
    assert report["valid"] is False


def test_a_saved_recording_gives_the_same_report(tmp_path: Path) -> None:
    recording = make_recording()
    recording.save(tmp_path / "recording.json")
    loaded = Recording.load(tmp_path / "recording.json")
    assert make_report(loaded, make_comparison()) == make_report(recording, make_comparison())


def test_the_picture_is_drawn_with_and_without_a_comparison(tmp_path: Path) -> None:
    recording = make_recording()
    for comparison in (None, make_comparison()):
        draw_picture(recording, make_report(recording, comparison), tmp_path / "demo.png")
        assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
