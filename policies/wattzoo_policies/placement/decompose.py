"""Smaller problems with the same answer, or nearly: connected components, and the few variants worth an integer.

Pools and services that share nothing are planned apart. In a large component the relaxation is solved first and the
integers are kept for the variants it uses and for those that come nearest to being used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from wattzoo_policies.placement.instance import Demand, Fleet, FloatArray, IntArray
from wattzoo_policies.placement.milp import Program, Relaxation

CANDIDATES = 12
"""Variants kept besides the support of the relaxation."""


def split_components(fleet: Fleet, demands: Sequence[Demand]) -> list[tuple[IntArray, list[int]]]:
    """Return (variants, demands) of each connected component of pools and services, in a stable order.

    Pools whose variants nobody can use come as components without demands (their minima are still kept).
    """
    parent = list(range(len(fleet.pools) + len(demands)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for index, demand in enumerate(demands):
        for variant in demand.variants:
            parent[root(len(fleet.pools) + index)] = root(int(fleet.pool_index[variant]))
    roots = [root(node) for node in range(len(parent))]
    components = []
    for first in dict.fromkeys(roots):
        variants = np.flatnonzero([roots[pool] == first for pool in fleet.pool_index])
        inside = [index for index in range(len(demands)) if roots[len(fleet.pools) + index] == first]
        components.append((variants, inside))
    return components


def restrict(fleet: Fleet, demands: Sequence[Demand], keep: IntArray) -> tuple[Fleet, list[Demand]]:
    """Return the fleet and the demands with these variants alone (pools without one are dropped)."""
    keep = np.sort(keep)
    pool_numbers = np.unique(fleet.pool_index[keep])
    pools = tuple(fleet.pools[p] for p in pool_numbers)
    names = {pool.name for pool in pools}
    rows = tuple(replace(row, coefficients=row.coefficients[keep]) for row in fleet.rows if row.pool in names)
    smaller = replace(
        fleet,
        pools=pools,
        variants=tuple(fleet.variants[v] for v in keep),
        pool_index=np.searchsorted(pool_numbers, fleet.pool_index[keep]),
        weight=fleet.weight[keep],
        lower=fleet.lower[keep],
        upper=fleet.upper[keep],
        current=fleet.current[keep],
        replica_cost=fleet.replica_cost[keep],
        start_cost=fleet.start_cost[keep],
        rows=rows,
    )
    return smaller, [_restrict_demand(demand, keep) for demand in demands]


def choose_candidates(
    fleet: Fleet, demands: Sequence[Demand], program: Program, relaxed: Relaxation, most: int = CANDIDATES
) -> IntArray:
    """Return the support of the relaxation, the variants with a minimum, and the `most` others of least excess cost.

    A relaxation buys fractions and does not see that one small replica is enough, so those variants join that whole
    replicas make cheapest for their accuracy, for each service and for all together.

    The excess is the long-run cost of a service's whole rate on the variant (active replicas and the pool's price
    of accelerators) minus the price that the relaxation puts on its accuracy, above the best variant's, relative.
    """
    count = len(fleet.variants)
    replicas = relaxed.values[:count]
    scarcity = np.zeros(count)
    for place, row in enumerate(fleet.rows):
        label_row = _first_replica_row(program) + place
        scarcity += row.coefficients * relaxed.upper_duals[label_row]
    excess = np.full(count, np.inf)
    standing = fleet.replica_cost + np.where(fleet.current == 0, fleet.start_cost, 0.0)
    prices = accuracy_prices(program, relaxed, "accuracy expected")
    for demand in demands:
        if demand.variants.size == 0:
            continue
        own = demand.variants
        cost = (standing[own] + scarcity[own]) * demand.high_load + fleet.weight[own] * demand.watts
        for row, price in zip(demand.accuracy_rows, prices.get(demand.name, ()), strict=False):
            cost = cost - price * row
        spread = cost - float(np.min(cost))
        scale = max(1e-12, abs(float(np.min(cost))))
        np.minimum.at(excess, own, spread / scale)
    front = _whole_fronts(fleet, demands, standing)
    used = front | (replicas > 1e-6) | (fleet.lower > 0) | ((fleet.current > 0) & np.isfinite(excess))
    others = [int(v) for v in np.argsort(excess, kind="stable") if not used[v] and np.isfinite(excess[v])]
    return np.array(sorted([*map(int, np.flatnonzero(used)), *others[:most]]), dtype=np.int64)


def _whole_fronts(fleet: Fleet, demands: Sequence[Demand], standing: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which variants lie on the lower hull of cost over accuracy, counted in whole replicas."""
    chosen = np.zeros(len(fleet.variants), dtype=np.bool_)
    total = np.zeros(len(fleet.variants))
    for demand in demands:
        np.add.at(total, demand.variants, demand.high_load)
    for demand in demands:
        own = demand.variants
        if own.size == 0:
            continue
        accuracy = demand.accuracy_rows.sum(axis=0) if demand.accuracy_rows.size else np.zeros(own.size)
        flows = fleet.weight[own] * demand.watts
        share = demand.high_load / np.maximum(total[own], 1e-12)
        for replicas, part in ((np.ceil(demand.high_load - 1e-9), 1.0), (np.ceil(total[own] - 1e-9), share)):
            chosen[own[_lower_hull(accuracy, standing[own] * replicas * part + flows)]] = True
    return chosen


def _lower_hull(accuracy: FloatArray, cost: FloatArray) -> list[int]:
    """Return the points that some price of accuracy makes the best (from the cheapest to the most accurate)."""
    hull: list[int] = []
    for point in np.lexsort((cost, -accuracy)):
        while hull and cost[hull[-1]] >= cost[point] and accuracy[hull[-1]] <= accuracy[point]:
            hull.pop()
        if hull and cost[point] >= cost[hull[-1]]:
            continue
        while len(hull) >= 2 and _turns(accuracy[hull[-2:]], cost[hull[-2:]], accuracy[point], cost[point]):
            hull.pop()
        hull.append(int(point))
    return hull


def _turns(accuracy: FloatArray, cost: FloatArray, least_accuracy: float, least_cost: float) -> bool:
    """Return whether the middle point lies above the line from the first point to the last."""
    first = (cost[0] - least_cost) * (accuracy[1] - least_accuracy)
    return bool((cost[1] - least_cost) * (accuracy[0] - least_accuracy) >= first)


def accuracy_prices(program: Program, relaxed: Relaxation, label: str) -> dict[str, FloatArray]:
    """Return by service the duals of its accuracy rows (objective units per unit of the row)."""
    found: dict[str, list[float]] = {}
    for place, (kind, owner) in enumerate(program.row_labels):
        if kind == label:
            found.setdefault(owner, []).append(float(relaxed.upper_duals[place]))
    return {owner: np.array(values) for owner, values in found.items()}


def _first_replica_row(program: Program) -> int:
    return next(place for place, (kind, _) in enumerate(program.row_labels) if kind == "accelerators")


def _restrict_demand(demand: Demand, keep: IntArray) -> Demand:
    inside = np.isin(demand.variants, keep)
    return replace(
        demand,
        variants=np.searchsorted(keep, demand.variants[inside]),
        load=demand.load[inside],
        high_load=demand.high_load[inside],
        watts=demand.watts[inside],
        high_watts=demand.high_watts[inside],
        accuracy_rows=demand.accuracy_rows[:, inside],
        high_accuracy_rows=demand.high_accuracy_rows[:, inside],
    )
