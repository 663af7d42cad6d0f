"""Whole replicas that were chosen with services grouped: add what the means hid, take away what nobody needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wattzoo_policies.placement.instance import Fleet, FloatArray, IntArray

Rank = tuple[float, float]


def raise_replicas(fleet: Fleet, replicas: IntArray, wanted: FloatArray) -> IntArray:
    """Return replicas with the fractions that a relaxation wants on top rounded up, as far as the caps allow."""
    raised = replicas.copy()
    missing = wanted - replicas
    for variant in np.argsort(-missing, kind="stable"):
        while missing[variant] > 1e-6 and raised[variant] < fleet.upper[variant]:
            raised[variant] += 1
            missing[variant] -= 1.0
            if not fleet.fits(raised):
                raised[variant] -= 1
                break
    return raised


def improve_replicas(fleet: Fleet, replicas: IntArray, rank: Callable[[IntArray], Rank], most: int) -> IntArray:
    """Return replicas that no single removal or swap of one for another makes better, within `most` evaluations."""
    best, best_rank = replicas, rank(replicas)
    tries = 0
    has_improved = True
    while has_improved:
        has_improved = False
        for candidate in _neighbours(fleet, best):
            if tries >= most:
                return best
            tries += 1
            found = rank(candidate)
            if found < (best_rank[0] + 1e-9, best_rank[1] * (1.0 - 1e-6)):
                best, best_rank, has_improved = candidate, found, True
                break
    return best


def _neighbours(fleet: Fleet, replicas: IntArray) -> list[IntArray]:
    """Return removals, dearest first."""
    spare = np.flatnonzero(replicas > fleet.lower)
    order = spare[np.argsort(-fleet.replica_cost[spare], kind="stable")]
    found = []
    for variant in order:
        fewer = replicas.copy()
        fewer[variant] -= 1
        found.append(fewer)
    return found
