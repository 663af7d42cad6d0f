"""The study: its books against hand counts, the law against the policy, the promise against thousands of runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from wattzoo_policies.accuracy.anytime import MESSPlusAnytime
from wattzoo_policies.accuracy.anytime_estimates import AnytimeParameters, estimate_promise_start
from wattzoo_policies.accuracy.mess_plus import MESSPlus
from wattzoo_policies.sim.laws import AnytimeLaw, FixedLaw, PolicyLaw, PrimalDualLaw, ThresholdLaw
from wattzoo_policies.sim.stream import (
    Stream,
    StreamError,
    Zoo,
    draw_drifting,
    draw_independent,
    draw_sorted,
    make_intervals,
    make_stream,
    make_timed_intervals,
)
from wattzoo_policies.sim.study import Replay, Setting, draw_choices, estimate_blind, replay

ACCURACY = np.array([0.42, 0.44, 0.63])
JOULES = np.array([10.0, 42.0, 184.0])


def make_zoo(accuracy: NDArray[np.float64] = ACCURACY, joules: NDArray[np.float64] = JOULES, seed: int = 0) -> Zoo:
    """Return 4,000 requests whose outcomes share a difficulty, in ten groups of falling ease."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(10), 400)
    shift = np.linspace(0.15, -0.15, 10)[group][:, None]
    outcomes = rng.random((4000, len(accuracy))) < np.clip(accuracy + shift, 0.0, 1.0)
    return Zoo(
        tuple(f"m{n}" for n in range(len(accuracy))),
        outcomes.astype(float),
        rng.gamma(2.0, joules / 2.0, (4000, len(accuracy))) + 0.01,
        group,
    )


ZOO = make_zoo()
SAFEST = np.array([False, False, True])


def independent(zoo: Zoo, seeds: int, length: int, interval: int = 200, lag: int = 1, seed: int = 1) -> Stream:
    bounds, visible = make_intervals(length, interval, lag)
    requests = draw_independent(zoo, seeds, length, np.random.default_rng(seed))
    return make_stream(requests, len(zoo.members), bounds, visible)


def run(stream: Stream, alpha: float = 0.53, feedback: float = 1.0, promise_from: int = 1000, zoo: Zoo = ZOO) -> Replay:
    law = AnytimeLaw(np.arange(len(zoo.members)) == int(np.argmax(zoo.accuracy)))
    return replay(zoo, stream, law, Setting(alpha, feedback, promise_from), np.random.default_rng(2))


def test_a_fixed_law_costs_what_its_members_cost() -> None:
    stream = independent(ZOO, 3, 2000)
    result = replay(ZOO, stream, FixedLaw(np.array([0.0, 0.0, 1.0]), "last"), Setting(0.5), np.random.default_rng(0))
    rows = stream.requests
    assert result.joules_per_request == pytest.approx(ZOO.joules[rows, 2].mean(1))
    assert result.satisfaction == pytest.approx(ZOO.outcomes[rows, 2].mean(1))
    assert (result.churn == 0.0).all()


def test_the_blind_optimum_is_that_of_the_stream_itself() -> None:
    stream = independent(ZOO, 2, 3000)
    weights, joules = estimate_blind(ZOO, stream, 0.53)
    means = ZOO.outcomes[stream.requests].mean(1), ZOO.joules[stream.requests].mean(1)
    assert (weights * means[0]).sum(1) == pytest.approx([0.53, 0.53])
    assert (weights * means[1]).sum(1) == pytest.approx(joules)


def test_the_running_share_is_watched_request_by_request() -> None:
    # ten requests: five satisfied, three not, two satisfied; the share first lies under .7 at the eighth (5/8)
    outcomes = np.array([1.0] * 5 + [0.0] * 3 + [1.0] * 2)[:, None]
    zoo = Zoo(("only",), outcomes, np.ones((10, 1)), np.zeros(10, dtype=np.int64))
    bounds, visible = make_intervals(10, 4, 0)
    stream = make_stream(np.arange(10)[None], 1, bounds, visible)
    for first, expected in ((7, True), (8, True), (9, True), (10, False)):
        law = FixedLaw(np.ones(1), "only")
        result = replay(zoo, stream, law, Setting(0.7, promise_from=first), np.random.default_rng(0))
        assert bool(result.violated[0]) is expected
        assert result.met.all()
        assert result.worst_deficit == pytest.approx([0.0])  # watched at the end only, in so short a stream


def test_choices_follow_the_weights() -> None:
    choice = draw_choices(np.array([[0.2, 0.0, 0.8]]), 20_000, np.random.default_rng(0))
    assert np.bincount(choice[0], minlength=3) / 20_000 == pytest.approx([0.2, 0.0, 0.8], abs=0.01)
    with pytest.raises(StreamError):
        draw_choices(np.array([[0.5, 0.6]]), 1, np.random.default_rng(0))


def test_feedback_arrives_by_the_clock() -> None:
    # decisions every 10 s; feedback takes 12 s: at 20 s what came before 8 s is known
    bounds, visible = make_timed_intervals(np.arange(0.0, 30.0), 10.0, 0, 12.0)
    assert bounds.tolist() == [0, 10, 20, 30]
    assert visible.tolist() == [0, 0, 8]


@pytest.mark.parametrize("feedback", [1.0, 0.2])
def test_the_policy_is_the_batch_of_one(feedback: float) -> None:
    stream = independent(ZOO, 3, 4000)
    setting = Setting(0.53, feedback)
    batch = replay(ZOO, stream, AnytimeLaw(SAFEST), setting, np.random.default_rng(2))
    # the study's feedback comes one interval of 15 s late, and then never
    policy = PolicyLaw(MESSPlusAnytime(AnytimeParameters(feedback_delay_seconds=15.0)), "m2")
    single = replay(ZOO, stream, policy, setting, np.random.default_rng(2))
    assert single.mean_weights == pytest.approx(batch.mean_weights, abs=1e-9)
    assert single.joules_per_request == pytest.approx(batch.joules_per_request)


def test_the_promise_is_kept_near_the_least_energy() -> None:
    start = int(estimate_promise_start(0.53, ZOO.accuracy, 200, 1, 1.0, AnytimeParameters()))
    result = run(independent(ZOO, 50, 20_000), promise_from=start)
    assert result.met.mean() >= 0.98
    assert result.violated.mean() <= 0.06  # 3 of 50
    assert result.joules_ratio.mean() <= 1.08
    assert result.churn.mean() <= 0.35


def test_the_published_price_pays_more_or_owes() -> None:
    stream = independent(ZOO, 4, 10_000)
    published = replay(ZOO, stream, PolicyLaw(MESSPlus(), "m2"), Setting(0.53), np.random.default_rng(2))
    ours = run(stream)
    assert ours.met.all()
    assert ours.joules_ratio.mean() < published.joules_ratio.mean()


@pytest.mark.slow
@pytest.mark.parametrize("delta", [0.05, 0.01])
def test_the_bound_is_calibrated_over_two_thousand_runs(delta: float) -> None:
    parameters = AnytimeParameters(delta=delta)
    start = int(estimate_promise_start(0.53, ZOO.accuracy, 200, 1, 1.0, parameters))
    stream = independent(ZOO, 2000, 4000, seed=9)
    setting = Setting(0.53, promise_from=start)
    result = replay(ZOO, stream, AnytimeLaw(SAFEST, parameters), setting, np.random.default_rng(10))
    assert result.violated.mean() <= 2.0 * delta


def test_partial_feedback_buys_credit_for_what_it_does_not_see() -> None:
    result = run(independent(ZOO, 50, 20_000), feedback=0.2)
    assert result.met.mean() >= 0.95
    assert result.joules_ratio.mean() <= 1.25


def test_slow_drift_is_followed() -> None:
    bounds, visible = make_intervals(10_000, 200, 1)
    requests = draw_drifting(ZOO, 50, 10_000, np.random.default_rng(3))
    result = run(make_stream(requests, 3, bounds, visible))
    assert result.violated.mean() <= 0.1


def test_a_stream_sorted_by_difficulty_ends_in_debt_but_recovers_what_it_can() -> None:
    bounds, visible = make_intervals(10_000, 200, 1)
    requests = draw_sorted(ZOO, 20, 10_000, np.random.default_rng(3))
    result = run(make_stream(requests, 3, bounds, visible), alpha=0.5)
    assert np.isfinite(result.joules_ratio).all()
    assert result.worst_deficit.max() < 0.05


def test_a_member_that_is_swapped_for_a_worse_one_is_noticed() -> None:
    stream = independent(ZOO, 30, 12_000)
    answers = stream.replacement.copy()
    answers[30:, 2] = 0  # from request 6,000 on the large member answers like the small one at its price
    result = replay(
        make_zoo(np.array([0.42, 0.6, 0.7]), np.array([10.0, 60.0, 90.0])),
        replace(stream, replacement=answers),
        AnytimeLaw(SAFEST),
        Setting(0.5),
        np.random.default_rng(2),
    )
    late = result.mean_weights[40:]
    assert late[:, 2].mean() < 0.1
    assert result.met.mean() >= 0.9


def test_a_member_that_leaves_gets_nothing_and_the_rest_carry_on() -> None:
    stream = independent(ZOO, 20, 12_000)
    ready = stream.ready.copy()
    ready[20:40, 0] = False
    result = run(replace(stream, ready=ready))
    assert (result.mean_weights[20:40, 0] == 0.0).all()
    assert result.met.all()


def test_correlated_blocks_cost_what_their_correlation_makes_of_the_bound() -> None:
    # requests come in blocks of 50 from one group: the share of a block varies far more than 50 independent requests
    rng = np.random.default_rng(4)
    blocks = rng.integers(0, 10, (20, 240)).repeat(50, axis=1)
    requests = blocks * 400 + rng.integers(0, 400, blocks.shape)
    bounds, visible = make_intervals(12_000, 200, 1)
    result = run(make_stream(requests, 3, bounds, visible))
    assert result.met.mean() >= 0.9
    assert result.worst_deficit.max() < 0.05


def test_bursts_in_which_everything_fails_are_survived() -> None:
    outcomes = ZOO.outcomes.copy()
    burst = Zoo(ZOO.members, outcomes, ZOO.joules, ZOO.group)
    stream = independent(burst, 20, 10_000)
    bad = int(np.argmin(outcomes.sum(1)))
    requests = stream.requests.copy()
    requests[:, 4000:4100] = bad
    result = run(replace(stream, requests=requests), zoo=burst)
    assert result.met.mean() >= 0.95


@pytest.mark.parametrize("members", [1, 20])
def test_any_number_of_members(members: int) -> None:
    zoo = make_zoo(
        np.linspace(0.4, 0.7, members) if members > 1 else np.array([0.6]), np.geomspace(5.0, 500.0, members)
    )
    result = run(independent(zoo, 4, 4000), alpha=0.5, zoo=zoo)
    assert result.met.all()


def test_baselines_run_and_make_no_promise() -> None:
    stream = independent(ZOO, 10, 6000)
    for law in (PrimalDualLaw(), ThresholdLaw(0, 2, 10)):
        result = replay(ZOO, stream, law, Setting(0.53), np.random.default_rng(2))
        assert np.isfinite(result.joules_ratio).all()
        assert result.satisfaction.mean() == pytest.approx(0.53, abs=0.05)


@pytest.mark.parametrize(
    ("outcomes", "joules", "rule"),
    [
        (np.array([[0.5, np.nan]]), np.ones((1, 2)), "between 0 and 1"),
        (np.ones((1, 2)), np.array([[1.0, -1.0]]), "finite and positive"),
        (np.ones((1, 2)), np.array([[1.0, np.inf]]), "finite and positive"),
        (np.ones((0, 2)), np.ones((0, 2)), "at least one request"),
    ],
)
def test_records_that_cannot_be_are_refused(
    outcomes: NDArray[np.float64], joules: NDArray[np.float64], rule: str
) -> None:
    with pytest.raises(StreamError, match=rule):
        Zoo(("a", "b"), outcomes, joules, np.zeros(len(outcomes), dtype=np.int64))
