"""What load may come: errors of the past, and the two things that errors of the past cannot know."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from wattzoo_policies.placement.forecast import (
    HIGH_QUANTILE,
    LEAST_SAMPLES,
    MOST_OVER_LARGEST,
    PEAK_STEPS,
    UNKNOWN_RATIO,
    ErrorHistogram,
    Expectation,
    LoadForecast,
    LoadMemory,
    forecast_load,
    lead_steps,
    observe_load,
)


def observe(loads: Iterable[float], memory: LoadMemory | None = None) -> LoadMemory:
    memory = memory or LoadMemory()
    for load in loads:
        memory = observe_load(memory, load)
    return memory


def forecast(memory: LoadMemory) -> LoadForecast:
    found = forecast_load(memory)
    assert found is not None
    return found


def steady(steps: int, seed: int = 1) -> list[float]:
    return [float(x) for x in np.random.default_rng(seed).normal(1.0, 0.05, steps)]


def bursts(steps: int, seed: int = 1) -> list[float]:
    """One step in eight has a load, the others none."""
    rng = np.random.default_rng(seed)
    return [float(rng.exponential()) if rng.random() < 0.125 else 0.0 for _ in range(steps)]


def test_a_peak_of_less_than_its_window_is_no_sample() -> None:
    """Loads that begin small would teach that peaks are exceeded many times."""
    memory = observe([0.1] * 5 + [1.0] * (PEAK_STEPS - 5))
    assert memory.following[1].errors.samples == 0
    assert observe([1.0] * 3, memory).following[1].errors.samples == 3
    assert memory.following[0].errors.samples == PEAK_STEPS - 1


def test_a_ramp_is_met_before_its_errors_are_learnt() -> None:
    """3 % a step after a quiet hour: 1.75 after 19 steps, 3.2 when what starts now is ready."""
    memory = observe(steady(240) + [1.03**n for n in range(20)])
    blind = forecast(replace(memory, rises=ErrorHistogram()))
    assert blind.high < 2.3
    assert forecast(memory).high > 2.5


def test_the_lead_is_as_long_as_the_longest_start() -> None:
    assert lead_steps(300.0, 15.0) == 20
    assert lead_steps(310.0, 15.0) == 21
    assert lead_steps(5.0, 15.0) == 4  # three largest loads need more than three
    assert lead_steps(3600.0, 15.0) == PEAK_STEPS


def test_what_starts_sooner_needs_less_room_on_a_slope() -> None:
    """Load that swings by half within 200 steps: within five steps it goes less far than within twenty."""
    wave = [1.0 + 0.5 * math.sin(math.tau * step / 200.0) for step in range(1000)]
    near, far = LoadMemory(), LoadMemory()
    over = [0.0, 0.0]
    for step, load in enumerate(wave):
        near, far = observe_load(near, load, 5), observe_load(far, load, 20)
        if step >= 400:
            over = [over[0] + forecast(near).high, over[1] + forecast(far).high]
    assert over[0] < 0.95 * over[1]


def test_a_rise_within_what_chance_does_changes_nothing() -> None:
    memory = observe(steady(400))
    assert forecast(memory).high == pytest.approx(forecast(replace(memory, rises=ErrorHistogram())).high, rel=0.05)


def test_where_averages_double_within_a_window_a_rise_says_nothing() -> None:
    memory = observe([*bursts(400), 1.0, 1.0, 1.0])
    assert forecast(memory).high == forecast(replace(memory, rises=ErrorHistogram())).high


def test_nothing_far_above_the_largest_load_is_expected() -> None:
    for seed in range(5):
        memory = LoadMemory()
        for load in bursts(300, seed):
            memory = observe_load(memory, load)
            found = forecast(memory)
            most = MOST_OVER_LARGEST * max(memory.largest, *memory.loads) * (1 + 1e-9)
            assert found.high <= most
            assert found.next_high <= most


def test_an_expectation_that_says_nothing_leaves_no_infinity_behind() -> None:
    memory = observe(bursts(400))
    assert memory.lead[0].errors.quantile(0.9) == math.inf
    assert all(math.isfinite(e.mean_bound or 0.0) for e in (*memory.lead, *memory.following))


def test_before_anything_is_known_serving_replicas_have_room_for_the_peak_and_servers_for_a_fixed_reserve() -> None:
    """What is ready can take a peak again; new servers for it would take from others what it may never need again."""
    memory = observe([0.2, 2.0, 0.2, 0.2, 0.2, 0.2])
    found = forecast(memory)
    assert memory.lead[0].errors.samples < LEAST_SAMPLES
    assert found.next_high == 2.0
    assert found.high == pytest.approx(UNKNOWN_RATIO * (found.level + 0.5 * (found.level - 0.2)))


def test_the_margin_of_a_believed_peak_is_the_peaks_own() -> None:
    """After silence the expectation is near zero and the bound near the last bursts: base says what it is of."""
    memory = observe([*bursts(400), 1.0, *[0.0] * 12])
    found = forecast(memory)
    assert found.next_load < 0.01
    assert found.next_base == max(memory.loads)
    assert found.next_base < found.next_high


def test_an_intervals_weight_is_its_load_over_the_mean() -> None:
    memory = observe([1.0, 3.0])
    assert memory.weight == pytest.approx(1.5)
    assert observe([0.0], memory).weight == 0.0


def test_what_an_expectation_is_believed_for_is_the_mean_of_all_its_bounds() -> None:
    """Bounds of 1.1 times 1, 2 and 3: 2.2 on average, whatever came first."""
    expectation = Expectation(errors=ErrorHistogram(tuple(float(n == 27) for n in range(100)), LEAST_SAMPLES))
    ratio = expectation.bound(1.0, 0.9)
    assert ratio is not None
    for value in (1.0, 2.0, 3.0):
        expectation = expectation.expect(value, 0.9)
    assert expectation.mean_bound == pytest.approx(2.0 * ratio)
    assert expectation.bounds == 3


def test_a_load_twice_as_large_is_remembered_and_forecast_twice_as_large() -> None:
    loads = steady(300)
    once, twice = observe(loads), observe([2.0 * load for load in loads])
    scaled = once.scaled(2.0)
    assert scaled.loads == pytest.approx(twice.loads)
    assert forecast(scaled).high == pytest.approx(forecast(twice).high)
    assert forecast(observe([2.0], scaled)).next_high == pytest.approx(forecast(observe([2.0], twice)).next_high)
    assert observe([2.0], scaled).weight == pytest.approx(observe([1.0], once).weight)


def test_of_equally_good_expectations_the_steadier_peak_is_believed() -> None:
    """The level's bounds 1 % lower on average: its bound follows every swing, and plans would follow it."""
    errors = ErrorHistogram(tuple(float(n == 27) for n in range(100)), LEAST_SAMPLES)
    level, peak = Expectation(errors=errors, mean_bound=0.99), Expectation(errors=errors, mean_bound=1.0)
    memory = replace(observe([1.0, 2.0, 1.0]), lead=(level, peak))
    assert forecast(memory).high == peak.bound(2.0, HIGH_QUANTILE)
    clearly = replace(memory, lead=(replace(level, mean_bound=0.97), peak))
    assert memory.level is not None
    assert forecast(clearly).high == level.bound(memory.level + 0.5 * (memory.level - 1.0), HIGH_QUANTILE)
