"""Hand-made fleets: an 8B on H100, a 70B on H100 and on B200, and what a controller sees of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from wattzoo_policies.capacity.model import LatencyTarget, ReplicaModel, RequestShape
from wattzoo_policies.placement.signals import FleetObservation, FleetPool, FleetService, FleetVariant

SHAPE = RequestShape(600.0, 130.0)
LATENCY = LatencyTarget(2.0, 0.06)
ACCURACY = {"8b": 0.4346, "70b": 0.6262}


def make_model(t0: float, t1: float, watts: tuple[float, float, float], accelerators: int = 1) -> ReplicaModel:
    """A replica whose prompts take a fiftieth of an output token each."""
    idle, active, most = watts
    return ReplicaModel(t0, t1, t1 / 50.0, 1_000_000, 512, 0.0, idle, active, most, 120.0, 150.0 * idle, accelerators)


SMALL = make_model(0.0067, 8.8e-5, (116.0, 475.0, 700.0))
LARGE = make_model(0.0163, 1.38e-4, (464.0, 1664.0, 2650.0), accelerators=4)
LARGE_B200 = make_model(0.0168, 1.02e-4, (400.0, 1725.0, 1978.0), accelerators=2)

POOLS = (
    FleetPool("h100", 48, price_per_accelerator_second=2.0 / 3600.0),
    FleetPool("b200", 16, price_per_accelerator_second=3.5 / 3600.0),
)
VARIANTS = (
    FleetVariant("8b-h100", "8b", "h100", SMALL, 0, 0, 0),
    FleetVariant("70b-h100", "70b", "h100", LARGE, 0, 0, 0),
    FleetVariant("70b-b200", "70b", "b200", LARGE_B200, 0, 0, 0),
)
SERVICE = FleetService(
    "chat", 0.52, ("8b", "70b"), LATENCY, rate_rps=40.0, shape=SHAPE, satisfied=0.0, total=0.0, accuracies=ACCURACY
)


def observe(
    at: float = 0.0,
    ready: Mapping[str, int] | None = None,
    inside: Mapping[str, tuple[float, float]] | None = None,
    service: FleetService = SERVICE,
    *,
    starting: int = 0,
    terminating: int = 0,
    caps: Mapping[str, int] | None = None,
) -> FleetObservation:
    """A fleet with so many ready replicas (all serving) and (running, waiting) requests inside, by variant."""
    variants = tuple(
        replace(
            v,
            replicas=(ready or {}).get(v.name, 0) + (starting if v.name in (ready or {}) else 0),
            ready=(ready or {}).get(v.name, 0),
            serving=(ready or {}).get(v.name, 0),
            terminating=terminating if v.name in (ready or {}) else 0,
            running=(inside or {}).get(v.name, (0.0, 0.0))[0],
            waiting=(inside or {}).get(v.name, (0.0, 0.0))[1],
        )
        for v in VARIANTS
    )
    pools = tuple(replace(pool, accelerators=(caps or {}).get(pool.name, pool.accelerators)) for pool in POOLS)
    return FleetObservation(at, 15.0, pools, variants, (service,))
