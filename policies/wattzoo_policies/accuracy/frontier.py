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
    shape = np.broadcast_shapes(np.shape(joules), np.shape(accuracy), np.shape(usable), (*np.shape(target), 1))
    can = np.broadcast_to(np.asarray(usable, dtype=bool), shape)
    cost = np.where(can, np.broadcast_to(np.asarray(joules, dtype=float), shape), np.inf)
    level = np.where(can, np.broadcast_to(np.asarray(accuracy, dtype=float), shape), -np.inf)
    tau = np.broadcast_to(np.asarray(target, dtype=float), shape[:-1])[..., None]
    weights, pair_cost = _cheapest_pair(cost, level, tau)
    single_cost = np.where(level >= tau - _SLACK, cost, np.inf)
    single = np.argmin(single_cost, axis=-1)[..., None]
    best_single = np.take_along_axis(single_cost, single, axis=-1)
    weights = np.where(best_single <= pair_cost, _one_hot(single, shape[-1]), weights)
    reached = np.minimum(best_single, pair_cost)[..., 0] < np.inf
    top = level.max(axis=-1, keepdims=True)
    most = np.argmin(np.where(level == top, cost, np.inf), axis=-1)[..., None]
    weights = np.where(reached[..., None], weights, _one_hot(most, shape[-1]))
    return np.where(can.any(axis=-1, keepdims=True), weights, 0.0), reached


def _cheapest_pair(cost: Floats, level: Floats, tau: Floats) -> tuple[Floats, Floats]:
    """Return weights and cost (..., 1) of the cheapest pair that straddles the target; infinite cost for none."""
    count = cost.shape[-1]
    low, high = np.triu_indices(count, k=1)
    if not low.size:
        return np.zeros(cost.shape), np.full((*cost.shape[:-1], 1), np.inf)
    swap = level[..., low] > level[..., high]
    below = np.where(swap, high, low)
    above = np.where(swap, low, high)
    p_low, p_high = np.take_along_axis(level, below, -1), np.take_along_axis(level, above, -1)
    straddles = (p_low < tau) & (p_high >= tau) & np.isfinite(p_low)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(straddles, (tau - p_low) / (p_high - p_low), 0.0)
        mixed = (1.0 - share) * np.take_along_axis(cost, below, -1) + share * np.take_along_axis(cost, above, -1)
    mixed = np.where(straddles, mixed, np.inf)
    best = np.argmin(mixed, axis=-1)[..., None]
    weights = np.zeros(cost.shape)
    chosen = np.take_along_axis(share, best, -1)
    np.put_along_axis(weights, np.take_along_axis(below, best, -1), 1.0 - chosen, -1)
    np.put_along_axis(weights, np.take_along_axis(above, best, -1), chosen, -1)
    return weights, np.take_along_axis(mixed, best, -1)


def estimate_price(joules: Floats, accuracy: Floats, weights: Floats) -> Floats:
    """Return joules per additional satisfied request (...,): the slope of the frontier at these weights.

    It is the slope between the two members that carry most weight; where one member carries all, the least slope from
    it to a better one; NaN where no member is better.
    """
    first = np.argmax(weights, axis=-1)[..., None]
    rest = weights.copy()
    np.put_along_axis(rest, first, -1.0, -1)
    second = np.argmax(rest, axis=-1)[..., None]
    shared = np.take_along_axis(rest, second, -1) > 0.0
    gain = accuracy - np.take_along_axis(accuracy, first, -1)
    extra = joules - np.take_along_axis(joules, first, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        slopes = np.where(gain > _SLACK, extra / gain, np.inf)
        between = np.take_along_axis(extra, second, -1) / np.take_along_axis(gain, second, -1)
    price = np.where(shared, between, slopes.min(axis=-1, keepdims=True))[..., 0]
    return np.asarray(np.where(np.isfinite(price), np.maximum(price, 0.0), np.nan))


def _one_hot(index: NDArray[np.intp], count: int) -> Floats:
    return np.asarray(np.arange(count) == index, dtype=float)
