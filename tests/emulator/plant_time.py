"""An event loop's clock and timers that a test turns by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any, cast

from e2e.emulator.engine import PlantClock


class Timer:
    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        self.call = None


class HandTurnedLoop:
    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, int, Timer]] = []
        self.numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[..., object], *arguments: Any) -> Timer:
        timer = Timer(lambda: call(*arguments))
        heapq.heappush(self.timers, (when, next(self.numbers), timer))
        return timer

    def turn(self, seconds: float, late_by: float = 0.0) -> int:
        """Let time pass; each timer fires when due (or `late_by` after it). Returns how many fired."""
        end, fired = self.now + seconds, 0
        while self.timers and self.timers[0][0] + late_by <= end:
            when, _, timer = heapq.heappop(self.timers)
            self.now = max(self.now, when + late_by)
            if timer.call is not None:
                fired += 1
                timer.call()
        self.now = end
        return fired


def make_clock() -> tuple[PlantClock, HandTurnedLoop]:
    loop = HandTurnedLoop()
    return PlantClock(cast(asyncio.AbstractEventLoop, loop)), loop
