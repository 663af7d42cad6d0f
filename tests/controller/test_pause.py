"""Whole passes over what is paused or only observed: nothing is written but status, and leaving it moves nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders import make_llm_service, make_model_pool
from tests.controller.test_weights import LARGE, SMALL, make_state
from tests.controller.world import CHAT, POOL, World
from wattzoo.api.parse import parse_llm_service
from wattzoo.decide.memory import PoolEstimate, ServiceMemory
from wattzoo.decide.pipeline import ServiceInputs, decide_service
from wattzoo.decisions import MemberEnergy
from wattzoo.model import ANNOTATION_PAUSED, TOTAL_WEIGHT, Kind

SERVICE, MODEL_POOL = Kind.LLM_SERVICE, Kind.MODEL_POOL


@pytest.mark.parametrize("way", ["mode", "annotation"])
async def test_observe_and_pause_write_nothing_but_status(way: str) -> None:
    world = World()
    for kind, build in ((MODEL_POOL, make_model_pool), (SERVICE, make_llm_service)):
        raw = build(mode="Observe") if way == "mode" else build()
        if way == "annotation":
            raw["metadata"]["annotations"] = {ANNOTATION_PAUSED: "true"}
        world.cluster.add(kind, raw)
    for _ in range(4):
        await world.tick()
    assert world.cluster.server_writes() == []
    assert world.condition(SERVICE, CHAT, "Paused")["status"] == "True"
    assert world.condition(MODEL_POOL, POOL, "Paused")["status"] == "True"
    assert world.cluster.get(MODEL_POOL, "zoo")["status"]["plan"]["message"]


async def test_leaving_the_pause_does_not_jump() -> None:
    world = World()
    await world.start()
    before = world.weights()
    raw = world.cluster.get(SERVICE, "chat")
    raw["metadata"]["annotations"] = {ANNOTATION_PAUSED: "true"}
    await world.run(3)
    assert world.weights() == before
    del raw["metadata"]["annotations"]
    world.cluster.get(SERVICE, "chat")["metadata"].pop("annotations", None)
    await world.run(1)
    moved = sum(abs(a - b) for a, b in zip(before, world.weights(), strict=True)) / TOTAL_WEIGHT
    assert moved < 0.5


def ask_at(at_seconds: float, target_per_mille: int, memory: ServiceMemory, joules: float = 1.0) -> ServiceMemory:
    """One pass over a service of small (60 % satisfied, `joules` a request) and large (90 %, 4 J), both ready."""
    members = [
        {"name": name, "accuracyPriorPerMille": rate, "priorSamples": 100}
        for name, rate in (("small", 600), ("large", 900))
    ]
    raw = make_llm_service(target_per_mille=target_per_mille, members=members, controller={"policy": "FixedMixture"})
    inputs = ServiceInputs(
        spec=parse_llm_service(raw).spec,
        member_names=("small", "large"),
        states=tuple(make_state(key, 1) for key in (SMALL, LARGE)),
        estimate=PoolEstimate(at_seconds, energy={"small": MemberEnergy(joules, joules), "large": MemberEnergy(4, 4)}),
        live={},
        outcomes=(),
        retiring=frozenset(),
        load_rps=4.0,
        pool_rps=None,
        at_seconds=at_seconds,
    )
    return decide_service(inputs, memory, np.random.default_rng(1))[1]


def weights(memory: ServiceMemory) -> list[int]:
    assert memory.decision is not None
    return [memory.decision.weights[key] for key in (SMALL, LARGE)]


def test_a_changed_spec_is_decided_for_at_once() -> None:
    """A pause goes on deciding: leaving it must not send out what was decided for the promise of a moment ago."""
    memory = ask_at(100.0, 900, ServiceMemory())
    assert weights(memory) == [0, TOTAL_WEIGHT]
    memory = ask_at(101.0, 750, memory)
    assert weights(memory) == [TOTAL_WEIGHT // 2, TOTAL_WEIGHT // 2]  # half of 60 % and half of 90 % are 75 %


def test_the_same_spec_waits_for_its_interval() -> None:
    memory = ask_at(100.0, 750, ServiceMemory())
    memory = ask_at(101.0, 750, memory, joules=5.0)
    assert weights(memory) == [TOTAL_WEIGHT // 2, TOTAL_WEIGHT // 2]
    memory = ask_at(115.0, 750, memory, joules=5.0)  # small is the dearer one now
    assert weights(memory) == [0, TOTAL_WEIGHT]
