"""What a run is set beside: the same requests under the baselines, each as strong as a sweep of its knob makes it.

Two baselines: *always the largest model with an HPA*, and the *fixed cheapest mixture with an HPA per variant* (its
shares from hindsight means, which nobody has in advance). The HPA watches running and waiting requests per pod; its
target is a share of the concurrency that the variant carries at the latency knee, swept. The cheapest run that reaches
the attainment goal is taken; if none does, the one with the best attainment, and the result says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wattzoo_policies.baselines.fixed_mixture import Mixture, decide_mixture
from wattzoo_policies.baselines.hpa import HpaParameters
from wattzoo_policies.capacity.model import (
    RequestShape,
    capacity_rps,
    concurrency,
    joules_per_request,
    knee_load,
    work_seconds,
)
from wattzoo_policies.sim.closed_loop import run_closed_loop
from wattzoo_policies.sim.controllers import FixedWeights, HpaReplicas, strictest
from wattzoo_policies.sim.fleet import Variant
from wattzoo_policies.sim.scenario import LoopRequest, LoopResult, Scenario

DEFAULT_TARGET_SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class BaselineRun:
    """The chosen run of a sweep. tried: (target share, joules, TTFT and TPOT attainment) of every setting."""

    name: str
    result: LoopResult
    target_share: float
    reached_goal: bool
    tried: tuple[tuple[float, float, float | None, float | None], ...]
    mixture: Mixture | None = None


def run_largest_hpa(
    scenario: Scenario,
    largest: str,
    hpa: HpaParameters,
    seed: int = 0,
    goal: float = 0.99,
    target_shares: Sequence[float] = DEFAULT_TARGET_SHARES,
) -> BaselineRun:
    """Serve everything on one variant under an HPA; `hpa` gives windows, its target is swept."""
    weights = {service: {largest: 1.0} for service in scenario.services}
    return _sweep("largest", scenario, weights, hpa, seed, goal, target_shares, None)


def run_mixture_hpa(
    scenario: Scenario,
    variants: Mapping[str, str],
    hpa: HpaParameters,
    seed: int = 0,
    goal: float = 0.99,
    target_shares: Sequence[float] = DEFAULT_TARGET_SHARES,
) -> BaselineRun:
    """Serve the blind optimum's fixed shares under an HPA per variant.

    variants: the variant that serves each member. The shares come from the hindsight means of all requests and the
    model's joules at the knee, against the strictest of the services' targets.
    """
    known = {variant.name: variant for variant in scenario.variants}
    shape = mean_shape(scenario.requests, next(iter(variants)))
    latency = strictest(scenario)
    joules, satisfaction = {}, {}
    for member, name in variants.items():
        rate = capacity_rps(known[name].model, shape, latency)
        cost = None if rate is None else joules_per_request(known[name].model, shape, rate)
        if cost is not None:
            joules[member] = cost
            satisfaction[member] = float(np.mean([request.correct[member] for request in scenario.requests]))
    mixture = decide_mixture(joules, satisfaction, max(target.alpha for target in scenario.services.values()))
    shares = {variants[member]: share for member, share in mixture.weights.items() if share > 0.0}
    weights = dict.fromkeys(scenario.services, shares)
    return _sweep("mixture", scenario, weights, hpa, seed, goal, target_shares, mixture)


def mean_shape(requests: Iterable[LoopRequest], member: str) -> RequestShape:
    """Return the mean tokens of requests as one member answers them."""
    tokens = [(request.input_tokens, request.output_tokens[member]) for request in requests]
    mean = np.mean(np.array(tokens, dtype=float), axis=0)
    return RequestShape(float(mean[0]), float(mean[1]))


def _sweep(
    name: str,
    scenario: Scenario,
    weights: Mapping[str, Mapping[str, float]],
    hpa: HpaParameters,
    seed: int,
    goal: float,
    target_shares: Sequence[float],
    mixture: Mixture | None,
) -> BaselineRun:
    used = {variant for shares in weights.values() for variant in shares}
    runs = []
    for share in target_shares:
        parameters, variants = {}, []
        for variant in scenario.variants:
            if variant.name in used:
                target = max(1.0, share * _knee_concurrency(variant, scenario))
                limits = replace(hpa, min_replicas=1, max_replicas=variant.max_replicas, target_average=target)
                parameters[variant.name] = limits
                routed = float(np.mean([shares.get(variant.name, 0.0) for shares in weights.values()]))
                variants.append(replace(variant, initial_replicas=_initial(variant, scenario, routed, share)))
            else:
                variants.append(replace(variant, initial_replicas=0))
        trial = replace(scenario, variants=tuple(variants))
        controller = HpaReplicas(parameters, hpa.sync_seconds)
        runs.append((share, run_closed_loop(trial, FixedWeights(weights), controller, np.random.default_rng(seed))))
    good = [run for run in runs if _attainment(run[1]) >= goal]
    share, result = min(good, key=lambda run: run[1].joules) if good else max(runs, key=lambda r: _attainment(r[1]))
    tried = tuple((s, r.joules, r.ttft_attainment, r.tpot_attainment) for s, r in runs)
    return BaselineRun(name, result, share, bool(good), tried, mixture)


def _knee_concurrency(variant: Variant, scenario: Scenario) -> float:
    shape = mean_shape(scenario.requests, variant.member)
    load = knee_load(variant.model, shape, strictest(scenario))
    return concurrency(variant.model, shape, (load or 0.1) / work_seconds(variant.model, shape))


def _initial(variant: Variant, scenario: Scenario, routed: float, target_share: float) -> int:
    """Return replicas for the rate of the first tenth of the run, so that no baseline pays for a cold start."""
    early = [request for request in scenario.requests if request.at_seconds < scenario.end_seconds / 10.0]
    rate = capacity_rps(variant.model, mean_shape(scenario.requests, variant.member), strictest(scenario), 1.0)
    if rate is None:
        return 1
    wanted = routed * len(early) / (scenario.end_seconds / 10.0) / (rate * min(1.0, 0.5 + target_share / 2.0))
    return max(1, min(variant.max_replicas, int(np.ceil(wanted))))


def _attainment(result: LoopResult) -> float:
    return min(result.ttft_attainment or 0.0, result.tpot_attainment or 0.0)
