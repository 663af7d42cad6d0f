"""The planning problem compiled to arrays: sorted, scaled and with the minima cut to what the caps allow.

Everything is sorted by name, so the order in which objects are listed cannot change a plan. Flows are shares of a
service's rate, loads are replicas at the knee, so that a service of one request an hour and one of a thousand a second
stand in one well-conditioned matrix. The active replicas of placement.md are substituted: with Pactive >= Pidle the
least active count is the load over the knee, which makes the cost linear in the flows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from wattzoo_policies.placement.fragmentation import chunk_limits, fits_nodes, is_divisible
from wattzoo_policies.placement.problem import PlanPool, PlanProblem, PlanService, PlanVariant

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """One service, or several that are planned as one.

    variants: indices of those that can serve it. load, high_load: replicas at `eta` of the knee that the whole rate
    takes there. watts: power of the whole rate there above idle. cost, high_cost: the same watts, each times the
    share of the time in which that rate is there (a reserve, which only stands by, is never there). accuracy_rows,
    high_accuracy_rows: coefficients of the shares whose sums must not be negative (one row of accuracy - alpha for a
    single service). rate_rps, high_rate_rps: the rates that the shares are of.
    """

    name: str
    rate_rps: float
    high_rate_rps: float
    variants: IntArray
    load: FloatArray
    high_load: FloatArray
    watts: FloatArray
    high_watts: FloatArray
    cost: FloatArray
    high_cost: FloatArray
    accuracy_rows: FloatArray
    high_accuracy_rows: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ReplicaRow:
    """One bound on replicas alone: coefficients @ replicas <= limit."""

    label: str
    pool: str
    accelerators_each: int
    coefficients: FloatArray
    limit: float


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """Variants and pools as arrays, sorted by name; `weight` and `price` are those of the variant's pool.

    lower, upper: bounds of the replicas. replica_cost: objective per replica that is there (idle watts and price).
    start_cost: objective per start. notes: minima that were cut, for users.
    """

    pools: tuple[PlanPool, ...]
    variants: tuple[PlanVariant, ...]
    pool_index: IntArray
    weight: FloatArray
    lower: IntArray
    upper: IntArray
    current: IntArray
    replica_cost: FloatArray
    start_cost: FloatArray
    rows: tuple[ReplicaRow, ...]
    notes: tuple[str, ...] = ()

    def fits(self, replicas: IntArray) -> bool:
        """Return whether whole replicas keep every cap (in watts: while idle) and fit their nodes."""
        counts = np.asarray(replicas, dtype=np.float64)
        if any(float(row.coefficients @ counts) > row.limit + 1e-6 for row in self.rows):
            return False
        idle = counts * np.array([variant.idle_watts for variant in self.variants])
        for index, pool in enumerate(self.pools):
            budget = pool.power_budget_watts
            if budget is not None and float(np.sum(idle[self.pool_index == index])) > budget + 1e-6:
                return False
        return self.unpackable_pool(replicas) is None

    def unpackable_pool(self, replicas: IntArray) -> int | None:
        """Return the first pool whose replicas do not fit its nodes, `None` when all do."""
        for index, pool in enumerate(self.pools):
            inside = [v for v in range(len(self.variants)) if self.pool_index[v] == index]
            sizes = [(self.variants[v].accelerators, int(replicas[v])) for v in inside if replicas[v] > 0]
            if not is_divisible([size for size, _ in sizes]) and not fits_nodes(sizes, pool.node_accelerators):
                return index
        return None

    def with_upper(self, upper: IntArray) -> Fleet:
        """Return the fleet with other upper bounds (never below the lower ones)."""
        return replace(self, upper=np.maximum(upper, self.lower))

    def with_lower(self, lower: IntArray) -> Fleet:
        """Return the fleet with other lower bounds."""
        return replace(self, lower=lower)


def make_fleet(problem: PlanProblem) -> Fleet:
    """Return the compiled pools and variants of a checked problem."""
    pools = tuple(sorted(problem.pools, key=lambda pool: pool.name))
    variants = tuple(sorted(problem.variants, key=lambda variant: variant.name))
    position = {pool.name: index for index, pool in enumerate(pools)}
    pool_index = np.array([position[variant.pool] for variant in variants], dtype=np.int64)
    rows = tuple(row for pool in pools for row in _replica_rows(pool, variants))
    lower, notes = _cut_minima(pools, variants, rows)
    weight = np.array([pools[p].objective_weight for p in pool_index])
    price = np.array([pools[p].price_per_accelerator_second for p in pool_index])
    accelerators = np.array([variant.accelerators for variant in variants], dtype=np.float64)
    idle = np.array([variant.idle_watts for variant in variants])
    start = np.array([variant.start_joules for variant in variants]) / problem.tau_seconds
    most = np.array([pools[p].accelerators for p in pool_index]) // np.maximum(accelerators, 1).astype(np.int64)
    upper = np.minimum(np.array([variant.max_replicas for variant in variants], dtype=np.int64), most)
    return Fleet(
        pools=pools,
        variants=variants,
        pool_index=pool_index,
        weight=weight,
        lower=lower,
        upper=np.maximum(upper, lower),
        current=np.array([variant.current_replicas for variant in variants], dtype=np.int64),
        replica_cost=weight * idle + price * accelerators,
        start_cost=weight * start,
        rows=rows,
        notes=notes,
    )


def make_demand(problem: PlanProblem, fleet: Fleet, service: PlanService) -> Demand | None:
    """Return the compiled service; `None` when it has no demand."""
    high = max(service.rate_rps, service.high_rate_rps)
    if high <= 0.0:
        return None
    usable = [
        index
        for index, variant in enumerate(fleet.variants)
        if variant.knee_load is not None and variant.name in service.work_seconds and fleet.upper[index] > 0
    ]
    chosen = [fleet.variants[index] for index in usable]
    work = np.array([service.work_seconds[variant.name] for variant in chosen])
    filled = problem.eta * np.array([variant.knee_load for variant in chosen], dtype=np.float64)
    accuracy = np.array([service.accuracy[variant.name] for variant in chosen])
    joules_per_load = np.array([watts_above_idle(variant, problem.eta) for variant in chosen])
    row = (accuracy - service.alpha).reshape(1, -1)
    watts, high_watts = service.rate_rps * work * joules_per_load, high * work * joules_per_load
    share = problem.high_share if service.rate_rps > 0.0 else 0.0
    return Demand(
        name=service.name,
        rate_rps=service.rate_rps,
        high_rate_rps=high,
        variants=np.array(usable, dtype=np.int64),
        load=service.rate_rps * work / filled,
        high_load=high * work / filled,
        watts=watts,
        high_watts=high_watts,
        cost=(1.0 - share) * watts,
        high_cost=share * high_watts,
        accuracy_rows=row,
        high_accuracy_rows=row,
    )


def watts_above_idle(variant: PlanVariant, eta: float) -> float:
    """Return watts above idle per unit of load on a variant that can serve: active replicas and their slope."""
    filled = eta * (variant.knee_load or 1.0)
    return (variant.active_watts - variant.idle_watts) / filled + variant.max_watts - variant.active_watts


def tighten_upper(fleet: Fleet, demands: Sequence[Demand]) -> Fleet:
    """Return the fleet without replicas that nobody could fill: above all high demand at once on one variant."""
    most = np.zeros(len(fleet.variants))
    for demand in demands:
        np.add.at(most, demand.variants, demand.high_load)
    return fleet.with_upper(np.minimum(fleet.upper, np.ceil(np.minimum(most, 1e9) - 1e-9).astype(np.int64)))


def _replica_rows(pool: PlanPool, variants: Sequence[PlanVariant]) -> list[ReplicaRow]:
    """Return the rows of one pool: accelerators in all, and pieces of each size in its nodes."""
    inside = np.array([variant.pool == pool.name for variant in variants], dtype=np.float64)
    sizes = np.array([variant.accelerators for variant in variants], dtype=np.int64)
    rows = [ReplicaRow("accelerators", pool.name, 1, inside * sizes, float(pool.accelerators))]
    here = [int(size) for size, is_inside in zip(sizes, inside, strict=True) if is_inside]
    for size, pieces in chunk_limits(here, pool.node_accelerators):
        label = f"nodes with {size} free accelerators"
        rows.append(ReplicaRow(label, pool.name, size, inside * (sizes // size), float(pieces)))
    return rows


def _cut_minima(
    pools: Sequence[PlanPool], variants: Sequence[PlanVariant], rows: Sequence[ReplicaRow]
) -> tuple[IntArray, tuple[str, ...]]:
    """Return the minima that fit every cap, and what was cut: one replica at a time, largest accelerator use first."""
    lower = np.array([min(variant.min_replicas, variant.max_replicas) for variant in variants], dtype=np.int64)
    for pool in pools:
        own = [v for v, variant in enumerate(variants) if variant.pool == pool.name]
        bounds = [row for row in rows if row.pool == pool.name]
        while not _keeps_caps(pool, [variants[v] for v in own], lower[own], bounds, own):
            victim = max((v for v in own if lower[v] > 0), key=lambda v: (variants[v].accelerators * lower[v], -v))
            lower[victim] -= 1
    notes = tuple(
        f"minReplicas of {variant.name} cut from {variant.min_replicas} to {int(low)} by the cap of {variant.pool}"
        for variant, low in zip(variants, lower, strict=True)
        if low < variant.min_replicas
    )
    return lower, notes


def _keeps_caps(
    pool: PlanPool, variants: Sequence[PlanVariant], counts: IntArray, rows: Sequence[ReplicaRow], own: Sequence[int]
) -> bool:
    if any(float(row.coefficients[list(own)] @ counts) > row.limit + 1e-6 for row in rows):
        return False
    if not fits_nodes(
        [(v.accelerators, int(n)) for v, n in zip(variants, counts, strict=True)], pool.node_accelerators
    ):
        return False
    idle = sum(variant.idle_watts * int(count) for variant, count in zip(variants, counts, strict=True))
    return pool.power_budget_watts is None or idle <= pool.power_budget_watts + 1e-6
