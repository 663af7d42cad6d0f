"""What a ModelProfile's status says: that its figures can be one replica's, how well the law fits, or what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.builders import NAMESPACE, make_profile
from tests.controller.world import POOL, World
from wattzoo.api.parse import parse_model_profile
from wattzoo.decide.capacity import MAX_FIT_ERROR, find_poor_fit, fit_profile
from wattzoo.decisions import Finding
from wattzoo.model import Kind, Manifest, Ref

FAST = Ref(NAMESPACE, "fast")
SHIPPED = Path(__file__).parents[2] / "examples" / "profiles"


def changed(**fields: Any) -> Manifest:
    """The profile `fast` in its second generation, the last of its points changed."""
    profile = make_profile()
    profile["spec"]["points"][-1] |= fields
    profile["metadata"]["generation"] = 2
    return profile


def shown(world: World, kind: str) -> tuple[str, str, str]:
    row = world.condition(Kind.MODEL_PROFILE, FAST, kind)
    return row["status"], row["reason"], row["message"]


async def test_a_good_profile_says_how_well_the_law_fits() -> None:
    world = World()
    await world.tick()
    status, reason, message = shown(world, "Ready")
    assert (status, reason) == ("True", "Available")
    assert "fitted to 2 points is off by 0.0% on average" in message  # two points make a line
    assert shown(world, "Degraded")[:2] == ("False", "AsExpected")
    assert world.cluster.get(Kind.MODEL_PROFILE, "fast")["status"]["observedGeneration"] == 1


async def test_nothing_is_written_while_nothing_changes() -> None:
    world = World()
    await world.tick()
    world.cluster.writes.clear()
    for _ in range(12):  # three minutes: longer than a checkpoint's
        await world.tick()
    assert not [item for item in world.cluster.writes if item.kind is Kind.MODEL_PROFILE]
    world.restart()
    await world.tick()
    assert not [item for item in world.cluster.writes if item.kind is Kind.MODEL_PROFILE]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        # 32 requests at 32 ms per token make 1000 tokens/s; twice that is refused
        (
            {"outputTokensPerSecond": 2001},
            "spec.points[].outputTokensPerSecond: 2001 tokens/s contradict timePerOutputTokenMicroseconds.p50, "
            "which allows 1000 (at 32 requests)",
        ),
        # from 10 ms at 1 to 620 ms at 32 a line passes below zero at no load
        (
            {"timePerOutputTokenMicroseconds": {"p50": 620_000, "p95": 620_000}, "outputTokensPerSecond": 50},
            "spec.points[].timePerOutputTokenMicroseconds.p50: the step time at batch 0",
        ),
    ],
)
async def test_points_that_are_no_replica_are_named_by_object_field_and_rule(
    fields: dict[str, Any], message: str
) -> None:
    world = World()
    world.cluster.add(Kind.MODEL_PROFILE, changed(**fields))
    await world.tick()
    for kind, status in (("Ready", "False"), ("Degraded", "True")):
        assert shown(world, kind)[:2] == (status, "PointsContradict")
        assert shown(world, kind)[2].startswith(f"ModelProfile/{NAMESPACE}/fast: {message}")
    pool = world.condition(Kind.MODEL_POOL, POOL, "Degraded")
    assert pool["reason"] == "PointsContradict"
    assert pool["message"].startswith("large/h100, ModelProfile fast: spec.points")
    assert world.cluster.server_writes()  # the measured points still say what a replica carries


async def test_latencies_that_never_rise_are_no_work() -> None:
    world = World()
    profile = make_profile()
    for point in profile["spec"]["points"]:
        point["timeToFirstTokenMicroseconds"] = {"p50": 10_000, "p95": 10_000}
        point["timePerOutputTokenMicroseconds"] = {"p50": 10_000, "p95": 10_000}
    world.cluster.add(Kind.MODEL_PROFILE, profile)
    await world.tick()
    assert shown(world, "Ready")[:2] == ("False", "PointsContradict")
    assert "no latency rises with load" in shown(world, "Ready")[2]


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("powerWatts", -5, "spec.points[1].powerWatts"),
        ("outputTokensPerSecond", float("nan"), "spec.points[1].outputTokensPerSecond"),
    ],
)
async def test_figures_that_are_no_measurements_are_refused(field: str, value: float, path: str) -> None:
    world = World()
    world.cluster.add(Kind.MODEL_PROFILE, changed(**{field: value}))
    await world.tick()
    status, reason, message = shown(world, "Ready")
    assert (status, reason) == ("False", "InvalidSpec")
    assert message.startswith(f"ModelProfile/{NAMESPACE}/fast: {path}: ")
    assert world.condition(Kind.MODEL_POOL, POOL, "Degraded")["reason"] == "InvalidSpec"


async def test_one_point_is_too_few_and_a_second_one_cures_it() -> None:
    world = World()
    broken = make_profile()
    broken["spec"]["points"] = broken["spec"]["points"][:1]
    world.cluster.add(Kind.MODEL_PROFILE, broken)
    await world.tick()
    assert shown(world, "Ready")[:2] == ("False", "InvalidSpec")
    assert f"ModelProfile/{NAMESPACE}/fast: spec.points: " in shown(world, "Ready")[2]
    cured = {**make_profile(), "status": world.cluster.get(Kind.MODEL_PROFILE, "fast")["status"]}
    cured["metadata"]["generation"] = 2
    world.cluster.add(Kind.MODEL_PROFILE, cured)
    await world.tick()
    assert shown(world, "Ready")[:2] == ("True", "Available")
    assert world.cluster.get(Kind.MODEL_PROFILE, "fast")["status"]["observedGeneration"] == 2


def test_a_law_that_does_not_follow_the_points_is_called_poor() -> None:
    """Time per token 10, 50, 10 ms at 1, 16, 32 requests: on no line, and off by more than a fifth on average."""
    profile = make_profile()
    low, high = profile["spec"]["points"]
    middle = {**high, "runningRequests": 16, "timePerOutputTokenMicroseconds": {"p50": 50_000, "p95": 50_000}}
    middle["outputTokensPerSecond"] = 320
    high["timePerOutputTokenMicroseconds"] = {"p50": 10_000, "p95": 10_000}
    # two points at 8 and more make the law: a falling line, so their mean of 30 ms, off by 40 % and 200 %
    profile["spec"]["points"] = [low, middle, high]
    fit = fit_profile(parse_model_profile(profile).spec)
    assert not isinstance(fit, Finding)
    assert fit.tpot_error_mean == pytest.approx((0.4 + 2.0) / 2)
    poor = find_poor_fit(fit)
    assert poor is not None
    assert poor.reason == "FitPoor"
    assert poor.message == (
        "spec.points[].timePerOutputTokenMicroseconds.p50: the fitted law is off by 120% on average, "
        f"above {MAX_FIT_ERROR:.0%}"
    )


async def test_a_poor_fit_degrades_and_does_not_stop() -> None:
    world = World()
    profile = make_profile()
    low, high = profile["spec"]["points"]
    middle = {**high, "runningRequests": 16, "powerWatts": 2000}
    profile["spec"]["points"] = [low, middle, high]  # 2 kW at 16 requests and 600 W at 32
    world.cluster.add(Kind.MODEL_PROFILE, profile)
    await world.tick()
    assert shown(world, "Ready")[:2] == ("True", "Available")
    assert shown(world, "Degraded")[:2] == ("True", "FitPoor")
    assert world.cluster.server_writes()


def test_every_profile_that_is_shipped_fits() -> None:
    profiles = [doc for path in SHIPPED.glob("*.yaml") for doc in yaml.safe_load_all(path.read_text()) if doc]
    fits = {doc["metadata"]["name"]: fit_profile(parse_model_profile(doc).spec) for doc in profiles}
    assert len(fits) > 20
    assert not {name: fit for name, fit in fits.items() if isinstance(fit, Finding) or find_poor_fit(fit) is not None}
