"""Runs of the placement benchmark: policies as factories, swept where a careful person would sweep, in processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.placement_world import (
    ACCURACY,
    ALL_VARIANTS,
    CURVES,
    FLEET,
    LATENCY,
    make_scenario,
    read_day,
    read_recorded,
    with_accelerators,
)
from wattzoo_policies.baselines.hpa_fleet import make_hpa_fleet
from wattzoo_policies.baselines.keda import KedaParameters, make_keda_fleet
from wattzoo_policies.baselines.mess_hpa import MessHpa
from wattzoo_policies.baselines.mixture_hpa import (
    HandPlaced,
    MixtureCandidate,
    make_mixture_hpa,
    plan_hpa_parameters,
    plan_mixtures,
)
from wattzoo_policies.baselines.static_peak import make_static_peak, plan_peak_replicas
from wattzoo_policies.capacity.model import RequestShape
from wattzoo_policies.placement.joint import JointController, JointParameters
from wattzoo_policies.placement.joint_demand import Outlook
from wattzoo_policies.placement.packing import decide_serving
from wattzoo_policies.placement.signals import FleetController
from wattzoo_policies.sim.fluid.bound import Bound, bound_energy
from wattzoo_policies.sim.fluid.demand import join_services, take_steps, with_jump
from wattzoo_policies.sim.fluid.result import FluidResult
from wattzoo_policies.sim.fluid.run import run_fluid
from wattzoo_policies.sim.fluid.scenario import FluidDemand, FluidScenario

GOAL = 0.99
FILLS = (0.25, 0.35, 0.45, 0.6)
"""Swept autoscaler targets, as shares of the requests a replica has inside at its knee."""
WINDOW = 20
PLAN_STEPS = 4
LIFTED = 192


@dataclass(frozen=True, slots=True)
class World:
    """One demand and promise. hours: of the day, `None` for all. rate: mean requests/s of the synthetic day.

    curve, day: whose rates of the 14 days, and which day. second_alpha: of another service beside it, with half the
    rate and another curve, that shares the servers. gpus: what variants may run on. accuracy: by member.
    """

    name: str
    alpha: float
    source: str = "day"
    rate: float = 40.0
    seed: int = 1
    first_hour: float = 0.0
    hours: float | None = None
    thin: str | None = None
    jump: tuple[float, int, int] | None = None
    fleet: int = 1
    curve: str = "m-large"
    day: int = 9
    second_alpha: float | None = None
    gpus: tuple[str, ...] = tuple(FLEET)
    accuracy: Mapping[str, float] = field(default_factory=lambda: dict(ACCURACY))


@dataclass(frozen=True, slots=True)
class Job:
    """One policy in one world; `fill` sweeps an autoscaler's target, the best of a policy's jobs is its row."""

    world: World
    policy: str
    fill: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What a job gave, without the time series."""

    job: Job
    wh: float
    kinds: dict[str, float]
    slo: float
    ttft: float
    tpot: float
    accuracy_margin: float
    worst_hour_margin: float
    starts_per_hour: float
    hours: float
    accelerators: float
    accelerators_peak: float
    plan_p99: float | None
    wall_seconds: float
    remark: str = ""

    @property
    def reached(self) -> bool:
        """Return whether the attainment goal was reached."""
        return self.slo >= GOAL


class PerfectDemand:
    """Foresight of the coming demand (for the clairvoyant row)."""

    def __init__(self, demand: FluidDemand, warmup_steps: int, *, knows_next: bool) -> None:
        self.knows_next = knows_next
        self._rates = demand.mirrored(warmup_steps).requests[:, 0] / demand.step_seconds
        self._step_seconds, self._warmup = demand.step_seconds, warmup_steps

    def look(self, service: str, at_seconds: float) -> Outlook:
        """Return the means of the coming plan and interval, and the mean of the lead window's three largest."""
        del service
        step = min(self._rates.size - 1, round(at_seconds / self._step_seconds) + self._warmup)
        largest = np.sort(self._rates[step : step + WINDOW])[-3:]
        near = float(self._rates[step : step + PLAN_STEPS].mean())
        following = float(self._rates[step]) if self.knows_next else None
        return Outlook(near, max(near, float(largest.mean())), following)


def make_demand(world: World, data: Path) -> FluidDemand:
    """Return a world's demand."""
    if world.source == "day":
        demand = read_day(data, world.rate, np.random.default_rng(world.seed), service=world.curve, day=world.day)
        if world.second_alpha is not None:
            other, rng = next(name for name in CURVES if name != world.curve), np.random.default_rng(world.seed + 200)
            second = read_day(data, world.rate / 2.0, rng, service=other, day=world.day)
            demand = join_services([demand, replace(second, services=("second",))])
    else:
        demand = read_recorded(data, world.source, world.thin)
    if world.hours is not None:
        first = int(world.first_hour * 240)
        demand = take_steps(demand, first, first + int(world.hours * 240))
    if world.jump is not None:
        demand = with_jump(demand, *world.jump, np.random.default_rng(world.seed + 100))
    return demand


def make_world_scenario(world: World, data: Path) -> FluidScenario:
    """Return a world's scenario; `fleet` times the usual fleet."""
    fleet = {gpu: world.fleet * FLEET[gpu] for gpu in world.gpus}
    alphas = [world.alpha] if world.second_alpha is None else [world.alpha, world.second_alpha]
    variants = [name for name in ALL_VARIANTS if name.rsplit("-", 1)[1] in world.gpus]
    demand = make_demand(world, data)
    return make_scenario(demand, alphas, variants=variants, accelerators=fleet, accuracy=world.accuracy)


def mean_shape(demand: FluidDemand) -> RequestShape:
    """Return the mean request."""
    total = demand.requests.sum()
    return RequestShape(
        float(np.nansum(demand.requests * demand.input_tokens) / total),
        float(np.nansum(demand.requests * demand.output_tokens) / total),
    )


def mean_alpha(scenario: FluidScenario) -> float:
    """Return the services' mean target by requests: one mixture serves all of them."""
    requests = scenario.demand.requests.sum(axis=0)
    return float(requests @ [service.alpha for service in scenario.services] / requests.sum())


Made = tuple[FleetController[Any], FluidScenario, str]


def make_policy_run(job: Job, scenario: FluidScenario) -> Made:
    """Return controller, scenario (caps lifted where the row says so) and a remark."""
    demand, alpha = scenario.demand, mean_alpha(scenario)
    shape = mean_shape(demand)
    candidates = [MixtureCandidate(v.name, v.member, v.model) for v in scenario.variants]
    fill = job.fill or 0.4
    targets = plan_hpa_parameters(candidates, shape, LATENCY, fill)
    models = {variant.name: variant.model for variant in scenario.variants}
    lifted = with_accelerators(with_accelerators(scenario, "b200", LIFTED), "h100", 4 * LIFTED)
    lifted = with_accelerators(lifted, "a100", 4 * LIFTED)
    h100 = [c for c in candidates if c.variant.endswith("h100")]

    def mixture(among: list[MixtureCandidate]) -> HandPlaced:
        return plan_mixtures(among, job.world.accuracy, shape, LATENCY, alpha)[0]

    def packed(work: float | None, knee: float | None, ready: int, serving: int) -> int:
        return decide_serving(work, knee, ready, serving)

    peak = float(np.quantile(demand.requests.sum(axis=1), 0.999)) / demand.step_seconds

    def joint(**changes: Any) -> Made:
        return JointController(JointParameters(**changes)), scenario, ""

    makers: dict[str, Callable[[], Made]] = {
        "static peak, 70B H100": lambda: (
            make_static_peak("70b-h100", plan_peak_replicas(models["70b-h100"], shape, LATENCY, peak)),
            lifted,
            "hindsight peak",
        ),
        "HPA, 70B H100": lambda: (make_hpa_fleet("70b-h100", targets), lifted, f"target {fill:.0%}"),
        "HPA, 70B B200 (best GPU)": lambda: (make_hpa_fleet("70b-b200", targets), lifted, f"target {fill:.0%}"),
        "KEDA-like, 70B B200": lambda: (
            make_keda_fleet("70b-b200", KedaParameters(running=targets["70b-b200"].target_average)),
            lifted,
            f"target {fill:.0%}",
        ),
        "mix + HPA, H100": lambda: (make_mixture_hpa(mixture(h100), targets), lifted, _shares(mixture(h100), fill)),
        "mix + HPA, best GPUs": lambda: (
            make_mixture_hpa(mixture(candidates), targets),
            lifted,
            _shares(mixture(candidates), fill),
        ),
        "mix + HPA, best GPUs, packed": lambda: (
            make_mixture_hpa(mixture(candidates), targets, packed),
            lifted,
            _shares(mixture(candidates), fill),
        ),
        "MESS+ per request + HPA": lambda: (
            MessHpa(("4b-b200", "8b-b200", "70b-b200"), targets),
            lifted,
            f"target {fill:.0%}",
        ),
        "joint": joint,
        "joint, not filled": lambda: joint(fill=False),
        "joint, reservePercent 400": lambda: joint(reserve_percent=400.0),
        "joint, clairvoyant in the lead window": lambda: (
            JointController(foresight=PerfectDemand(demand, scenario.warmup_steps, knows_next=False)),
            scenario,
            "not a policy",
        ),
        "joint, clairvoyant in every interval": lambda: (
            JointController(foresight=PerfectDemand(demand, scenario.warmup_steps, knows_next=True)),
            scenario,
            "not a policy",
        ),
    }
    return makers[job.policy]()


SWEPT = (
    "HPA, 70B H100",
    "HPA, 70B B200 (best GPU)",
    "KEDA-like, 70B B200",
    "mix + HPA, H100",
    "mix + HPA, best GPUs",
    "mix + HPA, best GPUs, packed",
    "MESS+ per request + HPA",
)


def run_job(job: Job, data: Path) -> Row:
    """Run one job."""
    scenario = make_world_scenario(job.world, data)
    controller, scenario, remark = make_policy_run(job, scenario)
    begun = time.perf_counter()
    result = run_fluid(scenario, controller, np.random.default_rng(job.world.seed + 7), clock=time.perf_counter)
    return summarise(job, result, time.perf_counter() - begun, remark)


def summarise(job: Job, result: FluidResult, wall_seconds: float, remark: str) -> Row:
    """Return the row of a run."""
    held = np.sum(list(result.accelerators.values()), axis=0)
    return Row(
        job,
        result.wh_per_1000_requests,
        result.wh_by_kind,
        result.attainment,
        result.ttft_attainment,
        result.tpot_attainment,
        result.worst_margin,
        result.worst_hour_margin,
        result.starts_per_hour,
        result.hours,
        float(held.mean()),
        float(held.max()),
        result.plan_seconds_p99,
        wall_seconds,
        remark,
    )


def find_bound(world: World, data: Path) -> Bound:
    """Return the bound of a world."""
    return bound_energy(make_world_scenario(world, data))


def run_all(worlds: Sequence[tuple[World, Sequence[str]]], data: Path, jobs: int) -> dict[tuple[str, str], Row]:
    """Run every policy in its worlds; of a sweep the cheapest that reaches the goal, else the one that serves best."""
    queue = [
        Job(world, policy, fill)
        for world, policies in worlds
        for policy in policies
        for fill in (FILLS if policy in SWEPT else (None,))
    ]
    with ProcessPoolExecutor(jobs) as pool:
        rows = list(pool.map(run_job, queue, [data] * len(queue)))
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row.job.world.name, row.job.policy)
        best[key] = min(best[key], row, key=_rank) if key in best else row
    return best


def _rank(row: Row) -> tuple[bool, float]:
    return not row.reached, row.wh if row.reached else -row.slo


def _shares(placed: HandPlaced, fill: float) -> str:
    return ", ".join(f"{share:.0%} {name}" for name, share in placed.shares.items()) + f", target {fill:.0%}"
