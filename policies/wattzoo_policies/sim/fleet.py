"""Replicas of several variants behind weighted routes: what the gateway and the scheduler do, in the plant's time.

A request goes to a variant by the route's weights (an independent draw each, as Envoy's weighted clusters do) and
inside it to the less loaded of two replicas drawn at random (its least-request balancing) from those that are not
silent. Scaling takes starting replicas away before ready ones, the youngest first; a replica that goes drains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from wattzoo_policies.capacity.model import ReplicaModel
from wattzoo_policies.sim.metrics import ReplicaMetrics
from wattzoo_policies.sim.plant import Replica
from wattzoo_policies.sim.request import PlantEvent, PlantRequest, ReplicaPhase


@dataclass(frozen=True, slots=True)
class Variant:
    """A model served in one way.

    accelerator_pool groups variants under one accelerator cap. initial_replicas are ready from the start.
    """

    name: str
    member: str
    model: ReplicaModel
    min_replicas: int = 0
    max_replicas: int = 64
    initial_replicas: int = 1
    accelerator_pool: str = ""


@dataclass(frozen=True, slots=True)
class VariantCounts:
    """Replicas of one variant by phase, and the requests inside the ready ones."""

    starting: int
    ready: int
    draining: int
    running_by_replica: tuple[int, ...]
    waiting_by_replica: tuple[int, ...]

    @property
    def current(self) -> int:
        """Return replicas that count as asked for."""
        return self.starting + self.ready


@dataclass(frozen=True, slots=True)
class VariantEnergy:
    """Joules of a variant's replicas and how long they held their accelerators."""

    active_joules: float = 0.0
    idle_joules: float = 0.0
    start_joules: float = 0.0
    replica_seconds: float = 0.0
    starts: int = 0

    @property
    def joules(self) -> float:
        """Return the sum."""
        return self.active_joules + self.idle_joules + self.start_joules


@dataclass(slots=True)
class _Pod:
    replica: Replica
    started: bool
    serving: bool = True


@dataclass(slots=True)
class Fleet:
    """All replicas of a scenario; move it with `advance`."""

    variants: Mapping[str, Variant]
    linger_seconds: float = 0.0
    _pods: dict[str, list[_Pod]] = field(default_factory=dict)
    _gone: dict[str, VariantEnergy] = field(default_factory=dict)
    _events: list[tuple[str, Replica, PlantEvent]] = field(default_factory=list)

    def start(
        self, variant: str, at_seconds: float, *, started: bool = False, model: ReplicaModel | None = None
    ) -> Replica:
        """Add a replica, ready at once when `started`; `model` overrides the variant's (another start-up time)."""
        replica = Replica(model or self.variants[variant].model, at_seconds, started=started)
        self._pods.setdefault(variant, []).append(_Pod(replica, started))
        return replica

    def scale(self, variant: str, replicas: int, at_seconds: float) -> None:
        """Start or drain replicas until this many are starting or ready."""
        current = [pod.replica for pod in self._pods.get(variant, ()) if _counts(pod.replica)]
        for _ in range(len(current), replicas):
            self.start(variant, at_seconds)
        current.sort(key=lambda replica: (replica.phase is ReplicaPhase.READY, -replica.created_seconds))
        for replica in current[: max(0, len(current) - replicas)]:
            replica.drain(at_seconds, self.linger_seconds)

    def set_serving(self, replica: Replica, *, serving: bool) -> None:
        """Send requests to a replica or keep it silent; what is inside a silent one is finished."""
        for pods in self._pods.values():
            for pod in pods:
                if pod.replica is replica:
                    pod.serving = serving

    def ready(self, variant: str) -> list[Replica]:
        """Return the replicas that can take requests, silent ones included, as of the last `advance`."""
        return [pod.replica for pod in self._pods.get(variant, ()) if pod.replica.phase is ReplicaPhase.READY]

    def submit(
        self,
        weights: Mapping[str, float],
        request: Mapping[str, PlantRequest],
        at_seconds: float,
        rng: np.random.Generator,
    ) -> tuple[str, Replica, int] | None:
        """Route one request (its form by variant) and return (variant, replica, ticket), or `None`: nobody is ready."""
        serving: dict[str, list[Replica]] = {}
        for variant, weight in weights.items():
            if weight > 0.0 and (replicas := self._serving_at(variant, at_seconds)):
                serving[variant] = replicas
        if not serving:
            return None
        names = list(serving)
        shares = np.cumsum([weights[name] for name in names])
        name = names[min(len(names) - 1, int(np.searchsorted(shares, rng.random() * shares[-1], side="right")))]
        replicas = serving[name]
        pair = rng.integers(0, len(replicas), 2) if len(replicas) > 1 else (0, 0)
        for index in set(pair):
            self._collect(name, replicas[index], at_seconds)
        chosen = min((replicas[index] for index in pair), key=lambda r: r.running_requests + r.waiting_requests)
        return name, chosen, chosen.submit(request[name], at_seconds)

    def advance(self, at_seconds: float) -> list[tuple[str, Replica, PlantEvent]]:
        """Move every replica to this time; returns (variant, replica, event) since the last call, in order of time."""
        for name, pods in self._pods.items():
            for pod in pods:
                self._collect(name, pod.replica, at_seconds)
            self._bury(name, at_seconds)
        events, self._events = self._events, []
        return sorted(events, key=lambda entry: entry[2].at_seconds)

    def counts(self, variant: str) -> VariantCounts:
        """Return replicas by phase as of the last `advance`."""
        phases = [pod.replica.phase for pod in self._pods.get(variant, ())]
        ready = self.ready(variant)
        return VariantCounts(
            phases.count(ReplicaPhase.STARTING),
            len(ready),
            phases.count(ReplicaPhase.DRAINING),
            tuple(replica.running_requests for replica in ready),
            tuple(replica.waiting_requests for replica in ready),
        )

    def energy(self, variant: str, at_seconds: float) -> VariantEnergy:
        """Return the joules of all replicas the variant ever had, up to this time."""
        total = self._gone.get(variant, VariantEnergy())
        for pod in self._pods.get(variant, ()):
            total = _add(total, pod, pod.replica.metrics(at_seconds), at_seconds)
        return total

    def power_watts(self, at_seconds: float) -> float:
        """Return the power of all replicas at this time."""
        return sum(pod.replica.power_watts(at_seconds) for pods in self._pods.values() for pod in pods)

    def open_requests(self) -> int:
        """Return requests inside replicas."""
        return sum(
            pod.replica.running_requests + pod.replica.waiting_requests for pods in self._pods.values() for pod in pods
        )

    def _serving_at(self, variant: str, at: float) -> list[Replica]:
        """Return replicas that take requests now (only starting ones can have changed without an advance)."""
        for pod in self._pods.get(variant, ()):
            if pod.replica.phase is ReplicaPhase.STARTING:
                self._collect(variant, pod.replica, at)
        pods = self._pods.get(variant, ())
        return [pod.replica for pod in pods if pod.serving and pod.replica.phase is ReplicaPhase.READY]

    def _collect(self, variant: str, replica: Replica, at: float) -> None:
        for event in replica.advance(at):
            self._events.append((variant, replica, event))

    def _bury(self, variant: str, at: float) -> None:
        """Keep the sums of replicas that are gone, and forget them."""
        for pod in [pod for pod in self._pods[variant] if pod.replica.phase is ReplicaPhase.GONE]:
            total = self._gone.get(variant, VariantEnergy())
            self._gone[variant] = _add(total, pod, pod.replica.metrics(at), at)
            self._pods[variant].remove(pod)


def _counts(replica: Replica) -> bool:
    return replica.phase in (ReplicaPhase.STARTING, ReplicaPhase.READY)


def _add(total: VariantEnergy, pod: _Pod, metrics: ReplicaMetrics, at: float) -> VariantEnergy:
    end = at if pod.replica.gone_seconds is None else pod.replica.gone_seconds
    return VariantEnergy(
        total.active_joules + metrics.active_joules,
        total.idle_joules + metrics.idle_joules,
        total.start_joules + metrics.start_joules,
        total.replica_seconds + end - pod.replica.created_seconds,
        total.starts + (not pod.started),
    )
