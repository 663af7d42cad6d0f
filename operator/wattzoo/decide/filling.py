"""Full or silent: what a service's serving replicas have room for is answered by its most accurate members.

Serving replicas are whole, so shares that meet a promise exactly leave a costly one half empty, and most of its power
is drawn for the first request. The law's shares say how many must serve; these are filled with the most accurate
answers that they can give. What that earns is credit in the law's ledger; the law gives it back in smaller shares,
until a replica fewer suffices. So costly replicas are full or silent in turn, nobody is ever given less accurate
answers than the law asks for, and the mean is the promise. It pays only where pods can fall silent and nobody else
fills them: for a service that has its ModelPool for itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wattzoo.decide.capacity import KNEE_SHARE
from wattzoo.decide.estimate import PoolContext
from wattzoo.decide.forecast import estimate_coming_rps
from wattzoo.decide.memory import ServiceForecast
from wattzoo.decide.packing import ACT, ENABLED
from wattzoo.decide.weights import fill_in_order
from wattzoo.decisions import ServiceLoad
from wattzoo.model import TOTAL_WEIGHT, Ref, VariantKey
from wattzoo_policies.placement.target import estimate_give_back

HOLD = 0.3
"""Of a replica: the law must ask for so much less before one fewer is filled, else one flips in every interval.

A law that moves weights by steps (to a third at least) could never ask for less than two thirds of one of two replicas.
"""
FULL = 0.94
"""Of what packing lets replicas take: at the very edge every rise of the forecast would wake one more."""
ROUNDING = 1e-6
BISECTIONS = 20
SELF = Ref("", "")


@dataclass(frozen=True, slots=True)
class Coming:
    """What a service that has its pool for itself sends: measured, and forecast for the coming interval."""

    recent_rps: float
    forecast: ServiceForecast

    def work(self, share: float, capacity_rps: float) -> float:
        """Replicas of this capacity that a share of the requests fills, as packing counts them."""
        one, rest = VariantKey("", "share"), VariantKey("", "rest")
        weight = round(share * TOTAL_WEIGHT)
        live = {SELF: {one: weight, rest: TOTAL_WEIGHT - weight}}
        coming = estimate_coming_rps({SELF: self.forecast}, live, one) or 0.0
        return max(self.recent_rps * share, coming) * KNEE_SHARE / capacity_rps

    def share(self, replicas: int, capacity_rps: float) -> float:
        """The largest share that so many replicas take, at most 1."""
        low, high = 0.0, 1.0
        if self.work(high, capacity_rps) <= FULL * replicas:
            return high
        for _ in range(BISECTIONS):
            middle = (low + high) / 2.0
            low, high = (middle, high) if self.work(middle, capacity_rps) <= FULL * replicas else (low, middle)
        return low


def may_fill(surplus_requests: float | None, rate_rps: float) -> bool:
    """Whether a law shall be given more to give back: what it holds must fit into an hour that nobody notices.

    Where one replica is more than is needed, all night for instance, a surplus would grow without bound, and one bad
    hour would spend it. None is a law that gives nothing back.
    """
    return surplus_requests is not None and surplus_requests <= estimate_give_back(rate_rps)


def find_coming(context: PoolContext, load: ServiceLoad, forecasts: Mapping[Ref, ServiceForecast]) -> Coming | None:
    """What comes, where one service has a pool for itself whose pods may fall silent; None elsewhere or unknown."""
    scaling = context.pool.spec.scaling
    recent = load.latest_rps
    if len(context.services) != 1 or scaling.packing != ENABLED or scaling.mode != ACT or recent is None:
        return None
    forecast = forecasts.get(next(iter(context.services)))
    return None if forecast is None or forecast.next_ratio is None else Coming(recent, forecast)


def fill_replicas(
    split: Mapping[VariantKey, float],
    packed: Mapping[VariantKey, int],
    capacity_rps: Mapping[VariantKey, float | None],
    accuracy: Mapping[str, float],
    joules: Mapping[VariantKey, float],
    live: Mapping[VariantKey, int],
    coming: Coming,
) -> dict[VariantKey, float]:
    """Shares by variant that fill whole replicas; the same ones where a capacity or an accuracy is not known.

    split: the law's shares by variant, of sum 1. packed: replicas that may be filled, of variants whose pods can fall
    silent. live: the route's weights, which say what is filled now: pods follow them, and they must not follow pods.
    """
    if any(key.member not in accuracy or key not in joules or not capacity_rps.get(key) for key in split):
        return dict(split)
    room, sent = dict(split), max(1, sum(live.values()))
    for key, most in packed.items():
        capacity = capacity_rps.get(key)
        if capacity and key in split:
            needed, filled_now = (
                coming.work(share, capacity) / FULL for share in (split[key], live.get(key, 0) / sent)
            )
            count = _count(needed, filled_now, most)
            room[key] = max(split[key], coming.share(count, capacity))
    best_first = sorted(room, key=lambda key: (-accuracy[key.member], joules[key]))
    return fill_in_order(1.0, room, best_first)


def _count(needed: float, live: float, most: int) -> int:
    """Replicas to fill: as many as are needed, and one that is filled now stays so until clearly fewer are needed."""
    least = math.ceil(needed - ROUNDING)
    kept = min(math.ceil(live - HOLD), math.ceil(needed + HOLD - ROUNDING)) if needed > 0.0 else 0
    return min(max(least, kept), most)
