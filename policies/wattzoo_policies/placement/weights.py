"""Weights of the coming interval over the replicas that serve now (placement.md 3, "Weights").

Least joules at the interval's demand, with accuracy, within capacity. When capacity is short every server is overloaded
by the same factor; when accuracy is out of reach the best mixture is taken: overload is the last thing to grow, so
accuracy gives way before latency. A service that shares no variant is solved in closed form, others by one linear
program.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from wattzoo_policies.placement.check import PlanError
from wattzoo_policies.placement.instance import FloatArray
from wattzoo_policies.placement.problem import PlanService, PlanVariant

ACCURACY_OVER_JOULES = 1e3
"""Penalty of a missing satisfied request, in the dearest request's joules."""

OVERLOAD_OVER_ACCURACY = 1e2
LEAST_SHARE = 1e-9
LEAST_RATE_RPS = 1e-9


@dataclass(frozen=True, slots=True)
class Weights:
    """Shares by service and variant (sum to 1; empty when nothing serves it).

    overload: share of load above capacity, common to all variants of a connected group of services (the largest
    group's is told). accuracy_missing: by service how far its mixture stays below alpha. price_joules_per_satisfied:
    what one more satisfied request costs now.
    """

    shares: Mapping[str, Mapping[str, float]]
    overload: float = 0.0
    accuracy_missing: Mapping[str, float] = field(default_factory=dict)
    price_joules_per_satisfied: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Offer:
    """What serves one service: names, capacity in requests/s, joules per request and accuracy, sorted by name."""

    service: PlanService
    names: tuple[str, ...]
    capacity_rps: FloatArray
    joules: FloatArray
    accuracy: FloatArray


def joules_at_knee(variant: PlanVariant, eta: float = 0.9) -> float | None:
    """Return joules per second of work on an active replica at `eta` of the knee; `None` when it cannot serve."""
    if variant.knee_load is None:
        return None
    load = eta * variant.knee_load
    return (variant.active_watts + (variant.max_watts - variant.active_watts) * load) / load


def decide_weights(
    services: Sequence[PlanService],
    variants: Sequence[PlanVariant],
    serving: Mapping[str, int],
    *,
    eta: float = 0.9,
    objective_weights: Mapping[str, float] | None = None,
) -> Weights:
    """Return the weights of least objective over the replicas that are ready and serving.

    services: their `rate_rps` is the demand of the interval that has ended (`high_rate_rps` is not looked at).
    objective_weights: by pool what a joule counts (missing: 1).
    """
    counted = objective_weights or {}
    offers = [_make_offer(service, variants, serving, eta, counted) for service in services]
    shares: dict[str, Mapping[str, float]] = {offer.service.name: {} for offer in offers}
    missing: dict[str, float] = {}
    prices: dict[str, float] = {}
    overload = 0.0
    for group in _connected([offer for offer in offers if offer.names]):
        found = _split_alone(group[0]) if len(group) == 1 else _split_together(group)
        shares.update(found.shares)
        missing.update(found.accuracy_missing)
        prices.update(found.price_joules_per_satisfied)
        overload = max(overload, found.overload)
    return Weights(shares, overload, missing, prices)


def split_member_weights(
    member_shares: Mapping[str, float],
    service: PlanService,
    variants: Sequence[PlanVariant],
    serving: Mapping[str, int],
    *,
    rate_rps: float | None,
    eta: float = 0.9,
) -> dict[str, float]:
    """Return shares by variant for shares by member that an accuracy law has decided.

    Within a member the variant of fewest joules is filled to its capacity first; beyond the capacity of all, and when
    the rate is unknown, shares go by capacity. Members that nothing serves are left out and the rest is scaled to 1.
    """
    offer = _make_offer(service, variants, serving, eta, {})
    members = {variant.name: variant.member for variant in variants}
    result: dict[str, float] = {}
    for member, share in sorted(member_shares.items()):
        own = [i for i, name in enumerate(offer.names) if members[name] == member]
        if not own or share <= 0.0:
            continue
        capacity = offer.capacity_rps[own]
        if rate_rps is None or not rate_rps > 0.0:
            parts = capacity / capacity.sum()
        else:
            relative = capacity / (rate_rps * share)
            parts = _fill(np.argsort(offer.joules[own], kind="stable"), relative * max(1.0, 1.0 / relative.sum()))
        result.update({offer.names[i]: share * float(part) for i, part in zip(own, parts, strict=True) if part > 0.0})
    total = sum(result.values())
    return {name: share / total for name, share in result.items()} if total > 0.0 else {}


def _make_offer(
    service: PlanService,
    variants: Sequence[PlanVariant],
    serving: Mapping[str, int],
    eta: float,
    counted: Mapping[str, float],
) -> _Offer:
    if not (math.isfinite(service.rate_rps) and service.rate_rps >= 0.0):
        raise PlanError("service", service.name, "rate_rps", service.rate_rps, "it must be a number of at least 0")
    chosen = []
    for variant in sorted(variants, key=lambda variant: variant.name):
        joules = joules_at_knee(variant, eta)
        work = service.work_seconds.get(variant.name)
        if joules is not None and work is not None and serving.get(variant.name, 0) > 0 and variant.knee_load:
            capacity = eta * variant.knee_load * serving[variant.name] / work
            weight = counted.get(variant.pool, 1.0)
            chosen.append((variant.name, capacity, weight * joules * work, service.accuracy[variant.name]))
    table = np.array([entry[1:] for entry in chosen], dtype=np.float64).reshape(-1, 3)
    return _Offer(service, tuple(entry[0] for entry in chosen), table[:, 0], table[:, 1], table[:, 2])


def _connected(offers: Sequence[_Offer]) -> list[list[_Offer]]:
    """Return groups of services that share variants, directly or through others."""
    groups: list[tuple[set[str], list[_Offer]]] = []
    for offer in offers:
        names, members = set(offer.names), [offer]
        apart = []
        for group in groups:
            if group[0] & names:
                names |= group[0]
                members = [*group[1], *members]
            else:
                apart.append(group)
        groups = [*apart, (names, members)]
    return [members for _, members in groups]


def _split_alone(offer: _Offer) -> Weights:
    """Return the exact mixture of one service.

    For a price p per unit of accuracy the best shares fill variants in the order of joules - p * accuracy. That order
    changes only at the prices where two variants tie; between ties the accuracy is constant and it rises with p. The
    optimum mixes the fills on the two sides of the tie at which alpha is passed.
    """
    name, alpha = offer.service.name, offer.service.alpha
    capacity = offer.capacity_rps / max(offer.service.rate_rps, LEAST_RATE_RPS)
    overload = max(0.0, 1.0 / float(capacity.sum()) - 1.0)
    room = np.minimum(1.0, capacity * (1.0 + overload))
    ties = _tie_prices(offer)
    # one price inside every stretch between two ties
    prices = np.concatenate([[0.0], (ties[:-1] + ties[1:]) / 2.0, [2.0 * ties[-1] + 1.0]]) if ties.size else np.zeros(1)
    low, high = 0, prices.size - 1
    best = _fill_at(offer, room, float(prices[high]))
    reached = float(best @ offer.accuracy)
    if reached < alpha:
        missing = {name: alpha - reached} if alpha - reached > LEAST_SHARE else {}
        return Weights({name: _named(offer, best)}, overload, missing, {})
    cheap = _fill_at(offer, room, 0.0)
    if float(cheap @ offer.accuracy) >= alpha:
        return Weights({name: _named(offer, cheap)}, overload, {}, {name: 0.0})
    while high - low > 1:
        middle = (low + high) // 2
        tried = _fill_at(offer, room, float(prices[middle]))
        if float(tried @ offer.accuracy) >= alpha:
            high, best = middle, tried
        else:
            low, cheap = middle, tried
    above, below = float(best @ offer.accuracy), float(cheap @ offer.accuracy)
    part = (alpha - below) / (above - below)
    return Weights({name: _named(offer, part * best + (1.0 - part) * cheap)}, overload, {}, {name: float(ties[low])})


def _tie_prices(offer: _Offer) -> FloatArray:
    """Return the positive prices at which two variants cost the same, rising."""
    joules = offer.joules[:, None] - offer.joules[None, :]
    accuracy = offer.accuracy[:, None] - offer.accuracy[None, :]
    apart = accuracy > LEAST_SHARE
    ties = joules[apart] / accuracy[apart]
    return np.unique(ties[ties > 0.0])


def _fill_at(offer: _Offer, room: FloatArray, price: float) -> FloatArray:
    return _fill(np.lexsort((-offer.accuracy, offer.joules - price * offer.accuracy)), room)


def _fill(order: np.ndarray[tuple[int, ...], np.dtype[np.int64]], room: FloatArray) -> FloatArray:
    """Return shares that fill the variants in this order up to one in all."""
    filled = np.minimum(np.cumsum(room[order]), 1.0)
    shares = np.zeros(room.size)
    shares[order] = np.diff(filled, prepend=0.0)
    total = float(shares.sum())
    return np.asarray(shares / total)


def _split_together(offers: Sequence[_Offer]) -> Weights:
    """Return the weights of services that share variants: one linear program with a common overload."""
    names = sorted({name for offer in offers for name in offer.names})
    rates = np.array([max(offer.service.rate_rps, LEAST_RATE_RPS) for offer in offers])
    begins = np.cumsum([0, *(len(offer.names) for offer in offers)])
    flows, count = int(begins[-1]), len(offers)
    columns = flows + 1 + count
    accuracy_penalty = ACCURACY_OVER_JOULES * max(float(offer.joules.max()) for offer in offers)
    cost = np.zeros(columns)
    cost[flows] = OVERLOAD_OVER_ACCURACY * accuracy_penalty * float(rates.sum())
    cost[flows + 1 :] = accuracy_penalty * rates
    upper, equal = np.zeros((len(names) + count, columns)), np.zeros((count, columns))
    limits = np.concatenate([np.ones(len(names)), np.zeros(count)])
    upper[: len(names), flows] = -1.0
    for index, offer in enumerate(offers):
        own = slice(int(begins[index]), int(begins[index + 1]))
        cost[own] = offer.joules * rates[index]
        equal[index, own] = 1.0
        places = [names.index(name) for name in offer.names]
        upper[places, np.arange(own.start, own.stop)] = rates[index] / offer.capacity_rps
        upper[len(names) + index, own] = offer.service.alpha - offer.accuracy
        upper[len(names) + index, flows + 1 + index] = -1.0
    scale = float(np.max(cost[:flows]))
    result = linprog(
        cost / scale,
        A_ub=csr_array(upper),
        b_ub=limits,
        A_eq=csr_array(equal),
        b_eq=np.ones(count),
        method="highs",
    )
    if result.x is None:
        raise ArithmeticError(f"a linear program that is feasible by construction was not solved: {result.message}")
    return _read_together(offers, begins, rates, result.x, -scale * np.asarray(result.ineqlin.marginals)[len(names) :])


def _read_together(
    offers: Sequence[_Offer], begins: FloatArray, rates: FloatArray, values: FloatArray, duals: FloatArray
) -> Weights:
    flows = int(begins[-1])
    shares, missing, prices = {}, {}, {}
    for index, offer in enumerate(offers):
        name = offer.service.name
        own = np.maximum(0.0, values[int(begins[index]) : int(begins[index + 1])])
        shares[name] = _named(offer, own / own.sum())
        short = float(values[flows + 1 + index])
        if short > LEAST_SHARE * 1e3:
            missing[name] = short
        else:
            prices[name] = max(0.0, float(duals[index]) / float(rates[index]))
    overload = float(values[flows])
    return Weights(shares, overload if overload > LEAST_SHARE * 1e3 else 0.0, missing, prices)


def _named(offer: _Offer, shares: FloatArray) -> dict[str, float]:
    kept = np.where(shares > LEAST_SHARE, shares, 0.0)
    kept = kept / kept.sum()
    return {name: float(share) for name, share in zip(offer.names, kept, strict=True) if share > 0.0}
