"""Power, joules and capacity: what is measured, what stands in, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.builders import (
    NAMESPACE,
    START_SECONDS,
    make_counter,
    make_gauge,
    make_pod_series,
    make_profile,
    make_series,
    make_telemetry,
)
from wattzoo.api.conditions import Reason
from wattzoo.api.parse import parse_model_profile
from wattzoo.decide.capacity import estimate_capacity
from wattzoo.decide.energy import estimate_energy, estimate_members, estimate_service_watts, smooth_member
from wattzoo.decide.engine_args import read_engine_limits
from wattzoo.decide.engines import PodSeries, estimate_variant, index_series
from wattzoo.decide.latencies import estimate_late_share, estimate_quantile
from wattzoo.decide.memory import MemberMemory
from wattzoo.decisions import Capacity, MemberEnergy, ServiceLoad, VariantSignals
from wattzoo.model import Backing, PodView, Series, Signal, VariantKey, VariantState
from wattzoo_policies.capacity.model import LatencyTarget, RequestShape

KEY = VariantKey("large", "h100")
AT = START_SECONDS + 1000.0
PROFILE = parse_model_profile(make_profile()).spec
SHAPE = RequestShape(200.0, 100.0)
CAPACITY = estimate_capacity(PROFILE, LatencyTarget(), SHAPE, None)


def make_state(*pods: PodView) -> VariantState:
    return VariantState(
        key=KEY,
        backing=Backing.SERVER,
        exists=True,
        desired=len(pods),
        pods=pods,
        service="s",
        port=8000,
        service_exists=True,
        accelerator_pool="h100",
        accelerators_per_replica=1,
    )


def warm(name: str) -> PodView:
    return PodView(name, 1, ready_since_seconds=AT - 600.0)


def observe(
    state: VariantState, *parts: Mapping[str, Sequence[Series]], max_watts: float | None = 700.0
) -> VariantSignals:
    telemetry = make_telemetry(AT, *parts)
    return estimate_variant(NAMESPACE, state, index_series(telemetry, 120.0), max_watts)


def test_a_server_that_fills_up_is_not_thought_to_get_long_requests() -> None:
    # in 45 s 45 requests of 200 and 100 tokens were begun, 9 have ended, 36 run and are half written on average
    who = {"namespace": NAMESPACE, "pod": "a"}
    series = {
        **make_pod_series("a", AT, 1.0, 400.0),
        "engine_gauges": [
            make_counter(Signal.REQUESTS_RUNNING, AT, 36.0 / 45.0, **who),
            make_gauge(Signal.REQUESTS_WAITING, AT, 0.0, **who),
        ],
        "engine_counters": [
            make_counter(Signal.REQUESTS_SUCCEEDED, AT, 9.0 / 45.0, **who),
            make_counter(Signal.PROMPT_TOKENS, AT, 45.0 * 200.0 / 45.0, **who),
            make_counter(Signal.GENERATION_TOKENS, AT, (9.0 + 36.0 / 2.0) * 100.0 / 45.0, **who),
        ],
    }
    seen = observe(make_state(warm("a")), series)
    assert seen.input_tokens == pytest.approx(200.0)
    assert seen.output_tokens == pytest.approx(100.0)
    assert seen.arrived_rps == pytest.approx(1.0)


def test_a_server_that_empties_gets_less_than_it_finishes() -> None:
    # in 45 s 90 requests have ended, of which 36 had been running and 9 waiting at the beginning
    who, times = {"namespace": NAMESPACE, "pod": "a"}, (AT - 45.0, AT)
    series = {
        **make_pod_series("a", AT, 2.0, 400.0),
        "engine_gauges": [
            make_series(Signal.REQUESTS_RUNNING, list(zip(times, (36.0, 0.0), strict=True)), **who),
            make_series(Signal.REQUESTS_WAITING, list(zip(times, (9.0, 0.0), strict=True)), **who),
        ],
    }
    seen = observe(make_state(warm("a")), series)
    assert seen.served_rps == pytest.approx(2.0)
    assert seen.arrived_rps == pytest.approx(1.0)


def test_signals_are_sums_over_ready_pods_and_ghosts_do_not_count() -> None:
    state = make_state(warm("a"), warm("b"))
    seen = observe(state, *(make_pod_series(pod, AT, 2.0, 400.0) for pod in ("a", "b", "ghost")))
    assert (seen.running, seen.served_rps, seen.watts, seen.covered) == (4.0, 4.0, 800.0, 2)
    assert (seen.input_tokens, seen.output_tokens) == (200.0, 100.0)


def test_a_pod_without_a_fresh_series_makes_the_sum_unknown() -> None:
    seen = observe(make_state(warm("a"), warm("b")), make_pod_series("a", AT, 2.0, 400.0))
    assert (seen.running, seen.served_rps) == (None, None)
    assert (seen.watts, seen.covered) == (400.0, 1)
    assert not seen.idle


def test_a_young_pod_stays_out_of_means_until_it_is_warm() -> None:
    young = PodView("b", 1, ready_since_seconds=AT - 10.0)
    parts = [make_pod_series("a", AT, 2.0, 400.0), make_pod_series("b", AT, 50.0, 650.0)]
    seen = observe(make_state(warm("a"), young), *parts)
    assert (seen.served_rps, seen.serving_watts, seen.warm) == (2.0, 400.0, 1)
    assert (seen.running, seen.watts) == (4.0, 1050.0)  # what runs and what is drawn counts at once


def test_duplicates_by_two_scrapers_count_once() -> None:
    part = make_pod_series("a", AT, 2.0, 400.0)
    again = {
        group: [Series(row.name, {**row.labels, "prometheus": "b"}, row.samples) for row in rows]
        for group, rows in part.items()
    }
    assert observe(make_state(warm("a")), part, again).running == 2.0


@pytest.mark.parametrize("watts", [845.0, float("nan"), float("inf"), -5.0])
def test_power_that_cannot_be_is_refused_with_a_reason(watts: float) -> None:
    # 1.2 times 700 W is the most that one accelerator may report
    part = make_pod_series("a", AT, 2.0, 100.0)
    part["gpu_power"] = [make_gauge(Signal.POWER_WATTS, AT, watts, namespace=NAMESPACE, pod="a")]
    part["gpu_energy"] = []
    seen = observe(make_state(warm("a")), part)
    assert (seen.watts, seen.covered) == (None, 0)
    assert [problem.reason for problem in seen.problems] == [Reason.NON_FINITE_SAMPLE]


def test_a_gauge_that_is_not_a_number_is_told_while_the_energy_counter_stands_in() -> None:
    part = make_pod_series("a", AT, 2.0, 400.0)
    part["gpu_power"] = [make_gauge(Signal.POWER_WATTS, AT, float("nan"), namespace=NAMESPACE, pod="a")]
    seen = observe(make_state(warm("a")), part)
    assert (seen.watts, seen.covered) == (400.0, 1)
    assert [problem.reason for problem in seen.problems] == [Reason.NON_FINITE_SAMPLE]


def test_joules_are_energy_over_requests_and_what_policies_compare_is_the_knee() -> None:
    signals = {KEY: observe(make_state(warm("a")), make_pod_series("a", AT, 0.5, 320.0))}
    states, capacities = [make_state(warm("a"))], {KEY: CAPACITY}
    members = estimate_members(states, signals, capacities, {}, AT)
    energy = estimate_energy("large", states, signals, capacities, members["large"], shared=False, stale=False)
    assert energy.average_joules == pytest.approx(320.0 / 0.5)
    modelled = CAPACITY.modelled_watts(0.5, 1)
    assert modelled is not None
    assert CAPACITY.joules_per_request is not None
    assert energy.marginal_joules == pytest.approx(CAPACITY.joules_per_request * 320.0 / modelled)
    assert (energy.measured, energy.coverage_percent) == (True, 100)


def test_without_a_measurement_the_profile_stands_in_and_is_flagged() -> None:
    states, signals = [make_state()], {KEY: VariantSignals()}
    energy = estimate_energy("large", states, signals, {KEY: CAPACITY}, None, shared=False, stale=True)
    assert energy.average_joules == energy.marginal_joules == CAPACITY.joules_per_request
    assert (energy.measured, energy.coverage_percent) == (False, None)


def test_smoothing_forgets_with_two_minutes() -> None:
    def at(seconds: float, watts: float) -> MemberMemory:
        return MemberMemory(seconds, watts, watts, watts, 1.0)

    mixed = smooth_member(at(0.0, 100.0), at(120.0, 200.0))
    assert mixed is not None
    assert mixed.watts == pytest.approx(200.0 - 100.0 / 2.718281828)
    assert smooth_member(at(0.0, 100.0), None) == at(0.0, 100.0)


def test_capacity_follows_the_strictest_bound() -> None:
    # at 32 running requests a token takes 32 ms and 1000 tokens/s are made: .9 * 1000 / 100 tokens per request
    assert CAPACITY.rps is not None
    assert CAPACITY.rps <= 9.0
    tight = estimate_capacity(PROFILE, LatencyTarget(tpot_seconds=0.015), SHAPE, None)
    assert tight.rps is not None
    assert tight.rps < CAPACITY.rps
    none = estimate_capacity(PROFILE, LatencyTarget(tpot_seconds=0.005), SHAPE, None)
    assert none.rps is None
    assert none.problem is not None
    assert none.problem.reason is Reason.LATENCY_UNATTAINABLE


def test_longer_answers_need_more_of_a_replica() -> None:
    longer = estimate_capacity(PROFILE, LatencyTarget(), RequestShape(200.0, 200.0), None)
    assert longer.rps is not None
    assert CAPACITY.rps is not None
    assert longer.rps < CAPACITY.rps


def test_a_missing_profile_is_no_capacity() -> None:
    capacity = estimate_capacity(None, LatencyTarget(), None, 116.0)
    assert capacity == Capacity(problem=capacity.problem)


def test_engine_limits_are_read_from_the_command_line() -> None:
    limits = read_engine_limits(["--max-num-seqs", "64", "--max-num-batched-tokens=512", "--max-num-seqs=32"])
    assert (limits.max_sequences, limits.max_batched_tokens) == (32, 512)
    assert read_engine_limits(["--max-num-seqs", "many"]).max_sequences == 256


def histogram(name: str, rates: dict[str, float]) -> list[Series]:
    return [make_counter(name, AT, rate, namespace=NAMESPACE, pod="a", le=edge) for edge, rate in rates.items()]


def index_of(rows: list[Series]) -> PodSeries:
    return index_series(make_telemetry(AT, {"engine_latency": rows}), 120.0)


def test_quantiles_are_linear_inside_a_bucket() -> None:
    name = Signal.TIME_TO_FIRST_TOKEN_SECONDS
    index = index_of(histogram(name, {"0.5": 5.0, "1.0": 9.0, "2.0": 10.0, "+Inf": 10.0}))
    found = estimate_quantile(NAMESPACE, [warm("a")], index, name, 0.95)
    assert found == pytest.approx(1.5)  # half-way from 9 to 10 of 10
    assert estimate_quantile(NAMESPACE, [warm("b")], index, name, 0.95) is None


FURTHER = {"0.025": 8.0, "0.05": 9.0, "0.075": 9.9, "+Inf": 10.0}
"""Slower than 25, 50 and 75 ms: 20, 10 and 1 % of the requests."""


@pytest.mark.parametrize(
    ("bound_seconds", "late"),
    [
        (0.05, 0.1),  # an edge: counted
        (0.06, 0.1**0.6 * 0.01**0.4),  # two fifths of the way from 10 % to 1 %: .040
        (0.01, 0.2**0.4),  # from all of them to 20 %
        (0.2, 0.01),  # beyond the last edge: perhaps all that passed it
    ],
)
def test_late_are_those_beyond_a_bound(bound_seconds: float, late: float) -> None:
    index = index_of(histogram(Signal.TIME_PER_OUTPUT_TOKEN_SECONDS, FURTHER))
    bounds = LatencyTarget(tpot_seconds=bound_seconds)
    assert estimate_late_share(NAMESPACE, [warm("a")], index, bounds) == pytest.approx(late)


def test_a_tail_that_ends_at_an_edge_falls_steeply_to_it() -> None:
    """10 % passed 50 ms and nobody 75 ms: a hundredth of the 10 % is taken for that, so .1 * .01^.4 at 60 ms."""
    index = index_of(histogram(Signal.TIME_PER_OUTPUT_TOKEN_SECONDS, {**FURTHER, "0.075": 10.0}))
    found = estimate_late_share(NAMESPACE, [warm("a")], index, LatencyTarget(tpot_seconds=0.06))
    assert found == pytest.approx(0.1 * 0.01**0.4)


def test_of_two_bounds_the_worse_counts_and_unknown_is_not_none() -> None:
    first = histogram(Signal.TIME_TO_FIRST_TOKEN_SECONDS, {"2.0": 7.0, "+Inf": 10.0})
    rows = first + histogram(Signal.TIME_PER_OUTPUT_TOKEN_SECONDS, FURTHER)
    both, pods = LatencyTarget(2.0, 0.05), [warm("a")]
    assert estimate_late_share(NAMESPACE, pods, index_of(rows), both) == pytest.approx(0.3)
    assert estimate_late_share(NAMESPACE, pods, index_of(first), both) is None
    assert estimate_late_share(NAMESPACE, pods, index_of(rows), LatencyTarget()) is None


def test_the_parts_of_the_services_add_up_to_the_pools_power() -> None:
    small, large = VariantKey("small", "l4"), KEY
    chat = ServiceLoad(total_rps=4.0, by_variant_rps={small: 1.0, large: 3.0})
    search = ServiceLoad(total_rps=2.0, by_variant_rps={small: 2.0, large: 0.0})
    energy = {"small": MemberEnergy(watts=90.0), "large": MemberEnergy(watts=400.0), "idle": MemberEnergy(watts=60.0)}
    # chat: a third of small, all of large, and four of six requests of what nobody uses
    assert estimate_service_watts(chat, [search], energy) == pytest.approx(30.0 + 400.0 + 40.0)
    assert estimate_service_watts(search, [chat], energy) == pytest.approx(60.0 + 0.0 + 20.0)
    assert estimate_service_watts(chat, [ServiceLoad(problem="unread")], energy) is None
