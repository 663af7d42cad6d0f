"""Filled weights stay while rates are unknown; what is ready may change all the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.builders import make_llm_service
from tests.controller.test_weights import LARGE, LARGE_OLD, SMALL, make_state
from wattzoo.api.parse import parse_llm_service
from wattzoo.decide.memory import PoolEstimate, ServiceMemory
from wattzoo.decide.pipeline import ServiceInputs, decide_service
from wattzoo.decisions import MemberEnergy, ServiceDecision
from wattzoo.model import VariantKey, VariantState

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
