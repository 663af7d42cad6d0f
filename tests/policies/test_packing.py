"""Packing: as many replicas serve as the work fills to the knee, all where something is unknown."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo_policies.placement.packing import decide_serving, serving_replicas


@pytest.mark.parametrize(
    ("work", "ready", "expected"),
    [
        (1.0, 8, 2),  # 1.0 / (.9 * .8) = 1.39
        (1.44, 8, 2),  # exactly two
        (1.45, 8, 3),
        (0.0, 8, 1),  # never the last
        (100.0, 8, 8),  # at most what is ready
        (1.0, 0, 0),
        (None, 8, 8),
        (math.nan, 8, 8),
    ],
)
def test_replicas_are_filled_to_the_knee(work: float | None, ready: int, expected: int) -> None:
    assert serving_replicas(work, 0.8, ready, eta=0.9) == expected


def test_an_unknown_knee_lets_all_serve() -> None:
    assert serving_replicas(1.0, None, 5) == 5
    assert serving_replicas(1.0, 0.0, 5) == 5


def test_a_margin_is_kept_free() -> None:
    assert serving_replicas(1.4, 0.8, 8, eta=0.9) == 2
    assert serving_replicas(1.4, 0.8, 8, eta=0.9, margin=0.1) == 3  # 2.14


def test_work_that_swings_around_a_multiple_flips_nothing() -> None:
    swings = [1.45, 1.43] * 5  # a hair above and below two full replicas
    serving, seen = 2, []
    for work in swings:
        serving = decide_serving(work, 0.8, 8, serving)
        seen.append(serving)
    assert seen == [3] * 10
    assert [serving_replicas(work, 0.8, 8) for work in swings[:2]] == [3, 2]  # the harm without it


def test_work_that_has_clearly_fallen_silences() -> None:
    assert decide_serving(1.3, 0.8, 8, 3) == 2  # 1.43 with slack still fits two


@given(
    work=st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
    knee=st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
    ready=st.integers(0, 50),
    serving=st.integers(0, 50),
)
def test_any_input_gives_a_number_between_one_and_what_is_ready(
    work: float | None, knee: float | None, ready: int, serving: int
) -> None:
    chosen = decide_serving(work, knee, ready, serving)
    assert min(1, ready) <= chosen <= ready
    assert chosen >= serving_replicas(work, knee, ready)
