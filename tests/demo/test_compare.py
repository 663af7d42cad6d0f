from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from e2e.demo import settings
from e2e.demo.compare import (
    compare,
    make_scenario,
    make_variants,
    recorded_pods,
    recorded_weights,
    replay_setting,
)
from e2e.demo.recording import Moment, PodLife, Recording, Reply
from e2e.emulator.table import read_table
from wattzoo_policies.sim.closed_loop import replay_closed_loop

FACTS = {"targets": {"chat": 0.519, "search": 0.519}, "latency_bounds_seconds": {"ttft": 2.0, "tpot": 0.06}}
LARGE, HALF = {"large-h100": 1.0}, {"large-h100": 0.5, "small-l4": 0.5}


def moment(at_seconds: float, shares: dict[str, float]) -> Moment:
    return Moment(at_seconds, {"chat": shares, "search": shares}, {}, None, {}, {})


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Two requests a second for a minute; from second 20 on half of them are served by a replica that came at 10."""
    table = read_table(settings.TABLE)
    replies = tuple(
        Reply(name, request, 0.5 * turn, 0.5 * turn + 4.0, 200, satisfied=True)
        for name in settings.SERVICES
        for turn, request in enumerate(table.ids_of(name)[:60])
    )
    return Recording(
        facts=FACTS,
        load_seconds=30.0,
        replies=replies,
        moments=(moment(0.7, LARGE), moment(1.7, LARGE), moment(20.0, HALF), moment(21.0, HALF)),
        pods=(PodLife("large-h100", "a", -40.0, -10.0), PodLife("small-l4", "b", 1.0, 10.0)),
        energy=(),
        latency=(),
        writes=(),
        steady_window=(-30.0, 0.0),
        emulator_lag_p99_ms=1.0,
    )


def test_weights_are_kept_only_where_they_changed_and_hold_from_the_beginning(recording: Recording) -> None:
    steps = recorded_weights(recording)
    assert [(at_seconds, dict(weights["chat"])) for at_seconds, weights in steps] == [(0.0, LARGE), (20.0, HALF)]


def test_the_plants_variants_are_the_pools_with_shortened_starts() -> None:
    variants = {variant.name: variant for variant in make_variants()}
    assert set(variants) == {"small-l4", "medium-a100", "large-h100"}
    large = variants["large-h100"]
    assert (large.member, large.model.accelerators, large.min_replicas) == ("large", 4, 2)
    assert large.model.startup_seconds == pytest.approx(300 * settings.LOADING_SCALE)
    assert large.model.max_sequences == 128  # as the server's arguments say


def test_the_scenario_holds_every_request_in_the_order_of_sending(recording: Recording) -> None:
    scenario = make_scenario(replace(recording, replies=recording.replies[::-1]), settings.TABLE)
    times = [request.at_seconds for request in scenario.requests]
    assert times == sorted(times)
    assert len(times) == len(recording.replies)
    assert {service: target.alpha for service, target in scenario.services.items()} == FACTS["targets"]
    assert scenario.end_seconds == 33.5  # the last answer: sent at 29.5, done 4 s later


def test_pods_keep_their_lives(recording: Recording) -> None:
    assert [(pod.variant, pod.started_seconds, pod.ready_seconds) for pod in recorded_pods(recording)] == [
        ("large-h100", -40.0, -10.0),
        ("small-l4", 1.0, 10.0),
    ]


def test_what_the_first_look_found_was_there_from_the_beginning(recording: Recording) -> None:
    found = PodLife("large-h100", "a", 0.7, 0.7, serving_steps=((0.7, True), (20.0, False)))  # the first moment is .7
    came = PodLife("small-l4", "b", 1.7, 12.0, serving_steps=((1.7, True),))
    first, second = recorded_pods(replace(recording, pods=(found, came)))
    assert (first.started_seconds, first.ready_seconds, first.serving) == (0.0, 0.0, ((0.0, True), (20.0, False)))
    assert (second.started_seconds, second.ready_seconds, second.serving) == (1.7, 12.0, ((1.7, True),))


def with_silence(recording: Recording) -> Recording:
    """The small replica falls silent at second 15, before any request is meant for it, and is never woken."""
    large, small = recording.pods
    small = replace(small, serving_steps=((1.0, True), (15.0, False)))
    return replace(recording, pods=(replace(large, serving_steps=((-40.0, True),)), small))


def test_the_setting_says_whether_silence_was_replayed(recording: Recording) -> None:
    assert "silent is unknown, so all ready ones serve" in replay_setting(recording)
    assert "(pods that were silent: 1 of 2; silences: 1)" in replay_setting(with_silence(recording))


def test_silence_is_saved_and_a_recording_without_it_still_loads(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    with_silence(recording).save(path)
    assert Recording.load(path).pods == with_silence(recording).pods
    raw = json.loads(path.read_text(encoding="utf-8"))
    for row in raw["pods"]:
        del row["serving_steps"]
    path.write_text(json.dumps(raw), encoding="utf-8")
    older = Recording.load(path)
    assert older.pods == recording.pods
    assert [pod.serving for pod in recorded_pods(older)] == [(), ()]


def test_a_silent_pod_of_the_run_takes_no_request_in_the_replay(recording: Recording) -> None:
    silent = with_silence(recording)
    steps, scenario = recorded_weights(recording), make_scenario(recording, settings.TABLE)
    result = replay_closed_loop(scenario, recorded_pods(silent), steps, np.random.default_rng(0))
    small = next(variant.model for variant in make_variants() if variant.member == "small")
    assert result.energy["small-l4"].active_joules == 0.0
    assert result.energy["small-l4"].idle_joules == pytest.approx((33.5 - 10.0) * small.idle_watts)  # ready at 10
    assert result.failed == 0  # the large replica answers all


def test_a_replay_costs_what_its_replicas_draw_and_baselines_say_what_they_tried(recording: Recording) -> None:
    result = compare(recording)
    large, small = (next(v.model for v in make_variants() if v.member == name) for name in ("large", "small"))
    # one large replica draws at least its idle and at most its saturated power for 33.5 s, the small one for 32.5 s
    assert result.replayed.energy_joules > 33.5 * large.idle_watts
    assert result.replayed.energy_joules < 33.5 * large.max_watts + 32.5 * small.max_watts
    for run in (result.hpa_largest, result.fixed_mix_hpa):
        assert run.slo.requests == len(recording.replies)
        assert len(run.tried) > 3
        assert (run.energy_joules in [row["energy_joules"] for row in run.tried]) is True
    assert result.hpa_largest.energy_joules > result.replayed.energy_joules / 2
