"""Writes what passes judged: the status where that is due, and one Event for each transition that the status holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from wattzoo.api.base import StatusModel
from wattzoo.api.conditions import Condition, ConditionType
from wattzoo.decisions import Finding
from wattzoo.manifests import metadata
from wattzoo.model import Desired, EventNote, Kind, Manifest, Ref, WriteResult, WriteState
from wattzoo.status.checkpoint import is_due
from wattzoo.status.conditions import Judgement, note_transitions, set_conditions
from wattzoo.status.judge import judge_broken, judge_paused
from wattzoo.status.pool_report import ACCELERATOR_CONDITIONS, POOL_CONDITIONS
from wattzoo.status.profile_report import PROFILE_CONDITIONS
from wattzoo.status.report import SERVICE_CONDITIONS

ACT = "Act"
CONDITION_TYPES = {
    Kind.ACCELERATOR_POOL: ACCELERATOR_CONDITIONS,
    Kind.MODEL_PROFILE: PROFILE_CONDITIONS,
    Kind.MODEL_POOL: POOL_CONDITIONS,
    Kind.LLM_SERVICE: SERVICE_CONDITIONS,
}

Render = Callable[[tuple[Condition, ...], int | None], StatusModel]


class Writer(Protocol):
    """The part of `Applier` that passes use."""

    async def apply(self, desired: Sequence[Desired]) -> list[WriteResult]:
        """Bring objects to what is wanted."""


class EventSink(Protocol):
    """The part of `EventWriter` that passes use."""

    async def write(self, notes: Sequence[EventNote]) -> None:
        """Post Events."""


class Reporter:
    """Remembers when it wrote which status."""

    def __init__(self, applier: Writer, events: EventSink, clock: Callable[[], float]) -> None:
        """`clock` is Unix seconds, for what statuses show."""
        self._applier = applier
        self._events = events
        self._clock = clock
        self._status_at: dict[tuple[Kind, Ref], float] = {}

    async def report_broken(self, kind: Kind, ref: Ref, raw: Manifest, finding: Finding) -> None:
        """Report an object that cannot be served as it is; the figures of its last status stay."""
        spec = raw.get("spec") or {}
        paused = judge_paused(raw, str(spec.get("mode", ACT)))
        judgements = judge_broken(CONDITION_TYPES[kind], finding, paused)
        if ConditionType.PAUSED not in CONDITION_TYPES[kind]:
            judgements = [row for row in judgements if row.type is not ConditionType.PAUSED]
        await self.report(kind, ref, raw, judgements, None)

    async def report(
        self, kind: Kind, ref: Ref, raw: Manifest, judgements: Iterable[Judgement], render: Render | None
    ) -> None:
        """Write the status if it is due, and one Event for each transition once the status holds it."""
        generation = metadata(raw).get("generation")
        at_seconds = self._clock()
        conditions = set_conditions(raw, judgements, generation, at_seconds)
        status = {**(raw.get("status") or {}), "conditions": [c.to_manifest() for c in conditions]}
        if generation is not None:
            status["observedGeneration"] = generation
        if render is not None:
            status = render(conditions, generation).to_manifest()
        if not is_due(raw.get("status") or {}, status, self._status_at.get((kind, ref)), at_seconds):
            return
        desired = Desired(kind, ref, {"status": status}, raw, subresource="status")
        results = await self._applier.apply([desired])
        if all(result.state in {WriteState.WRITTEN, WriteState.UNCHANGED} for result in results):
            self._status_at[(kind, ref)] = at_seconds
            await self._events.write(note_transitions(kind, ref, raw, conditions))
