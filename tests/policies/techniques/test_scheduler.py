"""The scheduler: work, weights and choices by hand, and what the split is worth in the plant."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo_policies.capacity.coefficients import Coefficients
from wattzoo_policies.capacity.model import RequestShape
from wattzoo_policies.sim.scheduler_study import draw_workload, make_pair, make_splits, simulate_split
from wattzoo_policies.techniques.scheduler import (
    Instance,
    Outstanding,
    Traffic,
    assumed_batches,
    choose_instance,
    full_batch,
    request_work_seconds,
    weights_by_capability,
    weights_round_robin,
)

MEAN = RequestShape(400.0, 100.0)
TRAFFIC = Traffic(MEAN)


def instance(name: str, speed: float = 1.0, kv_tokens: int = 50_000, **more: int) -> Instance:
    """Prompts cost 0.1 ms a token, a step 10 ms and 0.1 ms a sequence, all divided by the speed."""
    coefficients = Coefficients((1e-4 / speed, 0, 0, 0), (0, 1e-4 / speed, 0, 0.01 / speed))
    return Instance(name, coefficients, kv_tokens, **more)


def test_work_by_hand() -> None:
    one = instance("a")
    assert full_batch(one, TRAFFIC) == 100  # 50,000 / 500
    assert full_batch(one, Traffic(MEAN, kv_tokens_per_running=1000.0)) == 50
    assert full_batch(instance("a", max_sequences=8), TRAFFIC) == 8
    # 40 ms of prefill, 100 tokens at .1 ms, and a hundredth of 100 steps of 10 ms
    assert request_work_seconds(one, MEAN, 100) == pytest.approx(0.04 + 0.01 + 0.01)
    # context counts where it costs: 100 tokens at a mean context of 450, shared by ten where it is the step's
    both = Instance("c", Coefficients((0, 0, 0, 0.003), (1e-7, 0, 1e-6, 0)), 50_000)
    assert request_work_seconds(both, MEAN, 10) == pytest.approx(0.003 + 100 * (450e-7 + 450e-6 / 10))


def test_weights_follow_speed_memory_and_replicas() -> None:
    fast, slow = instance("fast", 3.0), instance("slow")
    assert weights_by_capability([fast, slow], TRAFFIC) == pytest.approx({"fast": 0.75, "slow": 0.25})
    assert weights_by_capability([fast, instance("slow", replicas=3)], TRAFFIC)["slow"] == pytest.approx(0.5)
    # A tenth of the cache: batch 10, .04 + .01 + .1 = 150 ms a request instead of 60.
    small = instance("small", kv_tokens=5000)
    aware = weights_by_capability([slow, small], TRAFFIC)
    assert aware["slow"] == pytest.approx(150 / 210)
    assert weights_by_capability([slow, small], TRAFFIC, memory_aware=False)["slow"] == pytest.approx(0.5)
    assert weights_round_robin([fast, instance("slow", replicas=3)]) == {"fast": 0.25, "slow": 0.75}


def test_who_cannot_serve_gets_nothing() -> None:
    tiny, gone = instance("tiny", kv_tokens=400), instance("gone", replicas=0)
    assert weights_by_capability([instance("a"), tiny, gone], TRAFFIC) == {"a": 1.0, "tiny": 0.0, "gone": 0.0}
    assert weights_by_capability([tiny], TRAFFIC) == {}
    assert weights_by_capability([], TRAFFIC) == weights_round_robin([gone]) == {}
    assert choose_instance([tiny], {}, MEAN, TRAFFIC) is None
    assert choose_instance([], {}, MEAN, TRAFFIC) is None


@given(st.lists(st.tuples(st.floats(0.2, 5), st.integers(600, 10**6), st.integers(1, 5)), min_size=1, max_size=6))
def test_weights_sum_to_one_and_never_fall_with_memory(figures: list[tuple[float, int, int]]) -> None:
    made = [instance(f"i{n}", s, kv, replicas=r) for n, (s, kv, r) in enumerate(figures)]
    weights = weights_by_capability(made, TRAFFIC)
    assert sum(weights.values()) == pytest.approx(1.0)
    speed, kv, replicas = figures[0]
    more = [instance("i0", speed, 2 * kv, replicas=replicas), *made[1:]]
    assert weights_by_capability(more, TRAFFIC)["i0"] >= weights["i0"] - 1e-12


def test_the_choice_is_the_smallest_backlog() -> None:
    fast, slow = instance("fast", 3.0), instance("slow")
    # One request is 20 ms of the fast one and 60 ms of the slow one.
    assert choose_instance([fast, slow], {}, MEAN, TRAFFIC) == "fast"
    behind = {"fast": Outstanding(0.039, 500)}
    assert choose_instance([fast, slow], behind, MEAN, TRAFFIC) == "fast"  # 59 ms against 60
    behind = {"fast": Outstanding(0.041, 500)}
    assert choose_instance([fast, slow], behind, MEAN, TRAFFIC) == "slow"


def test_a_full_cache_counts_and_is_passed_over() -> None:
    one, other = instance("one"), instance("other")
    # Little work left, but 80 % of the cache held: .81 of a drain time of 6 s (100 requests of 60 ms).
    held = {"one": Outstanding(0.1, 40_000), "other": Outstanding(3.0, 20_000)}
    assert choose_instance([one, other], held, MEAN, TRAFFIC) == "other"
    assert choose_instance([one, other], held, MEAN, TRAFFIC, memory_aware=False) == "one"
    full = {"one": Outstanding(0.1, 49_600), "other": Outstanding(30.0, 100)}
    assert choose_instance([one, other], full, MEAN, TRAFFIC) == "other"
    both = {"one": Outstanding(7.0, 60_000), "other": Outstanding(8.0, 70_000)}
    assert choose_instance([one, other], both, MEAN, TRAFFIC) == "one"


def test_bad_instances_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="instance a: kv_tokens: must be at least 1, not 0"):
        instance("a", kv_tokens=0)
    with pytest.raises(ValueError, match="instance a: replicas: must be at least 0, not -1"):
        instance("a", replicas=-1)
    assert math.isnan(max(assumed_batches([], TRAFFIC, memory_aware=False).values(), default=math.nan))


@pytest.mark.slow
@pytest.mark.parametrize(("ratio", "expected", "within"), [(1.0, 0.0, 3.0), (1.672, 33.6, 15.0), (3.45, 120.8, 15.0)])
def test_weighted_gain_over_round_robin_at_equal_memory(ratio: float, expected: float, within: float) -> None:
    models = make_pair(ratio, (60_000, 60_000))
    workload = draw_workload(12_000, np.random.default_rng(5))
    splits = make_splits(models, workload.traffic)
    rates = {name: simulate_split(models, workload, splits[name]) for name in ("round robin", "weighted")}
    assert 100.0 * (rates["weighted"] / rates["round robin"] - 1.0) == pytest.approx(expected, abs=within)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ratio", "kv_tokens"), [(1.0, (60_000, 12_000)), (2.0, (60_000, 20_000)), (2.0, (20_000, 60_000))]
)
def test_knowing_the_memory_beats_ignoring_it(ratio: float, kv_tokens: tuple[int, int]) -> None:
    models = make_pair(ratio, kv_tokens)
    workload = draw_workload(3000, np.random.default_rng(5))
    rates = {name: simulate_split(models, workload, s) for name, s in make_splits(models, workload.traffic).items()}
    assert rates["weighted"] > 1.1 * rates["weighted, blind"]
    assert rates["score"] > 1.03 * rates["score, blind"]
    assert rates["score, mean output"] > rates["score, blind"]
