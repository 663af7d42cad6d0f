"""Adopted Deployments that more than one variant lays claim to."""

from __future__ import annotations

import pytest

from tests.builders import make_member, make_meta, make_model_pool, make_variant
from tests.controller.world import POOL, World
from wattzoo.model import Kind, Manifest


@pytest.mark.parametrize("where", ["one pool", "two pools"])
async def test_a_deployment_adopted_twice_is_scaled_for_one(where: str) -> None:
    """Two variants that want one and three replicas of it would undo each other in every pass."""

    def adopted(member: str, least: int) -> Manifest:
        ref = {"kind": "Deployment", "name": "vllm"}
        return make_member(member, [make_variant(workloadRef=ref, minReplicas=least)])

    world = World()
    small, large = adopted("small", 1), adopted("large", 3)
    world.cluster.add(
        Kind.MODEL_POOL, make_model_pool(members=[small, large if where == "one pool" else make_member()])
    )
    if where == "two pools":
        world.cluster.add(Kind.MODEL_POOL, make_model_pool("other", members=[large]))
    container = {"name": "server", "resources": {"requests": {"nvidia.com/gpu": "1"}}}
    template = {"metadata": {"labels": {"app": "vllm"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "vllm"}}, "template": template}
    world.cluster.add(Kind.DEPLOYMENT, {"metadata": make_meta("vllm"), "spec": spec})
    await world.run(10, rps=1.0)
    counts = [w.body["spec"]["replicas"] for w in world.cluster.server_writes() if w.ref.name == "vllm"]
    assert len(counts) <= 1
    refused = world.condition(Kind.MODEL_POOL, POOL, "Degraded")
    assert (refused["status"], refused["reason"]) == ("True", "InvalidSpec")
