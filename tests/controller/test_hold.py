"""Filled weights stay while rates are unknown; what is ready may change all the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.builders import make_llm_service
from tests.controller.test_planning import PRIORS, Planned
from tests.controller.test_weights import LARGE, LARGE_OLD, SMALL, make_state
from tests.controller.world import CHAT
from wattzoo.api.parse import parse_llm_service
from wattzoo.decide.memory import PoolEstimate, ServiceMemory
from wattzoo.decide.pipeline import UNKNOWN_SECONDS, ServiceInputs, decide_service
from wattzoo.decisions import MemberEnergy, ServiceDecision
from wattzoo.model import Kind, TelemetrySnapshot, VariantKey, VariantState
from wattzoo_policies.signals import OutcomeCounter

MEMBERS = [
    {"name": name, "accuracyPriorPerMille": rate, "priorSamples": 100}
    for name, rate in (("small", 600), ("large", 900))
]
SPEC = parse_llm_service(
    make_llm_service(target_per_mille=750, members=MEMBERS, controller={"policy": "FixedMixture"})
).spec
STATES = (make_state(SMALL, 1), make_state(LARGE, 1))
HALF = {SMALL: 500_000, LARGE: 500_000}
FILLED = {SMALL: 0, LARGE: 1_000_000}


def inputs_at(
    at_seconds: float, live: dict[VariantKey, int], states: tuple[VariantState, ...] = STATES, rps: float | None = None
) -> ServiceInputs:
    """What a pass sees of a promise of 75 %: half of 60 % and half of 90 %, without feedback; large costs 4 J."""
    return ServiceInputs(
        spec=SPEC,
        member_names=("small", "large"),
        states=states,
        estimate=PoolEstimate(at_seconds, energy={"small": MemberEnergy(1.0, 1.0), "large": MemberEnergy(4.0, 4.0)}),
        live=live,
        outcomes=None,
        retiring=frozenset(),
        load_rps=rps,
        pool_rps=rps,
        at_seconds=at_seconds,
    )


def filled() -> ServiceMemory:
    """A service whose law asked for halves and whose large replica took all of it."""
    memory = decide_service(inputs_at(100.0, {}), ServiceMemory(), np.random.default_rng(1))[1]
    assert memory.decision is not None
    assert memory.decision.weights == HALF
    return replace(memory, decision=replace(memory.decision, weights=FILLED))


def decide(inputs: ServiceInputs) -> ServiceDecision:
    return decide_service(inputs, filled(), np.random.default_rng(1))[0]


def test_what_filled_replicas_have_stays_while_rates_and_feedback_are_unknown() -> None:
    for at_seconds in (101.0, 700.0):
        decision = decide(inputs_at(at_seconds, FILLED))
        assert decision.weights == FILLED
        assert decision.held
        assert decision.asked == {SMALL: 0.5, LARGE: 0.5}


def test_known_rates_decide_anew_how_replicas_are_filled() -> None:
    assert decide(inputs_at(101.0, FILLED, rps=4.0)).weights == HALF  # here none may fall silent: as the law asks


def test_another_ready_variant_takes_its_part_of_an_unknown_load() -> None:
    more = (*STATES, make_state(LARGE_OLD, 1))
    live = {**FILLED, LARGE_OLD: 0}
    assert decide(inputs_at(101.0, live, more)).weights == {SMALL: 500_000, LARGE: 250_000, LARGE_OLD: 250_000}


def test_traffic_leaves_what_is_no_longer_ready_whatever_is_unknown() -> None:
    down = (STATES[0], make_state(LARGE, 0))
    assert decide(inputs_at(101.0, FILLED, down)).weights == {SMALL: 1_000_000, LARGE: 0}


def test_weights_that_somebody_else_wrote_are_put_right() -> None:
    assert decide(inputs_at(101.0, {SMALL: 900_000, LARGE: 100_000})).weights == HALF


ANYTIME = parse_llm_service(make_llm_service(target_per_mille=750, members=MEMBERS)).spec


def with_credit(at_seconds: float, live: dict[VariantKey, int], judged: float = 2000.0) -> ServiceInputs:
    """Under the law with credit, rates unknown: of each member's answers so many judged, 70 and 90 % of them right."""
    counters = tuple(
        OutcomeCounter(member, member, satisfied=right, count=judged * (share if right else 1.0 - share))
        for member, share in (("small", 0.7), ("large", 0.9))
        for right in (True, False)
    )
    return replace(inputs_at(at_seconds, live), spec=ANYTIME, outcomes=counters)


def decide_at(seconds: float, live: dict[VariantKey, int]) -> ServiceDecision:
    """What a law with credit decides so long after it began to count, having been asked every 10 s without rates."""
    rng, memory = np.random.default_rng(1), ServiceMemory()
    decision, memory = decide_service(with_credit(100.0, {}, 0.0), memory, rng)
    for at in np.arange(10.0, seconds + 1.0, 10.0):
        memory = replace(memory, decision=replace(decision, weights=live), decided_at_seconds=None)
        decision, memory = decide_service(with_credit(100.0 + at, live), memory, rng)
    return decision


def test_what_a_law_with_credit_has_beyond_its_shares_stays_until_rates_are_known_or_stay_unknown() -> None:
    soon, late = decide_at(UNKNOWN_SECONDS - 10.0, FILLED), decide_at(UNKNOWN_SECONDS, FILLED)
    assert (soon.surplus_requests or 0.0) > 0.0
    assert soon.weights == FILLED
    assert soon.asked[SMALL] > 0.5
    assert late.weights[SMALL] > 500_000


def test_shares_below_what_the_law_asks_for_do_not_wait_for_rates() -> None:
    decision = decide_at(10.0, {SMALL: 1_000_000, LARGE: 0})
    assert decision.weights[LARGE] == pytest.approx(1e6 * decision.asked[LARGE], abs=1.0)


def young(telemetry: TelemetrySnapshot) -> TelemetrySnapshot:
    """The same soon after Prometheus came back: of the gateway's counters one sample each, which make no rate."""
    gateway = [replace(series, samples=series.samples[-1:]) for series in telemetry.groups["gateway"]]
    return replace(telemetry, groups={**telemetry.groups, "gateway": gateway})


async def test_a_restart_amid_an_outage_does_not_empty_filled_replicas() -> None:
    world = Planned()
    await world.start(rps=9.0)
    await world.run(12, rps=9.0)
    filled = world.weights()
    world.restart()
    blind = TelemetrySnapshot(0.0, {}, {"gateway": "no answer"})
    for _ in range(4):
        await world.tick(replace(blind, at_seconds=world.now + 15.0))
    for _ in range(3):
        await world.tick(young(world.traffic(9.0)))
        assert world.weights() == filled
    assert shares_asked(world) != pytest.approx(filled[1] / 1e6, abs=0.02)


async def test_a_new_service_does_not_empty_what_others_fill() -> None:
    world = Planned()
    await world.start(rps=9.0)
    await world.run(2, rps=9.0)
    filled = world.weights()
    world.cluster.add(Kind.LLM_SERVICE, make_llm_service("second", members=PRIORS))
    for _ in range(3):
        await world.run(1, rps=9.0)
        assert world.weights() == filled
    assert shares_asked(world) != pytest.approx(filled[1] / 1e6, abs=0.02)


def shares_asked(world: Planned) -> float:
    """The large member's share that the law of the world's service asks for."""
    memory = next(memory for (ref, _), memory in world.reconciler._services.items() if ref == CHAT)
    assert memory.decision is not None
    return memory.decision.asked[VariantKey("large", "h100")]
