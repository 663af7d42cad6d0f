"""Runs the comparison behind `wattzoo simulate`: files and options in, one row per policy out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wattzoo.cli.fleet_accuracy import read_service_accuracies
from wattzoo.cli.fleet_baselines import Group, Option, make_groups, make_options
from wattzoo.cli.fleet_model import Fleet, check_promises
from wattzoo.cli.fleet_report import ATTAINED, FleetReport, PolicyRow
from wattzoo.cli.manifest_files import Manifests
from wattzoo.cli.replay.controller import OperatorController
from wattzoo.cli.trace_files import Trace, read_trace
from wattzoo_policies.capacity.model import RequestShape
from wattzoo_policies.placement.joint import JointController, JointParameters
from wattzoo_policies.placement.objective import Objective
from wattzoo_policies.sim.fluid.bound import bound_energy
from wattzoo_policies.sim.fluid.demand import bin_trace
from wattzoo_policies.sim.fluid.result import FluidResult
from wattzoo_policies.sim.fluid.run import run_fluid
from wattzoo_policies.sim.fluid.scenario import STEP_SECONDS, FluidDemand, FluidScenario

COMPARISONS = ("joint", "hpa", "keda", "melange", "fixed-mix", "fixed-mix-packed", "static-peak")
OURS = "wattzoo"
JOINT = "joint"

MAX_SCALE = 1e4

Tick = Callable[[str, float], None]
"""Called with the name of what runs and the share of all the work that is done."""


class StudyError(ValueError):
    """An option that cannot be; the text names it and the rule."""


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """The command's options, as they go into the report."""

    manifests: tuple[str, ...]
    trace: Path
    outcomes: Path | None
    zoo: str | None
    compare: tuple[str, ...]
    bound: bool
    seeds: int
    seed: int
    service: str | None
    scale_load: float = 1.0
    objective: Objective = Objective.ENERGY


@dataclass(frozen=True, slots=True)
class Study:
    """What all policies run on."""

    found: Manifests
    fleet: Fleet
    scenario: FluidScenario
    trace: Trace
    accuracies: Mapping[str, Mapping[str, float]]


def make_study(found: Manifests, fleet: Fleet, options: StudyOptions) -> Study:
    """Read the trace and the outcomes; raises `FileError`, `InvalidSpec` and `StudyError`."""
    names = {service.name: service.name for service in fleet.services}
    names |= {str(ref): name for name, ref in fleet.service_refs.items()}
    if options.service is not None and options.service not in names:
        raise StudyError(f"--service: there is no LLMService {options.service!r}; there are {', '.join(names)}")
    if not 0.0 < options.scale_load <= MAX_SCALE:
        raise StudyError(f"--scale-load must be above 0 and at most {MAX_SCALE:g}, not {options.scale_load:g}")
    trace = read_trace(options.trace, names, None if options.service is None else names[options.service])
    accuracies = read_service_accuracies(fleet, options.outcomes, options.zoo)
    shapes = {name: RequestShape(first, further) for name, (_, first, further) in trace.means().items()}
    check_promises(fleet, accuracies, shapes)
    demand = bin_trace(
        trace.at_seconds, trace.input_tokens, trace.output_tokens, service=trace.service, services=trace.services
    )
    demand = scale_demand(demand, options.scale_load)
    scenario = FluidScenario(demand, fleet.pools, fleet.variants, fleet.services, accuracies)
    return Study(found, fleet, scenario, trace, accuracies)


def scale_demand(demand: FluidDemand, factor: float) -> FluidDemand:
    """Return the demand with `factor` times the requests: copies of it a step apart, the last one thinned.

    Copies on top of each other would be burstier than so many callers are: their chance would be the same chance.
    """
    if factor == 1.0:
        return demand
    copies = math.ceil(factor)
    shares = np.minimum(1.0, factor - np.arange(copies))
    steps = np.arange(demand.steps)
    requests = np.zeros_like(demand.requests)
    tokens = np.zeros((2, *demand.requests.shape))
    for number, share in enumerate(shares):
        at = np.abs(steps + number - copies // 2)
        at = np.where(at < demand.steps, at, 2 * (demand.steps - 1) - at) % demand.steps
        part = share * demand.requests[at]
        requests += part
        tokens[0] += part * np.nan_to_num(demand.input_tokens[at])
        tokens[1] += part * np.nan_to_num(demand.output_tokens[at])
    whole = np.rint(requests)
    means = np.divide(tokens, requests, out=np.full(tokens.shape, np.nan), where=requests > 0.0)
    return FluidDemand(demand.step_seconds, demand.services, whole, means[0], means[1])


def run_study(study: Study, options: StudyOptions, prices: Mapping[str, float], tick: Tick) -> FleetReport:
    """Return the comparison; `prices` per accelerator and second by pool, for baselines that go by them."""
    demand = study.scenario.demand
    groups = make_groups(study.fleet, demand, study.accuracies)
    try:
        others = {name: _make_choices(name, study, groups, prices) for name in options.compare}
    except ValueError as error:
        raise StudyError(f"--compare: {error}") from error
    ours = OperatorController(study.found, study.fleet, options.objective, OURS)
    plans: dict[str, list[Option]] = {OURS: [Option(ours, "")], **others}
    work = _Work(tick, sum(_count_runs(choices, options.seeds) for choices in plans.values()) + options.bound)
    rows = []
    for name, choices in plans.items():
        work.begin(name)
        best = _choose(study.scenario, choices, options.seed, work)
        rows.append(_run_row(name, study.scenario, best, options, work))
    bound = None
    if options.bound:
        work.begin("bound")
        bound = bound_energy(study.scenario).wh_per_1000_requests
    return FleetReport(
        rows=tuple(rows),
        bound_wh=bound,
        step_seconds=demand.step_seconds,
        inputs=_describe(study, options, rows),
        notes=study.fleet.notes,
    )


def _make_choices(name: str, study: Study, groups: Sequence[Group], prices: Mapping[str, float]) -> list[Option]:
    """Return what one name of `--compare` stands for; raises `ValueError` where it cannot be set up."""
    if name == JOINT:
        return [Option(make_controller(study.fleet), "")]
    return make_options(name, groups, prices)


@dataclass(slots=True)
class _Work:
    """Tells how far all runs together are."""

    tick: Tick
    total: int
    done: int = 0
    name: str = ""

    def begin(self, name: str) -> None:
        """Begin the runs of this name."""
        self.name = name
        self.tick(name, self.done / self.total)

    def advance(self, steps: int, all_steps: int) -> None:
        """Take note of a run's progress."""
        self.done += steps == all_steps
        share = 0.0 if steps == all_steps else steps / all_steps
        self.tick(self.name, (self.done + share) / self.total)


def _count_runs(choices: Sequence[Option], seeds: int) -> int:
    return seeds + (len(choices) if len(choices) > 1 else 0)


def make_controller(fleet: Fleet) -> JointController:
    """Return the shared controller, with what the ModelPools declare: the longest window, the largest reserve.

    A reserve counts where it is written: unset, the forecast's own error is what stands by.
    """
    window = max(float(scaling.down_stabilization_seconds) for scaling in fleet.scaling.values())
    declared = [scaling.reserve_percent or 0 for scaling in fleet.scaling.values()]
    parameters = JointParameters(down_stabilization_seconds=window, reserve_percent=float(max(declared, default=0)))
    return JointController(parameters, JOINT)


def _choose(scenario: FluidScenario, choices: Sequence[Option], seed: int, work: _Work) -> Option:
    """Return the choice of least energy among those that attain the latency, else the one that attains most.

    Accuracy is the same for all choices of a baseline but for chance, so it has no say.
    """
    if len(choices) == 1:
        return choices[0]
    ranked = []
    for place, choice in enumerate(choices):
        result = run_fluid(scenario, choice.controller, np.random.default_rng(seed), progress=work.advance)
        attained = result.attainment >= ATTAINED
        ranked.append((not attained, result.joules if attained else -result.attainment, place))
    return choices[min(ranked)[2]]


def _run_row(name: str, scenario: FluidScenario, choice: Option, options: StudyOptions, work: _Work) -> PolicyRow:
    results: list[FluidResult] = []
    started = time.perf_counter()
    for number in range(options.seeds):
        rng = np.random.default_rng(options.seed + number)
        results.append(run_fluid(scenario, choice.controller, rng, clock=time.perf_counter, progress=work.advance))
    return make_row(name, results, (time.perf_counter() - started) / options.seeds, choice.remark)


def make_row(name: str, results: Sequence[FluidResult], run_seconds: float, remark: str) -> PolicyRow:
    """Return the mean over seeds; accuracy is of the service and seed that is furthest below its target."""
    kinds = [result.wh_by_kind for result in results]
    plan_seconds = np.concatenate([result.plan_seconds for result in results])
    return PolicyRow(
        policy=name,
        active_wh=_mean(kind["active"] for kind in kinds),
        idle_wh=_mean(kind["idle"] for kind in kinds),
        start_wh=_mean(kind["start"] for kind in kinds),
        ttft=_mean(result.ttft_attainment for result in results),
        tpot=_mean(result.tpot_attainment for result in results),
        both=_mean(result.attainment for result in results),
        **_accuracy(results),
        starts_per_hour=_mean(result.starts_per_hour for result in results),
        accelerators={
            pool: np.mean([result.accelerators[pool] for result in results], axis=0) for pool in results[0].accelerators
        },
        run_seconds=run_seconds,
        solve_seconds=float(plan_seconds.sum()) / len(results),
        plan_seconds_p99=float(np.quantile(plan_seconds, 0.99)) if plan_seconds.size else None,
        remark=remark,
    )


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def _accuracy(results: Sequence[FluidResult]) -> dict[str, float]:
    """Return the means over seeds of the service whose mean accuracy is furthest below its target."""
    worst: tuple[float, float, float] | None = None
    for place, service in enumerate(results[0].services):
        ends = [end for result in results if (end := result.services[place].accuracy_end) is not None]
        hours = [hour for result in results if (hour := result.services[place].accuracy_worst_hour) is not None]
        if ends:
            margin = float(np.mean(ends)) - service.alpha
            found = (margin, float(np.mean(ends)), float(np.mean(hours)) if hours else float("nan"))
            worst = found if worst is None else min(worst, found)
    margin, end, hour = worst or (float("nan"),) * 3
    return {"accuracy_end": end, "accuracy_worst_hour": hour, "margin": margin}


def _describe(study: Study, options: StudyOptions, rows: Sequence[PolicyRow]) -> dict[str, Any]:
    means, targets = study.trace.means(), {service.name: service for service in study.fleet.services}
    demand = study.scenario.demand
    requests = dict(zip(demand.services, demand.requests.sum(0), strict=True))
    hours = demand.steps * STEP_SECONDS / 3600.0
    return {
        "manifests": list(options.manifests),
        "trace": str(options.trace),
        "outcomes": None if options.outcomes is None else str(options.outcomes),
        "requests": int(demand.requests.sum()),
        "hours": hours,
        "step_seconds": STEP_SECONDS,
        "objective": str(options.objective),
        "scale_load": options.scale_load,
        "seeds": options.seeds,
        "seed": options.seed,
        "services": {
            name: {
                "requests": int(requests[name]),
                "requests_per_second": float(requests[name]) / hours / 3600.0,
                "input_tokens": first,
                "output_tokens": further,
                "alpha": targets[name].alpha,
                "ttft_seconds": targets[name].latency.ttft_seconds,
                "tpot_seconds": targets[name].latency.tpot_seconds,
                "accuracy": dict(study.accuracies[name]),
            }
            for name, (_, first, further) in means.items()
        },
        "accelerators": {pool.name: pool.accelerators for pool in study.fleet.pools},
        "baselines": {row.policy: row.remark for row in rows if row.remark},
    }
