"""The cap while things change: what a spec's edit asks for, and pods whose Deployment is gone."""

from __future__ import annotations

import copy

from tests.builders import (
    NAMESPACE,
    START_SECONDS,
    make_accelerator_pool,
    make_member,
    make_model_pool,
    make_node,
    make_pod,
    make_variant,
)
from tests.controller.world import POOL, World
from wattzoo.labels import pod_labels
from wattzoo.model import Kind, Ref, VariantKey

LARGE = "zoo-large-h100"


def requested(world: World, name: str) -> int:
    """Accelerators that a Deployment's template and replicas ask for."""
    spec = world.cluster.get(Kind.DEPLOYMENT, name)["spec"]
    asked = spec["template"]["spec"]["containers"][0]["resources"]["requests"]["nvidia.com/gpu"]
    return int(spec["replicas"]) * int(asked)


def edit_large(world: World, **changes: object) -> None:
    raw = world.cluster.get(Kind.MODEL_POOL, "zoo")
    raw["metadata"]["generation"] += 1
    raw["spec"] = copy.deepcopy(raw["spec"])
    (variant,) = raw["spec"]["members"][1]["variants"]
    variant.update(changes)


async def test_more_accelerators_per_replica_stay_within_the_cap() -> None:
    world = World()
    world.cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool(maxAccelerators=6))
    world.cluster.add(Kind.NODE, make_node(accelerators=64))
    await world.start(rps=30.0)
    before = world.cluster.replicas(LARGE)
    assert before >= 3
    edit_large(world, acceleratorsPerReplica=4)
    for _ in range(8):
        await world.run(1, rps=30.0)
        assert requested(world, LARGE) + requested(world, "zoo-small-h100") <= 6
    placed = world.condition(Kind.MODEL_POOL, POOL, "Placed")
    assert (placed["status"], placed["reason"]) == ("False", "MaxAcceleratorsReached")
    assert f"until they fit its {before} of 1 stay as they are, however the load changes" in placed["message"]
    world.cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool(maxAccelerators=64))
    world.cluster.objects[Kind.ACCELERATOR_POOL][Ref("", "h100")]["metadata"]["generation"] = 2
    await world.run(1, rps=30.0)
    assert requested(world, LARGE) >= 4 * before
    assert world.condition(Kind.MODEL_POOL, POOL, "Placed")["status"] == "True"


async def test_a_move_to_other_accelerators_stays_within_their_cap() -> None:
    world = World()
    world.cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool("h200", "NVIDIA-H200", maxAccelerators=1))
    world.cluster.add(Kind.NODE, make_node("h200-0", "NVIDIA-H200"))
    edit_large(world, minReplicas=3)
    await world.start()
    assert world.cluster.replicas(LARGE) == 3
    edit_large(world, acceleratorPool="h200")
    for _ in range(8):
        await world.run(1, rps=30.0)
        template = world.cluster.get(Kind.DEPLOYMENT, LARGE)["spec"]["template"]
        moved = template["metadata"]["labels"]["wattzoo.dev/accelerator-pool"] == "h200"
        assert not moved or requested(world, LARGE) <= 1


async def test_pods_of_a_deleted_server_are_counted_until_they_are_gone() -> None:
    world = World()
    world.cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool(maxAccelerators=4))
    old = pod_labels("zoo", VariantKey("old", "h100"), "h100")
    left = [make_pod(f"zoo-old-h100-{n}", old, ready_since=START_SECONDS, terminating=n == 0) for n in range(3)]
    world.cluster.add(Kind.POD, *left)  # its Deployment is gone, the garbage collector is on its way
    for _ in range(4):
        await world.tick(world.traffic(60.0))
        held = sum(d["spec"]["replicas"] for d in world.cluster.objects[Kind.DEPLOYMENT].values())
        assert held + 3 <= 4
    shown = world.cluster.objects[Kind.ACCELERATOR_POOL][Ref("", "h100")]["status"]
    assert shown["allocatedByWattZoo"] == 4


async def test_pods_of_a_deleted_pool_are_counted_until_they_are_gone() -> None:
    world = World()
    world.cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool(maxAccelerators=4))
    world.cluster.add(Kind.MODEL_POOL, make_model_pool("other", members=[make_member("only", [make_variant()])]))
    edit_large(world, minReplicas=3)
    await world.start()
    held = sum(d["spec"]["replicas"] for d in world.cluster.objects[Kind.DEPLOYMENT].values())
    assert held == 4
    del world.cluster.objects[Kind.MODEL_POOL][POOL]
    for name in ("zoo-small-h100", LARGE):
        del world.cluster.objects[Kind.DEPLOYMENT][Ref(NAMESPACE, name)]
    raw = world.cluster.get(Kind.MODEL_POOL, "other")
    raw["spec"]["members"][0]["variants"][0]["minReplicas"] = 4
    raw["metadata"]["generation"] += 1
    pods = len(world.cluster.objects[Kind.POD])
    for _ in range(3):
        await world.tick(world.traffic(0.0))
        others = world.cluster.objects[Kind.DEPLOYMENT].values()
        assert sum(d["spec"]["replicas"] for d in others) <= max(0, 4 - pods)
