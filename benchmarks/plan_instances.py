"""Random planning problems of the sizes that the plan-time bars name.

Models of 1 to 120 billion parameters on accelerators like those with published figures (idle and maximum power,
memory); step times, powers and accuracies scatter around scaling laws, so that no two zoos are alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from wattzoo_policies.placement.problem import Plan, PlanPool, PlanProblem, PlanService, PlanVariant


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One pool: how many, memory, resident idle and maximum watts, and step time relative to an H100."""

    name: str
    count: int
    memory_gb: float
    idle_watts: float
    max_watts: float
    slowness: float


POOLS = (
    Accelerator("h100", 48, 80, 116, 700, 1.0),
    Accelerator("b200", 16, 180, 200, 1000, 0.55),
    Accelerator("a100", 32, 80, 80, 400, 1.8),
    Accelerator("h200", 24, 141, 124, 700, 0.85),
    Accelerator("l4", 64, 24, 16, 72, 7.0),
    Accelerator("mi300x", 16, 192, 130, 750, 0.8),
    Accelerator("l40s", 32, 48, 35, 350, 3.2),
    Accelerator("gh200", 8, 96, 110, 700, 0.8),
)
TPOT_SECONDS = 0.06
ALIKE_TOKENS = (616.0, 131.0)


@dataclass(frozen=True, slots=True)
class Shape:
    """How many models, pools and services, their requests/s together, and whether the services are alike.

    alike: the services have the same lengths of requests and accuracies, and differ in rate and promise.
    """

    models: int
    pools: int
    services: int
    rate_rps: float
    alike: bool = False


def make_instance(rng: np.random.Generator, shape: Shape) -> PlanProblem:
    """Return one problem, nothing running yet."""
    return make_instance_with_steps(rng, shape)[0]


def make_instance_with_steps(rng: np.random.Generator, shape: Shape) -> tuple[PlanProblem, dict[str, float]]:
    """Return one problem, and by variant the step time t0 in seconds (plant watts need it)."""
    billions = np.sort(np.exp(rng.uniform(0.0, math.log(120.0), shape.models)))
    variants, works = _make_variants(rng, shape, billions)
    levels = 0.40 + 0.28 * np.log(billions) / math.log(120.0)
    shares = rng.dirichlet(np.full(shape.services, 2.0))
    services = []
    for index, share in enumerate(shares):
        tokens = ALIKE_TOKENS if shape.alike else (float(rng.uniform(100, 3000)), float(rng.uniform(50, 500)))
        own = np.clip(levels + (0.0 if shape.alike else rng.normal(0.0, 0.01, shape.models)), 0.0, 1.0)
        accuracy = {variant.name: float(own[int(variant.member[1:])]) for variant in variants}
        rate = shape.rate_rps * float(share)
        alpha = float(own.min() + rng.uniform(0.2, 0.9) * np.ptp(own))
        work = {name: tokens[0] * prompt + tokens[1] * output for name, (prompt, output, _) in works.items()}
        services.append(PlanService(f"s{index:03d}", rate, rate * float(rng.uniform(1.1, 1.6)), alpha, work, accuracy))
    pools = tuple(PlanPool(pool.name, pool.count, (8,) * (pool.count // 8)) for pool in POOLS[: shape.pools])
    steps = {name: step for name, (_, _, step) in works.items()}
    return PlanProblem(pools, tuple(variants), tuple(services)), steps


def make_next(rng: np.random.Generator, problem: PlanProblem, plan: Plan) -> PlanProblem:
    """Return the problem a minute later: what was planned runs, every rate has moved by about 20 %."""
    factors = np.exp(rng.normal(0.0, 0.2, len(problem.services)))
    services = tuple(
        replace(service, rate_rps=service.rate_rps * float(f), high_rate_rps=service.high_rate_rps * float(f))
        for service, f in zip(problem.services, factors, strict=True)
    )
    variants = tuple(replace(variant, current_replicas=plan.replicas[variant.name]) for variant in problem.variants)
    return replace(problem, variants=variants, services=services)


def _make_variants(
    rng: np.random.Generator, shape: Shape, billions: np.ndarray
) -> tuple[list[PlanVariant], dict[str, tuple[float, float, float]]]:
    """Return variants, and by name their seconds per prompt token and per output token, and t0."""
    variants, works = [], {}
    for pool in POOLS[: shape.pools]:
        for model, size in enumerate(map(float, billions)):
            # 16-bit weights and a quarter for the cache, in powers of two up to one node
            accelerators = 2 ** max(0, math.ceil(math.log2(size * 2.0 * 1.25 / pool.memory_gb)))
            step = 0.0014 * size * pool.slowness / accelerators**0.75 + 0.003
            if accelerators > 8 or step > 0.95 * TPOT_SECONDS:
                continue
            noise = rng.uniform(0.9, 1.1, 3)
            idle = pool.idle_watts * accelerators
            most = 0.95 * pool.max_watts * accelerators * float(noise[0])
            name = f"m{model}-{pool.name}"
            knee = min(0.85, 1.0 - step / TPOT_SECONDS)
            active = idle + 0.45 * float(noise[1]) * (most - idle)
            start = 1.25 * idle * (60.0 + 3.0 * size)
            variants.append(PlanVariant(name, f"m{model}", pool.name, accelerators, idle, active, most, start, knee))
            output = (0.06 + 0.006 * size / accelerators**0.7) * 1e-3 * math.sqrt(pool.slowness) * float(noise[2])
            works[name] = (5e-6 * size * pool.slowness / accelerators, output, step)
    return variants, works
