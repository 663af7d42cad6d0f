"""The Mélange-like allocation: exact against brute force, cheaper than any single type, and only about prices."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from tests.policies.baselines.observations import LATENCY, POOLS, SERVICE, VARIANTS, observe
from wattzoo_policies.baselines.melange import MelangeFleet, MelangeParameters, SizeBucket, plan_allocation
from wattzoo_policies.capacity.model import RequestShape, capacity_rps

PARAMETERS = MelangeParameters(slice_factor=4, headroom=0.0)
BUCKETS = (SizeBucket(RequestShape(200.0, 60.0), 0.7), SizeBucket(RequestShape(3000.0, 300.0), 0.3))
LARGE = {"70b": 1.0}
RNG = np.random.default_rng(0)


def price_per_second(counts: dict[str, int]) -> float:
    prices = {pool.name: pool.price_per_accelerator_second for pool in POOLS}
    return sum(
        n * v.model.accelerators * prices[v.pool] for v in VARIANTS for name, n in counts.items() if name == v.name
    )


def brute_force(rate: float) -> float:
    """Price of the cheapest replicas over every assignment of four slices of each bucket to two types."""
    prices = []
    for split in product(range(5), repeat=len(BUCKETS)):
        load = {"70b-h100": 0.0, "70b-b200": 0.0}
        for bucket, on_h100 in zip(BUCKETS, split, strict=True):
            for name, slices in (("70b-h100", on_h100), ("70b-b200", 4 - on_h100)):
                model = next(v.model for v in VARIANTS if v.name == name)
                capacity = capacity_rps(model, bucket.shape, LATENCY, 0.9)
                assert capacity is not None
                load[name] += slices * rate * bucket.share / 4 / capacity
        prices.append(price_per_second({name: math.ceil(total - 1e-9) for name, total in load.items()}))
    return min(prices)


@pytest.mark.parametrize("rate", [0.3, 3.0, 11.0, 27.0])
def test_allocation_is_the_cheapest_of_all(rate: float) -> None:
    caps = {"h100": 400, "b200": 200}
    allocation = plan_allocation(observe(caps=caps), LARGE, BUCKETS, rate, PARAMETERS)
    assert allocation.price_per_second == pytest.approx(brute_force(rate))
    assert price_per_second(dict(allocation.replicas)) == pytest.approx(allocation.price_per_second)
    assert sum(allocation.shares["70b"].values()) == pytest.approx(1.0)
    assert allocation.replicas["8b-h100"] == 0


def test_caps_hold_and_what_they_leave_is_short_not_broken() -> None:
    allocation = plan_allocation(observe(caps={"h100": 4, "b200": 4}), LARGE, BUCKETS, 1000.0, PARAMETERS)
    assert allocation.replicas == {"8b-h100": 0, "70b-h100": 1, "70b-b200": 2}


def test_watts_are_nothing_to_it_and_prices_everything() -> None:
    hungry = tuple(replace(v, model=replace(v.model, max_watts=1e6)) for v in VARIANTS)
    seen = observe()
    plain = plan_allocation(seen, LARGE, BUCKETS, 20.0, PARAMETERS)
    assert plan_allocation(replace(seen, variants=hungry), LARGE, BUCKETS, 20.0, PARAMETERS).replicas == plain.replicas
    dear = tuple(replace(p, price_per_accelerator_second=1.0) if p.name == "b200" else p for p in seen.pools)
    assert plan_allocation(replace(seen, pools=dear), LARGE, BUCKETS, 20.0, PARAMETERS).replicas["70b-b200"] == 0
    free = tuple(replace(pool, price_per_accelerator_second=0.0) for pool in seen.pools)
    with pytest.raises(ValueError, match="pools b200, h100 have none"):
        plan_allocation(replace(seen, pools=free), LARGE, BUCKETS, 20.0, PARAMETERS)


def test_members_share_the_caps_of_a_pool() -> None:
    both = plan_allocation(observe(), {"8b": 0.5, "70b": 0.5}, BUCKETS, 20.0, PARAMETERS)
    assert set(both.shares) == {"8b", "70b"}
    assert both.shares["8b"] == {"8b-h100": pytest.approx(1.0)}
    assert both.replicas["8b-h100"] >= 1


def test_it_solves_again_when_the_demand_changed_and_keeps_replicas_for_the_window() -> None:
    fleet = MelangeFleet(LARGE, parameters=PARAMETERS)
    state = fleet.initial_state()
    rates = [200.0, 200.0, 205.0, 205.0, 400.0, 400.0, 400.0, 400.0] + [5.0] * 44
    replicas, planned = {"70b-b200": 1, "70b-h100": 0, "8b-h100": 0}, []
    totals = []
    for i, rate in enumerate(rates):
        seen = observe(15.0 * i, replicas, service=replace(SERVICE, rate_rps=rate), caps={"b200": 400, "h100": 400})
        state, decision = fleet.decide(state, seen, RNG)
        replicas = {name: n for name, n in decision.replicas.items() if n}
        totals.append(sum(n * v.model.accelerators for v in VARIANTS for m, n in replicas.items() if m == v.name))
        planned.append(decision.planned)
        assert sum(decision.weights["chat"].values()) == pytest.approx(1.0)
    # At 0 s; 205 is within 5 % of 200; 400 at 60 s; the largest of 240 s falls at 345 s (7 * 15 + 240).
    assert [i for i, solved in enumerate(planned) if solved] == [0, 4, 23]
    assert totals[4] > totals[0]
    assert len(set(totals[4:42])) == 1  # the last wish for 400 requests/s was at 330 s: it holds to 630 s
    assert totals[42] == totals[-1] < totals[0]


def test_traffic_follows_ready_capacity_while_replicas_start_and_the_assignment_afterwards() -> None:
    fleet = MelangeFleet(LARGE, BUCKETS, PARAMETERS)
    state, first = fleet.decide(fleet.initial_state(), observe(0.0, {"70b-h100": 1}), RNG)
    assert first.weights["chat"] == {"70b-h100": 1.0}
    settled = {name: n for name, n in first.replicas.items() if n > 0}
    _, second = fleet.decide(state, observe(15.0, settled), RNG)
    assert state.allocation is not None
    assert second.weights["chat"] == pytest.approx(dict(state.allocation.shares["70b"]))


def test_without_a_rate_nothing_moves() -> None:
    fleet = MelangeFleet(LARGE)
    unknown = observe(0.0, {"70b-h100": 2}, service=replace(SERVICE, rate_rps=None, shape=None))
    _, decision = fleet.decide(fleet.initial_state(), unknown, RNG)
    assert decision.replicas == {}
    assert decision.weights == {"chat": {"70b-h100": 1.0}}
