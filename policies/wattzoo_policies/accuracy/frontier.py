"""The cheapest request-independent mixture: the small linear programme under every law that sets weights.

`min w.E  subject to  w.p >= tau, w >= 0, sum w = 1` has an optimum with at most two members of positive weight, so all
singles and pairs are tried at once: O(M^2), exact, and over any number of leading batch axes. With the true means of a
stream it is the *blind optimum*, what the best policy that cannot look into a request would have burnt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_SLACK = 1e-12


def solve_mixture(joules: ArrayLike, accuracy: ArrayLike, target: ArrayLike, usable: ArrayLike) -> tuple[Floats, Bools]:
    """Return weights (..., M) of the cheapest mixture that reaches the target (...), and whether one does (...).

    joules, accuracy: (..., M); usable: (..., M) members that may get weight. Where the target is out of reach all
    goes to the most accurate usable member (the cheaper of equals), where nothing is usable the weights are zero.
    """
    can, cost, level, tau = np.broadcast_arrays(
        np.asarray(usable, dtype=bool), np.asarray(joules), np.asarray(accuracy), np.asarray(target)[..., None]
    )
    shape: tuple[int, ...] = can.shape
    members = shape[-1]
    cost, level, tau, can = (array.reshape(-1, members) for array in (cost, level, tau, can))
    weights, reached = solve_rows(cost, level, tau[:, 0], can)
    return np.reshape(weights, shape), np.reshape(reached, shape[:-1])


def solve_rows(joules: Floats, accuracy: Floats, target: Floats, usable: Bools) -> tuple[Floats, Bools]:
    """Return what `solve_mixture` does, for arrays (N, M) and targets (N,) that need no broadcasting."""
    cost, level = np.where(usable, joules, np.inf), np.where(usable, accuracy, -np.inf)
    rows, tau = np.arange(len(cost)), target[:, None]
    reaches = level >= tau - _SLACK
    low, share, pair_cost = _cheapest_pair(cost, level, tau, usable & ~reaches, reaches)
    high = pair_cost.argmin(1)
    single_cost = np.where(reaches, cost, np.inf)
    single = single_cost.argmin(1)
    alone = single_cost[rows, single] <= pair_cost[rows, high]
    reached: Bools = np.asarray(reaches.any(1))
    chosen = np.where(alone, single, high)
    if not reached.all():
        top = np.where(level == level.max(1, keepdims=True), cost, np.inf).argmin(1)
        chosen = np.where(reached, chosen, top)
    weights: Floats = np.zeros(cost.shape)
    weights[rows, chosen] = 1.0
    mixed = np.flatnonzero(reached & ~alone)
    taken = share[mixed, high[mixed]]
    weights[mixed, high[mixed]] = taken
    weights[mixed, low[mixed, high[mixed]]] = 1.0 - taken
    weights[~usable.any(1)] = 0.0
    return weights, reached


def _cheapest_pair(
    cost: Floats, level: Floats, tau: Floats, below: Bools, above: Bools
) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Return for each member above the target its cheapest partner below it, its share and the cost, all (N, M)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (tau - level)[:, :, None] / (level[:, None, :] - level[:, :, None])
        mixed = cost[:, :, None] + share * (cost[:, None, :] - cost[:, :, None])
    mixed = np.where(below[:, :, None] & above[:, None, :], mixed, np.inf)
    low = np.argmin(mixed, axis=1)
    rows, columns = np.arange(len(cost))[:, None], np.arange(cost.shape[1])
    return low, share[rows, low, columns], mixed[rows, low, columns]


def estimate_price(joules: Floats, accuracy: Floats, weights: Floats) -> Floats:
    """Return joules per additional satisfied request (N,): the slope of the frontier at weights (N, M) of a mixture.

    It is the slope between the two members that carry most weight; where one member carries all, the least slope from
    it to a better one; NaN where no member is better.
    """
    rows = np.arange(len(weights))
    first = np.argmax(weights, axis=1)
    rest = weights.copy()
    rest[rows, first] = -1.0
    second = np.argmax(rest, axis=1)
    gain = accuracy - accuracy[rows, first][:, None]
    extra = joules - joules[rows, first][:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        slopes = extra / gain
    between = slopes[rows, second]
    alone = np.where(gain > _SLACK, slopes, np.inf).min(axis=1)
    price = np.where(rest[rows, second] > 0.0, between, alone)
    return np.asarray(np.where(np.isfinite(price), np.maximum(price, 0.0), np.nan))
