"""`scaling.mode: KEDAMetrics`: what is wanted is exported, and replicas belong to somebody else."""

from __future__ import annotations

from tests.builders import NAMESPACE
from tests.controller.world import POOL, World
from wattzoo.model import Kind
from wattzoo.telemetry import Telemetry

LARGE = "zoo-large-h100"


class Watched(World):
    """A world whose metrics can be read."""

    def restart(self) -> None:
        """A new process, its metrics kept at hand."""
        super().restart()
        self.telemetry: Telemetry = self.reconciler._telemetry

    def wanted(self, member: str) -> float | None:
        labels = {"namespace": NAMESPACE, "modelpool": POOL.name, "member": member, "variant": "h100"}
        return self.telemetry.registry.get_sample_value("wattzoo_desired_replicas", labels)


async def started() -> Watched:
    world = Watched()
    world.cluster.get(Kind.MODEL_POOL, "zoo")["spec"]["scaling"] = {"mode": "KEDAMetrics"}
    await world.start()
    return world


async def test_a_new_deployment_begins_as_decided_and_load_changes_only_the_metric() -> None:
    world = await started()
    assert world.cluster.replicas(LARGE) == 1
    await world.run(4, rps=40.0)
    wanted = world.wanted("large")
    assert wanted is not None
    assert wanted >= 6
    assert world.cluster.replicas(LARGE) == 1
    assert [item for item in world.cluster.server_writes() if item.kind is Kind.DEPLOYMENT] == []


async def test_what_an_autoscaler_wrote_is_kept_when_something_else_changes() -> None:
    world = await started()
    world.cluster.get(Kind.DEPLOYMENT, LARGE)["spec"]["replicas"] = 4
    pool = world.cluster.get(Kind.MODEL_POOL, "zoo")
    pool["spec"]["members"][1]["variants"][0]["server"]["image"] = "vllm/vllm-openai:v9"
    pool["metadata"]["generation"] += 1
    await world.run(2)
    server = world.cluster.get(Kind.DEPLOYMENT, LARGE)["spec"]
    assert server["template"]["spec"]["containers"][0]["image"] == "vllm/vllm-openai:v9"
    assert server["replicas"] == 4


async def test_no_pod_is_silenced_under_an_autoscaler() -> None:
    world = await started()
    world.cluster.get(Kind.DEPLOYMENT, LARGE)["spec"]["replicas"] = 6
    await world.run(10, rps=1.0)
    assert world.cluster.replicas(LARGE) == 6
    assert [item for item in world.cluster.server_writes() if item.kind is Kind.POD] == []
