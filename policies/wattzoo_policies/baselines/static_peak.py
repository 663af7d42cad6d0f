"""Static provisioning: enough replicas of one variant for the highest load, all the time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wattzoo_policies.baselines.fleet import Packing, ScaledFleet, Shares, VariantLoad
from wattzoo_policies.capacity.model import LatencyTarget, ReplicaModel, RequestShape, capacity_rps
from wattzoo_policies.placement.signals import FleetVariant


@dataclass(frozen=True, slots=True)
class FixedScaler:
    """The same numbers by variant, whatever happens."""

    replicas: Mapping[str, int]

    def initial_state(self) -> tuple[()]:
        """Return nothing: there is nothing to remember."""
        return ()

    def decide(
        self, state: Any, variant: FleetVariant, load: VariantLoad | None, at_seconds: float
    ) -> tuple[tuple[()], int]:
        """Return the variant's number."""
        del state, load, at_seconds
        return (), self.replicas[variant.name]


def make_static_peak(
    variant: str, replicas: int, packing: Packing | None = None, name: str = "static-peak"
) -> ScaledFleet:
    """Return a controller that keeps `replicas` of one variant (see `plan_peak_replicas`) and sends it everything."""
    return make_static_fleet({variant: 1.0}, {variant: replicas}, packing, name)


def make_static_fleet(
    shares: Shares, replicas: Mapping[str, int], packing: Packing | None = None, name: str = "static-peak"
) -> ScaledFleet:
    """Return a controller with fixed shares and replicas by variant; raises `ValueError` where a number is missing."""
    if missing := sorted(variant for variant, share in shares.items() if share > 0.0 and variant not in replicas):
        raise ValueError(f"no number of replicas for {', '.join(missing)}")
    return ScaledFleet(name, shares, FixedScaler(replicas), packing)


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
