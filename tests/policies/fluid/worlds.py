"""Small fleets for the fluid plant's tests: round numbers, so that a reader can follow the arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wattzoo_policies.capacity.model import LatencyTarget, ReplicaModel
from wattzoo_policies.placement.signals import FleetDecision, FleetObservation, FleetPool, FleetService, FleetVariant
from wattzoo_policies.sim.fluid.scenario import FluidDemand, FluidScenario

LATENCY = LatencyTarget(ttft_seconds=2.0, tpot_seconds=0.050)


def make_model(**changes: object) -> ReplicaModel:
    """t0 20 ms, t1 1 ms, no prompts' cost; idle 100 W, 300 W with one request, 700 W saturated; 60 s to start."""
    values: dict[str, object] = {
        "t0_seconds": 0.020,
        "t1_seconds": 0.001,
        "prefill_seconds_per_token": 0.0,
        "kv_tokens": 10_000_000,
        "max_sequences": 100_000,
        "off_watts": 50.0,
        "idle_watts": 100.0,
        "active_watts": 300.0,
        "max_watts": 700.0,
        "startup_seconds": 60.0,
        "startup_joules": 7500.0,
    }
    return ReplicaModel(**{**values, **changes})  # type: ignore[arg-type]


def make_demand(requests: Sequence[float], *, output_tokens: float = 100.0, services: int = 1) -> FluidDemand:
    counts = np.repeat(np.array(requests, dtype=np.float64).reshape(-1, 1), services, axis=1)
    names = tuple(f"s{n}" for n in range(services))
    return FluidDemand(15.0, names, counts, np.full(counts.shape, 10.0), np.full(counts.shape, output_tokens))


def make_variant(
    name: str, ready: int = 1, *, member: str | None = None, serving: int | None = None, **changes: object
) -> FleetVariant:
    held = ready if serving is None else serving
    return FleetVariant(name, member or name, "gpu", make_model(**changes), ready, ready, held)


def make_scenario(
    demand: FluidDemand,
    variants: Sequence[FleetVariant],
    *,
    accuracy: Mapping[str, float] | None = None,
    alpha: float = 0.5,
    warmup_steps: int = 0,
    accelerators: int = 16,
    latency: LatencyTarget = LATENCY,
) -> FluidScenario:
    known = accuracy or {variant.member: 0.6 for variant in variants}
    members = tuple(known)
    services = tuple(
        FleetService(name, alpha, members, latency, None, None, 0.0, 0.0, dict(known)) for name in demand.services
    )
    return FluidScenario(
        demand=demand,
        pools=(FleetPool("gpu", accelerators),),
        variants=tuple(variants),
        services=services,
        accuracy=dict.fromkeys(demand.services, known),
        warmup_steps=warmup_steps,
    )


@dataclass(frozen=True, slots=True)
class Scripted:
    """Decides what a script says for each call; the last entry goes on. Missing parts keep what holds."""

    script: tuple[FleetDecision, ...]
    name: str = "scripted"

    def initial_state(self) -> int:
        return 0

    def decide(self, state: int, observation: FleetObservation, rng: np.random.Generator) -> tuple[int, FleetDecision]:
        del observation, rng
        return state + 1, self.script[min(state, len(self.script) - 1)]


def hold(**weights: float) -> FleetDecision:
    """Change nothing but the weights of the service s0."""
    return FleetDecision({}, {}, {"s0": weights} if weights else {})
