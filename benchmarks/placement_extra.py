"""The rows of the placement benchmark that are not days: many small services, and fluid against discrete events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.placement_world import ACCURACY, FLEET, LATENCY, make_scenario, make_variants, read_day
from wattzoo_policies.capacity.model import RequestShape, power_watts
from wattzoo_policies.placement.joint import JointController
from wattzoo_policies.placement.signals import FleetDecision, FleetObservation, FleetVariant
from wattzoo_policies.sim.closed_loop import run_closed_loop
from wattzoo_policies.sim.controllers import FixedWeights
from wattzoo_policies.sim.fleet import Variant
from wattzoo_policies.sim.fluid.demand import bin_trace, draw_counts, join_services, take_steps
from wattzoo_policies.sim.fluid.result import FluidResult
from wattzoo_policies.sim.fluid.run import run_fluid
from wattzoo_policies.sim.fluid.scenario import FloatArray, FluidDemand, FluidScenario
from wattzoo_policies.sim.scenario import LoopRequest, LoopView, Scenario, ServiceTarget


@dataclass(frozen=True, slots=True)
class Fixed:
    """A controller that never changes its mind."""

    replicas: Mapping[str, int]
    weights: Mapping[str, Mapping[str, float]]
    name: str = "fixed"

    def initial_state(self) -> tuple[()]:
        """Return nothing."""
        return ()

    def decide(
        self, state: tuple[()], observation: FleetObservation, rng: np.random.Generator
    ) -> tuple[tuple[()], FleetDecision]:
        """Return the same again."""
        del observation, rng
        return state, FleetDecision(self.replicas, self.replicas, self.weights)


@dataclass(frozen=True, slots=True)
class SmallServices:
    """100 small services sharing four pools against one replica set each; watts are means over the run."""

    services: int
    total_rps: float
    shared: FluidResult
    shared_watts: float
    own_watts: float
    wall_seconds: float

    @property
    def ratio(self) -> float:
        """Return shared over own."""
        return self.shared_watts / self.own_watts


def run_small_services(data: Path, *, count: int = 100, hours: float = 1.0, seed: int = 3) -> SmallServices:
    """Return the comparison.

    Rates are log-uniform in .05 to 2 requests/s, targets uniform in .42 to .60. Own sets: the cheapest choice that
    keeps the target at the service's own mean rate, one replica of each member it needs (never silent, never zero).
    """
    rng = np.random.default_rng(seed)
    rates = np.exp(rng.uniform(np.log(0.05), np.log(2.0), count))
    alphas = rng.uniform(0.42, 0.60, count)
    demand = join_services([_poisson_service(f"s{n:03d}", rate, hours, rng) for n, rate in enumerate(rates)])
    scenario = make_scenario(demand, alphas.tolist(), accelerators={**FLEET, "h200": 32})
    variants = (*scenario.variants, *_h200_variants())
    scenario = replace(scenario, variants=variants)
    del data
    begun = time.perf_counter()
    result = run_fluid(scenario, JointController(), np.random.default_rng(seed + 1), clock=time.perf_counter)
    wall = time.perf_counter() - begun
    shape = RequestShape(616.0, 131.0)
    own = sum(_own_watts(rate, alpha, shape) for rate, alpha in zip(rates, alphas, strict=True))
    return SmallServices(count, float(rates.sum()), result, result.joules / (hours * 3600.0), own, wall)


def _h200_variants() -> tuple[FleetVariant, ...]:
    """Return the fourth pool's variants: the H100's figures with the measured idle power of an H200."""
    found = []
    for variant in make_variants(("8b-h100", "70b-h100")):
        model = replace(variant.model, idle_watts=124.0 * variant.model.accelerators)
        found.append(replace(variant, name=f"{variant.member}-h200", pool="h200", model=model))
    return tuple(found)


def _poisson_service(name: str, rate: float, hours: float, rng: np.random.Generator) -> FluidDemand:
    steps = int(hours * 240)
    counts = draw_counts(np.full(steps, rate * 15.0), 1.0, rng).astype(np.float64).reshape(-1, 1)
    busy = counts > 0.0
    return FluidDemand(15.0, (name,), counts, np.where(busy, 616.0, np.nan), np.where(busy, 131.0, np.nan))


def _own_watts(rate: float, alpha: float, shape: RequestShape) -> float:
    """Return the least power of a private replica set: one member alone, or a mixture of two."""
    models = {(v.member, v.pool): v.model for v in make_variants()}
    best = min(
        (power_watts(model, shape, rate) for (member, _), model in models.items() if ACCURACY[member] >= alpha),
        default=float("inf"),
    )
    for low in ("4b", "8b"):
        if ACCURACY[low] < alpha:
            share = (alpha - ACCURACY[low]) / (ACCURACY["70b"] - ACCURACY[low])
            cheap = min(power_watts(m, shape, rate * (1 - share)) for (name, _), m in models.items() if name == low)
            dear = min(power_watts(m, shape, rate * share) for (name, _), m in models.items() if name == "70b")
            best = min(best, cheap + dear)
    return best


@dataclass(frozen=True, slots=True)
class Agreement:
    """Joules of one window in both plants."""

    requests: int
    fluid_joules: float
    event_joules: float
    fluid_attainment: float
    event_attainment: float

    @property
    def difference(self) -> float:
        """Return fluid over discrete events, less 1."""
        return self.fluid_joules / self.event_joules - 1.0


class _SameReplicas:
    interval_seconds = 60.0

    def __init__(self, replicas: Mapping[str, int]) -> None:
        self._replicas = replicas

    def decide(self, view: LoopView) -> Mapping[str, int]:
        """Return the same again."""
        del view
        return self._replicas


def compare_plants(
    data: Path, replicas: Mapping[str, int], weights: Mapping[str, float], *, first_hour: float, seconds: float = 3600.0
) -> Agreement:
    """Run the same requests over the same replicas and weights in the fluid and in the discrete-event plant."""
    hours = seconds / 3600.0
    demand = take_steps(
        read_day(data, 20.0, np.random.default_rng(11)), int(first_hour * 240), int((first_hour + hours) * 240)
    )
    at, tokens_in, tokens_out = spread_requests(demand, np.random.default_rng(12))
    binned = bin_trace(
        np.concatenate([[0.0], at]),
        np.concatenate([[1.0], tokens_in]),
        np.concatenate([[1.0], tokens_out]),
        services=demand.services,
    )
    scenario = make_scenario(binned, 0.5, variants=tuple(replicas))
    scenario = replace(
        scenario,
        warmup_steps=0,
        variants=tuple(
            replace(v, replicas=replicas[v.name], ready=replicas[v.name], serving=replicas[v.name])
            for v in scenario.variants
        ),
    )
    fluid = run_fluid(scenario, Fixed(replicas, {"day": weights}), np.random.default_rng(13))
    events = _run_events(scenario, replicas, weights, (at, tokens_in, tokens_out), seconds)
    attained = min(fluid.ttft_attainment, fluid.tpot_attainment)
    return Agreement(at.size, fluid.joules, events[0], attained, events[1])


def spread_requests(demand: FluidDemand, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return times and tokens of single requests: each step's spread evenly at random, of the step's mean size."""
    counts = demand.requests[:, 0].astype(np.int64)
    owner = np.repeat(np.arange(counts.size), counts)
    at = (owner + rng.random(owner.size)) * demand.step_seconds
    order = np.argsort(at, kind="stable")
    tokens_in = np.maximum(1.0, np.rint(demand.input_tokens[owner, 0]))
    tokens_out = np.maximum(1.0, np.rint(demand.output_tokens[owner, 0]))
    return at[order], tokens_in[order], tokens_out[order]


def _run_events(
    scenario: FluidScenario,
    replicas: Mapping[str, int],
    weights: Mapping[str, float],
    requests: tuple[FloatArray, FloatArray, FloatArray],
    seconds: float,
) -> tuple[float, float]:
    members = {v.member for v in scenario.variants}
    loop = Scenario(
        requests=tuple(
            LoopRequest(float(t), "day", f"r{n}", int(i), dict.fromkeys(members, int(o)), dict.fromkeys(members, True))
            for n, (t, i, o) in enumerate(zip(*requests, strict=True))
        ),
        variants=tuple(
            Variant(v.name, v.member, v.model, initial_replicas=replicas[v.name], accelerator_pool=v.pool)
            for v in scenario.variants
        ),
        services={"day": ServiceTarget(0.5, LATENCY)},
        end_seconds=seconds,
    )
    result = run_closed_loop(
        loop, FixedWeights({"day": weights}), _SameReplicas(replicas), np.random.default_rng(14), moment_seconds=60.0
    )
    return result.joules, min(result.ttft_attainment or 0.0, result.tpot_attainment or 0.0)
