"""Small random planning problems, and their answer by enumeration, formulated apart from the planner."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import block_diag

from wattzoo_policies.placement.instance import Demand, Fleet, make_demand, make_fleet, tighten_upper
from wattzoo_policies.placement.problem import PlanPool, PlanProblem, PlanService, PlanVariant

SHORT = 1e-5


def make_small(rng: np.random.Generator, *, scarce: bool = False, nodes: bool = True) -> PlanProblem:
    """Return two pools, three or four variants and one or two services that a few replicas carry (or cannot)."""
    pools = tuple(
        PlanPool(f"pool{p}", 4 if not scarce else 2, (2, 2) if nodes and not scarce and p == 0 else ())
        for p in range(2)
    )
    variants = []
    for v in range(int(rng.integers(3, 5))):
        size = int(rng.choice([1, 2]))
        idle = float(rng.uniform(60, 150)) * size
        active = idle + float(rng.uniform(50, 300)) * size
        variants.append(
            PlanVariant(
                name=f"v{v}",
                member=f"m{v}",
                pool=f"pool{int(rng.integers(2))}",
                accelerators=size,
                idle_watts=idle,
                active_watts=active,
                max_watts=active + float(rng.uniform(50, 300)) * size,
                start_joules=float(rng.uniform(0, 40_000)),
                knee_load=float(rng.uniform(0.4, 0.85)),
                current_replicas=int(rng.integers(0, 3)),
                min_replicas=int(v == 0 and rng.random() < 0.4),
                max_replicas=3,
            )
        )
    services = []
    for s in range(int(rng.integers(1, 3))):
        rate = float(np.exp(rng.uniform(np.log(0.2), np.log(8.0 if not scarce else 40.0))))
        accuracy = {variant.name: float(rng.uniform(0.3, 0.9)) for variant in variants}
        least, most = min(accuracy.values()), max(accuracy.values())
        services.append(
            PlanService(
                name=f"s{s}",
                rate_rps=rate,
                high_rate_rps=rate * float(rng.uniform(1.0, 1.6)),
                alpha=least + float(rng.uniform(0.0, 1.15 if scarce else 0.9)) * (most - least),
                work_seconds={variant.name: float(rng.uniform(0.02, 0.2)) for variant in variants},
                accuracy=accuracy,
            )
        )
    return PlanProblem(pools, tuple(variants), tuple(services))


def compiled(problem: PlanProblem) -> tuple[Fleet, list[Demand]]:
    """Return the planner's arrays of a problem, as its search gets them."""
    fleet = make_fleet(problem)
    demands = [demand for s in problem.services if (demand := make_demand(problem, fleet, s)) is not None]
    return tighten_upper(fleet, demands), demands


@dataclass(frozen=True)
class Enumerated:
    """The best of all replica counts: penalties first, then cost."""

    replicas: dict[str, int]
    penalty: float
    cost: float


def enumerate_best(problem: PlanProblem) -> Enumerated:
    """Try every whole number of replicas that keeps the caps, with a linear program of rates inside."""
    counts = list(_allowed(problem))
    blocks = [_inner(problem, replicas) for replicas in counts]
    result = linprog(
        np.concatenate([block[0] + block[1] for block in blocks]),
        A_ub=block_diag([block[2] for block in blocks], format="csr"),
        b_ub=np.concatenate([block[3] for block in blocks]),
        A_eq=block_diag([block[4] for block in blocks], format="csr"),
        b_eq=np.concatenate([block[5] for block in blocks]),
        method="highs",
    )
    assert result.status == 0
    best, begin = None, 0
    for replicas, block in zip(counts, blocks, strict=True):
        values = result.x[begin : begin + block[0].size]
        begin += block[0].size
        penalty = float(block[1] @ np.where(values > SHORT, values, 0.0))
        found = Enumerated(dict(zip([v.name for v in problem.variants], replicas, strict=True)), penalty, 0.0)
        found = Enumerated(found.replicas, penalty, float(block[0] @ values) + _standing(problem, replicas))
        if (
            best is None
            or (penalty, found.cost) < (best.penalty * (1 - 1e-6), best.cost)
            or (penalty <= best.penalty * (1 + 1e-6) and found.cost < best.cost)
        ):
            best = found
    assert best is not None
    return best


def keeps_caps(problem: PlanProblem, replicas: dict[str, int]) -> bool:
    """Return whether accelerators, bounds and nodes hold, by trying every way to pack."""
    for pool in problem.pools:
        inside = [variant for variant in problem.variants if variant.pool == pool.name]
        sizes = [variant.accelerators for variant in inside for _ in range(replicas[variant.name])]
        if sum(sizes) > pool.accelerators:
            return False
        if pool.node_accelerators and not _packs(sorted(sizes, reverse=True), pool.node_accelerators):
            return False
    return all(replicas[variant.name] <= variant.max_replicas for variant in problem.variants)


def _packs(sizes: list[int], nodes: tuple[int, ...]) -> bool:
    if not sizes:
        return True
    return any(
        room >= sizes[0] and _packs(sizes[1:], (*nodes[:i], room - sizes[0], *nodes[i + 1 :]))
        for i, room in enumerate(nodes)
    )


def _allowed(problem: PlanProblem) -> Iterator[tuple[int, ...]]:
    ranges = [range(variant.min_replicas, variant.max_replicas + 1) for variant in problem.variants]
    for counts in itertools.product(*ranges):
        if keeps_caps(problem, dict(zip([v.name for v in problem.variants], counts, strict=True))):
            yield counts


def _standing(problem: PlanProblem, replicas: tuple[int, ...]) -> float:
    return sum(
        count * variant.idle_watts
        + max(0, count - variant.current_replicas) * variant.start_joules / problem.tau_seconds
        for variant, count in zip(problem.variants, replicas, strict=True)
    )


def _inner(
    problem: PlanProblem, replicas: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return cost, penalty, A_ub, b_ub, A_eq, b_eq over columns a, b (by variant), then by service x, z and 4 slacks.

    a, b: replicas that are active at the expected and at the high rate, each costly for its share of the time.
    """
    many = len(problem.variants)
    width = 2 * many + 4
    columns = 2 * many + width * len(problem.services)
    cost, penalty = np.zeros(columns), np.zeros(columns)
    upper: list[np.ndarray] = []
    limits: list[float] = []
    equal: list[np.ndarray] = []
    rates: list[float] = []
    for v, variant in enumerate(problem.variants):
        knee = problem.eta * (variant.knee_load or 0.0)
        for place, kind, share in ((v, 0, 1.0 - problem.high_share), (many + v, 1, problem.high_share)):
            cost[place] = share * (variant.active_watts - variant.idle_watts)
            carried, active = np.zeros(columns), np.zeros(columns)
            carried[place], active[place] = -knee, 1.0
            for s, service in enumerate(problem.services):
                work = service.work_seconds[variant.name]
                first = 2 * many + s * width + kind * many
                carried[first + v] = work
                cost[first + v] = share * (variant.max_watts - variant.active_watts) * work
            upper += [carried, active]
            limits += [0.0, float(replicas[v])]
    for s, service in enumerate(problem.services):
        first = 2 * many + s * width
        lead = np.array([service.accuracy[variant.name] - service.alpha for variant in problem.variants])
        for kind, rate in ((0, service.rate_rps), (1, service.high_rate_rps)):
            flows = slice(first + kind * many, first + (kind + 1) * many)
            demand, accuracy = np.zeros(columns), np.zeros(columns)
            demand[flows] = 1.0
            demand[first + 2 * many + kind] = 1.0
            equal.append(demand)
            rates.append(rate)
            accuracy[flows] = -lead
            accuracy[first + 2 * many + 2 + kind] = -1.0
            upper.append(accuracy)
            limits.append(0.0)
            penalty[first + 2 * many + kind] = problem.overload_penalty
            penalty[first + 2 * many + 2 + kind] = problem.accuracy_penalty
    return cost, penalty, np.array(upper), np.array(limits), np.array(equal), np.array(rates)
