"""The service-level ledger: who answered, how often it satisfied, and what is owed to the promise.

It is built from raw cumulative counters, never from a rate: increases are taken per series, so a restart of one
exposing pod is a reset of that series alone, a series that is missing for a while loses nothing, and a repeated
observation adds nothing. The target in force when an outcome is counted is the one it is held against, so a change
of target changes the future only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wattzoo_policies.accuracy.state_text import compact, pack_counters, unpack_counters
from wattzoo_policies.signals import LedgerSummary, MemberOutcomes, Observation, OutcomeCounter

OTHER = ""
"""Row that collects outcomes of members which the pool does not (or no longer) know."""

MAX_SERIES = 192
"""Series remembered at once, which bounds a state. The longest unseen is forgotten first; while all are seen, further
ones are left uncounted: feedback is then partial, which is better than counting a forgotten series from zero again."""

ROUNDING = 1e-9
"""Share of a count by which sums of floats may fall without having been reset."""

GRACE_REQUESTS = 1000
"""Outcomes before a running deficit counts: below that a share moves by points on luck alone."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Satisfied and total outcomes."""

    satisfied: float = 0.0
    total: float = 0.0

    def plus(self, other: Outcomes) -> Outcomes:
        """Return the sum."""
        return Outcomes(self.satisfied + other.satisfied, self.total + other.total)


@dataclass(frozen=True, slots=True)
class Ledger:
    """All counted outcomes of one service.

    required: sum over counted outcomes of the target then in force.
    counters: last value by hashed series, longest unseen first.
    since_seconds, at_seconds: first and last observation that answered.
    """

    members: Mapping[str, Outcomes]
    required: float = 0.0
    counters: Mapping[str, float] = field(default_factory=dict)
    since_seconds: float | None = None
    at_seconds: float | None = None
    worst_deficit: float | None = None
    counter_resets: int = 0

    @property
    def outcomes(self) -> Outcomes:
        """Return the sum over members."""
        return _sum(self.members.values())

    @property
    def debt_requests(self) -> float:
        """Return what is owed, in satisfied requests; negative is credit."""
        return self.required - self.outcomes.satisfied


def make_ledger(names: Iterable[str]) -> Ledger:
    """Return an empty ledger for members of these names."""
    return Ledger({name: Outcomes() for name in names})


def set_members(ledger: Ledger, names: Iterable[str]) -> Ledger:
    """Return the ledger for a changed pool: new members start at nothing, removed ones join the row of others."""
    kept = {name: ledger.members.get(name, Outcomes()) for name in names}
    gone = _sum(row for name, row in ledger.members.items() if name not in kept)
    return replace(ledger, members=kept | {OTHER: gone} if gone.total else kept)


def count(ledger: Ledger, observation: Observation) -> tuple[Ledger, dict[str, Outcomes]]:
    """Fold cumulative counters into the ledger.

    Returns the ledger and the outcomes that are new, by member. Nothing is new when the source did not answer, when
    the observation is older than the last one, at the very first answer (what happened before we watched is not ours
    to promise) or at the first answer of another source. A series first seen later starts at zero; a count below the
    last one is a reset, unless rounding alone lowered it: its whole count would be taken for news.
    """
    last_at = ledger.at_seconds
    if observation.outcomes is None or (last_at is not None and observation.at_seconds < last_at):
        return ledger, {}
    begun = ledger.since_seconds is not None
    based = begun and not observation.rebase
    counters = dict(ledger.counters) if based else {}
    fresh: dict[str, Outcomes] = {}
    resets = ledger.counter_resets
    for key, counter in _make_room(counters, _latest(observation.outcomes)).items():
        last = counters.pop(key, 0.0 if based else counter.count)
        is_reset = counter.count < last * (1.0 - ROUNDING)
        counters[key] = counter.count if is_reset else max(last, counter.count)
        resets += is_reset
        increase = counter.count if is_reset else counter.count - last
        if increase > 0.0:
            member = counter.member if counter.member in ledger.members else OTHER
            new = Outcomes(increase if counter.satisfied else 0.0, increase)
            fresh[member] = fresh.get(member, Outcomes()).plus(new)
    members = dict(ledger.members)
    for member, new in fresh.items():
        members[member] = members.get(member, Outcomes()).plus(new)
    counted = replace(
        ledger,
        members=members,
        required=ledger.required + observation.alpha * _sum(fresh.values()).total,
        counters=counters,
        since_seconds=ledger.since_seconds if begun else observation.at_seconds,
        at_seconds=observation.at_seconds,
        counter_resets=resets,
    )
    return replace(counted, worst_deficit=_worst_deficit(counted)), fresh


def summarise(ledger: Ledger, accuracies: Mapping[str, float | None]) -> LedgerSummary:
    """Return the ledger in one row; `accuracies` are the estimates that the policy uses, by member."""
    outcomes = ledger.outcomes
    return LedgerSummary(
        satisfied=outcomes.satisfied,
        total=outcomes.total,
        debt_requests=ledger.debt_requests,
        achieved=outcomes.satisfied / outcomes.total if outcomes.total else None,
        worst_deficit=ledger.worst_deficit,
        grace_requests=GRACE_REQUESTS,
        since_seconds=ledger.since_seconds,
        members=tuple(
            MemberOutcomes(name, row.satisfied, row.total, accuracies.get(name)) for name, row in ledger.members.items()
        ),
        counter_resets=ledger.counter_resets,
    )


def ledger_to_body(ledger: Ledger) -> dict[str, Any]:
    """Return JSON-able content with short keys (a state has 4 kB)."""
    return {
        "m": {name: [compact(row.satisfied), compact(row.total)] for name, row in ledger.members.items()},
        "r": compact(ledger.required),
        "c": pack_counters(ledger.counters),
        "s": ledger.since_seconds,
        "t": ledger.at_seconds,
        "w": ledger.worst_deficit,
        "x": ledger.counter_resets,
    }


def ledger_from_body(body: Mapping[str, Any]) -> Ledger:
    """Return the ledger that `ledger_to_body` wrote; raises KeyError, TypeError or ValueError when damaged."""
    ledger = Ledger(
        members={str(name): Outcomes(float(row[0]), float(row[1])) for name, row in body["m"].items()},
        required=float(body["r"]),
        counters=unpack_counters(body["c"]),
        since_seconds=_optional(body["s"]),
        at_seconds=_optional(body["t"]),
        worst_deficit=_optional(body["w"]),
        counter_resets=int(body["x"]),
    )
    numbers = [ledger.required, *ledger.counters.values()]
    numbers += [value for row in ledger.members.values() for value in (row.satisfied, row.total - row.satisfied)]
    if not all(math.isfinite(number) and number >= 0.0 for number in numbers):
        raise ValueError("the ledger holds a number that is negative or not finite")
    return ledger


def _latest(counters: tuple[OutcomeCounter, ...]) -> dict[str, OutcomeCounter]:
    """Return counters by hashed series; of duplicates the largest, of impossible values none (a gap)."""
    latest: dict[str, OutcomeCounter] = {}
    for counter in counters:
        if not math.isfinite(counter.count) or counter.count < 0.0:
            continue
        identity = f"{counter.member}\0{counter.series}\0{counter.satisfied}"
        key = hashlib.blake2s(identity.encode(), digest_size=5).hexdigest()
        if key not in latest or latest[key].count < counter.count:
            latest[key] = counter
    return latest


def _make_room(counters: dict[str, float], latest: Mapping[str, OutcomeCounter]) -> dict[str, OutcomeCounter]:
    """Return the counters that can be remembered: known series first, then new ones in place of those unseen now."""
    known = {key: counter for key, counter in latest.items() if key in counters}
    new = {key: counter for key, counter in latest.items() if key not in counters}
    unseen = [key for key in counters if key not in latest]
    while unseen and len(counters) + len(new) > MAX_SERIES:
        del counters[unseen.pop(0)]
    room = max(0, MAX_SERIES - len(counters))
    return known | dict(list(new.items())[:room])


def _worst_deficit(ledger: Ledger) -> float | None:
    total = ledger.outcomes.total
    if total < GRACE_REQUESTS:
        return None
    return max(ledger.worst_deficit or 0.0, ledger.debt_requests / total)


def _sum(rows: Iterable[Outcomes]) -> Outcomes:
    total = Outcomes()
    for row in rows:
        total = total.plus(row)
    return total


def _optional(value: float | str | None) -> float | None:
    return None if value is None else float(value)
