"""From a ModelProfile to a replica of the plant: the numbers that the operator reads, fitted by the plant's law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from e2e.emulator.engine import Engine, PlantClock
from e2e.emulator.fleet import LOADED, PlayedPod
from wattzoo.api.accelerators import KNOWN_ACCELERATORS
from wattzoo_policies.capacity.fit import ProfilePoint, ReplicaFacts, fit_replica_model
from wattzoo_policies.capacity.model import ReplicaModel

DEFAULT_MAX_SEQUENCES = 256
MAX_SEQUENCES_FLAG = "--max-num-seqs"


class EngineFactory:
    """Makes the server that a pod plays. `startup_scale` shortens every start; its watts stay, so its joules shrink."""

    def __init__(self, clock: PlantClock, startup_scale: float) -> None:
        self.clock = clock
        self.startup_scale = startup_scale

    def make_engine(self, pod: PlayedPod, profile: Mapping[str, Any]) -> Engine:
        """Return a starting server, or a running one when the pod was loaded before this process came."""
        arguments = [part for container in pod.manifest["spec"]["containers"] for part in container.get("args") or ()]
        model = make_replica_model(
            profile["spec"], pod.gpus[0].product, len(pod.gpus), max_sequences_of(arguments), self.startup_scale
        )
        return Engine(self.clock, model, started=pod.annotated(LOADED))


def make_replica_model(
    spec: Mapping[str, Any],
    gpu_product: str,
    gpu_count: int,
    max_sequences: int = DEFAULT_MAX_SEQUENCES,
    startup_scale: float = 1.0,
) -> ReplicaModel:
    """Return the replica that a ModelProfile's spec (as JSON) describes, on that many GPUs of a product.

    Watts that the profile leaves out are those of the product. Raises ValueError when the points make no replica.
    """
    figures = KNOWN_ACCELERATORS[gpu_product]
    points = [
        ProfilePoint(
            running_requests=point["runningRequests"],
            input_tokens=point["inputTokens"],
            output_tokens_per_second=point["outputTokensPerSecond"],
            power_watts=point["powerWatts"],
            ttft_seconds=point["timeToFirstTokenMicroseconds"]["p50"] / 1e6,
            tpot_seconds=point["timePerOutputTokenMicroseconds"]["p50"] / 1e6,
        )
        for point in spec["points"]
    ]
    facts = ReplicaFacts(
        kv_tokens=spec["kvCacheTokens"],
        idle_watts=spec.get("residentWatts") or gpu_count * figures.resident_watts,
        startup_seconds=spec["startup"]["seconds"],
        startup_joules=spec["startup"]["joules"],
        off_watts=spec.get("idleWatts") or gpu_count * figures.idle_watts,
        max_sequences=max_sequences,
        accelerators=gpu_count,
    )
    model = fit_replica_model(points, facts).model
    return model.with_startup(startup_scale * model.startup_seconds)


def max_sequences_of(arguments: Sequence[str]) -> int:
    """Return the batch limit that a server's arguments set, vLLM's default when they do not."""
    for i, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == MAX_SEQUENCES_FLAG:
            return int(value or arguments[i + 1])
    return DEFAULT_MAX_SEQUENCES
