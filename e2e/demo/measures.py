"""The report's arithmetic: from recorded rows to claimed figures. Pure, to be checked by hand."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from e2e.demo.recording import EnergySample, LatencyCount, Reply, Write

GRACE_FEEDBACKS = 1000
"""N0: the promise is judged from this feedback on; before it a running share is mostly noise (control.md 3)."""


@dataclass(frozen=True, slots=True)
class Promise:
    """How one service's satisfaction promise was kept. Shares lie in [0, 1]; None: too little feedback to say.

    debt_requests: target times feedbacks minus satisfied ones, negative is credit; worst_deficit: the largest
        target - running share after the first `GRACE_FEEDBACKS` feedbacks, never below 0.
    """

    feedback_count: int
    achieved: float | None
    debt_requests: float
    worst_deficit: float | None

    @property
    def violated_after_n0(self) -> bool | None:
        """Whether the running share was below the target at any time after N0."""
        return None if self.worst_deficit is None else self.worst_deficit > 0


def measure_promise(satisfied: Sequence[bool], target: float, grace: int = GRACE_FEEDBACKS) -> Promise:
    """Return how the promise was kept over feedbacks in the order in which they came."""
    total, good, worst = 0, 0, None
    for outcome in satisfied:
        total += 1
        good += outcome
        if total >= grace:
            worst = max(worst or 0.0, target - good / total)
    return Promise(total, good / total if total else None, target * total - good, worst)


def feedbacks(replies: Iterable[Reply], service: str) -> list[bool]:
    """Return the outcomes of one service in the order in which they were known."""
    known = [reply for reply in replies if reply.service == service and reply.satisfied is not None]
    return [bool(reply.satisfied) for reply in sorted(known, key=lambda reply: reply.done_at_seconds)]


def attainment(values_seconds: Iterable[float | None], bound_seconds: float) -> float | None:
    """Return the share of known values within the bound; None when nothing is known."""
    known = [value for value in values_seconds if value is not None]
    return sum(value <= bound_seconds for value in known) / len(known) if known else None


def measure_increase(samples: Iterable[tuple[float, float]], from_seconds: float, to_seconds: float) -> float:
    """Return how much one counter rose between two moments, from its raw samples (at_seconds, value).

    A counter first seen after `from_seconds` was born with its process and began at zero; one that fell restarted.
    """
    rise, before = 0.0, 0.0
    for at_seconds, value in sorted(samples):
        if at_seconds > to_seconds:
            break
        if at_seconds > from_seconds:
            rise += value - before if value >= before else value
        before = value
    return rise


def engine_attainment(latency: Iterable[LatencyCount], from_seconds: float, to_seconds: float) -> Slo:
    """Return the shares of all requests, over all engines, that met the bounds, from raw histogram counters."""
    by_pod: dict[str, list[LatencyCount]] = defaultdict(list)
    for row in latency:
        by_pod[row.pod].append(row)

    def rise(field: str) -> float:
        rows = by_pod.values()
        series = ([(row.at_seconds, float(getattr(row, field))) for row in pod] for pod in rows)
        return sum(measure_increase(samples, from_seconds, to_seconds) for samples in series)

    ttft, tpot = rise("ttft_total"), rise("tpot_total")
    return Slo(rise("ttft_within") / ttft if ttft else None, rise("tpot_within") / tpot if tpot else None, int(ttft))


def quantile(values: Iterable[float | None], share: float) -> float | None:
    """Return the smallest known value that at least `share` of the known values do not exceed."""
    known = sorted(value for value in values if value is not None)
    return known[max(0, math.ceil(share * len(known)) - 1)] if known else None


def measure_energy(samples: Iterable[EnergySample], from_seconds: float, to_seconds: float) -> float | None:
    """Return the joules of GPUs while pods of ours owned them, by raw counters between two moments.

    A stretch between two scrapes counts when a pod owned the GPU at its end: what is counted too much when a pod comes
    (at most one scrape interval) is missed when it goes. A counter that fell has restarted from zero. A stretch that
    crosses an edge counts by the part inside. None when no GPU was ever owned: unknown, not zero.
    """
    by_gpu: dict[str, list[EnergySample]] = defaultdict(list)
    for sample in samples:
        by_gpu[sample.gpu].append(sample)
    total, owned = 0.0, False
    for rows in by_gpu.values():
        rows.sort(key=lambda row: row.at_seconds)
        for before, after in pairwise(rows):
            stretch = after.at_seconds - before.at_seconds
            inside = min(after.at_seconds, to_seconds) - max(before.at_seconds, from_seconds)
            if after.pod is None or stretch <= 0 or inside <= 0:
                continue
            owned = True
            rise = after.joules - before.joules if after.joules >= before.joules else after.joules
            total += rise * min(1.0, inside / stretch)
    return total if owned else None


@dataclass(frozen=True, slots=True)
class Slo:
    """Shares of requests within the time-to-first-token and time-per-output-token bounds; None when none is known."""

    ttft_attainment: float | None
    tpot_attainment: float | None
    requests: int


@dataclass(frozen=True, slots=True)
class WriteCount:
    """The operator's writes in a window, sorted by what a steady state allows: the Lease, and status checkpoints."""

    seconds: float
    changes: int
    status: int
    lease: int
    events: int


def count_writes(writes: Iterable[Write], window: tuple[float, float]) -> WriteCount:
    """Return how many writes fell into [low, high) by class."""
    low, high = window
    inside = [write for write in writes if low <= write.at_seconds < high]
    lease = sum(write.resource == "leases" for write in inside)
    events = sum(write.resource == "events" for write in inside)
    status = sum(write.subresource == "status" for write in inside)
    return WriteCount(high - low, len(inside) - lease - events - status, status, lease, events)


def deviation_percent(value: float | None, reference: float | None) -> float | None:
    """Return how far a value lies from its reference, in percent of the reference."""
    if value is None or not reference:
        return None
    return 100.0 * (value - reference) / reference
