"""Accelerators that do not come: marked, planned around, asked for again ever more rarely.

A pod without a node is no capacity and may never be; for as long as a variant is short its pods that wait are taken
back and others are planned for its load. After a while one replica asks again: what comes ends the shortage, what does
not doubles the time to the next try. A pod that waits for what another still holds is not short of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from wattzoo.model import VariantKey, VariantState

FIRST_DELAY_SECONDS = 120.0
MAX_DELAY_SECONDS = 1800.0
"""A node pool that is full for a day is asked 50 times; one that is freed is used again after half an hour at most."""
LEAVING_MARGIN_SECONDS = 60.0
"""Beyond the drain timeout a pod that ends is gone, or its node is."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """A variant whose pods found no node: since when, how often, when one asks again, and the scheduler's words.

    placed: pods that had a node when it was last noted.
    """

    since_seconds: float
    tries: int
    retry_at_seconds: float
    placed: int
    message: str

    def is_trying(self, at_seconds: float) -> bool:
        """Whether one replica more may ask now."""
        return at_seconds >= self.retry_at_seconds

    def most_replicas(self, at_seconds: float) -> int:
        """What may be asked for at most."""
        return self.placed + int(self.is_trying(at_seconds))


def placed_pods(state: VariantState) -> int:
    """Pods that have a node and stay."""
    return sum(1 for pod in state.pods if pod.waiting_since_seconds is None and not pod.terminating)


def unplaced_pods(state: VariantState, at_seconds: float, timeout_seconds: float) -> tuple[str, ...]:
    """The scheduler's words about pods that found no node in time."""
    return tuple(
        pod.waiting_message or "the pod has no node"
        for pod in state.pods
        if pod.waiting_since_seconds is not None
        and not pod.terminating
        and at_seconds - pod.waiting_since_seconds >= timeout_seconds
    )


def note_shortages(
    states: Iterable[VariantState],
    before: Mapping[VariantKey, Shortage],
    at_seconds: float,
    timeout_seconds: float,
    drains: Mapping[str, float],
) -> dict[VariantKey, Shortage]:
    """The variants that are short now.

    drains: by AcceleratorPool on which pods end, of this ModelPool or another, the seconds that draining them may take:
    so long others may wait for theirs.
    """
    noted = {}
    for state in states:
        drain_seconds = drains.get(state.accelerator_pool or "")
        more = 0.0 if drain_seconds is None else drain_seconds + LEAVING_MARGIN_SECONDS
        found = _note(state, before.get(state.key), at_seconds, timeout_seconds + more)
        if found is not None:
            noted[state.key] = found
    return noted


def _note(state: VariantState, before: Shortage | None, at_seconds: float, timeout_seconds: float) -> Shortage | None:
    placed, words = placed_pods(state), unplaced_pods(state, at_seconds, timeout_seconds)
    if before is None:
        return Shortage(at_seconds, 1, at_seconds + FIRST_DELAY_SECONDS, placed, words[0]) if words else None
    if not before.is_trying(at_seconds):
        # Pods that leave meanwhile are not asked back: what is held is what the nodes are known to have.
        return replace(before, placed=placed)
    if words:
        delay = min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(before.tries, 10))
        return Shortage(before.since_seconds, before.tries + 1, at_seconds + delay, placed, words[0])
    if placed > before.placed:
        return None
    quiet = at_seconds - before.retry_at_seconds >= max(MAX_DELAY_SECONDS, 2.0 * timeout_seconds)
    return None if quiet else replace(before, placed=placed)
