"""What was learned of the load survives a restart, or is learned anew: nothing is planned from what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.controller.test_forecast import AT, LEARNED, observed, seen_at
from tests.controller.world import CHAT, POOL, World
from wattzoo.decide.forecast import observe_forecasts
from wattzoo.decide.forecast_text import MOST_AGE_SECONDS, MOST_LENGTH, NAME, render_forecasts, restore_forecasts
from wattzoo.decide.memory import STEP_SECONDS, ForecastMemory
from wattzoo.decide.restore import restore_pool
from wattzoo.model import Kind, Ref
from wattzoo_policies.accuracy.state_text import read_state, write_state

RATES: list[float | None] = [float(rate) for rate in np.random.default_rng(3).gamma(20.0, 0.5, 4 * LEARNED)]
MEMORY = observed(RATES)
TEXT = render_forecasts(MEMORY)
WRITTEN = AT + 15.0 * (len(RATES) - 1)
OTHER = Ref(CHAT.namespace, "search")


def test_a_restart_goes_on_from_the_errors_that_were_learned() -> None:
    assert 0 < len(TEXT) <= MOST_LENGTH
    context, estimate = seen_at(WRITTEN + 30.0, 10.0)
    through = observe_forecasts(context, estimate, MEMORY).services[CHAT]
    again = observe_forecasts(
        context, estimate, restore_forecasts(TEXT, [CHAT], WRITTEN + 30.0, STEP_SECONDS)
    ).services[CHAT]
    assert through.next_ratio is not None
    assert again.next_ratio == pytest.approx(through.next_ratio, rel=0.01)
    assert again.care == pytest.approx(through.care, rel=0.01)
    assert again.load.next_rps == pytest.approx(through.load.next_rps, rel=0.01)
    assert again.load.high_rps == pytest.approx(through.load.high_rps, rel=0.01)


def test_it_is_dropped_when_it_is_old_or_from_the_future() -> None:
    assert restore_forecasts(TEXT, [CHAT], WRITTEN + MOST_AGE_SECONDS, STEP_SECONDS).state.loads
    for at_seconds in (WRITTEN + MOST_AGE_SECONDS + 1.0, WRITTEN - 1.0):
        assert restore_forecasts(TEXT, [CHAT], at_seconds, STEP_SECONDS) == ForecastMemory()


@pytest.mark.parametrize("services", [[], [OTHER], [CHAT, OTHER]])
def test_it_is_dropped_when_it_is_of_other_services(services: list[Ref]) -> None:
    assert restore_forecasts(TEXT, services, WRITTEN, STEP_SECONDS) == ForecastMemory()


def test_it_is_dropped_when_it_was_learned_in_other_steps() -> None:
    assert restore_forecasts(TEXT, [CHAT], WRITTEN, 5.0) == ForecastMemory(step_seconds=5.0)


def _of_another_version(body: dict[str, Any]) -> None:
    body["learned"]["version"] += 1


def _without_its_time(body: dict[str, Any]) -> None:
    del body["at"]


def _without_its_step(body: dict[str, Any]) -> None:
    del body["step"]


def _with_what_is_no_number(body: dict[str, Any]) -> None:
    body["learned"]["loads"][str(CHAT)]["level"] = float("nan")


def _with_what_is_infinite(body: dict[str, Any]) -> None:
    body["learned"]["loads"][str(CHAT)]["mean"][1] = float("inf")


def _with_other_bins(body: dict[str, Any]) -> None:
    body["learned"]["loads"][str(CHAT)]["rises"]["size"] = 10**12


@pytest.mark.parametrize(
    "damage",
    [
        _of_another_version,
        _without_its_time,
        _without_its_step,
        _with_what_is_no_number,
        _with_what_is_infinite,
        _with_other_bins,
    ],
)
def test_it_is_dropped_when_it_cannot_be_read(damage: Callable[[dict[str, Any]], None]) -> None:
    body = json.loads(json.dumps(read_state(NAME, TEXT)))
    damage(body)
    assert restore_forecasts(write_state(NAME, body), [CHAT], WRITTEN, STEP_SECONDS) == ForecastMemory()


@pytest.mark.parametrize("text", [None, 7, "", "{", TEXT[:-20], TEXT.replace(NAME, "MESSPlus")])
def test_a_text_that_is_none_of_ours_is_dropped(text: object) -> None:
    assert restore_forecasts(text, [CHAT], WRITTEN, STEP_SECONDS) == ForecastMemory()


def test_nothing_learned_is_nothing_written() -> None:
    assert render_forecasts(ForecastMemory()) == ""


async def test_the_pools_status_carries_it_over_a_restart() -> None:
    world = World()
    await world.start()
    raw = world.cluster.get(Kind.MODEL_POOL, POOL.name)
    assert raw["status"]["scaling"]["forecast"]
    forecasts = restore_pool(raw, world.now, [CHAT]).forecasts
    assert len(forecasts.state.loads[str(CHAT)].loads) > 3
    world.restart()
    await world.run(5)
    later = restore_pool(world.cluster.get(Kind.MODEL_POOL, POOL.name), world.now, [CHAT]).forecasts
    (before,), (after,) = forecasts.state.loads.values(), later.state.loads.values()
    assert after.steps > before.steps
