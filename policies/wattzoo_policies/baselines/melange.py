"""A Mélange-like allocation: the cheapest accelerators per hour that carry the load, by bucket of request sizes.

As published (arXiv 2404.14527): the requests are a histogram over input and output lengths; each bucket's rate is cut
into slices; a slice on an accelerator type takes the share of a replica that its rate is of what one replica carries of
that bucket within the latency bounds; an integer programme packs slices into replicas at the least price per hour. It
knows prices, not watts. Equal slices are counted instead of placed one by one, which is the same programme. It is
solved again when the demand calls for it, for the largest rate of a recent window; replicas that a new solution does
not want stay for the stabilisation window, and traffic is split by what the solution assigned. Request sizes do not
reach the weights: a route cannot tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from wattzoo_policies.baselines.fleet import Packing, decide_serving_replicas, fit_pools, weights_over_ready
from wattzoo_policies.capacity.model import LatencyTarget, RequestShape, capacity_rps
from wattzoo_policies.placement.signals import FleetDecision, FleetObservation, FleetVariant

SHORTAGE_PRICE = 1e6
"""Price of a slice that nothing carries, in units of the dearest replica: only caps make it worth paying."""


@dataclass(frozen=True, slots=True)
class SizeBucket:
    """Requests of one size and their share of all."""

    shape: RequestShape
    share: float


@dataclass(frozen=True, slots=True)
class MelangeParameters:
    """slice_factor: slices per bucket. eta: share of the knee that is filled. headroom: added to the rate.

    window_seconds: the largest rate of this window is planned for. resolve_seconds: least time between solutions.
    resolve_change: relative change of that rate that calls for a new one. down_window_seconds: a replica goes when no
    solution of this window wanted it.
    """

    slice_factor: int = 8
    eta: float = 0.9
    headroom: float = 0.2
    window_seconds: float = 240.0
    resolve_seconds: float = 60.0
    resolve_change: float = 0.05
    down_window_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Allocation:
    """Replicas by variant, and by member the share of its requests that each variant was assigned.

    capacities_rps: what a replica of each variant carries of the mean request.
    """

    replicas: Mapping[str, int]
    shares: Mapping[str, Mapping[str, float]]
    capacities_rps: Mapping[str, float]
    price_per_second: float


@dataclass(frozen=True, slots=True)
class MelangeState:
    """Rates seen in the window, the last allocation and what it was for, and recent allocations' replicas."""

    rates: tuple[tuple[float, float], ...] = ()
    allocation: Allocation | None = None
    solved_at_seconds: float = -math.inf
    solved_rate_rps: float = 0.0
    wishes: tuple[tuple[float, Mapping[str, int]], ...] = ()
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    shape: RequestShape | None = None


@dataclass(frozen=True, slots=True)
class MelangeFleet:
    """Allocates for fixed shares by member (a single model: `{member: 1.0}`) over all variants of those members.

    buckets: the histogram of sizes, known beforehand; empty: one bucket of the observed mean.
    """

    members: Mapping[str, float]
    buckets: tuple[SizeBucket, ...] = ()
    parameters: MelangeParameters = MelangeParameters()
    packing: Packing | None = None
    name: str = "melange"

    def initial_state(self) -> MelangeState:
        """Return the state before the first observation."""
        return MelangeState()

    def decide(
        self, state: MelangeState, observation: FleetObservation, rng: np.random.Generator
    ) -> tuple[MelangeState, FleetDecision]:
        """Decide for the coming interval; without any known rate or size everything stays as it is."""
        del rng
        at = observation.at_seconds
        state = self._observe(state, observation)
        buckets = self.buckets or (() if state.shape is None else (SizeBucket(state.shape, 1.0),))
        solved = False
        if state.rates and buckets:
            rate = max(r for _, r in state.rates) * (1.0 + self.parameters.headroom)
            if solved := state.allocation is None or self._is_due(state, rate, at):
                allocation = plan_allocation(observation, self.members, buckets, rate, self.parameters)
                state = replace(state, allocation=allocation, solved_at_seconds=at, solved_rate_rps=rate)
        shares = self._shares(observation, state.allocation)
        weights = weights_over_ready(observation, {service.name: shares for service in observation.services})
        serving = decide_serving_replicas(observation, state.weights, self.packing)
        if state.allocation is None:
            return replace(state, weights=weights), FleetDecision({}, serving, weights)
        past = state.wishes or ((at, {v.name: v.replicas for v in observation.variants}),)
        recent = (wish for wish in past if wish[0] > at - self.parameters.down_window_seconds)
        wishes = (*recent, (at, state.allocation.replicas))
        wished = {variant.name: _stabilised(variant, wishes) for variant in observation.variants}
        decision = FleetDecision(fit_pools(observation, wished), serving, weights, planned=solved)
        return replace(state, wishes=wishes, weights=weights), decision

    def _observe(self, state: MelangeState, observation: FleetObservation) -> MelangeState:
        """Take in the rate of all services together and their mean request, as far as they are known."""
        at = observation.at_seconds
        rates = [service.rate_rps for service in observation.services]
        known = [rate for rate in rates if rate is not None]
        window = tuple(entry for entry in state.rates if entry[0] > at - self.parameters.window_seconds)
        if len(known) == len(rates):
            window = (*window, (at, sum(known)))
        return replace(state, rates=window, shape=_mean_shape(observation) or state.shape)

    def _is_due(self, state: MelangeState, rate: float, at_seconds: float) -> bool:
        changed = abs(rate - state.solved_rate_rps) > self.parameters.resolve_change * state.solved_rate_rps
        return changed and at_seconds - state.solved_at_seconds >= 0.9 * self.parameters.resolve_seconds

    def _shares(self, observation: FleetObservation, allocation: Allocation | None) -> dict[str, float]:
        """Return shares by variant: as assigned, or by ready capacity while assigned replicas still start."""
        allocation = allocation or Allocation({}, {}, {}, 0.0)
        shares: dict[str, float] = {}
        for member, weight in self.members.items():
            ready = {v.name: v.ready for v in observation.variants if v.member == member}
            split = dict(allocation.shares.get(member, {}))
            if not split or any(ready[name] < allocation.replicas[name] for name in split):
                split = {name: number * allocation.capacities_rps.get(name, 1.0) for name, number in ready.items()}
            total = sum(split.values())
            shares |= {name: weight * share / total for name, share in split.items() if total > 0.0}
        return shares


def plan_allocation(
    observation: FleetObservation,
    members: Mapping[str, float],
    buckets: Sequence[SizeBucket],
    rate_rps: float,
    parameters: MelangeParameters,
) -> Allocation:
    """Return the cheapest replicas that carry the rate; what the caps leave uncarried goes to the fastest variants.

    Raises `ValueError` when a pool has no price.
    """
    prices = {pool.name: pool.price_per_accelerator_second for pool in observation.pools}
    variants = [variant for variant in observation.variants if members.get(variant.member, 0.0) > 0.0]
    if unpriced := sorted({v.pool for v in variants if not prices.get(v.pool, 0.0) > 0.0}):
        raise ValueError(f"prices per accelerator decide here, and pools {', '.join(unpriced)} have none")
    price = np.array([prices[v.pool] * v.model.accelerators for v in variants])
    rows = [(member, bucket) for member, share in members.items() if share > 0.0 for bucket in buckets]
    load = _slice_loads(observation, variants, rows, members, rate_rps, parameters)
    assigned, replicas = _solve(observation, variants, price, load, parameters.slice_factor)
    counts = {v.name: 0 for v in observation.variants} | {
        v.name: int(n) for v, n in zip(variants, replicas, strict=True)
    }
    capacities = {
        v.name: _capacity(load[:, j], rows, members, rate_rps / parameters.slice_factor) for j, v in enumerate(variants)
    }
    return Allocation(counts, _shares_by_member(rows, variants, assigned), capacities, float(price @ replicas))


def _slice_loads(
    observation: FleetObservation,
    variants: Sequence[FleetVariant],
    rows: Sequence[tuple[str, SizeBucket]],
    members: Mapping[str, float],
    rate_rps: float,
    parameters: MelangeParameters,
) -> np.ndarray:
    """Return the share of a replica that one slice takes (rows x variants); NaN where it cannot be served."""
    latency = LatencyTarget()
    for service in observation.services:
        latency = latency.strictest(service.latency)
    load = np.full((len(rows), len(variants)), np.nan)
    for i, (member, bucket) in enumerate(rows):
        slice_rps = rate_rps * members[member] * bucket.share / parameters.slice_factor
        for j, variant in enumerate(variants):
            capacity = capacity_rps(variant.model, bucket.shape, latency, parameters.eta)
            if variant.member == member and capacity is not None:
                load[i, j] = slice_rps / capacity
    return load


def _solve(
    observation: FleetObservation,
    variants: Sequence[FleetVariant],
    price: np.ndarray,
    load: np.ndarray,
    slices: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return slices by row and variant, and replicas by variant.

    Variables: slices assigned (rows x variants), slices not carried (rows), replicas (variants).
    """
    rows, types = load.shape
    flows = rows * types
    size = flows + rows + types
    able = ~np.isnan(load)
    cost = np.concatenate([np.zeros(flows), np.full(rows, SHORTAGE_PRICE * price.max(initial=0.0)), price])
    upper = np.concatenate([np.where(able, slices, 0).ravel(), np.full(rows, slices)])
    upper = np.concatenate([upper, [float(v.max_replicas) for v in variants]])
    all_slices = np.zeros((rows, size))
    fits = np.zeros((types, size))
    for i in range(rows):
        all_slices[i, i * types : (i + 1) * types] = 1.0
        all_slices[i, flows + i] = 1.0
    for j in range(types):
        fits[j, j:flows:types] = np.where(able[:, j], np.nan_to_num(load[:, j]), 0.0)
        fits[j, flows + rows + j] = -1.0
    caps = np.zeros((len(observation.pools), size))
    for p, pool in enumerate(observation.pools):
        for j, variant in enumerate(variants):
            caps[p, flows + rows + j] = variant.model.accelerators if variant.pool == pool.name else 0.0
    constraints = [
        LinearConstraint(all_slices, slices, slices),
        LinearConstraint(fits, -np.inf, 1e-9),
        LinearConstraint(caps, -np.inf, [float(pool.accelerators) for pool in observation.pools]),
    ]
    bounds, options = Bounds(0.0, upper), {"time_limit": 2.0, "mip_rel_gap": 0.005}
    whole = np.ones(size)
    result = milp(cost, constraints=constraints, bounds=bounds, integrality=whole, options=options)
    if result.x is not None and result.x[flows : flows + rows].sum() > 0.5:
        whole[: flows + rows] = 0.0  # short of accelerators: a part of a slice is better than none
        result = milp(cost, constraints=constraints, bounds=bounds, integrality=whole, options=options)
    if result.x is None:
        raise ValueError(f"the allocation has no solution: {result.message}")
    return result.x[:flows].reshape(rows, types), np.round(result.x[flows + rows :])


def _shares_by_member(
    rows: Sequence[tuple[str, SizeBucket]], variants: Sequence[FleetVariant], assigned: np.ndarray
) -> dict[str, dict[str, float]]:
    shares: dict[str, dict[str, float]] = {}
    for (member, bucket), counts in zip(rows, assigned, strict=True):
        mine = shares.setdefault(member, {})
        for variant, count in zip(variants, counts, strict=True):
            if count > 1e-6:
                mine[variant.name] = mine.get(variant.name, 0.0) + bucket.share * float(count)
    totals = {member: sum(mine.values()) for member, mine in shares.items()}
    return {m: {name: share / totals[m] for name, share in mine.items()} for m, mine in shares.items()}


def _capacity(
    loads: np.ndarray, rows: Sequence[tuple[str, SizeBucket]], members: Mapping[str, float], slice_rps: float
) -> float:
    """Return requests per second of one replica over the buckets it can serve; slice_rps: of all sizes together."""
    able = ~np.isnan(loads)
    rates = np.array([slice_rps * members[member] * bucket.share for member, bucket in rows])
    total = float(loads[able].sum())
    return 0.0 if total <= 0.0 else float(rates[able].sum()) / total


def _stabilised(variant: FleetVariant, wishes: Sequence[tuple[float, Mapping[str, int]]]) -> int:
    """Return the newest wish, or the largest recent one as far as it is there."""
    now, largest = wishes[-1][1][variant.name], max(wish[variant.name] for _, wish in wishes)
    return max(variant.min_replicas, now, min(largest, variant.replicas))


def _mean_shape(observation: FleetObservation) -> RequestShape | None:
    parts = [(s.rate_rps, s.shape) for s in observation.services if s.rate_rps and s.shape is not None]
    total = sum(rate for rate, _ in parts)
    if total <= 0.0:
        return None
    return RequestShape(
        sum(rate * shape.input_tokens for rate, shape in parts) / total,
        sum(rate * shape.output_tokens for rate, shape in parts) / total,
    )
