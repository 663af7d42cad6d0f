"""Weights over serving replicas: exact against a linear program, and readable small cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from wattzoo_policies.placement.check import PlanError
from wattzoo_policies.placement.problem import PlanService, PlanVariant
from wattzoo_policies.placement.weights import Weights, decide_weights, joules_at_knee, split_member_weights


def variant(name: str, member: str, watts: float = 400.0, pool: str = "p") -> PlanVariant:
    """Return a variant with a knee of .5; at eta .8 one replica carries .4 seconds of work a second."""
    return PlanVariant(name, member, pool, 1, 100.0, watts, watts, 0.0, 0.5)


def service(rate: float, alpha: float, accuracy: dict[str, float], work: float = 0.1, name: str = "s") -> PlanService:
    return PlanService(name, rate, rate, alpha, dict.fromkeys(accuracy, work), accuracy)


def random_case(seed: int, services: int) -> tuple[list[PlanService], list[PlanVariant], dict[str, int]]:
    rng = np.random.default_rng(seed)
    variants = [variant(f"v{i}", f"m{i % 4}", float(rng.uniform(200, 2000))) for i in range(int(rng.integers(2, 12)))]
    serving = {v.name: int(rng.integers(0, 5)) for v in variants}
    serving[variants[0].name] = max(1, serving[variants[0].name])
    return (
        [
            PlanService(
                f"s{k}",
                float(rng.uniform(0.5, 40)) / services,
                0.0,
                float(rng.uniform(0.3, 0.9)),
                {v.name: float(rng.uniform(0.02, 0.2)) for v in variants},
                {v.name: float(rng.uniform(0.3, 0.9)) for v in variants},
            )
            for k in range(services)
        ],
        variants,
        serving,
    )


def least_joules(
    services: list[PlanService], variants: list[PlanVariant], serving: dict[str, int], weights: Weights
) -> float:
    """Return the least joules per second at the weights' overload and missing accuracy, by a program of rates."""
    ready = [v for v in variants if serving[v.name]]
    n = len(ready)
    cost, accuracy, equal = (
        [],
        np.zeros((len(services), n * len(services))),
        np.zeros((len(services), n * len(services))),
    )
    capacity = np.zeros((n, n * len(services)))
    for k, s in enumerate(services):
        for i, v in enumerate(ready):
            cost.append(s.work_seconds[v.name] * (joules_at_knee(v) or 0.0))
            capacity[i, k * n + i] = s.work_seconds[v.name]
            equal[k, k * n + i] = 1.0
            accuracy[k, k * n + i] = s.alpha - weights.accuracy_missing.get(s.name, 0.0) - s.accuracy[v.name]
    room = [0.9 * 0.5 * serving[v.name] * (1.0 + weights.overload) * (1 + 1e-9) for v in ready]
    result = linprog(
        cost,
        A_ub=np.vstack([capacity, accuracy]),
        b_ub=[*room, *(1e-7 for _ in services)],
        A_eq=equal,
        b_eq=[s.rate_rps for s in services],
    )
    assert result.status == 0
    return float(result.fun)


def spent_joules(services: list[PlanService], variants: list[PlanVariant], weights: Weights) -> float:
    by_name = {v.name: joules_at_knee(v) or 0.0 for v in variants}
    return sum(
        s.rate_rps * share * s.work_seconds[v] * by_name[v]
        for s in services
        for v, share in weights.shares[s.name].items()
    )


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("count", [1, 3])
def test_weights_cost_what_the_linear_program_costs(seed: int, count: int) -> None:
    services, variants, serving = random_case(seed, count)
    weights = decide_weights(services, variants, serving)
    for s in services:
        shares = weights.shares[s.name]
        assert sum(shares.values()) == pytest.approx(1.0)
        reached = sum(share * s.accuracy[v] for v, share in shares.items())
        assert reached >= s.alpha - weights.accuracy_missing.get(s.name, 0.0) - 1e-6
    for v in variants:
        load = sum(s.rate_rps * weights.shares[s.name].get(v.name, 0.0) * s.work_seconds[v.name] for s in services)
        assert load <= 0.45 * serving[v.name] * (1.0 + weights.overload) * (1 + 1e-6)
    assert spent_joules(services, variants, weights) == pytest.approx(
        least_joules(services, variants, serving, weights), rel=1e-4
    )


def test_half_of_the_promise_each_when_it_lies_in_the_middle() -> None:
    variants = [variant("small", "s", 400.0), variant("large", "l", 2000.0)]
    weights = decide_weights(
        [service(1.0, 0.7, {"small": 0.6, "large": 0.8})], variants, {"small": 1, "large": 1}, eta=0.8
    )
    assert weights.shares["s"] == pytest.approx({"small": 0.5, "large": 0.5})
    # per second of work 400/.4 and 2,000/.4 J, .1 s each: 100 and 500 J for .2 of accuracy
    assert weights.price_joules_per_satisfied["s"] == pytest.approx(400.0 / 0.2)


def test_accuracy_gives_way_before_latency() -> None:
    variants = [variant("small", "s"), variant("large", "l", 2000.0)]
    # one replica carries 4 requests/s; 6 are asked for, so the large model gets its 4 and the small one the rest
    weights = decide_weights(
        [service(6.0, 0.8, {"small": 0.6, "large": 0.8})], variants, {"small": 1, "large": 1}, eta=0.8
    )
    assert weights.overload == 0.0
    assert weights.shares["s"] == pytest.approx({"small": 2 / 6, "large": 4 / 6})
    assert weights.accuracy_missing["s"] == pytest.approx(0.8 - (0.6 * 2 + 0.8 * 4) / 6)


def test_what_nobody_can_carry_overloads_all_alike() -> None:
    variants = [variant("a", "m"), variant("b", "m")]
    weights = decide_weights([service(24.0, 0.5, {"a": 0.6, "b": 0.6})], variants, {"a": 1, "b": 2}, eta=0.8)
    assert weights.overload == pytest.approx(1.0)
    assert weights.shares["s"] == pytest.approx({"a": 1 / 3, "b": 2 / 3})


def test_nothing_serving_is_no_weight() -> None:
    assert decide_weights([service(1.0, 0.5, {"a": 0.6})], [variant("a", "m")], {"a": 0}).shares == {"s": {}}


def test_a_rate_that_is_no_number_is_refused() -> None:
    with pytest.raises(PlanError, match="service s: rate_rps is nan"):
        decide_weights([service(float("nan"), 0.5, {"a": 0.6})], [variant("a", "m")], {"a": 1})


def test_member_split_fills_the_cheaper_variant_first() -> None:
    variants = [variant("cheap", "m", 300.0), variant("dear", "m", 600.0), variant("other", "o")]
    s = service(12.0, 0.5, {"cheap": 0.6, "dear": 0.6, "other": 0.7})
    serving = {"cheap": 1, "dear": 2, "other": 1}
    # half of 12 requests/s go to m: 4 of them fill the cheap replica
    split = split_member_weights({"m": 0.5, "o": 0.5}, s, variants, serving, rate_rps=12.0, eta=0.8)
    assert split == pytest.approx({"cheap": 4 / 12, "dear": 2 / 12, "other": 0.5})
    by_capacity = split_member_weights({"m": 1.0}, s, variants, serving, rate_rps=None, eta=0.8)
    assert by_capacity == pytest.approx({"cheap": 1 / 3, "dear": 2 / 3})
    assert split_member_weights({"m": 0.5, "gone": 0.5}, s, variants, serving, rate_rps=1.0) == {"cheap": 1.0}
