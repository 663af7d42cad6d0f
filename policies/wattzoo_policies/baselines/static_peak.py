"""Static provisioning: enough replicas of one variant for the highest load, all the time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from wattzoo_policies.baselines.fleet import Packing, ScaledFleet, VariantLoad
from wattzoo_policies.capacity.model import LatencyTarget, ReplicaModel, RequestShape, capacity_rps
from wattzoo_policies.placement.signals import FleetVariant


@dataclass(frozen=True, slots=True)
class FixedScaler:
    """The same number, whatever happens."""

    replicas: int

    def initial_state(self) -> tuple[()]:
        """Return nothing: there is nothing to remember."""
        return ()

    def decide(
        self, state: Any, variant: FleetVariant, load: VariantLoad | None, at_seconds: float
    ) -> tuple[tuple[()], int]:
        """Return the number."""
        del state, variant, load, at_seconds
        return (), self.replicas


def make_static_peak(
    variant: str, replicas: int, packing: Packing | None = None, name: str = "static-peak"
) -> ScaledFleet:
    """Return a controller that keeps `replicas` of one variant (see `plan_peak_replicas`) and sends it everything."""
    return ScaledFleet(name, {variant: 1.0}, FixedScaler(replicas), packing)


def plan_peak_replicas(
    model: ReplicaModel, shape: RequestShape, latency: LatencyTarget, peak_rps: float, eta: float = 1.0
) -> int:
    """Return the replicas that carry the peak at `eta` of the knee. The peak is known: hindsight is granted here.

    Raises `ValueError` when one replica cannot keep the latency bounds.
    """
    capacity = capacity_rps(model, shape, latency, eta)
    if capacity is None:
        raise ValueError("no number of replicas keeps these latency bounds")
    return max(1, math.ceil(peak_rps / capacity - 1e-9))
