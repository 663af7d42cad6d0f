"""KEDA-like scaling on saturation: several triggers, the one that asks for most wins.

As KEDA does it: between one and the maximum its triggers are external metrics of a HorizontalPodAutoscaler with an
average value (total over target, a tolerance, no regard for pods that start); from and to zero it acts itself at its
polling interval, to zero only after a cooldown without an active trigger. The KV cache's use is what an engine would
report, estimated from the requests inside and their mean length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from wattzoo_policies.baselines.fleet import Packing, ScaledFleet, Shares, VariantLoad
from wattzoo_policies.baselines.hpa import HpaParameters, HpaState, stabilise_hpa
from wattzoo_policies.baselines.hpa_fleet import is_between
from wattzoo_policies.placement.signals import FleetVariant


@dataclass(frozen=True, slots=True)
class KedaParameters:
    """Thresholds per replica (`None`: no such trigger); polling and cooldown as KEDA's defaults.

    running, waiting: requests. kv_usage: share of the KV cache. activation: requests inside or per second above which
    a trigger is active. minimum: replicas kept (0 allows scaling to zero). hpa: bounds, tolerance and windows of the
    autoscaler behind it (its target is not used).
    """

    running: float | None = None
    waiting: float | None = 2.0
    kv_usage: float | None = 0.8
    activation: float = 0.0
    minimum: int = 1
    polling_seconds: float = 30.0
    cooldown_seconds: float = 300.0
    hpa: HpaParameters = field(default_factory=lambda: HpaParameters(target_average=1.0))

    def __post_init__(self) -> None:
        thresholds = (self.running, self.waiting, self.kv_usage)
        if all(threshold is None for threshold in thresholds):
            raise ValueError("at least one of running, waiting and kv_usage must be set")
        if any(threshold is not None and not threshold > 0.0 for threshold in thresholds):
            raise ValueError(f"running, waiting and kv_usage must be positive, not {thresholds}")


@dataclass(frozen=True, slots=True)
class KedaState:
    """The autoscaler's memory, the last sync and poll, and when a trigger was last active."""

    hpa: HpaState = field(default_factory=HpaState)
    synced_at_seconds: float | None = None
    polled_at_seconds: float | None = None
    active_at_seconds: float | None = None
    desired: int = 0


@dataclass(frozen=True, slots=True)
class KedaScaler:
    """Thresholds by variant: what a replica carries differs."""

    parameters: Mapping[str, KedaParameters]

    def initial_state(self) -> KedaState:
        """Return a new scaled object."""
        return KedaState()

    def decide(
        self, state: KedaState, variant: FleetVariant, load: VariantLoad | None, at_seconds: float
    ) -> tuple[KedaState, int]:
        """Return the desired replicas; between polls and syncs what was desired last."""
        parameters = self.parameters[variant.name]
        state = _poll(state, variant, load, at_seconds, parameters)
        hpa = parameters.hpa
        if variant.replicas == 0 or is_between(state.synced_at_seconds, at_seconds, hpa.sync_seconds):
            return state, state.desired
        wished = _wished(variant, load, parameters)
        windows, desired = stabilise_hpa(state.hpa, variant.replicas, wished, hpa, at_seconds)
        if _is_asleep(state, at_seconds, parameters):
            desired = 0
        new = KedaState(windows, at_seconds, state.polled_at_seconds, state.active_at_seconds, desired)
        return new, desired


def make_keda_fleet(
    shares: Shares | str,
    parameters: KedaParameters | Mapping[str, KedaParameters],
    packing: Packing | None = None,
    name: str = "keda",
) -> ScaledFleet:
    """Return KEDA-like scaling over fixed shares by variant; the name of one variant gives it everything.

    parameters: of all variants, or by variant.
    """
    split = {shares: 1.0} if isinstance(shares, str) else dict(shares)
    named = dict.fromkeys(split, parameters) if isinstance(parameters, KedaParameters) else dict(parameters)
    return ScaledFleet(name, split, KedaScaler(named), packing)


def _poll(
    state: KedaState, variant: FleetVariant, load: VariantLoad | None, at_seconds: float, parameters: KedaParameters
) -> KedaState:
    """Look whether a trigger is active; from zero an active one starts a replica."""
    if is_between(state.polled_at_seconds, at_seconds, parameters.polling_seconds):
        return state
    inside = (variant.running or 0.0) + (variant.waiting or 0.0)
    rate = 0.0 if load is None else load.rate_rps
    active = max(inside, rate) > parameters.activation
    last = at_seconds if active or state.active_at_seconds is None else state.active_at_seconds
    desired = state.desired
    if variant.replicas == 0:
        desired = max(parameters.minimum, 1 if active else 0)
    return KedaState(state.hpa, state.synced_at_seconds, at_seconds, last, desired)


def _is_asleep(state: KedaState, at_seconds: float, parameters: KedaParameters) -> bool:
    last = state.active_at_seconds
    return parameters.minimum == 0 and last is not None and at_seconds - last > parameters.cooldown_seconds


def _wished(variant: FleetVariant, load: VariantLoad | None, parameters: KedaParameters) -> int:
    """Return the largest wish of the triggers; one without a metric has none, without any nothing changes."""
    triggers = [(parameters.running, variant.running), (parameters.waiting, variant.waiting)]
    if variant.running is not None and load is not None:
        tokens = load.shape.input_tokens + load.shape.output_tokens / 2.0
        triggers.append((parameters.kv_usage, variant.running * tokens / variant.model.kv_tokens))
    wishes = [
        _replicas(variant.replicas, total, threshold, parameters.hpa.tolerance)
        for threshold, total in triggers
        if threshold is not None and total is not None and math.isfinite(total)
    ]
    return max(wishes, default=variant.replicas)


def _replicas(current: int, total: float, threshold: float, tolerance: float) -> int:
    if abs(1.0 - total / (threshold * current)) <= tolerance:
        return current
    return math.ceil(total / threshold - 1e-9)
