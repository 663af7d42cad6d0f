"""From shares to weights: they always sum to a million, on usable variants alone, and hold still for small changes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo.decide.weights import (
    Filling,
    changes_enough,
    fill_member,
    round_weights,
    split_member,
    split_shares,
    usable_variants,
)
from wattzoo.model import TOTAL_WEIGHT, Backing, PodView, VariantKey, VariantState

SMALL, LARGE, LARGE_OLD = VariantKey("small", "l4"), VariantKey("large", "h100"), VariantKey("large", "a100")


def make_state(key: VariantKey, ready: int, *, service: bool = True, silent: int = 0) -> VariantState:
    pods = tuple(
        PodView(f"{key}-{number}", 1, ready_since_seconds=0.0, serving=number >= silent) for number in range(ready)
    )
    return VariantState(
        key=key,
        backing=Backing.SERVER,
        exists=True,
        desired=ready,
        pods=pods,
        service=str(key),
        port=8000,
        service_exists=service,
        accelerator_pool="pool",
        accelerators_per_replica=1,
    )


def test_a_member_is_split_by_what_its_serving_replicas_carry() -> None:
    # 2 replicas of 6 requests/s and 3 of 2: 12 and 6 of 18; one more that is silent takes nothing
    states = [make_state(LARGE, 3, silent=1), make_state(LARGE_OLD, 3)]
    assert split_member(0.9, states, {LARGE: 6.0, LARGE_OLD: 2.0}) == {LARGE: 0.9 * 12 / 18, LARGE_OLD: 0.9 * 6 / 18}


def test_an_unknown_capacity_counts_replicas_alike() -> None:
    split = split_member(1.0, [make_state(LARGE, 1), make_state(LARGE_OLD, 3)], {LARGE: 6.0, LARGE_OLD: None})
    assert split == {LARGE: 0.25, LARGE_OLD: 0.75}


def test_the_variant_of_fewest_joules_is_filled_first() -> None:
    # of 10 requests/s one replica carries 6 at 10 J and three carry 6 at 20 J; silent ones wake for what they are given
    states = [make_state(LARGE_OLD, 3), make_state(LARGE, 1, silent=1)]
    capacities, joules = {LARGE: 6.0, LARGE_OLD: 2.0}, {LARGE: 10.0, LARGE_OLD: 20.0}
    filling = Filling(10.0, joules, {LARGE: 1, LARGE_OLD: 3})
    assert fill_member(0.5, states, capacities, filling) == {LARGE: 0.5, LARGE_OLD: 0.0}
    assert fill_member(0.9, states, capacities, filling) == pytest.approx({LARGE: 0.6, LARGE_OLD: 0.3})
    too_much = Filling(24.0, joules, {LARGE: 1, LARGE_OLD: 3})  # both are overloaded alike
    assert fill_member(1.0, states, capacities, too_much) == pytest.approx({LARGE: 0.5, LARGE_OLD: 0.5})


def test_without_a_capacity_or_joules_a_member_is_split_by_what_serves() -> None:
    states = [make_state(LARGE, 1), make_state(LARGE_OLD, 3)]
    replicas = {LARGE: 1, LARGE_OLD: 3}
    assert fill_member(1.0, states, {LARGE: 6.0}, Filling(10.0, {LARGE: 1.0, LARGE_OLD: 2.0}, replicas)) is None
    assert fill_member(1.0, states, {LARGE: 6.0, LARGE_OLD: 2.0}, Filling(10.0, {LARGE: 1.0}, replicas)) is None
    split = split_shares({"large": 1.0}, states, {LARGE: 6.0, LARGE_OLD: 2.0}, Filling(10.0, {LARGE: 1.0}, replicas))
    assert split == {LARGE: 0.5, LARGE_OLD: 0.5}


def test_what_an_unready_member_was_given_goes_to_the_others_in_proportion() -> None:
    shares = split_shares({"small": 0.5, "large": 0.5}, [make_state(LARGE, 1)], {})
    assert shares == {LARGE: 1.0}


def test_shares_whose_sum_is_no_number_count_by_their_ratio() -> None:
    usable = [make_state(SMALL, 1), make_state(LARGE, 1)]
    assert split_shares({"small": 1e308, "large": 1e308}, usable, {}) == {SMALL: 0.5, LARGE: 0.5}
    assert split_shares({"small": 1.0}, [], {}) == {}


def test_without_a_valid_share_usable_members_share_alike() -> None:
    usable = [make_state(SMALL, 1), make_state(LARGE, 1)]
    assert split_shares({"small": math.nan}, usable, {}) == {SMALL: 0.5, LARGE: 0.5}


def test_a_variant_without_a_service_or_ready_pods_is_not_usable() -> None:
    states = [make_state(SMALL, 0), make_state(LARGE, 1, service=False), make_state(LARGE_OLD, 1)]
    assert [state.key for state in usable_variants(states, frozenset())] == [LARGE_OLD]


def test_a_retiring_variant_serves_only_when_nothing_else_can() -> None:
    states = [make_state(SMALL, 1), make_state(LARGE, 1)]
    assert [s.key for s in usable_variants(states, frozenset({SMALL}))] == [LARGE]
    assert [s.key for s in usable_variants(states[:1], frozenset({SMALL}))] == [SMALL]


def test_thirds_sum_to_a_million() -> None:
    keys = [SMALL, LARGE, LARGE_OLD]
    assert round_weights(dict.fromkeys(keys, 1 / 3), keys) == {SMALL: 333_334, LARGE: 333_333, LARGE_OLD: 333_333}


def test_small_shifts_hold_and_starts_and_stops_do_not() -> None:
    live = {SMALL: 300_000, LARGE: 700_000}
    assert not changes_enough(live, {SMALL: 309_000, LARGE: 691_000})  # moves 1.8 % in all
    assert changes_enough(live, {SMALL: 311_000, LARGE: 689_000})  # 2.2 %
    assert changes_enough(live, {SMALL: 0, LARGE: TOTAL_WEIGHT})
    assert changes_enough({SMALL: 0, LARGE: TOTAL_WEIGHT}, {SMALL: 1, LARGE: TOTAL_WEIGHT - 1})
    assert changes_enough({LARGE: 700_000, SMALL: 300_000}, live)  # another order
    assert changes_enough({SMALL: 300, LARGE: 700}, live)  # somebody else's sum


KEYS = [VariantKey(f"m{i // 2}", f"v{i}") for i in range(8)]
NUMBERS = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.floats(0.0, 1.0))


@given(
    shares=st.dictionaries(st.sampled_from([f"m{i}" for i in range(5)]), NUMBERS),
    ready=st.lists(st.integers(0, 4), min_size=8, max_size=8),
    rates=st.lists(st.one_of(st.none(), NUMBERS), min_size=8, max_size=8),
    retiring=st.frozensets(st.sampled_from(KEYS)),
)
def test_weights_always_sum_to_a_million_on_ready_variants_alone(
    shares: dict[str, float], ready: list[int], rates: list[float | None], retiring: frozenset[VariantKey]
) -> None:
    states = [make_state(key, number) for key, number in zip(KEYS, ready, strict=True)]
    usable = usable_variants(states, retiring)
    capacities = dict(zip(KEYS, rates, strict=True))
    if not usable:
        return
    weights = round_weights(split_shares(shares, usable, capacities), KEYS)
    assert sum(weights.values()) == TOTAL_WEIGHT
    assert list(weights) == KEYS
    assert all(weight >= 0 for weight in weights.values())
    assert {key for key, weight in weights.items() if weight > 0} <= {state.key for state in usable}
