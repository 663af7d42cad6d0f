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

CANDIDATES = 16
"""Variants kept besides the support of the relaxation."""

MOST_PAIRS = 12
"""Pairs of variants kept for small fleets, where a plan is a handful of replicas."""

LEAST_REPLICA = 1e-6
"""Fewer of a variant are the solver's tolerance."""


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


def choose_candidates(fleet: Fleet, demands: Sequence[Demand], relaxed: Relaxation, most: int = CANDIDATES) -> IntArray:
    """Return the support of the relaxation, what runs or must run, and the `most` others of least reduced cost.

    A relaxation buys fractions and does not see what a few whole replicas do, so the variants of the cheapest pairs
    in whole replicas join. What all these leave out `keep_within` tells.
    """
    count = len(fleet.variants)
    usable = np.zeros(count, dtype=np.bool_)
    for demand in demands:
        usable[demand.variants] = True
    standing = fleet.replica_cost + np.where(fleet.current == 0, fleet.start_cost, 0.0)
    used = (relaxed.values[:count] > LEAST_REPLICA) | (fleet.lower > 0) | ((fleet.current > 0) & usable)
    used |= _best_pairs(fleet, demands, standing)
    order = np.argsort(relaxed.reduced_costs[:count], kind="stable")
    others = [int(v) for v in order if usable[v] and not used[v]]
    return np.array(sorted([*map(int, np.flatnonzero(used)), *others[:most]]), dtype=np.int64)


def keep_within(fleet: Fleet, relaxed: Relaxation, most_cost: float) -> tuple[IntArray, float]:
    """Return the variants that a plan of at most this cost may use, and what any plan with one of the others costs.

    A plan with one replica of a variant costs at least the relaxation plus the variant's reduced cost (duality).
    """
    count = len(fleet.variants)
    least = relaxed.objective + relaxed.reduced_costs[:count]
    kept = (least <= most_cost) | (relaxed.values[:count] > LEAST_REPLICA) | (fleet.lower > 0)
    return np.flatnonzero(kept), float(np.min(least[~kept], initial=np.inf))


def _best_pairs(fleet: Fleet, demands: Sequence[Demand], standing: FloatArray) -> npt.NDArray[np.bool_]:
    """Return the variants of the cheapest pairs that could carry all demands by themselves, in whole replicas.

    Of a pair each service takes as much of the more accurate one as it needs; ties of variants with themselves count.
    """
    count = len(fleet.variants)
    loads, cost = np.zeros((count, count)), np.zeros((count, count))
    for demand in demands:
        load, watts, lead = np.full(count, np.inf), np.full(count, np.inf), np.full(count, -np.inf)
        load[demand.variants] = demand.high_load
        watts[demand.variants] = fleet.weight[demand.variants] * (demand.cost + demand.high_cost)
        lead[demand.variants] = demand.accuracy_rows.sum(axis=0) if demand.accuracy_rows.size else 0.0
        share = _share_of_first(lead)
        with np.errstate(invalid="ignore"):
            loads += np.where(share > 0.0, share * load[:, None], 0.0)
            cost += np.where(share > 0.0, share * watts[:, None], 0.0)
        cost[~np.isfinite(share)] = np.inf
    replicas = np.ceil(loads - 1e-9)
    replicas[replicas > fleet.upper[:, None]] = np.inf
    with np.errstate(invalid="ignore"):
        cost += np.where(replicas > 0.0, replicas * standing[:, None], 0.0)
    pairs = np.triu(cost + cost.T)
    np.fill_diagonal(pairs, np.diag(cost))
    pairs[np.tril_indices(count, -1)] = np.inf
    chosen = np.zeros(count, dtype=np.bool_)
    for place in np.argsort(pairs, axis=None, kind="stable")[:MOST_PAIRS]:
        first, second = divmod(int(place), count)
        if np.isfinite(pairs[first, second]):
            chosen[[first, second]] = True
    return chosen


def _share_of_first(lead: FloatArray) -> FloatArray:
    """Return, for each pair, the share on the first so that the mean lead is zero (cheapest use of the better one).

    Nan where the pair cannot reach it; a variant alone (the diagonal) takes everything when it reaches it.
    """
    first, second = lead[:, None], lead[None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(first == second, 1.0, -second / (first - second))
    share = np.where((first >= 0.0) & (second >= 0.0), 0.5, share)
    share[(first < 0.0) & (second < 0.0)] = np.nan
    share[~(np.isfinite(first) & np.isfinite(second))] = np.nan
    np.fill_diagonal(share, np.where(np.isfinite(lead) & (lead >= 0.0), 1.0, np.nan))
    return np.asarray(share)


def accuracy_prices(program: Program, relaxed: Relaxation, label: str) -> dict[str, FloatArray]:
    """Return by service the duals of its accuracy rows (objective units per unit of the row)."""
    found: dict[str, list[float]] = {}
    for place, (kind, owner) in enumerate(program.row_labels):
        if kind == label:
            found.setdefault(owner, []).append(float(relaxed.upper_duals[place]))
    return {owner: np.array(values) for owner, values in found.items()}


def _restrict_demand(demand: Demand, keep: IntArray) -> Demand:
    inside = np.isin(demand.variants, keep)
    return replace(
        demand,
        variants=np.searchsorted(keep, demand.variants[inside]),
        load=demand.load[inside],
        high_load=demand.high_load[inside],
        watts=demand.watts[inside],
        high_watts=demand.high_watts[inside],
        cost=demand.cost[inside],
        high_cost=demand.high_cost[inside],
        accuracy_rows=demand.accuracy_rows[:, inside],
        high_accuracy_rows=demand.high_accuracy_rows[:, inside],
    )
