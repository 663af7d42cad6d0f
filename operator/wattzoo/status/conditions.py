"""Turns judgements into conditions: a closed set of types and reasons, and a transition time that moves only on one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from wattzoo.api.base import timestamp
from wattzoo.api.conditions import Condition, ConditionType, Reason, allows
from wattzoo.decisions import Finding
from wattzoo.manifests import conditions as raw_conditions
from wattzoo.manifests import metadata, parse_time
from wattzoo.model import EventNote, Kind, Manifest, Ref

Truth = Literal["True", "False", "Unknown"]

BAD_WHEN_TRUE = frozenset({ConditionType.DEGRADED})
PENDING = frozenset({Reason.STARTING, Reason.ROUTE_PENDING})
"""What is on its way is no bad news."""
FIRST = frozenset({Reason.NO_READY_MEMBER, Reason.NO_SAMPLES})
"""Where every object begins: no news."""
NEUTRAL = frozenset({ConditionType.PROGRESSING, ConditionType.PAUSED})


@dataclass(frozen=True, slots=True)
class Judgement:
    """One condition as judged now. `keeps`: reasons of an earlier judgement that stands, as nothing could be judged."""

    type: ConditionType
    status: Truth
    reason: Reason
    message: str = ""
    keeps: frozenset[Reason] = frozenset()

    def __post_init__(self) -> None:
        if not allows(self.type, self.reason):
            raise ValueError(f"{self.reason} is no reason of {self.type}")


def truth(value: bool | None) -> Truth:
    """A condition's status for a known or unknown fact."""
    if value is None:
        return "Unknown"
    return "True" if value else "False"


def from_finding(
    condition: ConditionType, status: Truth, finding: Finding, otherwise: Reason | None = None
) -> Judgement:
    """A judgement whose reason is a finding's; one that this condition does not know becomes `otherwise`."""
    reason = finding.reason if allows(condition, finding.reason) else otherwise or finding.reason
    return Judgement(condition, status, reason, finding.message)


def previous_conditions(obj: Manifest) -> dict[str, Mapping[str, object]]:
    """Conditions of the object's present status, by type."""
    return {str(condition.get("type")): condition for condition in raw_conditions(obj)}


def set_conditions(
    obj: Manifest, judgements: Iterable[Judgement], generation: int | None, at_seconds: float
) -> tuple[Condition, ...]:
    """Conditions in the order of the closed set; `lastTransitionTime` moves only when the status changed."""
    before = previous_conditions(obj)
    rows = {}
    for judged in judgements:
        old = before.get(judged.type)
        if old is not None and old.get("reason") in judged.keeps:
            rows[judged.type] = _keep(judged.type, old, generation, at_seconds)
            continue
        changed_at = at_seconds
        if old is not None and old.get("status") == judged.status:
            since = parse_time(old.get("lastTransitionTime"))
            changed_at = at_seconds if since is None else since
        rows[judged.type] = Condition(
            type=judged.type,
            status=judged.status,
            observed_generation=generation,
            last_transition_time=timestamp(changed_at),
            reason=str(judged.reason),
            message=judged.message,
        )
    return tuple(rows[kind] for kind in ConditionType if kind in rows)


def _keep(kind: ConditionType, old: Mapping[str, object], generation: int | None, at_seconds: float) -> Condition:
    since = parse_time(old.get("lastTransitionTime"))
    status: Truth = "True" if old.get("status") == "True" else "False" if old.get("status") == "False" else "Unknown"
    return Condition(
        type=kind,
        status=status,
        observed_generation=generation,
        last_transition_time=timestamp(at_seconds if since is None else since),
        reason=str(old.get("reason")),
        message=str(old.get("message", "")),
    )


def note_transitions(kind: Kind, ref: Ref, obj: Manifest, now: Sequence[Condition]) -> tuple[EventNote, ...]:
    """One Event for each condition whose status or reason changed; first judgements only when they are bad news.

    A condition that is as it should be and stays so says nothing, whatever its reason.
    """
    before = previous_conditions(obj)
    uid = str(metadata(obj).get("uid", ""))
    notes = []
    for condition in now:
        old = before.get(condition.type)
        if old is not None and (old.get("status"), old.get("reason")) == (condition.status, condition.reason):
            continue
        bad = is_bad(condition) and not (old is None and condition.reason in FIRST)
        was_bad = old is not None and is_bad_status(condition.type, str(old.get("status")))
        if bad or was_bad:
            message = f"{condition.type}: {condition.message}" if condition.message else str(condition.type)
            notes.append(EventNote(kind, ref, uid, condition.reason, message, warning=bad))
    return tuple(notes)


def is_bad(condition: Condition) -> bool:
    """Whether this is news that somebody should look at."""
    return condition.reason not in PENDING and is_bad_status(condition.type, condition.status)


def is_bad_status(kind: ConditionType, status: str) -> bool:
    """False is bad news, but for conditions that are good when false; unknown is no news."""
    if kind in NEUTRAL:
        return False
    return status == ("True" if kind in BAD_WHEN_TRUE else "False")
