"""What goes into a replica and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class PlantRequest:
    """A request as the engine sees it; `output_tokens` is how many it will generate (at least 1)."""

    request_id: str
    input_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        if self.input_tokens < 0 or self.output_tokens < 1:
            raise ValueError(
                f"request {self.request_id}: input_tokens must be at least 0 and output_tokens at least 1, "
                f"not {self.input_tokens} and {self.output_tokens}"
            )


class EventKind(StrEnum):
    """What happened to a request."""

    FIRST_TOKEN = "FirstToken"  # noqa: S105 - a kind of event, not a secret
    COMPLETED = "Completed"


@dataclass(frozen=True, slots=True)
class PlantEvent:
    """A first token or a completion, with everything known of the request at that moment."""

    kind: EventKind
    ticket: int
    request: PlantRequest
    at_seconds: float
    arrived_seconds: float
    first_token_seconds: float

    @property
    def ttft_seconds(self) -> float:
        """Return time from arrival to first token."""
        return self.first_token_seconds - self.arrived_seconds

    @property
    def tpot_seconds(self) -> float | None:
        """Return mean time per output token after the first; `None` for one token or before completion."""
        tokens = self.request.output_tokens - 1
        if self.kind is not EventKind.COMPLETED or tokens < 1:
            return None
        return (self.at_seconds - self.first_token_seconds) / tokens


class ReplicaPhase(StrEnum):
    """Life of a replica."""

    STARTING = "Starting"
    READY = "Ready"
    DRAINING = "Draining"
    GONE = "Gone"


class NotServingError(RuntimeError):
    """The replica is starting or gone and takes no request."""


class RequestTooLargeError(ValueError):
    """The request can never fit the replica's KV cache."""
