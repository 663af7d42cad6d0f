"""The published rule in a zoo calibrated to the paper's table behaves as the paper reports."""

from __future__ import annotations

import numpy as np
import pytest

from wattzoo_policies.sim.published import BENCHMARKS, draw_outcomes, replay_published

ARC_C = BENCHMARKS[0]


def test_the_zoo_has_the_means_of_the_table() -> None:
    outcomes, _ = draw_outcomes(ARC_C, 50, np.random.default_rng(0))
    assert outcomes.mean((0, 1)) == pytest.approx(ARC_C.accuracy, abs=0.01)


def test_arc_c_costs_what_was_published_and_twice_the_blind_optimum() -> None:
    result = replay_published(ARC_C, 50, np.random.default_rng(1))
    # .37 J of the 8B member and .63 ... : 310 J by hand from 79.9 / .3788 and 393.7 / .5444 at .50
    share = (0.50 - 0.3788) / (0.5444 - 0.3788)
    assert result.blind == pytest.approx(79.9 + share * (393.7 - 79.9))
    assert 700.0 <= result.joules_as_published.mean() <= 760.0
    assert 2.0 <= result.joules.mean() / result.blind <= 2.6


def test_a_hundred_times_larger_v_saves_energy_and_misses_the_target() -> None:
    result = replay_published(ARC_C, 50, np.random.default_rng(1), v_per_joule=1e-2)
    assert result.joules.mean() < 0.9 * replay_published(ARC_C, 50, np.random.default_rng(1)).joules.mean()
    assert result.met.mean() < 0.2
