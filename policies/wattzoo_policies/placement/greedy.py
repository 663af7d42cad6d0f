"""A plan without a solver: each service on the cheapest variant that reaches its accuracy, whole.

It serves when the solver brings nothing in time and there is no plan to keep. It is blind to mixtures, but it keeps
every cap and never fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wattzoo_policies.placement.instance import Demand, Fleet, IntArray


def plan_greedy(fleet: Fleet, demands: Sequence[Demand]) -> IntArray:
    """Return replicas by variant: the most demanding services first, spilling to the next best variant at a cap."""
    replicas = fleet.lower.copy()
    room = replicas.astype(np.float64)
    order = sorted(demands, key=lambda demand: (-_least_lead(demand), -demand.high_rate_rps, demand.name))
    for demand in order:
        left = 1.0
        for place in _preference(fleet, demand):
            variant, load = int(demand.variants[place]), float(demand.high_load[place])
            while left > 1e-9 and room[variant] < left * load - 1e-9 and _add(fleet, replicas, variant):
                room[variant] += 1.0
            taken = min(left, room[variant] / load)
            room[variant] -= taken * load
            left -= taken
            if left <= 1e-9:
                break
    return replicas


def _least_lead(demand: Demand) -> float:
    """Return how little of the accuracy range lies below the promise (demanding services are small here)."""
    rows = demand.high_accuracy_rows
    return -float(np.max(rows)) if rows.size else -math.inf


def _preference(fleet: Fleet, demand: Demand) -> list[int]:
    """Return the demand's variants: those that reach the accuracy by cost, then the others by accuracy."""
    own = demand.variants
    if own.size == 0:
        return []
    # a share of everything goes to one variant here, so each row of accuracies has to hold by itself
    lead = np.min(demand.high_accuracy_rows, axis=0)
    cost = fleet.replica_cost[own] * np.ceil(demand.high_load) + fleet.weight[own] * demand.watts
    reaches = [int(place) for place in np.argsort(cost, kind="stable") if lead[place] >= -1e-12]
    others = [int(place) for place in np.argsort(-lead, kind="stable") if lead[place] < -1e-12]
    return [*reaches, *others]


def _add(fleet: Fleet, replicas: IntArray, variant: int) -> bool:
    """Add one replica where every cap allows it."""
    if replicas[variant] >= fleet.upper[variant]:
        return False
    replicas[variant] += 1
    if fleet.fits(replicas) and keeps_budgets(fleet, replicas):
        return True
    replicas[variant] -= 1
    return False


def keeps_budgets(fleet: Fleet, replicas: IntArray) -> bool:
    """Return whether the replicas keep the power budgets; each is counted as saturated, the flows are not known yet."""
    for index, pool in enumerate(fleet.pools):
        if pool.power_budget_watts is None:
            continue
        watts = sum(fleet.variants[v].max_watts * int(replicas[v]) for v in np.flatnonzero(fleet.pool_index == index))
        if watts > pool.power_budget_watts:
            return False
    return True
