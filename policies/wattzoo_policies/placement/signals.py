"""What a fleet controller sees and decides: plain frozen values that the operator and the fluid plant fill alike.

A controller cannot tell which of the two it acts in, and it sees only the past: rates, tokens and outcomes are those
of intervals that have ended. Unknown is `None`, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from wattzoo_policies.capacity.model import LatencyTarget, ReplicaModel, RequestShape


@dataclass(frozen=True, slots=True)
class FleetPool:
    """One accelerator pool.

    accelerators: most that may be held, every cap applied. node_accelerators: what each node has (empty: not known,
    nothing is checked). power_budget_watts: bound on the modelled watts. objective_weight: what a joule of this pool
    counts in the objective (1 for energy, gCO2 per joule for carbon). price_per_accelerator_second: counted with the
    objective Cost. short: accelerators that were asked for did not come, nothing is to be added here.
    """

    name: str
    accelerators: int
    node_accelerators: tuple[int, ...] = ()
    power_budget_watts: float | None = None
    objective_weight: float = 1.0
    price_per_accelerator_second: float = 0.0
    short: bool = False


@dataclass(frozen=True, slots=True)
class FleetVariant:
    """One variant and its replicas now.

    replicas: asked for (starting ones included). ready: can serve. serving: ready and selected by the Service.
    terminating: gone from `replicas`, accelerators still held. running, waiting: requests inside, all replicas
    together, at the end of the last interval. late_share: of the requests that finished lately, those that broke a
    latency bound; `None` where nobody measures it.
    """

    name: str
    member: str
    pool: str
    model: ReplicaModel
    replicas: int
    ready: int
    serving: int
    terminating: int = 0
    min_replicas: int = 0
    max_replicas: int = 1000
    running: float | None = None
    waiting: float | None = None
    late_share: float | None = None


@dataclass(frozen=True, slots=True)
class FleetService:
    """One service: its promise, the demand of the interval that has ended, and its ledger.

    members: names of the members it may use. rate_rps, shape: of the last interval (`None`: unknown; the controller
    holds or goes on with what it knew). satisfied, total: cumulative outcomes; accuracies: estimates by member.
    """

    name: str
    alpha: float
    members: tuple[str, ...]
    latency: LatencyTarget
    rate_rps: float | None
    shape: RequestShape | None
    satisfied: float
    total: float
    accuracies: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class FleetObservation:
    """A fleet at one moment; `interval_seconds` is the length of the interval that has ended."""

    at_seconds: float
    interval_seconds: float
    pools: tuple[FleetPool, ...]
    variants: tuple[FleetVariant, ...]
    services: tuple[FleetService, ...]


@dataclass(frozen=True, slots=True)
class FleetDecision:
    """What shall hold for the coming interval.

    replicas, serving: by variant; a variant that is missing keeps what it has. weights: by service the share of each
    variant (sums to 1; empty keeps what holds). reasons: by variant, for users. planned: a new plan was made.
    """

    replicas: Mapping[str, int]
    serving: Mapping[str, int]
    weights: Mapping[str, Mapping[str, float]]
    reasons: Mapping[str, str] = field(default_factory=dict)
    planned: bool = False
    solve_seconds: float | None = None


S = TypeVar("S")


class FleetController(Protocol[S]):
    """Decides replicas, serving replicas and weights of a whole fleet. Pure: the state goes in and comes out."""

    @property
    def name(self) -> str:
        """Return the name that reports print."""
        ...

    def initial_state(self) -> S:
        """Return the state before the first observation."""
        ...

    def decide(self, state: S, observation: FleetObservation, rng: np.random.Generator) -> tuple[S, FleetDecision]:
        """Decide for the coming interval."""
        ...
