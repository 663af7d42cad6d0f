from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from e2e.emulator.exporter import render_gpu_metrics
from e2e.emulator.faults import Faults
from e2e.emulator.fleet import DRAINED, LOADED, Fleet
from e2e.emulator.kube import WatchEvent, WatchKind
from e2e.emulator.profiles import EngineFactory, make_replica_model, max_sequences_of
from e2e.emulator.roles import Role, gpu_count, resolve_role
from e2e.scenarios.emulated_workload import render_profile
from tests.emulator.plant_time import HandTurnedLoop, make_clock
from wattzoo_policies.sim.request import PlantRequest

POOL = {
    "metadata": {"namespace": "team", "name": "llama"},
    "spec": {
        "servedModelName": "chat",
        "members": [
            {"name": "small", "variants": [{"name": "l4", "profile": "small-l4"}]},
            {"name": "medium", "variants": [{"name": "a100", "profile": "medium-a100"}]},
        ],
    },
}
NODE = {
    "metadata": {"name": "a100-0", "labels": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}},
    "status": {"capacity": {"nvidia.com/gpu": "4"}},
}


def make_pod(name: str, gpus: int = 1, **changes: Any) -> dict[str, Any]:
    labels = {
        "wattzoo.dev/model-pool": "llama",
        "wattzoo.dev/member": "medium",
        "wattzoo.dev/variant": "a100",
    }
    metadata: dict[str, Any] = {
        "uid": f"uid-{name}",
        "namespace": "team",
        "name": name,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": labels,
    }
    container = {"name": "server", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    number = int(name.rsplit("-", 1)[1])
    return {
        "metadata": metadata | changes,
        "spec": {"nodeName": "a100-0", "containers": [container]},
        "status": {"phase": "Running", "podIP": f"10.244.1.{number}"},
    }


class World:
    """A fleet, its clock and what the API server would say to it."""

    def __init__(self) -> None:
        clock, self.loop = make_clock()
        self.clock = clock
        self.faults = Faults()
        self.fleet = Fleet(EngineFactory(clock, 0.5).make_engine, self.faults, drain_quiet_seconds=3.0)
        self.fleet.observe_nodes(WatchEvent(WatchKind.SYNC, (NODE,)), self.now)
        profile = render_profile("team", startup_seconds=10)
        self.fleet.observe_profiles(WatchEvent(WatchKind.SYNC, (profile,)), self.now)
        self.fleet.observe_pools(WatchEvent(WatchKind.SYNC, (POOL,)), self.now)

    @property
    def now(self) -> float:
        return self.clock.now_seconds()

    def tell(self, kind: WatchKind, *pods: Mapping[str, Any]) -> None:
        self.fleet.observe_pods(WatchEvent(kind, tuple(dict(pod) for pod in pods)), self.now)

    def due(self) -> list[tuple[str, str]]:
        return [(wish.pod.name, wish.key) for wish in self.fleet.due(self.now)]

    def turn(self, seconds: float) -> HandTurnedLoop:
        self.loop.turn(seconds)
        return self.loop


def test_a_pod_is_loaded_after_its_scaled_start_and_asked_for_until_seen() -> None:
    world = World()
    world.tell(WatchKind.ADDED, make_pod("p-1"))
    pod = world.fleet.by_address["10.244.1.1"]
    world.turn(4.9)  # 10 s of the profile, halved
    assert world.due() == []
    assert not world.fleet.is_serving(pod)
    world.turn(0.2)
    assert world.fleet.is_serving(pod)
    assert world.due() == [("p-1", LOADED)]
    assert world.due() == []  # just asked for
    world.turn(2.1)
    assert world.due() == [("p-1", LOADED)]  # not seen yet
    world.tell(WatchKind.MODIFIED, make_pod("p-1", annotations={LOADED: "true"}))
    world.turn(2.1)
    assert world.due() == []


def test_a_pod_that_was_loaded_before_serves_at_once() -> None:
    world = World()
    world.tell(WatchKind.SYNC, make_pod("p-1", annotations={LOADED: "true"}))
    assert world.fleet.is_serving(world.fleet.by_address["10.244.1.1"])


def test_frozen_loading_never_ends_until_thawed() -> None:
    world = World()
    world.faults.apply({"freeze_loading": "llama-medium-a100"})
    world.tell(WatchKind.ADDED, make_pod("p-1"))
    world.turn(60.0)
    assert world.due() == []
    world.faults.apply({"freeze_loading": None})
    assert world.due() == [("p-1", LOADED)]


def test_a_deleted_pod_serves_until_it_is_empty_and_quiet() -> None:
    world = World()
    loaded = {LOADED: "true"}
    world.tell(WatchKind.ADDED, make_pod("p-1", annotations=loaded))
    pod = world.fleet.by_address["10.244.1.1"]
    assert pod.engine is not None
    pod.engine.submit(PlantRequest("q", 100, 300))  # about 3.6 s
    world.tell(WatchKind.MODIFIED, make_pod("p-1", annotations=loaded, deletionTimestamp="2026-01-01T00:01:00Z"))
    world.turn(3.4)
    assert world.due() == []  # still running
    world.turn(3.0)
    assert world.due() == []  # empty, but only for 2.8 s
    pod.engine.submit(PlantRequest("late", 10, 1))  # a gateway that had not heard yet
    world.turn(2.9)
    assert world.due() == []
    world.turn(0.3)
    assert world.due() == [("p-1", DRAINED)]


def test_a_deleted_pod_that_still_loads_goes_at_once() -> None:
    world = World()
    world.tell(WatchKind.ADDED, make_pod("p-1", deletionTimestamp="2026-01-01T00:01:00Z"))
    assert world.due() == [("p-1", DRAINED)]


class Connection:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("kind", [WatchKind.DELETED, WatchKind.SYNC])
def test_a_pod_that_is_gone_is_cut_off_and_gives_its_gpus_back(kind: WatchKind) -> None:
    world = World()
    loaded = make_pod("p-1", gpus=4, annotations={LOADED: "true"})
    world.tell(WatchKind.ADDED, loaded)
    world.tell(WatchKind.ADDED, make_pod("p-2", gpus=1))
    pod = world.fleet.by_address["10.244.1.1"]
    assert "no 1 free GPUs" in world.fleet.problems()["team/p-2"]
    assert pod.engine is not None
    ticket, connection = pod.engine.submit(PlantRequest("q", 100, 300)), Connection()
    pod.connections.add(connection)  # type: ignore[arg-type] # all that is asked of it is to abort
    world.tell(kind, loaded if kind is WatchKind.DELETED else make_pod("p-2", gpus=1))
    assert ticket.lost
    assert connection.aborted
    assert "10.244.1.1" not in world.fleet.by_address
    assert world.fleet.problems() == {}
    assert [gpu.index for gpu in world.fleet.by_address["10.244.1.2"].gpus] == [0]


def test_gpus_burn_what_their_pod_burns_and_idle_watts_when_free() -> None:
    world = World()
    world.turn(10.0)
    world.tell(WatchKind.ADDED, make_pod("p-1", gpus=2, annotations={LOADED: "true"}))
    world.turn(10.0)
    gpus = world.fleet.inventory.nodes["a100-0"]
    # free at 53 W for 10 s, then half of the pod's resident 80 W for 10 s
    assert [gpu.energy_joules(world.now) for gpu in gpus] == pytest.approx([930.0, 930.0, 1060.0, 1060.0])
    lines = render_gpu_metrics(world.fleet.inventory, world.faults, world.now)
    owned = [line for line in lines if 'pod="p-1"' in line]
    assert len(owned) == 4
    assert all('namespace="team"' in line and 'container="server"' in line for line in owned)
    assert any(line.startswith("DCGM_FI_DEV_POWER_USAGE") and line.endswith(" 40.000") for line in owned)
    assert any(line.startswith("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION") and line.endswith(" 930000") for line in owned)
    world.tell(WatchKind.SYNC)
    world.turn(10.0)
    assert gpus[0].energy_joules(world.now) == pytest.approx(930.0 + 530.0)  # the counter goes on
    world.faults.apply({"report_nan_power": True})
    assert " NaN" in render_gpu_metrics(world.fleet.inventory, world.faults, world.now)[1]
    world.faults.apply({"hide_power": True})
    assert render_gpu_metrics(world.fleet.inventory, world.faults, world.now) == []


def test_a_pod_waits_for_pool_and_profile_to_be_known() -> None:
    world = World()
    world.fleet.observe_pools(WatchEvent(WatchKind.DELETED, (POOL,)), world.now)
    world.tell(WatchKind.ADDED, make_pod("p-1"))
    assert "no ModelPool" in world.fleet.problems()["team/p-1"]
    world.fleet.observe_pools(WatchEvent(WatchKind.ADDED, (POOL,)), world.now)
    assert world.fleet.by_address["10.244.1.1"].role == Role("medium-a100", "medium", "llama-medium-a100", "chat")


def test_a_pool_that_adopts_a_running_pod_names_its_member() -> None:
    world = World()
    world.fleet.observe_pools(WatchEvent(WatchKind.SYNC, ()), world.now)
    world.tell(WatchKind.ADDED, make_pod("p-1", labels={}, annotations={"emulator.wattzoo.dev/profile": "medium-a100"}))
    pod = world.fleet.by_address["10.244.1.1"]
    engine = pod.engine
    assert pod.role == Role("medium-a100", "medium-a100", "medium-a100", None)
    world.fleet.observe_pools(WatchEvent(WatchKind.ADDED, (POOL,)), world.now)
    assert pod.role == Role("medium-a100", "medium", "llama-medium-a100", "chat")
    assert pod.engine is engine


def test_a_profile_that_makes_no_replica_is_a_problem_and_no_crash() -> None:
    world = World()
    broken = render_profile("team")
    broken["spec"]["points"] = broken["spec"]["points"][:1]
    world.fleet.observe_profiles(WatchEvent(WatchKind.SYNC, (broken,)), world.now)
    world.tell(WatchKind.ADDED, make_pod("p-1"))
    assert "cannot be played" in world.fleet.problems()["team/p-1"]


def test_roles_of_other_peoples_pods() -> None:
    pools = {("team", "llama"): POOL}
    pod = make_pod("p-1", labels={}, annotations={"emulator.wattzoo.dev/profile": "small-l4"})
    assert resolve_role(pod, pools) == Role("small-l4", "small", "llama-small-l4", "chat")  # adopted by a variant
    pod = make_pod("p-1", labels={"emulator.wattzoo.dev/profile": "own"}, annotations=None)
    assert resolve_role(pod, pools) == Role("own", "own", "own", None)
    assert resolve_role(make_pod("p-1", labels=None), pools) is None
    assert gpu_count({"spec": {"containers": [{"name": "sidecar"}]}}) == 0


def test_the_fitted_replica_is_the_law_that_the_points_were_made_from() -> None:
    model = make_replica_model(render_profile("team")["spec"], "NVIDIA-A100-SXM4-80GB", 1, 64, 0.5)
    assert model.t0_seconds == pytest.approx(0.0118, rel=1e-3)
    assert model.t1_seconds == pytest.approx(0.000176, rel=1e-3)
    assert model.prefill_seconds_per_token == pytest.approx(0.000105, rel=1e-3)
    assert [model.active_watts, model.max_watts] == pytest.approx([295, 400], rel=0.01)
    assert (model.startup_seconds, model.startup_joules, model.max_sequences) == (2.5, 250.0, 64)
    spec = {key: value for key, value in render_profile("team")["spec"].items() if not key.endswith("Watts")}
    assert make_replica_model(spec, "NVIDIA-A100-SXM4-80GB", 2).idle_watts == 160  # the product's 80 W, twice


def test_the_batch_limit_comes_from_the_servers_arguments() -> None:
    assert max_sequences_of(["--model", "m", "--max-num-seqs", "64"]) == 64
    assert max_sequences_of(["--max-num-seqs=32"]) == 32
    assert max_sequences_of([]) == 256
