"""Keeps what came of every request: a JSON line each, counters for Prometheus, and a summary for people."""

from __future__ import annotations

import json
from collections import Counter as Tally
from collections import defaultdict
from dataclasses import asdict
from typing import IO

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge

from e2e.load.client import RequestRecord


class Recorder:
    """Counts, reports feedback and writes the records.

    `hide_feedback` stops reporting outcomes while requests go on, for tests of what a service does without feedback.
    """

    def __init__(self, lines: IO[str] | None) -> None:
        self.lines = lines
        self.hide_feedback = False
        self.started_unix_seconds: float | None = None
        self.registry = CollectorRegistry()
        self.feedback = Counter(
            "wattzoo_feedback",
            "Answers that the application judged, by the member that gave them.",
            ["namespace", "service", "member", "outcome"],
            registry=self.registry,
        )
        self.requests = Counter(
            "load_requests", "Requests that ended.", ["namespace", "service", "code"], registry=self.registry
        )
        self.in_flight = Gauge("load_requests_in_flight", "Requests sent and not yet answered.", registry=self.registry)
        self.codes: Tally[str] = Tally()
        self.errors: Tally[str] = Tally()
        self.members: defaultdict[str, Tally[str]] = defaultdict(Tally)
        self.satisfied: defaultdict[str, Tally[bool]] = defaultdict(Tally)
        self.latencies: list[float] = []
        self.late: list[float] = []

    def add(self, record: RequestRecord) -> None:
        """Take in one finished request."""
        self.codes[record.code] += 1
        self.requests.labels(record.namespace, record.service, record.code).inc()
        self.late.append(record.t_sent - record.t_scheduled)
        service = f"{record.namespace}/{record.service}"
        if record.failed:
            self.errors[f"{record.code}: {record.error}"[:160]] += 1
        else:
            self.latencies.append(record.latency_seconds)
            self.members[service][record.member or "unknown"] += 1
        if record.satisfied is not None:
            self.satisfied[service][record.satisfied] += 1
            self._report_feedback(record)
        if self.lines is not None:
            self.lines.write(json.dumps(asdict(record)) + "\n")

    def _report_feedback(self, record: RequestRecord) -> None:
        if self.hide_feedback or not record.feedback or record.member is None:
            return
        outcome = "satisfied" if record.satisfied else "unsatisfied"
        self.feedback.labels(record.namespace, record.service, record.member, outcome).inc()

    def summary(self) -> dict[str, object]:
        """Return what a report needs; late_p99_ms: how punctual this generator was; started_unix_seconds: its 0."""
        sent = sum(self.codes.values())
        return {
            "started_unix_seconds": self.started_unix_seconds,
            "sent": sent,
            "failed": sent - self.codes["200"],
            "codes": dict(self.codes),
            "errors": dict(self.errors.most_common(10)),
            "members": {service: dict(tally) for service, tally in self.members.items()},
            "satisfied": {s: {"yes": t[True], "no": t[False]} for s, t in self.satisfied.items()},
            "latency_seconds": {f"p{q}": percentile(self.latencies, q) for q in (50, 95, 99)},
            "late_p99_ms": percentile([1000 * late for late in self.late], 99),
        }


def percentile(values: list[float], q: float) -> float | None:
    """Return the q-th percentile to four digits, None when there is nothing."""
    return round(float(np.percentile(values, q)), 4) if values else None
