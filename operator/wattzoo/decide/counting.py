"""What is counted of a service beside its policy's ledger: requests at the gateway, and which feedback all rests on.

Requests are counted from raw counters as feedback is: by increases per series, with resets and gaps. The gateway names
its counters by the place of a backend in the route, so another order makes other counters of them: a new base. The
same holds for feedback once the spec names other series. Both must outlive the process, or a restart would take
somebody else's history for news.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from wattzoo.api.llm_service import PrometheusFeedback
from wattzoo.model import VariantKey
from wattzoo_policies.accuracy.ledger import (
    Ledger,
    count,
    ledger_from_body,
    ledger_to_body,
    make_ledger,
    set_members,
)
from wattzoo_policies.signals import Observation, OutcomeCounter, ServedCounter

_VERSION = 1
SERIES = "gateway"


@dataclass(frozen=True, slots=True)
class Counting:
    """Requests by member so far; `order` and `feedback` identify what the last counters belonged to (empty: none)."""

    requests: Ledger
    order: str = ""
    feedback: str = ""

    def to_json(self) -> str:
        """Compact JSON."""
        body = {
            "version": _VERSION,
            "order": self.order,
            "feedback": self.feedback,
            "requests": ledger_to_body(self.requests),
        }
        return json.dumps(body, separators=(",", ":"))

    @property
    def total(self) -> float:
        """All requests so far."""
        return self.requests.outcomes.total

    def by_member(self) -> dict[str, float]:
        """Requests by member; those of members that left are under the empty name."""
        return {name: row.total for name, row in self.requests.members.items()}

    def served(self) -> tuple[ServedCounter, ...]:
        """The same as a policy reads it: one counter per member that never falls."""
        return tuple(ServedCounter(name, SERIES, count_) for name, count_ in self.by_member().items() if name)


def make_counting(members: Iterable[str]) -> Counting:
    """Nothing counted yet."""
    return Counting(make_ledger(members))


def restore_counting(text: object, members: Sequence[str]) -> Counting:
    """What a checkpoint says; nothing where it cannot be read (then counting begins with the next answer)."""
    if not isinstance(text, str) or not text:
        return make_counting(members)
    try:
        body = json.loads(text)
        if body["version"] != _VERSION:
            return make_counting(members)
        return Counting(ledger_from_body(body["requests"]), str(body["order"]), str(body["feedback"]))
    except (KeyError, TypeError, AttributeError, ValueError):
        return make_counting(members)


def count_requests(
    counting: Counting,
    members: Sequence[str],
    order: Sequence[VariantKey],
    counters: tuple[OutcomeCounter, ...] | None,
    at_seconds: float,
) -> Counting:
    """Fold the gateway's counters in; None says that they could not be read."""
    requests = counting.requests
    if set(requests.members) - {""} != set(members):
        requests = set_members(requests, members)
    if counters is None:
        return replace(counting, requests=requests)
    place = fingerprint(str(key) for key in order)
    observation = Observation(at_seconds, 0.0, counters, rebase=counting.order not in {"", place})
    requests, _ = count(requests, observation)
    return replace(counting, requests=requests, order=place)


def feedback_source(feedback: PrometheusFeedback) -> str:
    """What identifies the series that feedback is read from."""
    return fingerprint([json.dumps(feedback.to_manifest(), sort_keys=True)])


def fingerprint(parts: Iterable[str]) -> str:
    """A short hash of texts in their order."""
    return hashlib.blake2s("\0".join(parts).encode(), digest_size=6).hexdigest()
