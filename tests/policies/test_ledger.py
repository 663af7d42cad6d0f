"""The ledger counts every outcome once, whatever the counters do."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo_policies.accuracy.ledger import (
    MAX_SERIES,
    OTHER,
    Ledger,
    count,
    ledger_from_body,
    ledger_to_body,
    make_ledger,
    set_members,
    summarise,
)
from wattzoo_policies.signals import Observation, OutcomeCounter

Counts = dict[tuple[str, str, bool], float]


def observe(at: float, counts: Counts | None, alpha: float = 0.5) -> Observation:
    if counts is None:
        return Observation(at, alpha, None)
    return Observation(at, alpha, tuple(OutcomeCounter(*key, value) for key, value in counts.items()))


def feed(ledger: Ledger, *observations: Observation) -> Ledger:
    for observation in observations:
        ledger, _ = count(ledger, observation)
    return ledger


def test_what_was_there_before_us_does_not_count() -> None:
    ledger = feed(make_ledger(["a"]), observe(0, {("a", "pod", True): 500}), observe(1, {("a", "pod", True): 503}))
    assert (ledger.outcomes.satisfied, ledger.outcomes.total) == (3, 3)


def test_a_series_born_while_we_watch_counts_from_zero() -> None:
    ledger = feed(make_ledger(["a"]), observe(0, {}), observe(1, {("a", "pod", True): 7, ("a", "pod", False): 2}))
    assert (ledger.outcomes.satisfied, ledger.outcomes.total) == (7, 9)
    assert ledger.debt_requests == pytest.approx(9 * 0.5 - 7)


def test_reset_of_one_series_of_two_loses_nothing_of_the_other() -> None:
    ledger = feed(
        make_ledger(["a"]),
        observe(0, {}),
        observe(1, {("a", "x", True): 10, ("a", "y", True): 20}),
        observe(2, {("a", "x", True): 3, ("a", "y", True): 25}),  # x restarted and counted 3 since
    )
    assert ledger.outcomes.total == 30 + 3 + 5
    assert ledger.counter_resets == 1


def test_a_sum_of_floats_that_falls_by_rounding_was_not_reset() -> None:
    ledger = feed(
        make_ledger(["a"]),
        observe(0, {}),
        observe(1, {("a", "x", False): 292.0}),
        observe(2, {("a", "x", False): 292.0 - 1e-13 * 292.0}),
        observe(3, {("a", "x", False): 293.0}),
    )
    assert ledger.outcomes.total == 293.0
    assert ledger.counter_resets == 0


def test_gap_unreachable_source_and_late_scrape_change_nothing() -> None:
    start = feed(make_ledger(["a"]), observe(0, {}), observe(1, {("a", "x", True): 10}))
    for nothing in (observe(2, None), observe(2, {}), observe(0.5, {("a", "x", True): 4})):
        after = feed(start, nothing, observe(3, {("a", "x", True): 12}))
        assert after.outcomes.total == 12


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_impossible_values_are_gaps(bad: float) -> None:
    ledger = feed(make_ledger(["a"]), observe(0, {("a", "x", True): 5}), observe(1, {("a", "x", True): bad}))
    assert ledger.outcomes.total == 0
    assert feed(ledger, observe(2, {("a", "x", True): 6})).outcomes.total == 1


def test_unknown_members_keep_the_promise_but_have_no_row_of_their_own() -> None:
    ledger = feed(make_ledger(["a"]), observe(0, {}), observe(1, {("typo", "x", False): 4}))
    assert ledger.members[OTHER].total == 4
    assert ledger.debt_requests == pytest.approx(2.0)


def test_removed_members_history_stays_in_the_promise() -> None:
    ledger = feed(make_ledger(["a", "b"]), observe(0, {}), observe(1, {("a", "x", True): 4, ("b", "x", False): 6}))
    smaller = set_members(ledger, ["a"])
    assert (smaller.members["a"].total, smaller.members[OTHER].total) == (4, 6)
    assert smaller.debt_requests == ledger.debt_requests


def test_target_holds_for_outcomes_counted_under_it() -> None:
    ledger = feed(
        make_ledger(["a"]),
        observe(0, {}, alpha=0.5),
        observe(1, {("a", "x", False): 10}, alpha=0.5),
        observe(2, {("a", "x", False): 20}, alpha=0.9),
    )
    assert ledger.required == pytest.approx(10 * 0.5 + 10 * 0.9)


def test_worst_deficit_is_unknown_before_a_thousand_and_remembered_after() -> None:
    ledger = feed(make_ledger(["a"]), observe(0, {}), observe(1, {("a", "x", False): 999}))
    assert ledger.worst_deficit is None
    ledger = feed(ledger, observe(2, {("a", "x", False): 1000}), observe(3, {("a", "x", True): 9000}))
    assert summarise(ledger, {}).worst_deficit == pytest.approx(0.5)
    assert summarise(ledger, {}).achieved == pytest.approx(0.9)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]), st.sampled_from(["x", "y"]), st.booleans(), st.integers(0, 9), st.booleans()
        ),
        max_size=60,
    )
)
def test_any_history_of_increments_repeats_and_restarts_is_counted_exactly(
    steps: list[tuple[str, str, bool, int, bool]],
) -> None:
    ledger = feed(make_ledger(["a", "b"]), observe(0, {}))
    counts: Counts = {}
    truth = satisfied = 0
    for at, (member, series, good, increase, restart) in enumerate(steps, start=1):
        key = (member, series, good)
        # a restart is visible as a fall; one that has already counted past the old value is not, for anybody
        counts[key] = increase if restart and increase < counts.get(key, 0) else counts.get(key, 0) + increase
        truth += increase
        satisfied += increase * good
        ledger = feed(ledger, observe(at, counts), observe(at, counts))
    assert ledger.outcomes.total == truth
    assert ledger.outcomes.satisfied == satisfied
    assert ledger.required == pytest.approx(0.5 * truth)
    assert ledger_from_body(ledger_to_body(ledger)) == ledger


def pods(first: int, last: int, value: float) -> Counts:
    return {("a", f"pod-{i}", True): value for i in range(first, last)}


def test_series_beyond_the_limit_are_left_out_and_never_counted_twice() -> None:
    ledger = feed(make_ledger(["a"]), observe(0, {}), observe(1, pods(0, MAX_SERIES + 20, 1.0)))
    assert ledger.outcomes.total == MAX_SERIES
    ledger = feed(ledger, observe(2, pods(0, MAX_SERIES + 20, 3.0)), observe(3, pods(0, MAX_SERIES + 20, 3.0)))
    assert ledger.outcomes.total == 3 * MAX_SERIES
    assert len(ledger.counters) == MAX_SERIES


def test_series_that_are_gone_make_room_for_new_ones() -> None:
    ledger = feed(make_ledger(["a"]), observe(0, {}), observe(1, pods(0, MAX_SERIES, 1.0)))
    ledger = feed(ledger, observe(2, pods(10, MAX_SERIES + 5, 2.0)))  # ten pods went, five came with 2 each
    assert ledger.outcomes.total == 10 * 1 + (MAX_SERIES - 10) * 2 + 5 * 2
    ledger = feed(ledger, observe(3, pods(9, MAX_SERIES + 5, 2.0)))  # one comes back and was not forgotten
    assert ledger.outcomes.total == 9 * 1 + (MAX_SERIES - 9) * 2 + 5 * 2


def test_another_source_is_a_new_base() -> None:
    ledger = feed(make_ledger(["a"]), observe(0, {}), observe(1, {("a", "old", True): 7}))
    switched = Observation(2, 0.5, (OutcomeCounter("a", "new", satisfied=True, count=900.0),), rebase=True)
    ledger = feed(ledger, switched, observe(3, {("a", "new", True): 904.0}))
    assert ledger.outcomes.total == 7 + 4
    assert ledger.since_seconds == 0


def test_damaged_numbers_are_refused() -> None:
    body = ledger_to_body(feed(make_ledger(["a"]), observe(0, {}), observe(1, {("a", "x", True): 3})))
    with pytest.raises(ValueError, match="negative or not finite"):
        ledger_from_body(body | {"m": {"a": [5, 3]}})
