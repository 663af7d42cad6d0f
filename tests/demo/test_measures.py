from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.demo.measures import (
    attainment,
    count_writes,
    deviation_percent,
    engine_attainment,
    feedbacks,
    measure_energy,
    measure_increase,
    measure_promise,
    quantile,
)
from e2e.demo.recording import EnergySample, LatencyCount, Reply, Write


def reply(service: str = "chat", done: float = 1.0, satisfied: bool | None = True) -> Reply:
    return Reply(service, "r", done - 1.0, done, 200, satisfied=satisfied)


class TestPromise:
    def test_debt_is_target_times_count_minus_satisfied(self) -> None:
        promise = measure_promise([True, False, False, True], target=0.75, grace=1)
        assert promise.achieved == 0.5
        assert promise.debt_requests == 0.75 * 4 - 2
        # running shares 1, 1/2, 1/3, 1/2: the worst lies 0.75 - 1/3 below the target
        assert promise.worst_deficit == pytest.approx(0.75 - 1 / 3)
        assert promise.violated_after_n0 is True

    def test_what_happened_before_n0_is_not_held_against_it(self) -> None:
        promise = measure_promise([False, False, True, True, True, True], target=0.5, grace=4)
        assert promise.worst_deficit == 0.0
        assert promise.violated_after_n0 is False

    def test_too_little_feedback_is_unknown_not_kept(self) -> None:
        promise = measure_promise([True] * 3, target=0.5, grace=4)
        assert (promise.worst_deficit, promise.violated_after_n0) == (None, None)
        assert measure_promise([], target=0.5).achieved is None

    @given(st.lists(st.booleans(), min_size=1), st.floats(0.0, 1.0))
    def test_worst_deficit_is_at_least_the_final_one(self, outcomes: list[bool], target: float) -> None:
        promise = measure_promise(outcomes, target, grace=1)
        assert promise.worst_deficit is not None
        assert promise.achieved is not None
        assert promise.worst_deficit >= target - promise.achieved
        assert promise.debt_requests == pytest.approx(len(outcomes) * (target - promise.achieved), abs=1e-6)

    def test_feedbacks_come_in_the_order_in_which_they_were_known(self) -> None:
        replies = [
            reply(done=3.0, satisfied=False),
            reply(done=2.0),
            reply("search", 1.0),
            reply(done=1.0, satisfied=None),
        ]
        assert feedbacks(replies, "chat") == [True, False]


class TestEnergy:
    def test_counts_a_gpu_only_while_a_pod_owns_it(self) -> None:
        samples = [
            EnergySample("g", None, 0.0, 100.0),
            EnergySample("g", None, 2.0, 200.0),  # idle stretch: not ours
            EnergySample("g", "p", 4.0, 500.0),  # the pod came between 2 and 4: the stretch counts, 300 J
            EnergySample("g", "p", 6.0, 900.0),  # 400 J
            EnergySample("g", None, 8.0, 950.0),  # the pod went between 6 and 8: not counted
        ]
        assert measure_energy(samples, 0.0, 100.0) == 700.0

    def test_a_stretch_across_an_edge_counts_by_its_inside(self) -> None:
        samples = [EnergySample("g", "p", 0.0, 0.0), EnergySample("g", "p", 10.0, 100.0)]
        assert measure_energy(samples, 4.0, 9.0) == pytest.approx(50.0)

    def test_a_counter_that_fell_started_again_from_zero(self) -> None:
        samples = [EnergySample("g", "p", 0.0, 90.0), EnergySample("g", "p", 2.0, 30.0)]
        assert measure_energy(samples, 0.0, 2.0) == 30.0

    def test_gpus_add_up_and_the_order_of_rows_does_not_matter(self) -> None:
        samples = [
            EnergySample(gpu, "p", at, at * watts) for gpu, watts in (("a", 100.0), ("b", 300.0)) for at in (4.0, 0.0)
        ]
        assert measure_energy(samples, 0.0, 4.0) == 1600.0

    def test_nothing_owned_is_unknown_not_zero(self) -> None:
        assert measure_energy([EnergySample("g", None, float(at), 0.0) for at in range(4)], 0.0, 3.0) is None


class TestCounters:
    def test_a_series_born_inside_began_at_zero(self) -> None:
        assert measure_increase([(5.0, 7.0), (7.0, 9.0)], from_seconds=0.0, to_seconds=10.0) == 9.0

    def test_what_was_counted_before_and_after_does_not_count(self) -> None:
        assert measure_increase([(-1.0, 7.0), (1.0, 9.0), (11.0, 20.0)], from_seconds=0.0, to_seconds=10.0) == 2.0

    def test_a_reset_starts_again(self) -> None:
        assert measure_increase([(0.0, 5.0), (1.0, 8.0), (2.0, 1.0)], from_seconds=0.0, to_seconds=10.0) == 4.0

    def test_attainment_over_all_engines_weighs_by_requests(self) -> None:
        rows = [
            LatencyCount("a", 0.0, 10, 10, 10, 10),
            LatencyCount("a", 5.0, 19, 20, 20, 20),  # 9 of 10, 10 of 10
            LatencyCount("b", 5.0, 30, 30, 15, 20),  # 30 of 30, 15 of 20
        ]
        slo = engine_attainment(rows, 0.0, 10.0)
        assert slo.ttft_attainment == 39 / 40
        assert slo.tpot_attainment == 25 / 30
        assert slo.requests == 40

    def test_no_requests_is_unknown(self) -> None:
        assert engine_attainment([], 0.0, 10.0).ttft_attainment is None


def test_attainment_counts_the_bound_itself_and_a_failure_as_a_miss() -> None:
    assert attainment([1.0, 2.0, math.inf, None], 2.0) == 2 / 3
    assert attainment([None], 2.0) is None


def test_quantile_is_the_smallest_value_that_covers_the_share() -> None:
    values = [float(value) for value in range(1, 21)]
    assert quantile(values, 0.95) == 19.0
    assert quantile(values, 1.0) == 20.0
    assert quantile([], 0.95) is None


def test_writes_are_sorted_by_what_a_steady_state_allows() -> None:
    writes = [
        Write(1.0, "update", "leases", "", "wattzoo"),
        Write(2.0, "patch", "llmservices", "status", "chat"),
        Write(3.0, "patch", "httproutes", "", "chat"),
        Write(4.0, "create", "events", "", "chat.1"),
        Write(10.0, "patch", "httproutes", "", "chat"),  # the window is half open
    ]
    count = count_writes(writes, (0.0, 10.0))
    assert (count.changes, count.status, count.lease, count.events) == (1, 1, 1, 1)
    assert count.seconds == 10.0


def test_deviation_is_in_percent_of_the_reference() -> None:
    assert deviation_percent(90.0, 100.0) == pytest.approx(-10.0)
    assert deviation_percent(None, 100.0) is None
    assert deviation_percent(90.0, 0.0) is None
