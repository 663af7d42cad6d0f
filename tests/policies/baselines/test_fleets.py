"""The fleet baselines: what each decides from one observation, by numbers a reader can follow."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policies.baselines.observations import (
    ACCURACY,
    LARGE,
    LARGE_B200,
    LATENCY,
    SERVICE,
    SHAPE,
    SMALL,
    VARIANTS,
    observe,
)
from wattzoo_policies.baselines.fleet import knee_concurrency
from wattzoo_policies.baselines.hpa import HpaParameters
from wattzoo_policies.baselines.hpa_fleet import make_hpa_fleet
from wattzoo_policies.baselines.keda import KedaParameters, make_keda_fleet
from wattzoo_policies.baselines.mess_hpa import MessHpa
from wattzoo_policies.baselines.mixture_hpa import (
    MixtureCandidate,
    make_mixture_hpa,
    plan_hpa_parameters,
    plan_mixtures,
)
from wattzoo_policies.baselines.static_peak import make_static_fleet, make_static_peak, plan_peak_replicas
from wattzoo_policies.capacity.model import LatencyTarget, capacity_rps, joules_per_request, knee_load, work_seconds
from wattzoo_policies.placement.packing import decide_serving
from wattzoo_policies.placement.signals import FleetController, FleetDecision, FleetObservation

RNG = np.random.default_rng(0)
CANDIDATES = tuple(MixtureCandidate(v.name, v.member, v.model) for v in VARIANTS)
HPA = HpaParameters(target_average=10.0, max_replicas=40)


def play(controller: FleetController[Any], *observations: FleetObservation) -> list[FleetDecision]:
    state, decisions = controller.initial_state(), []
    for observation in observations:
        state, decision = controller.decide(state, observation, RNG)
        decisions.append(decision)
    return decisions


def test_static_peak_is_sized_for_the_peak_and_never_moves() -> None:
    capacity = capacity_rps(LARGE, SHAPE, LATENCY, eta=1.0)
    assert capacity is not None
    assert plan_peak_replicas(LARGE, SHAPE, LATENCY, 2.5 * capacity) == 3
    with pytest.raises(ValueError, match="latency bounds"):
        plan_peak_replicas(LARGE, SHAPE, LatencyTarget(tpot_seconds=0.001), 1.0)
    for decision in play(make_static_peak("70b-h100", 3), observe(), observe(900.0, {"70b-h100": 3, "8b-h100": 1})):
        assert decision.replicas == {"8b-h100": 0, "70b-h100": 3, "70b-b200": 0}
    assert decision.weights == {"chat": {"70b-h100": 1.0}}
    assert decision.serving == {"8b-h100": 1, "70b-h100": 3, "70b-b200": 0}


def test_static_fleets_need_a_number_for_everything_that_gets_requests() -> None:
    fleet = make_static_fleet({"8b-h100": 0.5, "70b-b200": 0.5}, {"8b-h100": 4, "70b-b200": 2})
    assert play(fleet, observe())[0].replicas == {"8b-h100": 4, "70b-h100": 0, "70b-b200": 2}
    with pytest.raises(ValueError, match="no number of replicas for 70b-b200"):
        make_static_fleet({"70b-b200": 1.0}, {})


def test_hpa_counts_running_and_waiting_per_ready_replica() -> None:
    fleet = make_hpa_fleet("70b-h100", {"70b-h100": HPA})
    # (30 + 10) / 2 = 20 per replica at a target of 10: 4. A third that starts counts as idle: 40 / 3 * 3 / 10 = 4.
    both = observe(0.0, {"70b-h100": 2}, {"70b-h100": (30.0, 10.0)})
    assert play(fleet, both)[0].replicas["70b-h100"] == 4
    assert (
        play(fleet, observe(0.0, {"70b-h100": 2}, {"70b-h100": (30.0, 10.0)}, starting=1))[0].replicas["70b-h100"] == 4
    )
    # Two seconds later it has not synchronised again, whatever is inside; after 15 s it has.
    more = observe(2.0, {"70b-h100": 4}, {"70b-h100": (200.0, 0.0)})
    assert play(fleet, both, more)[1].replicas["70b-h100"] == 4
    assert play(fleet, both, replace(more, at_seconds=15.0))[1].replicas["70b-h100"] == 8
    with pytest.raises(ValueError, match="no autoscaler parameters for 8b-h100"):
        make_hpa_fleet("8b-h100", {})


def test_hpa_holds_when_nothing_is_known_and_begins_at_its_minimum() -> None:
    fleet = make_hpa_fleet("70b-h100", {"70b-h100": HPA})
    unknown = observe(0.0, {"70b-h100": 3})
    blind = replace(unknown, variants=tuple(replace(v, running=None, waiting=None) for v in unknown.variants))
    assert play(fleet, blind)[0].replicas["70b-h100"] == 3
    assert play(fleet, observe())[0].replicas == {"8b-h100": 0, "70b-h100": 1, "70b-b200": 0}


def test_a_lifted_cap_is_a_larger_pool_and_terminating_replicas_hold_their_accelerators() -> None:
    fleet = make_hpa_fleet("70b-h100", {"70b-h100": HPA})
    full = {"70b-h100": (400.0, 0.0)}
    assert play(fleet, observe(0.0, {"70b-h100": 10}, full))[0].replicas["70b-h100"] == 12  # 48 / 4
    assert play(fleet, observe(0.0, {"70b-h100": 10}, full, terminating=1))[0].replicas["70b-h100"] == 11
    lifted = observe(0.0, {"70b-h100": 10}, full, caps={"h100": 1000})
    assert play(fleet, lifted)[0].replicas["70b-h100"] == 20  # doubling per period, of the 40 wished


def test_weights_go_to_ready_variants_alone() -> None:
    fleet = make_hpa_fleet({"8b-h100": 0.6, "70b-b200": 0.4}, {"8b-h100": HPA, "70b-b200": HPA})
    assert play(fleet, observe(0.0, {"8b-h100": 1, "70b-b200": 1}))[0].weights["chat"] == pytest.approx(
        {"8b-h100": 0.6, "70b-b200": 0.4}
    )
    assert play(fleet, observe(0.0, {"8b-h100": 1}))[0].weights["chat"] == {"8b-h100": 1.0}
    assert play(fleet, observe(0.0, {"70b-h100": 1}))[0].weights["chat"] == {"70b-h100": 1.0}  # better than a 503
    only = replace(SERVICE, members=("8b",))
    assert play(fleet, observe(0.0, {"70b-h100": 1}, service=only))[0].weights["chat"] == {}


@pytest.mark.parametrize(
    ("parameters", "inside", "replicas"),
    [
        (KedaParameters(running=10.0, waiting=None, kv_usage=None), (35.0, 0.0), 4),  # 35 / 10, rounded up
        (KedaParameters(running=10.0, waiting=None, kv_usage=None), (21.0, 0.0), 2),  # 5 % over: tolerated
        (KedaParameters(running=10.0, waiting=2.0, kv_usage=None), (20.0, 12.0), 6),  # waiting asks for most
        (KedaParameters(running=None, waiting=2.0, kv_usage=None), (500.0, 0.0), 2),  # 0 wished: down waits 300 s
    ],
)
def test_keda_takes_the_trigger_that_asks_for_most(
    parameters: KedaParameters, inside: tuple[float, float], replicas: int
) -> None:
    fleet = make_keda_fleet("70b-h100", parameters)
    seen = observe(0.0, {"70b-h100": 2}, {"70b-h100": inside})
    assert play(fleet, seen)[0].replicas["70b-h100"] == replicas


def test_keda_has_thresholds_of_its_own_for_each_variant() -> None:
    few, many = (KedaParameters(running=running, waiting=None, kv_usage=None) for running in (5.0, 20.0))
    fleet = make_keda_fleet({"8b-h100": 0.5, "70b-b200": 0.5}, {"8b-h100": many, "70b-b200": few})
    seen = observe(0.0, {"8b-h100": 1, "70b-b200": 1}, {"8b-h100": (40.0, 0.0), "70b-b200": (20.0, 0.0)})
    assert play(fleet, seen)[0].replicas == {"8b-h100": 2, "70b-h100": 0, "70b-b200": 4}


def test_keda_knows_the_cache_is_full_from_the_requests_inside() -> None:
    # Mean 600 + 130 / 2 = 665 tokens: 2,000 requests are 1.33 caches of a million; a threshold of .4 wants 4 replicas.
    fleet = make_keda_fleet("70b-h100", KedaParameters(waiting=None, kv_usage=0.4))
    seen = observe(0.0, {"70b-h100": 2}, {"70b-h100": (2000.0, 0.0)})
    assert play(fleet, seen, replace(seen, at_seconds=15.0))[1].replicas["70b-h100"] == math.ceil(1.33 / 0.4)


def test_keda_sleeps_after_the_cooldown_and_wakes_at_its_own_polling() -> None:
    fleet = make_keda_fleet("70b-h100", KedaParameters(minimum=0, polling_seconds=30.0, cooldown_seconds=60.0))
    idle = replace(SERVICE, rate_rps=0.0)
    quiet = [observe(15.0 * i, {"70b-h100": 1}, service=idle) for i in range(7)]
    replicas = [decision.replicas["70b-h100"] for decision in play(fleet, *quiet)]
    assert replicas == [1, 1, 1, 1, 1, 0, 0]  # the first poll starts the clock; 75 s is the first time past 60 s
    asleep, called = observe(105.0, service=idle), observe(120.0)
    # The poll at 120 s was the last one's 30 s; before, the call goes unheard.
    woken = play(fleet, *quiet, asleep, called, replace(called, at_seconds=135.0), replace(called, at_seconds=150.0))
    assert [decision.replicas["70b-h100"] for decision in woken[7:]] == [0, 1, 1, 1]


def test_keda_refuses_thresholds_that_say_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        KedaParameters(waiting=None, kv_usage=None)
    with pytest.raises(ValueError, match="must be positive"):
        KedaParameters(running=0.0)


def test_the_hand_placed_mixture_takes_the_cheapest_variant_of_each_member_and_just_reaches_the_target() -> None:
    placed = plan_mixtures(CANDIDATES, ACCURACY, SHAPE, LATENCY, alpha=0.52)
    joules = {}
    for name, model in {"8b-h100": SMALL, "70b-h100": LARGE, "70b-b200": LARGE_B200}.items():
        rate = capacity_rps(model, SHAPE, LATENCY)
        assert rate is not None
        joules[name] = joules_per_request(model, SHAPE, rate) or 0.0
    share = (0.52 - 0.4346) / (0.6262 - 0.4346)
    assert joules["70b-b200"] < joules["70b-h100"]
    assert placed[0].shares == pytest.approx({"8b-h100": 1.0 - share, "70b-b200": share})
    assert placed[0].joules_per_request == pytest.approx((1 - share) * joules["8b-h100"] + share * joules["70b-b200"])
    assert placed[0].satisfaction == pytest.approx(0.52)
    assert [p.feasible for p in placed] == [True, True]
    assert not plan_mixtures(CANDIDATES, ACCURACY, SHAPE, LATENCY, alpha=0.7)[0].feasible
    with pytest.raises(ValueError, match="no variant"):
        plan_mixtures(CANDIDATES, ACCURACY, SHAPE, LatencyTarget(tpot_seconds=0.001), alpha=0.52)


def test_one_fill_gives_each_variant_the_target_its_knee_allows() -> None:
    parameters = plan_hpa_parameters(CANDIDATES, SHAPE, LATENCY, fill=0.5, base=HPA)
    for variant in VARIANTS:
        most = knee_concurrency(variant.model, SHAPE, LATENCY)
        assert most is not None
        assert parameters[variant.name].target_average == pytest.approx(0.5 * most)
        assert parameters[variant.name].max_replicas == 40


def test_packing_serves_from_as_few_replicas_as_the_last_interval_needed() -> None:
    placed = plan_mixtures(CANDIDATES, ACCURACY, SHAPE, LATENCY, alpha=0.52)[0]
    fleet = make_mixture_hpa(placed, plan_hpa_parameters(CANDIDATES, SHAPE, LATENCY, 0.7), decide_serving)
    assert fleet.name == "fixed-mix-packed"
    seen = observe(0.0, {"8b-h100": 30, "70b-b200": 7})
    first, second = play(fleet, seen, replace(seen, at_seconds=15.0))
    assert first.serving["8b-h100"] == 30  # nobody knows yet what it was sent
    for name, model, member in (("8b-h100", SMALL, "8b"), ("70b-b200", LARGE_B200, "70b")):
        knee = knee_load(model, SHAPE, LATENCY)
        assert knee is not None
        work = 40.0 * placed.shares[name] * work_seconds(model, SHAPE)
        least = math.ceil(work / (0.9 * knee))
        assert least <= second.serving[name] <= math.ceil(1.1 * work / (0.9 * knee)), member
    assert second.serving["8b-h100"] < 30


def test_mess_plus_takes_turns_at_the_target_and_repays_debt_with_the_large_member() -> None:
    controller = MessHpa(("8b-h100", "70b-b200"), {"8b-h100": HPA, "70b-b200": HPA}, exploration=0.0)
    ready = {"8b-h100": 5, "70b-b200": 2}
    fresh = observe(0.0, ready)
    # V * joules apart / accuracy apart is some hundredths: one request on the 8B lifts the queue by .085, and one
    # on the 70B brings it to its floor at 0. So the rule bare takes turns, though .446 on the 70B would do.
    assert play(controller, fresh)[0].weights["chat"] == pytest.approx({"8b-h100": 0.5, "70b-b200": 0.5})
    # 1,000 answers of which 300 are good: the queue is 220 satisfied requests long, far beyond V * (joules apart).
    poor = observe(15.0, ready, service=replace(SERVICE, satisfied=300.0, total=1000.0))
    assert play(controller, fresh, poor)[1].weights["chat"] == pytest.approx({"70b-b200": 1.0}, abs=1e-9)
    # The same counters again move nothing.
    state = controller.initial_state()
    state, _ = controller.decide(state, poor, RNG)
    again, _ = controller.decide(state, poor, RNG)
    assert again.queues["chat"].queue == state.queues["chat"].queue == pytest.approx(220.0, abs=5.0)


def test_mess_plus_explores_as_scheduled_and_splits_evenly_before_it_knows_a_request() -> None:
    controller = MessHpa(("8b-h100", "70b-b200"), {"8b-h100": HPA, "70b-b200": HPA}, exploration=0.1)
    ready = {"8b-h100": 5, "70b-b200": 2}
    unknown = observe(0.0, ready, service=replace(SERVICE, rate_rps=None, shape=None))
    assert play(controller, unknown)[0].weights["chat"] == pytest.approx({"8b-h100": 0.5, "70b-b200": 0.5})
    # 600 requests after 100,000 outcomes, all good: .1 / 100,000^.25 = .56 % explored, half of it on each.
    rich = observe(15.0, ready, service=replace(SERVICE, satisfied=1e5, total=1e5))
    quiet = replace(controller, v_per_joule=1.0)
    assert play(quiet, rich)[0].weights["chat"]["70b-b200"] == pytest.approx(0.0028, abs=1e-4)
    with pytest.raises(ValueError, match="no variant 9b"):
        play(MessHpa(("9b",), {"9b": HPA}), unknown)


counts = st.fixed_dictionaries({v.name: st.integers(0, 12) for v in VARIANTS})
loads = st.fixed_dictionaries({v.name: st.tuples(st.floats(0, 900), st.floats(0, 900)) for v in VARIANTS})


@pytest.mark.parametrize(
    "controller",
    [
        make_static_peak("70b-h100", 20),
        make_hpa_fleet({"8b-h100": 0.5, "70b-h100": 0.5}, {"8b-h100": HPA, "70b-h100": HPA}, decide_serving),
        make_keda_fleet({"8b-h100": 0.5, "70b-b200": 0.5}, KedaParameters(minimum=0)),
        MessHpa(("8b-h100", "70b-h100"), {"8b-h100": HPA, "70b-h100": HPA}),
    ],
    ids=lambda controller: str(controller.name),
)
@given(st.lists(st.tuples(counts, loads, st.integers(0, 3)), min_size=1, max_size=4))
def test_no_baseline_takes_accelerators_that_are_not_there(
    controller: FleetController[Any], seen: list[tuple[dict[str, int], dict[str, tuple[float, float]], int]]
) -> None:
    observations = [
        observe(15.0 * i, ready, inside, terminating=gone, caps={"h100": 40, "b200": 8})
        for i, (ready, inside, gone) in enumerate(seen)
    ]
    for observation, decision in zip(observations, play(controller, *observations), strict=True):
        for pool in observation.pools:
            inside = [v for v in observation.variants if v.pool == pool.name]
            before = sum((v.replicas + v.terminating) * v.model.accelerators for v in inside)
            after = sum(
                (max(v.replicas, decision.replicas[v.name]) + v.terminating) * v.model.accelerators for v in inside
            )
            assert after <= max(pool.accelerators, before)
        for v in observation.variants:
            assert (v.ready > 0) <= (decision.serving[v.name] > 0)
            assert decision.serving[v.name] <= v.ready
        for weights in decision.weights.values():
            assert not weights or sum(weights.values()) == pytest.approx(1.0)
            assert all(v.ready > 0 for v in observation.variants if v.name in weights)
