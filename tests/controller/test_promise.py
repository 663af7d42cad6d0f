"""What status and metrics say of the promise: figures that a reader can check, and nothing where nothing is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tests.builders import make_llm_service
from tests.controller.world import CHAT, World
from wattzoo.api.llm_service import LLMServiceSpec
from wattzoo.api.parse import parse_llm_service
from wattzoo.decisions import ServiceFigures
from wattzoo.model import Kind
from wattzoo.status.promise import judge_feasible, judge_met
from wattzoo_policies.signals import LedgerSummary, MemberOutcomes

SERVICE = Kind.LLM_SERVICE


@dataclass(frozen=True)
class Stated:
    """A promise of 5 % from request 4,100 on, with a fifth of the requests judged."""

    from_request: float | None = 4100.0
    delta: float = 0.05
    credit: float = 12.0
    feedback_share: float = 0.2


LEDGER = LedgerSummary(
    satisfied=810.0,
    total=1000.0,
    debt_requests=-10.0,
    achieved=0.81,
    worst_deficit=0.0,
    grace_requests=1000,
    since_seconds=0.0,
    members=(MemberOutcomes("small", 200, 300, 0.667), MemberOutcomes("large", 610, 700, 0.871)),
)


def spec(target_per_mille: int = 800) -> LLMServiceSpec:
    return parse_llm_service(make_llm_service(target_per_mille=target_per_mille)).spec


def figures(ledger: LedgerSummary = LEDGER, promise: Stated | None = Stated()) -> ServiceFigures:
    return ServiceFigures(ledger=ledger, promise=promise, requests=5000.0)


def test_feasible_says_what_members_reach_and_from_where_on_it_is_promised() -> None:
    judged = judge_feasible(spec(), figures(), None)
    assert (judged.status, judged.reason) == ("True", "Attainable")
    assert judged.message == (
        "members reach about 0.667 to 0.871, the target is 0.800; kept with probability 95.0% from request 4,100 on, "
        "with 20% of requests judged, 5,000 so far"
    )


@pytest.mark.parametrize(
    ("promise", "words"),
    [
        (None, "this policy states no bound"),
        (Stated(from_request=None), "no member lies far enough above it for a promise, with 20% of requests judged"),
        (Stated(feedback_share=1.0), "from request 4,100 on, 5,000 so far"),
    ],
)
def test_feasible_promises_no_more_than_the_law(promise: Stated | None, words: str) -> None:
    assert judge_feasible(spec(), figures(promise=promise), None).message.endswith(words)


def test_a_target_above_the_best_member_is_not_feasible() -> None:
    judged = judge_feasible(spec(900), figures(), None)
    assert (judged.status, judged.reason) == ("False", "TargetAboveBestMember")
    assert judged.message == "members reach about 0.667 to 0.871, the target is 0.900"


def test_met_is_judged_against_the_targets_that_were_in_force() -> None:
    judged = judge_met(spec(900), figures())  # raised lately: the outcomes so far were promised at .8
    assert (judged.status, judged.reason) == ("True", "OnTarget")
    assert judged.message == "81.0% of 1000 judged requests were satisfied, 80.0% promised"


def test_debt_before_the_promise_holds_says_so() -> None:
    owing = replace(LEDGER, satisfied=790.0, debt_requests=10.0, achieved=0.79)
    early = replace(figures(owing), requests=3000.0)
    judged = judge_met(spec(), early)
    assert (judged.status, judged.reason) == ("False", "BelowTarget")
    assert judged.message.endswith("80.0% promised; the promise holds from request 4,100 on, 3,000 so far")
    assert judge_met(spec(), figures(owing)).message.endswith("80.0% promised")


async def test_a_running_service_shows_promise_regret_and_price() -> None:
    world = World()
    await world.start()
    await world.run(40)
    status = world.cluster.get(SERVICE, "chat")["status"]
    sla, energy = status["sla"], status["energy"]
    assert (sla["reachable"].split("%")[0] > "50", sla["confidencePerMille"]) == (True, 950)
    assert sla["promisedFromRequest"] >= 1000
    assert float(energy["ratioToBlind"]) > 0.9
    assert energy["blindJoulesPerRequest"]
    assert float(energy["joulesPerSatisfiedRequest"]) > float(energy["joulesPerRequest"])
    assert "kept with probability 95.0% from request" in world.condition(SERVICE, CHAT, "SLAFeasible")["message"]


async def test_a_law_without_a_bound_leaves_these_fields_out() -> None:
    world = World()
    world.cluster.add(SERVICE, make_llm_service(controller={"policy": "AlwaysLargest"}))
    await world.start()
    await world.run(20)
    sla = world.cluster.get(SERVICE, "chat")["status"]["sla"]
    assert {"promisedFromRequest", "confidencePerMille", "creditRequests"} & sla.keys() == set()
    assert "states no bound" in world.condition(SERVICE, CHAT, "SLAFeasible")["message"]
    assert world.weights()[1] > 990_000
