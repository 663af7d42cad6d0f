"""What obeys a replica law in these tests: pods take time to start and to leave and hold accelerators meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from wattzoo_policies.protocols import ReplicaLaw
from wattzoo_policies.signals import ReplicaHistory, ReplicaRequest, ServiceDemand, VariantDemand

MakeLaw = Callable[[Mapping[str, int]], ReplicaLaw]


@dataclass(slots=True)
class Pods:
    """Pods of one variant, each by the time at which its phase ends."""

    start_seconds: float = 120.0
    drain_seconds: float = 30.0
    ready: int = 0
    starting: list[float] = field(default_factory=list)
    terminating: list[float] = field(default_factory=list)
    starts: int = 0

    def advance(self, at: float) -> None:
        self.ready += sum(end <= at for end in self.starting)
        self.starting = [end for end in self.starting if end > at]
        self.terminating = [end for end in self.terminating if end > at]

    def scale(self, replicas: int, at: float) -> None:
        while self.current < replicas:
            self.starting.append(at + self.start_seconds)
            self.starts += 1
        while self.current > replicas:
            if self.starting:
                self.starting.pop()
            else:
                self.ready -= 1
            self.terminating.append(at + self.drain_seconds)

    @property
    def current(self) -> int:
        return self.ready + len(self.starting)

    @property
    def held(self) -> int:
        return self.current + len(self.terminating)


@dataclass(frozen=True, slots=True)
class Moment:
    """What held right after a decision was carried out."""

    at: float
    replicas: dict[str, int]
    ready_rps: float
    held: dict[str, int]
    reasons: dict[str, str]


@dataclass(slots=True)
class Actor:
    """A fleet that follows a law; `variants` say what is constant, the pods what is not."""

    variants: tuple[VariantDemand, ...]
    pods: dict[str, Pods]
    services: tuple[ServiceDemand, ...] = ()
    history: ReplicaHistory = field(default_factory=ReplicaHistory)

    def step(self, law: ReplicaLaw, at: float, caps: Mapping[str, int], demand: Mapping[str, float | None]) -> Moment:
        for pods in self.pods.values():
            pods.advance(at)
        seen = tuple(
            replace(
                variant,
                demand_rps=demand.get(variant.variant, 0.0),
                current_replicas=self.pods[variant.variant].current,
                ready_replicas=self.pods[variant.variant].ready,
                terminating_replicas=len(self.pods[variant.variant].terminating),
            )
            for variant in self.variants
        )
        self.history, plan = law(self.history, ReplicaRequest(at, seen, caps, services=self.services))
        self.history = ReplicaHistory.from_json(self.history.to_json())
        for name, replicas in plan.replicas().items():
            self.pods[name].scale(replicas, at)
        held: dict[str, int] = {}
        for variant in self.variants:
            pool = variant.accelerator_pool or ""
            used = self.pods[variant.variant].held * variant.accelerators_per_replica
            held[pool] = held.get(pool, 0) + used
        return Moment(
            at,
            {name: pods.current for name, pods in self.pods.items()},
            sum(self.pods[v.variant].ready * (v.capacity_rps or 0.0) for v in self.variants),
            held,
            {entry.variant: entry.reason for entry in plan.variants},
        )


def play(
    actor: Actor,
    make_law: MakeLaw,
    plans: Sequence[Mapping[str, int]],
    demand: Mapping[str, float | None],
    caps: Mapping[str, int],
    step_seconds: float = 60.0,
) -> list[Moment]:
    """Carry out one plan per step."""
    return [actor.step(make_law(plan), step_seconds * i, caps, demand) for i, plan in enumerate(plans)]
