"""A HorizontalPodAutoscaler per variant, on the requests running and waiting per pod.

The largest model on one type of accelerator with its target swept is what most people run. The cap is whatever the
pool has: a pool that is given more accelerators than there are lifts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wattzoo_policies.baselines.fleet import Packing, ScaledFleet, Shares, VariantLoad
from wattzoo_policies.baselines.hpa import HpaObservation, HpaParameters, HpaState, decide_hpa
from wattzoo_policies.placement.signals import FleetVariant


@dataclass(frozen=True, slots=True)
class HpaScalerState:
    """The autoscaler's memory, and when it last synchronised and to what."""

    hpa: HpaState = field(default_factory=HpaState)
    synced_at_seconds: float | None = None
    desired: int = 0


@dataclass(frozen=True, slots=True)
class HpaScaler:
    """One autoscaler per variant; parameters by variant (targets differ, since what a replica carries differs)."""

    parameters: Mapping[str, HpaParameters]

    def initial_state(self) -> HpaScalerState:
        """Return a new autoscaler."""
        return HpaScalerState()

    def decide(
        self, state: HpaScalerState, variant: FleetVariant, load: VariantLoad | None, at_seconds: float
    ) -> tuple[HpaScalerState, int]:
        """Return the desired replicas; between two syncs what was desired last."""
        del load
        parameters = self.parameters[variant.name]
        if is_between(state.synced_at_seconds, at_seconds, parameters.sync_seconds):
            return state, state.desired
        if variant.replicas == 0:  # the autoscaler is off at zero: whoever deploys begins with the minimum
            return HpaScalerState(state.hpa, at_seconds, parameters.min_replicas), parameters.min_replicas
        hpa, desired = decide_hpa(state.hpa, observe_pods(variant), parameters, at_seconds)
        return HpaScalerState(hpa, at_seconds, desired), desired


def observe_pods(variant: FleetVariant) -> HpaObservation:
    """Return what an autoscaler reads: the load of each ready pod, nothing of those that start.

    The plant knows sums, so each ready pod has the mean; silent ones pull it down, as they do in a cluster.
    """
    starting = max(0, variant.replicas - variant.ready)
    if variant.running is None or variant.waiting is None or variant.ready == 0:
        return HpaObservation(variant.replicas, (), missing=variant.replicas)
    mean = (variant.running + variant.waiting) / variant.ready
    return HpaObservation(variant.replicas, (mean,) * variant.ready, missing=starting)


def make_hpa_fleet(
    shares: Shares | str,
    parameters: Mapping[str, HpaParameters],
    packing: Packing | None = None,
    name: str = "hpa",
) -> ScaledFleet:
    """Return autoscalers over fixed shares by variant; the name of one variant gives it everything.

    parameters: by variant; raises `ValueError` when one with a share has none.
    """
    split = {shares: 1.0} if isinstance(shares, str) else dict(shares)
    if missing := sorted(variant for variant, share in split.items() if share > 0.0 and variant not in parameters):
        raise ValueError(f"no autoscaler parameters for {', '.join(missing)}")
    return ScaledFleet(name, split, HpaScaler(dict(parameters)), packing)


def is_between(last_at_seconds: float | None, at_seconds: float, period_seconds: float) -> bool:
    """Whether a period has not passed since the last time, within a tenth of it."""
    return last_at_seconds is not None and at_seconds - last_at_seconds < 0.9 * period_seconds
