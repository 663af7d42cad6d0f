"""What the fleet baselines have in common: shares that somebody fixed, an autoscaler per variant, perhaps packing.

A baseline sees what every fleet controller sees. Its weights go to variants that are ready only; what a variant without
a ready replica was to get goes to the others, which is kinder than a gateway that answers 503.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from wattzoo_policies.capacity.model import (
    LatencyTarget,
    ReplicaModel,
    RequestShape,
    capacity_rps,
    concurrency,
    knee_load,
    work_seconds,
)
from wattzoo_policies.capacity.replicas import fit_accelerators
from wattzoo_policies.placement.signals import FleetDecision, FleetObservation, FleetService, FleetVariant
from wattzoo_policies.signals import ReplicaRequest, VariantDemand, VariantReplicas

Shares = Mapping[str, float]
"""Shares of a service's requests by variant."""

Packing = Callable[[float | None, float | None, int, int], int]
"""(work of the last interval, knee load, ready, serving) to serving replicas, as `placement.packing.decide_serving`."""


@dataclass(frozen=True, slots=True)
class VariantLoad:
    """A variant's part of the last interval: requests per second, their mean shape and strictest bounds."""

    rate_rps: float
    shape: RequestShape
    latency: LatencyTarget

    def work(self, model: ReplicaModel) -> float:
        """Return the seconds of a replica that arrive per second."""
        return self.rate_rps * work_seconds(model, self.shape)


class Scaler(Protocol):
    """Decides the replicas of one variant from what its own pods show. Pure: the state goes in and comes out."""

    def initial_state(self) -> Any:
        """Return the state before the first observation."""
        ...

    def decide(self, state: Any, variant: FleetVariant, load: VariantLoad | None, at_seconds: float) -> tuple[Any, int]:
        """Return the state to keep and the desired replicas."""
        ...


@dataclass(frozen=True, slots=True)
class ScaledState:
    """State of each variant's scaler, and by service the weights that were sent out last."""

    scalers: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Shares] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScaledFleet:
    """Fixed shares by variant for every service, one scaler per variant that has a share, the other variants empty.

    packing: serve from as few ready replicas as carry the last interval's work; `None`: all that are ready serve.
    """

    name: str
    shares: Shares
    scaler: Scaler
    packing: Packing | None = None

    def initial_state(self) -> ScaledState:
        """Return the state before the first observation."""
        return ScaledState()

    def decide(
        self, state: ScaledState, observation: FleetObservation, rng: np.random.Generator
    ) -> tuple[ScaledState, FleetDecision]:
        """Decide for the coming interval."""
        del rng
        shares = {service.name: self.shares for service in observation.services}
        return decide_scaled(state, observation, shares, self.scaler, self.packing)


def decide_scaled(
    state: ScaledState,
    observation: FleetObservation,
    shares: Mapping[str, Shares],
    scaler: Scaler,
    packing: Packing | None,
) -> tuple[ScaledState, FleetDecision]:
    """Return the next state and the decision for shares by service; caps of the pools hold."""
    used = {name for wanted in shares.values() for name, share in wanted.items() if share > 0.0}
    scalers, wished = {}, {}
    for variant in observation.variants:
        if variant.name not in used:
            wished[variant.name] = variant.min_replicas
            continue
        before = state.scalers.get(variant.name)
        before = scaler.initial_state() if before is None else before
        load = estimate_load(observation, shares, variant)  # what it is to get, also while nothing of it is ready
        scalers[variant.name], number = scaler.decide(before, variant, load, observation.at_seconds)
        wished[variant.name] = max(variant.min_replicas, min(variant.max_replicas, number))
    weights = weights_over_ready(observation, shares)
    decision = FleetDecision(
        replicas=fit_pools(observation, wished),
        serving=decide_serving_replicas(observation, state.weights, packing),
        weights=weights,
    )
    return ScaledState(scalers, {**state.weights, **weights}), decision


def weights_over_ready(observation: FleetObservation, shares: Mapping[str, Shares]) -> dict[str, dict[str, float]]:
    """Return by service the shares of variants that are ready, summing to 1; empty when nothing of them is ready.

    Where nothing that has a share is ready, any ready variant of the service's members takes the requests.
    """
    weights: dict[str, dict[str, float]] = {}
    for service in observation.services:
        allowed = [v for v in observation.variants if v.member in service.members and v.ready > 0]
        wanted = shares.get(service.name, {})
        chosen = {v.name: wanted[v.name] for v in allowed if wanted.get(v.name, 0.0) > 0.0}
        chosen = chosen or {v.name: float(v.ready) for v in allowed}
        total = sum(chosen.values())
        weights[service.name] = {name: share / total for name, share in chosen.items()}
    return weights


def estimate_load(
    observation: FleetObservation, weights: Mapping[str, Shares], variant: FleetVariant
) -> VariantLoad | None:
    """Return what of the last interval's requests these weights send to a variant; `None` for nothing or unknown."""
    parts: list[tuple[float, FleetService, RequestShape]] = []
    for service in observation.services:
        share = weights.get(service.name, {}).get(variant.name, 0.0)
        if share <= 0.0:
            continue
        if service.rate_rps is None or service.shape is None:
            return None
        parts.append((share * service.rate_rps, service, service.shape))
    total = sum(rate for rate, _, _ in parts)
    if total <= 0.0:
        return None
    latency = LatencyTarget()
    for _, service, _ in parts:
        latency = latency.strictest(service.latency)
    shape = RequestShape(
        sum(rate * shape.input_tokens for rate, _, shape in parts) / total,
        sum(rate * shape.output_tokens for rate, _, shape in parts) / total,
    )
    return VariantLoad(total, shape, latency)


def decide_serving_replicas(
    observation: FleetObservation, weights: Mapping[str, Shares], packing: Packing | None
) -> dict[str, int]:
    """Return serving replicas by variant: all that are ready, or what the packing rule says of the last interval."""
    if packing is None:
        return {variant.name: variant.ready for variant in observation.variants}
    serving = {}
    for variant in observation.variants:
        load = estimate_load(observation, weights, variant)
        work = knee = None
        if load is not None:
            work = load.work(variant.model)
            knee = knee_load(variant.model, load.shape, load.latency)
        serving[variant.name] = packing(work, knee, variant.ready, variant.serving)
    return serving


def fit_pools(observation: FleetObservation, wished: Mapping[str, int]) -> dict[str, int]:
    """Return replicas with increases cut to the accelerators that the pools have free, terminating ones included."""
    variants = tuple(
        VariantDemand(
            variant=v.name,
            demand_rps=None,
            capacity_rps=None,
            current_replicas=v.replicas,
            ready_replicas=v.ready,
            min_replicas=v.min_replicas,
            max_replicas=v.max_replicas,
            accelerators_per_replica=v.model.accelerators,
            accelerator_pool=v.pool,
            terminating_replicas=v.terminating,
        )
        for v in observation.variants
    )
    caps = {pool.name: pool.accelerators for pool in observation.pools}
    entries = [VariantReplicas(v.name, wished[v.name], wished[v.name], "", "") for v in observation.variants]
    fitted = fit_accelerators(entries, ReplicaRequest(observation.at_seconds, variants, caps))
    return {entry.variant: entry.replicas for entry in fitted}


def knee_concurrency(model: ReplicaModel, shape: RequestShape, latency: LatencyTarget) -> float | None:
    """Return the sequences in flight on one replica at its knee: what an autoscaler's target is a share of."""
    rate = capacity_rps(model, shape, latency, eta=1.0)
    return None if rate is None else concurrency(model, shape, rate)


def variants_named(observation: FleetObservation, names: Sequence[str]) -> tuple[FleetVariant, ...]:
    """Return the variants of these names; raises `ValueError` for a name that the fleet does not have."""
    found = {variant.name: variant for variant in observation.variants}
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"the fleet has no variant {', '.join(missing)}; it has {', '.join(found)}")
    return tuple(found[name] for name in names)
