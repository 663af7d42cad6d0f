"""Full or silent: what serving replicas have room for is answered by the most accurate members.

Serving replicas are whole, so shares that meet promises exactly leave a costly one half empty, and most of its power is
drawn for the first request. The laws' shares, of all services of a pool together, say how many must serve; these are
filled with the most accurate answers that they can give. What that earns is credit in the laws' ledgers; the laws give
it back in smaller shares, until a replica fewer suffices. So costly replicas are full or silent in turn, a law without
spare credit is never given less accurate answers than it asks for, and the mean is the promise. It pays only where pods
can fall silent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from wattzoo.decide.capacity import KNEE_SHARE
from wattzoo.decide.demand import PEAK_SECONDS, PoolInputs
from wattzoo.decide.estimate import PoolContext
from wattzoo.decide.forecast import CHANCE_SECONDS, estimate_coming_rps
from wattzoo.decide.memory import Asked, PoolEstimate, PoolMemory, ServiceForecast, ServiceMemory
from wattzoo.decide.packing import MARGIN, may_silence
from wattzoo.decide.traffic import live_weights
from wattzoo.decide.weights import changes_enough, fill_in_order, live_share
from wattzoo.decisions import ServiceLoad
from wattzoo.model import TOTAL_WEIGHT, ClusterSnapshot, Ref, VariantKey
from wattzoo_policies.capacity.replicas import estimate_peak_rps
from wattzoo_policies.placement.target import estimate_give_back

HOLD = 0.3
"""Of a replica: the laws must ask for so much less before one fewer is filled, else one flips in every interval.

A law that moves weights by steps (to a third at least) could never ask for less than two thirds of one of two replicas.
"""
SPARED = 0.3
"""Of what laws with credit ask for: one fewer is filled when they can do without so much."""
DEVIATIONS = 1.5
"""Of a count of the pool's requests: filled to the very edge, every chance of the next count would wake one more."""
LEAST_FULL = 0.5
GAIN = 0.5
"""Of what an hour may give back, up to which a law is given more."""
ROUNDING = 1e-6
BISECTIONS = 20


@dataclass(frozen=True, slots=True)
class Caller:
    """One service of a pool: what it sends, as measured and as forecast, what its law asks for, and what it has.

    recent_rps: the peak of late where no error of a forecast is known yet.
    """

    recent_rps: float
    forecast: ServiceForecast | None
    asked: Asked
    live: Mapping[VariantKey, int]


@dataclass(frozen=True, slots=True)
class Coming:
    """What all services of a pool send in the coming interval, and which of them is being decided.

    forced: by variant the share of each service's requests for which nobody else has room.
    """

    own: Ref
    callers: Mapping[Ref, Caller]
    forced: Mapping[VariantKey, float] = field(default_factory=dict)

    @property
    def own_rps(self) -> float:
        """Measured requests per second of the service in question."""
        return self.callers[self.own].recent_rps

    def asking(self, asked: Asked) -> Coming:
        """The same with what the law of the service in question asks for now."""
        own = replace(self.callers[self.own], asked=asked)
        return replace(self, callers={**self.callers, self.own: own})

    @property
    def full(self) -> float:
        """How much of what packing lets replicas take shall be filled: chance of the next count is left free."""
        count = CHANCE_SECONDS * sum(caller.recent_rps for caller in self.callers.values())
        return max(LEAST_FULL, 1.0 - DEVIATIONS / math.sqrt(count)) if count > 0.0 else 1.0

    def work(self, key: VariantKey, shares: Mapping[Ref, float], capacity_rps: float) -> float:
        """Replicas of this capacity that these shares of the services' requests fill, as packing counts them."""
        rest = VariantKey("", "rest")
        weights = {ref: round(share * TOTAL_WEIGHT) for ref, share in shares.items()}
        live = {ref: {key: weight, rest: TOTAL_WEIGHT - weight} for ref, weight in weights.items()}
        forecasts = {ref: caller.forecast for ref, caller in self.callers.items() if caller.forecast is not None}
        coming = estimate_coming_rps(forecasts, live, key)
        recent = sum(share * self.callers[ref].recent_rps for ref, share in shares.items())
        if coming is None:
            return recent * (1.0 + MARGIN) / capacity_rps
        return max(recent, coming) * KNEE_SHARE / capacity_rps

    def asked_share(self, key: VariantKey, way: float) -> dict[Ref, float]:
        """Shares of a variant, moved from what each law asks for: by 1 to all of its requests, by -1 to the fewest."""
        shares, forced = {}, self.forced.get(key, 0.0)
        for ref, caller in self.callers.items():
            asked = caller.asked.split.get(key)
            share = asked or 0.0
            if asked is not None and way > 0.0 and caller.asked.may_gain:  # else its members are others
                share += way * (1.0 - share)
            elif way < 0.0 and caller.asked.may_give:
                share = max(share * (1.0 + way), min(share, forced))
            shares[ref] = share
        return shares

    def fill(self, key: VariantKey, replicas: int, capacity_rps: float) -> float:
        """The largest share of the service in question when all move the same part of their way."""
        most, low, high = self.full * replicas, -1.0, 1.0
        if self.work(key, self.asked_share(key, high), capacity_rps) <= most:
            return self.asked_share(key, high)[self.own]
        for _ in range(BISECTIONS):
            middle = (low + high) / 2.0
            fits = self.work(key, self.asked_share(key, middle), capacity_rps) <= most
            low, high = (middle, high) if fits else (low, middle)
        return self.asked_share(key, low)[self.own]


def may_fill(surplus_requests: float | None, rate_rps: float) -> bool:
    """Whether a law shall be given more to give back: what it holds must fit into an hour that nobody notices.

    Where one replica is more than is needed, all night for instance, a surplus would grow without bound, and one bad
    hour would spend it. None is a law that gives nothing back.
    """
    return surplus_requests is not None and surplus_requests <= GAIN * estimate_give_back(rate_rps)


def may_give(surplus_requests: float | None) -> bool:
    """Whether a law can do with less than it asks for: it holds more credit than it needs."""
    return surplus_requests is not None and surplus_requests > 0.0


def find_asked(inputs: PoolInputs, services: Mapping[Ref, ServiceMemory]) -> dict[Ref, Asked]:
    """What the law of each service asked for last; of a route that does not follow, what it has."""
    found = {}
    for ref in inputs.context.services:
        decision = services[ref].decision if ref in services else None
        load, live = inputs.estimate.loads.get(ref), inputs.live.get(ref, {})
        if decision is not None and decision.asked and not changes_enough(live, decision.weights):
            surplus = decision.surplus_requests
            rate = 0.0 if load is None else load.latest_rps or 0.0
            found[ref] = Asked(decision.asked, may_fill(surplus, rate), may_give(surplus))
        elif live:
            found[ref] = Asked({key: live_share(live, key) for key in live}, may_gain=False)
    return found


def find_coming(
    context: PoolContext,
    snapshot: ClusterSnapshot,
    ref: Ref,
    own: ServiceLoad,
    estimate: PoolEstimate,
    memory: PoolMemory | None,
) -> Coming | None:
    """What all services of a pool send and ask for, where its pods may fall silent; None as soon as one is unknown."""
    if memory is None or not may_silence(context):
        return None
    callers = {}
    for name in context.services:
        load = own if name == ref else estimate.loads.get(name)
        rate, asked = None if load is None else load.latest_rps, memory.asked.get(name)
        if rate is None or (asked is None and name != ref):
            return None
        forecast = memory.forecasts.services.get(name)
        if forecast is None or forecast.next_ratio is None:
            rate = max(rate, estimate_peak_rps(memory.rates.get(name, ()), estimate.at_seconds, PEAK_SECONDS) or 0.0)
        live = live_weights(snapshot.routes.get(name), context.states)
        callers[name] = Caller(rate, forecast, asked or Asked({}, may_gain=False), live)
    return Coming(ref, callers)


def find_kept(split: Mapping[VariantKey, float], floor: Mapping[str, float]) -> dict[VariantKey, float]:
    """What of these shares keeps a law's estimates alive: of each member its floor, by variant as it is split."""
    shares: dict[str, float] = {}
    for key, share in split.items():
        shares[key.member] = shares.get(key.member, 0.0) + share
    return {
        key: share * min(1.0, floor.get(key.member, 0.0) / shares[key.member]) if share > 0.0 else 0.0
        for key, share in split.items()
    }


def fill_replicas(
    split: Mapping[VariantKey, float],
    packed: Mapping[VariantKey, int],
    carried: Mapping[VariantKey, float],
    capacity_rps: Mapping[VariantKey, float | None],
    accuracy: Mapping[str, float],
    joules: Mapping[VariantKey, float],
    coming: Coming,
    floor: Mapping[str, float],
) -> dict[VariantKey, float]:
    """Shares by variant that fill whole replicas; the same ones where a capacity or an accuracy is not known.

    split: the law's shares by variant, of sum 1, as `coming` has them too. packed: replicas that may be filled, of
    variants whose pods can fall silent. carried: share of the pool's requests that a variant's replicas have room for.
    floor: by member what its law keeps estimates alive with, which nobody is filled with.
    What is filled now is read from the routes: pods follow those, and routes must not follow pods.
    """
    if any(key.member not in accuracy or key not in joules or not capacity_rps.get(key) for key in split):
        return dict(split)
    best_first = sorted(split, key=lambda key: (-accuracy[key.member], joules[key]))
    others = {key: coming.full * carried.get(key, 0.0) for key in best_first[1:]}
    coming = replace(coming, forced={best_first[0]: max(0.0, 1.0 - sum(others.values()))})
    room = dict(split)
    for key, most in packed.items():
        capacity = capacity_rps.get(key)
        if capacity and key in split:
            filled = coming.fill(key, _count(coming, key, capacity, most), capacity)
            room[key] = filled if key == best_first[0] else max(split[key], filled)
    if sum(room.values()) < 1.0 - ROUNDING:  # what the best one gives up others take, as far as they can
        room |= {key: max(room[key], most) for key, most in others.items()}
        room[best_first[0]] = max(room[best_first[0]], 1.0 - sum(room[key] for key in best_first[1:]))
    kept = find_kept(split, floor)
    rest = {key: max(0.0, room[key] - kept[key]) for key in room}
    given = fill_in_order(1.0 - sum(kept.values()), rest, best_first)
    return {key: kept[key] + share for key, share in given.items()}


def _count(coming: Coming, key: VariantKey, capacity_rps: float, most: int) -> int:
    """Replicas to fill: those filled now, while somebody needs them and no more are needed.

    Needed are at least what laws ask for that have no credit to give, at most what all ask for and `HOLD`.
    """
    live = {ref: live_share(caller.live, key) for ref, caller in coming.callers.items()}
    least, needed, now = (
        coming.work(key, shares, capacity_rps) / coming.full
        for shares in (coming.asked_share(key, -1.0), coming.asked_share(key, 0.0), live)
    )
    if needed <= 0.0:
        return 0
    spared = coming.work(key, coming.asked_share(key, -SPARED), capacity_rps) / coming.full
    kept = min(math.ceil(now - HOLD), math.ceil(spared + HOLD - ROUNDING))
    return min(max(math.ceil(least - ROUNDING), kept), most)
