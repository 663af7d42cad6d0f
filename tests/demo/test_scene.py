from __future__ import annotations

import json

import pytest

from e2e.demo import settings
from e2e.demo.collect import read_replies
from e2e.demo.scene import read_pool, read_profiles, shorten_startups
from e2e.emulator.table import read_table
from e2e.load.schedule import make_schedule
from wattzoo.api.parse import parse


def test_the_pools_profiles_are_shipped_and_valid_in_the_demos_namespace() -> None:
    profiles = read_profiles()
    wanted = {variant["profile"] for member in read_pool()["spec"]["members"] for variant in member["variants"]}
    assert {profile["metadata"]["name"] for profile in profiles} == wanted
    for profile in shorten_startups(profiles):
        assert parse(profile).metadata.namespace == settings.NAMESPACE


def test_a_shorter_start_draws_the_same_power() -> None:
    (profile,) = shorten_startups([{"spec": {"startup": {"seconds": 300, "joules": 30_000}, "points": []}}], scale=0.1)
    assert profile["spec"]["startup"] == {"seconds": 30, "joules": 3_000}
    (short,) = shorten_startups([{"spec": {"startup": {"seconds": 4, "joules": 400}, "points": []}}], scale=0.1)
    assert short["spec"]["startup"] == {"seconds": 1, "joules": 100}  # never below a second, still 100 W


def test_ten_minutes_bring_each_service_three_thousand_feedbacks() -> None:
    run = settings.Run(minutes=10.0, seed=settings.SEED, steady_seconds=0.0)
    table = read_table(settings.TABLE)
    ids = {name: table.ids_of(name) for name in settings.SERVICES}
    schedule = make_schedule(settings.make_load_shape(run), settings.service_loads(), ids, run.seed)
    assert len(schedule) == pytest.approx(settings.MEAN_RPS * run.load_seconds, rel=0.05)
    for name in settings.SERVICES:
        mine = [arrival for arrival in schedule if arrival.service.name == name]
        assert len(mine) >= 3_000
        assert all(arrival.feedback and arrival.request_id.startswith(f"{name}-") for arrival in mine)


def test_the_target_is_83_percent_of_the_largest_model() -> None:
    table = read_table(settings.TABLE)
    for name in settings.SERVICES:
        best = sum(table.outcomes["large"][request][1] for request in table.ids_of(name)) / len(table.ids_of(name))
        assert pytest.approx(0.83 * best, abs=0.001) == settings.TARGET


def test_clients_records_become_replies() -> None:
    row = {
        "service": "chat", "request_id": "chat-1", "t_sent": 10.0, "latency_seconds": 3.2, "first_token_seconds": 0.2,
        "output_tokens": 101, "code": "200", "member": "large", "satisfied": True, "feedback": True,
    }  # fmt: skip
    whole, silent, short, cut = read_replies(
        [
            json.dumps(row),
            json.dumps(row | {"feedback": False, "first_token_seconds": None}),
            json.dumps(row | {"output_tokens": 1}),
            json.dumps(row | {"code": "TruncatedStream", "output_tokens": None, "satisfied": None}),
        ]
    )
    assert (whole.done_at_seconds, whole.ttft_seconds, whole.status, whole.satisfied) == (13.2, 0.2, 200, True)
    assert whole.tpot_seconds == pytest.approx(3.0 / 100)  # 3 s for the 100 tokens after the first
    assert (silent.satisfied, silent.ttft_seconds, silent.tpot_seconds) == (None, None, None)
    assert short.tpot_seconds is None
    assert (cut.failed, cut.status, cut.satisfied) == (True, 0, None)
