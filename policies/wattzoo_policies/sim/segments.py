"""What an engine does at a time, and what it keeps of a request that it has admitted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from wattzoo_policies.sim.request import PlantRequest


class Doing(Enum):
    """What a replica is doing."""

    STARTING = 1
    IDLE = 2
    PREFILLING = 3  # one iteration with prompt tokens
    DECODING = 4  # any number of iterations without
    GONE = 5


@dataclass(slots=True)
class Segment:
    """A stretch of time in which the engine does one thing. `end` is infinite while nothing is due.

    batch: sequences that get a token per step; prefill_seconds come before the steps.
    """

    doing: Doing
    start: float
    end: float
    batch: int = 0
    step_seconds: float = 0.0
    prefill_seconds: float = 0.0
    steps: int = 0


@dataclass(slots=True)
class Running:
    """An admitted request. Steps count from just before its first token; without a finish its prompt is under way."""

    ticket: int
    request: PlantRequest
    arrived: float
    prompt_left: int
    first_step: int = 0
    finish_step: int | None = None
    first_token: float = math.nan
    cut: bool = False

    def tokens(self, step: int) -> int:
        """Return tokens generated after this many steps of the engine."""
        return 0 if self.finish_step is None else step - self.first_step
