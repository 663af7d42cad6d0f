"""What the fluid plant is given: demand by step, pools, variants with their models, services with their promises.

Pools, variants and services are the values that a controller sees (`placement.signals`), as they are before the first
step: a variant's `replicas`, `ready` and `serving` are what it begins with, a service's `accuracies` are priors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.placement.signals import FleetPool, FleetService, FleetVariant

STEP_SECONDS = 15.0
WARMUP_STEPS = 80
DRAIN_SECONDS = 30.0
"""How long a replica that leaves goes on at `active_watts` and holds its accelerators."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class FluidDemand:
    """Requests that arrive in each step, and their mean tokens; every array has the shape (steps, services).

    requests: whole numbers. input_tokens, output_tokens: NaN where nothing arrives.
    """

    step_seconds: float
    services: tuple[str, ...]
    requests: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step_seconds) and self.step_seconds > 0.0):
            raise ValueError(f"step_seconds must be a positive number, not {self.step_seconds}")
        for name in ("requests", "input_tokens", "output_tokens"):
            shape = getattr(self, name).shape
            if len(shape) != 2 or shape[1] != len(self.services) or shape != self.requests.shape:
                raise ValueError(f"{name} must have the shape (steps, {len(self.services)} services), not {shape}")
        if not np.all(np.isfinite(self.requests) & (self.requests >= 0.0)):
            raise ValueError("requests must be numbers of at least 0")
        busy = self.requests > 0.0
        tokens = np.isfinite(self.input_tokens) & np.isfinite(self.output_tokens) & (self.output_tokens > 0.0)
        if not np.all(tokens[busy]):
            raise ValueError("input_tokens and output_tokens must be known and positive wherever requests arrive")

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        return int(self.requests.shape[0])

    def mirrored(self, steps: int) -> FluidDemand:
        """Return the demand with this many first steps played backwards before it (again and again if it is short).

        A fleet that begins cold gets ready on it: it ends where the real demand begins.
        """
        if steps <= 0 or self.steps == 0:
            return self
        cycle = np.concatenate([np.arange(self.steps), np.arange(self.steps)[::-1]])
        order = cycle[np.arange(steps) % cycle.size][::-1]
        index = np.concatenate([order, np.arange(self.steps)])
        return FluidDemand(
            self.step_seconds,
            self.services,
            self.requests[index],
            self.input_tokens[index],
            self.output_tokens[index],
        )


@dataclass(frozen=True, slots=True, eq=False)
class FluidScenario:
    """One run's world.

    services: in the demand's order. accuracy: by service and member the probability that an answer satisfies.
    warmup_steps: steps before the demand (its beginning mirrored) in which nothing is counted, the ledger included.
    patience_seconds: a request that has waited longer is lost. linger: drained replicas hold their accelerators.
    """

    demand: FluidDemand
    pools: tuple[FleetPool, ...]
    variants: tuple[FleetVariant, ...]
    services: tuple[FleetService, ...]
    accuracy: Mapping[str, Mapping[str, float]]
    warmup_steps: int = WARMUP_STEPS
    drain_seconds: float = DRAIN_SECONDS
    patience_seconds: float = 60.0

    def __post_init__(self) -> None:
        names = tuple(service.name for service in self.services)
        if names != self.demand.services:
            raise ValueError(f"services {names} must be those of the demand, in its order: {self.demand.services}")
        pools = {pool.name for pool in self.pools}
        for variant in self.variants:
            if variant.pool not in pools:
                raise ValueError(f"variant {variant.name}: no pool {variant.pool}")
        for service in self.services:
            for member in service.members:
                share = self.accuracy.get(service.name, {}).get(member)
                if share is None or not 0.0 <= share <= 1.0:
                    raise ValueError(f"accuracy of member {member} for {service.name} must be in [0, 1], not {share}")
