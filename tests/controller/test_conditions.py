"""Conditions: closed sets, transition times that move only on a transition, Events for news alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import NAMESPACE, START_SECONDS, make_llm_service, time_text
from wattzoo.api.conditions import ConditionType, Reason
from wattzoo.model import Kind, Ref
from wattzoo.status.checkpoint import is_due
from wattzoo.status.conditions import Judgement, note_transitions, set_conditions
from wattzoo.status.reference import render_reference
from wattzoo.status.report import render_decimal
from wattzoo.status.traffic import JUDGED

REF = Ref(NAMESPACE, "chat")
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "conditions.md"
READY = Judgement(ConditionType.READY, "True", Reason.AVAILABLE, "all is well")
REFUSED = Judgement(ConditionType.READY, "False", Reason.ROUTE_NOT_ACCEPTED, "no listener")


def with_conditions(judgements: list[Judgement], at_seconds: float = START_SECONDS) -> dict[str, object]:
    raw = make_llm_service()
    rows = set_conditions(raw, judgements, 1, at_seconds)
    return {**raw, "status": {"conditions": [row.to_manifest() for row in rows]}}


def test_a_reason_outside_the_closed_set_cannot_be_said() -> None:
    with pytest.raises(ValueError, match="no reason of SLAMet"):
        Judgement(ConditionType.SLA_MET, "True", Reason.SHARES_AGREE)


def test_the_transition_time_moves_only_when_the_status_changes() -> None:
    raw = with_conditions([READY])
    same = Judgement(ConditionType.READY, "True", Reason.AVAILABLE, "other words")
    (kept,) = set_conditions(raw, [same], 2, START_SECONDS + 60.0)
    assert kept.to_manifest()["lastTransitionTime"] == time_text(START_SECONDS)
    assert (kept.observed_generation, kept.message) == (2, "other words")
    (moved,) = set_conditions(raw, [REFUSED], 2, START_SECONDS + 60.0)
    assert moved.to_manifest()["lastTransitionTime"] == time_text(START_SECONDS + 60.0)


def test_a_kept_judgement_lets_the_earlier_one_stand() -> None:
    agree = Judgement(ConditionType.TRAFFIC_PROGRAMMED, "True", Reason.SHARES_AGREE)
    few = Judgement(ConditionType.TRAFFIC_PROGRAMMED, "Unknown", Reason.TOO_FEW_REQUESTS, keeps=JUDGED)
    (row,) = set_conditions(with_conditions([agree]), [few], 1, START_SECONDS)
    assert (row.status, row.reason) == ("True", "SharesAgree")
    # A route that was refused or not yet answered for has been accepted since: that is no judgement of shares.
    refused = Judgement(ConditionType.TRAFFIC_PROGRAMMED, "False", Reason.ROUTE_NOT_ACCEPTED)
    (row,) = set_conditions(with_conditions([refused]), [few], 1, START_SECONDS)
    assert (row.status, row.reason) == ("Unknown", "TooFewRequests")
    (first,) = set_conditions(make_llm_service(), [few], 1, START_SECONDS)
    assert (first.status, first.reason) == ("Unknown", "TooFewRequests")


def test_events_are_for_news_that_is_bad_or_no_longer_bad() -> None:
    good, bad = with_conditions([READY]), with_conditions([REFUSED])
    good_rows = set_conditions(bad, [READY], 1, START_SECONDS)
    bad_rows = set_conditions(good, [REFUSED], 1, START_SECONDS)
    (worse,) = note_transitions(Kind.LLM_SERVICE, REF, good, bad_rows)
    assert (worse.reason, worse.warning) == ("RouteNotAccepted", True)
    (better,) = note_transitions(Kind.LLM_SERVICE, REF, bad, good_rows)
    assert (better.reason, better.warning) == ("Available", False)
    assert note_transitions(Kind.LLM_SERVICE, REF, bad, bad_rows) == ()
    assert note_transitions(Kind.LLM_SERVICE, REF, make_llm_service(), good_rows) == ()


def test_a_checkpoint_is_due_after_a_minute_or_with_news() -> None:
    live = {"members": [{"name": "small", "weight": 1}], "energy": {"powerWatts": 100}}
    figures = {**live, "energy": {"powerWatts": 200}}
    weights = {**live, "members": [{"name": "small", "weight": 2}]}
    assert not is_due(live, figures, written_at_seconds=0.0, at_seconds=59.0)
    assert is_due(live, figures, written_at_seconds=0.0, at_seconds=60.0)
    assert is_due(live, weights, written_at_seconds=0.0, at_seconds=1.0)


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.12"), (5.678, "5.68"), (56.78, "56.8"), (567.8, "568"), (5678.0, "5678")]
)
def test_joules_are_shown_with_three_digits(value: float, text: str) -> None:
    assert render_decimal(value) == text


def test_the_reference_is_what_would_be_generated() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == render_reference()
