"""The virtual queue of MESS+ over many requests at once: which member each would go to, and where the queue ends.

Two pure questions. Forward: starting at a queue, how many of the next requests does the rule give to each member, when
every outcome is its expectation? Backward: after so many outcomes of which so many were good, where is the queue?
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ORDERS_BUDGET = 65_536  # outcomes x shuffles per update: about 2 ms
MAX_ITERATIONS = 1000  # of the forward play; a longer interval repeats the mixture it has settled into


@dataclass(frozen=True, slots=True)
class Arm:
    """A member as the rule sees it."""

    name: str
    joules: float
    accuracy: float


def estimate_queue(queue: float, alpha: float, satisfied: int, total: int) -> float:
    """Return the queue's mean after `total` outcomes, `satisfied` of them good, over uniformly random orders.

    Q <- max(0, Q + alpha - s) is a walk reflected at zero: Q_n = max(Q_0 + W_n, max_k (W_n - W_k)). The shuffles are
    seeded by nothing but their number, so equal counts give equal queues.
    """
    if total <= 0:
        return queue
    orders = min(64, max(4, _ORDERS_BUDGET // total))
    rows = np.tile(np.arange(total) < satisfied, (orders, 1))
    rows = np.random.default_rng(0).permuted(rows, axis=1)
    walks = np.cumsum(alpha - rows, axis=1)
    ends = walks[:, -1]
    reflected = ends - np.minimum(0.0, walks.min(axis=1))
    return float(np.maximum(queue + ends, reflected).mean())


def make_hull(arms: Sequence[Arm], v_per_joule: float) -> tuple[list[Arm], list[float]]:
    """Return the members that the rule can choose, cheapest first, and the queues at which it moves to the next."""
    hull = [min(arms, key=lambda arm: (arm.joules, -arm.accuracy))]
    breaks: list[float] = []
    while better := [arm for arm in arms if arm.accuracy > hull[-1].accuracy]:
        last = hull[-1]
        steps = [
            (v_per_joule * (a.joules - last.joules) / (a.accuracy - last.accuracy), -a.accuracy, a) for a in better
        ]
        at, _, arm = min(steps, key=lambda step: step[:2])
        hull.append(arm)
        breaks.append(at)
    return hull, breaks


def estimate_choices(
    queue: float, alpha: float, hull: Sequence[Arm], breaks: Sequence[float], requests: int
) -> tuple[list[float], float]:
    """Return how many of the requests each hull member gets, and the mean queue.

    While the queue stays between two breakpoints the choice is the same, so whole runs are taken at once; a queue that
    swings around a breakpoint goes request by request.
    """
    counts = [0.0] * len(hull)
    settled = [0.0] * len(hull)
    area = 0.0
    left = requests
    for iteration in range(MAX_ITERATIONS):
        index = bisect_left(breaks, queue)  # at a breakpoint: the cheaper
        drift = alpha - hull[index].accuracy
        run = min(left, _run_length(queue, drift, index, breaks))
        counts[index] += run
        if iteration >= MAX_ITERATIONS // 2:
            settled[index] += run
        moved = max(0.0, queue + run * drift)
        area += run * (queue + moved) / 2.0
        queue = moved
        left -= run
        if left == 0:
            return counts, area / requests
    scale = left / sum(settled)
    return [number + scale * more for number, more in zip(counts, settled, strict=True)], area / (requests - left)


def _run_length(queue: float, drift: float, index: int, breaks: Sequence[float]) -> int:
    """Return after how many equal choices the queue leaves the range in which they are chosen."""
    if drift > 0.0:
        if index == len(breaks):
            return _FOREVER
        return max(1, math.floor(min(_FOREVER, (breaks[index] - queue) / drift)) + 1)
    if drift == 0.0 or index == 0:
        return _FOREVER  # the floor at zero keeps the cheapest once it suffices
    return max(1, math.ceil(min(_FOREVER, (queue - breaks[index - 1]) / -drift)))


_FOREVER = 1 << 62
