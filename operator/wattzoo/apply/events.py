"""Kubernetes Events for people who look at an object: written once per transition, never allowed to hurt a pass."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from wattzoo.errors import ApplyError
from wattzoo.model import EventNote
from wattzoo.telemetry import Telemetry

QUIET_SECONDS = 10.0
"""The same reason about the same object is not posted again within this time, whatever the passes say."""
MAX_REMEMBERED = 4096

logger = logging.getLogger(__name__)


class EventClient(Protocol):
    """The part of `Client` that events use."""

    async def create_event(self, note: EventNote, instance: str, at: datetime) -> None:
        """Post one Event."""


class EventWriter:
    """Posts notes as Events of this instance."""

    def __init__(
        self,
        client: EventClient,
        telemetry: Telemetry,
        instance: str,
        *,
        may_write: Callable[[], bool],
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        """`clock` is monotonic seconds, `now` what the Events show, `may_write` whether the Lease is held."""
        self._client = client
        self._telemetry = telemetry
        self._instance = instance
        self._may_write = may_write
        self._clock = clock
        self._now = now
        self._posted_at: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def write(self, notes: Sequence[EventNote]) -> None:
        """Post the notes; a refused or unanswered one is logged, counted and dropped."""
        for note in notes:
            if not self._may_write() or self._is_repetition(note):
                continue
            try:
                await self._client.create_event(note, self._instance, self._now())
            except ApplyError as error:
                self._telemetry.events.labels("failed").inc()
                logger.warning("Event %s for %s %s was not posted: %s", note.reason, note.kind, note.ref, error)
            else:
                self._telemetry.events.labels("written").inc()

    def _is_repetition(self, note: EventNote) -> bool:
        key, now = (note.uid, note.reason), self._clock()
        if now - self._posted_at.get(key, -QUIET_SECONDS) < QUIET_SECONDS:
            return True
        self._posted_at[key] = now
        self._posted_at.move_to_end(key)
        while len(self._posted_at) > MAX_REMEMBERED:
            self._posted_at.popitem(last=False)
        return False
