"""From a ModelProfile to a replica of the plant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from e2e.emulator.engine import Engine, PlantClock
from e2e.emulator.fleet import LOADED, PlayedPod
from e2e.emulator.gpus import Gpu
from wattzoo.api.accelerators import KNOWN_ACCELERATORS
from wattzoo_policies.capacity.model import ReplicaModel


class EngineFactory:
    """Makes the server that a pod plays. `startup_scale` shortens every start; its watts stay, so its joules shrink."""

    def __init__(self, clock: PlantClock, startup_scale: float) -> None:
        self.clock = clock
        self.startup_scale = startup_scale

    def make_engine(self, pod: PlayedPod, profile: Mapping[str, Any]) -> Engine:
        """Return a starting server, or a running one when the pod was loaded before this process came."""
        model = make_replica_model(profile["spec"], pod.gpus)
        model = model.with_startup(self.startup_scale * model.startup_seconds)
        return Engine(self.clock, model, started=pod.annotated(LOADED))


def make_replica_model(spec: Mapping[str, Any], gpus: tuple[Gpu, ...]) -> ReplicaModel:
    raise NotImplementedError
