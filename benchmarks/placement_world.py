"""The day, the zoo, the fleet and the recorded traces that the placement benchmark runs on.

Replica figures are fitted to published engine measurements (see `SOURCES`); what nobody measured is marked assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from wattzoo.cli.outcome_files import read_table
from wattzoo_policies.capacity.model import LatencyTarget, ReplicaModel
from wattzoo_policies.placement.signals import FleetPool, FleetService, FleetVariant
from wattzoo_policies.sim.fluid.demand import bin_trace, draw_curve
from wattzoo_policies.sim.fluid.scenario import FloatArray, FluidDemand, FluidScenario

ACCURACY = {"4b": 0.4116, "8b": 0.4346, "70b": 0.6262}
"""Satisfied share on MMLU-Pro (zoo llama3 of the public outcomes)."""
BILLIONS = {"4b": 4.0, "8b": 8.0, "70b": 70.0}
STARTUP_SECONDS = {"4b": 90.0, "8b": 120.0, "70b": 300.0}
START_POWER = 1.25
PEAK_TFLOPS = {"h100": 989.0, "b200": 2250.0, "a100": 312.0}
FLEET = {"h100": 48, "b200": 16, "a100": 32}
RESIDENT_WATTS = {"h100": 116.0, "b200": 200.0, "a100": 80.0}
OFF_WATTS = {"h100": 74.0, "b200": 140.0, "a100": 53.0}
LATENCY = LatencyTarget(ttft_seconds=2.0, tpot_seconds=0.060)
MOST_TOKENS = (8000.0, 2000.0)
CURVES = ("m-large", "m-small")
"""Services of the 14 days of rates."""

# (member, GPU): accelerators, t0 ms, t1 ms, active W, saturated W, KV cache tokens (memory less weights over KV bytes)
FIGURES: Mapping[tuple[str, str], tuple[int, float, float, float, float, int]] = {
    ("4b", "h100"): (1, 4.20, 0.070, 430.0, 680.0, 560_000),  # assumed, between measured 3B and 8B shapes
    ("8b", "h100"): (1, 6.73, 0.088, 475.0, 700.0, 430_000),
    ("70b", "h100"): (4, 16.3, 0.138, 1664.0, 2650.0, 450_000),
    ("4b", "b200"): (1, 3.20, 0.070, 500.0, 650.0, 1_300_000),  # assumed
    ("8b", "b200"): (1, 4.82, 0.0866, 560.0, 690.0, 1_100_000),
    ("70b", "b200"): (2, 16.8, 0.102, 1725.0, 1978.0, 580_000),
    ("4b", "a100"): (1, 7.40, 0.140, 270.0, 390.0, 560_000),  # assumed
    ("8b", "a100"): (1, 11.8, 0.176, 295.0, 400.0, 430_000),
    ("70b", "a100"): (4, 28.6, 0.275, 960.0, 1600.0, 450_000),
}
ALL_VARIANTS = tuple(f"{member}-{gpu}" for member, gpu in FIGURES)
TWO_VARIANTS = ("8b-b200", "70b-b200")


def make_model(member: str, gpu: str) -> ReplicaModel:
    """Return one replica of a member on a GPU type."""
    accelerators, t0, t1, active, most, kv_tokens = FIGURES[member, gpu]
    idle = RESIDENT_WATTS[gpu] * accelerators
    startup = STARTUP_SECONDS[member]
    return ReplicaModel(
        t0_seconds=t0 / 1e3,
        t1_seconds=t1 / 1e3,
        prefill_seconds_per_token=2.0 * BILLIONS[member] * 1e9 / (0.5 * accelerators * PEAK_TFLOPS[gpu] * 1e12),
        kv_tokens=kv_tokens,
        max_sequences=1024,
        off_watts=OFF_WATTS[gpu] * accelerators,
        idle_watts=idle,
        active_watts=active,
        max_watts=most,
        startup_seconds=startup,
        startup_joules=START_POWER * idle * startup,
        accelerators=accelerators,
        max_batched_tokens=8192,
    )


def make_pools(accelerators: Mapping[str, int] | None = None) -> tuple[FleetPool, ...]:
    """Return the pools, nodes of eight."""
    return tuple(
        FleetPool(gpu, count, node_accelerators=(8,) * (count // 8) + ((count % 8,) if count % 8 else ()))
        for gpu, count in (accelerators or FLEET).items()
    )


def make_variants(names: Sequence[str] = ALL_VARIANTS) -> tuple[FleetVariant, ...]:
    """Return variants without a replica yet."""
    parts = [name.rsplit("-", 1) for name in names]
    return tuple(
        FleetVariant(f"{member}-{gpu}", member, gpu, make_model(member, gpu), 0, 0, 0) for member, gpu in parts
    )


def make_service(
    name: str, alpha: float, latency: LatencyTarget = LATENCY, accuracy: Mapping[str, float] | None = None
) -> FleetService:
    """Return a service that may use every member; priors are the known accuracies."""
    known = dict(accuracy or ACCURACY)
    return FleetService(name, alpha, tuple(known), latency, None, None, 0.0, 0.0, known)


def make_scenario(
    demand: FluidDemand,
    alpha: float | Sequence[float],
    *,
    variants: Sequence[str] = ALL_VARIANTS,
    accelerators: Mapping[str, int] | None = None,
    latency: LatencyTarget = LATENCY,
    accuracy: Mapping[str, float] | None = None,
) -> FluidScenario:
    """Return a scenario on this zoo; `alpha` one for all services or one each."""
    count = len(demand.services)
    alphas = [float(a) for a in np.broadcast_to(np.asarray(alpha, dtype=np.float64), (count,))]
    return FluidScenario(
        demand=demand,
        pools=make_pools(accelerators),
        variants=make_variants(variants),
        services=tuple(make_service(n, a, latency, accuracy) for n, a in zip(demand.services, alphas, strict=True)),
        accuracy={name: dict(accuracy or ACCURACY) for name in demand.services},
    )


def read_tokens(data: Path, name: str = "arrivals_servegen_m-large.parquet") -> tuple[FloatArray, FloatArray]:
    """Return input and output tokens of recorded requests, clipped to what the zoo's engines take."""
    rows = read_table(data / name)
    return _clip(rows["in_tokens"], MOST_TOKENS[0]), _clip(rows["out_tokens"], MOST_TOKENS[1])


def read_day(
    data: Path, mean_rps: float, rng: np.random.Generator, *, service: str = "m-large", day: int = 9
) -> FluidDemand:
    """Return a day of production rates (0-based), made bursty, scaled to a mean rate."""
    rows = read_table(data / "arrivals_servegen_rates_14d.csv")
    chosen = np.asarray(rows["service"]) == service
    at = np.asarray(rows["t_s"], dtype=np.float64)[chosen]
    rate = np.asarray(rows["rate_rps"], dtype=np.float64)[chosen]
    inside = (at >= day * 86400.0) & (at <= (day + 1) * 86400.0)
    return draw_curve(at[inside], rate[inside], read_tokens(data), rng, service="day", mean_rps=mean_rps)


def read_recorded(data: Path, name: str, thin: str | None = None) -> FluidDemand:
    """Return a recorded trace in steps; `thin` chooses one service of it."""
    rows = read_table(data / name)
    at = np.asarray(rows["t_s"], dtype=np.float64)
    keep = np.ones(at.size, dtype=bool) if thin is None else np.asarray(rows["service"]) == thin
    return bin_trace(
        at[keep],
        _clip(rows["in_tokens"], MOST_TOKENS[0])[keep],
        _clip(rows["out_tokens"], MOST_TOKENS[1])[keep],
        services=(thin or name.removeprefix("arrivals_").split(".")[0],),
    )


def with_accelerators(scenario: FluidScenario, pool: str, count: int) -> FluidScenario:
    """Return the scenario with one pool's size changed (a baseline whose cap is lifted)."""
    pools = tuple(
        replace(p, accelerators=count, node_accelerators=(8,) * (count // 8)) if p.name == pool else p
        for p in scenario.pools
    )
    return replace(scenario, pools=pools)


def _clip(values: object, most: float) -> FloatArray:
    return np.clip(np.asarray(values, dtype=np.float64), 1.0, most)
