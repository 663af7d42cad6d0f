"""Variants that another one of the same pool beats in everything: they can leave the program without loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wattzoo_policies.placement.instance import Demand, Fleet, IntArray

TOLERANCE = 1e-9


def find_useful(fleet: Fleet, demands: Sequence[Demand]) -> IntArray:
    """Return the variants that no other dominates, with those that run or must run (sorted)."""
    count = len(fleet.variants)
    load, watts, lead = (np.full((len(demands), count), np.nan) for _ in range(3))
    for index, demand in enumerate(demands):
        load[index, demand.variants] = demand.high_load
        watts[index, demand.variants] = demand.high_watts
        lead[index, demand.variants] = np.min(demand.accuracy_rows, axis=0) if demand.accuracy_rows.size else 0.0
    usable = ~np.isnan(load)
    kept = [v for v in range(count) if usable[:, v].any() or fleet.lower[v] > 0 or fleet.current[v] > 0]
    candidates = list(kept)
    for variant in candidates:
        if fleet.lower[variant] > 0 or fleet.current[variant] > 0:
            continue
        others = [u for u in kept if u != variant and fleet.pool_index[u] == fleet.pool_index[variant]]
        if any(_dominates(fleet, usable, load, watts, lead, other, variant) for other in others):
            kept.remove(variant)
    return np.array(kept, dtype=np.int64)


def _dominates(
    fleet: Fleet,
    usable: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    load: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    watts: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    lead: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    better: int,
    worse: int,
) -> bool:
    """Return whether whole replicas of `better` replace one of `worse` at no higher cost of any kind."""
    own = usable[:, worse]
    if not usable[own, better].all():
        return False
    if (watts[own, better] > watts[own, worse] * (1 + TOLERANCE)).any():
        return False
    if (lead[own, better] < lead[own, worse] - TOLERANCE).any():
        return False
    instead = math.ceil(float(np.max(load[own, better] / load[own, worse])) - TOLERANCE)
    first, second = fleet.variants[better], fleet.variants[worse]
    if fleet.upper[better] < max(1, fleet.upper[worse]) * instead:
        return False
    costs = (
        (first.accelerators, second.accelerators),
        (first.idle_watts, second.idle_watts),
        (fleet.replica_cost[better], fleet.replica_cost[worse]),
        (fleet.start_cost[better], fleet.start_cost[worse]),
    )
    return all(instead * mine <= theirs * (1 + TOLERANCE) for mine, theirs in costs)
