"""The two observations of a tick: the cluster, and what Prometheus measured. Neither ever raises for an outside reason.

All questions of one tick are evaluated at one instant of Prometheus' clock, asked for first; when even that fails, the
other questions are not asked.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from wattzoo.errors import ObservationError
from wattzoo.model import ClusterSnapshot, Series, TelemetryNeeds, TelemetrySnapshot
from wattzoo.observe.profile import FEEDBACK_GROUP, Profile
from wattzoo.observe.prometheus import Answer
from wattzoo.observe.queries import (
    CLOCK_QUERY,
    parse_feedback,
    parse_group,
    plan_queries,
    valid_feedback,
)
from wattzoo.telemetry import Telemetry

MAX_PARALLEL_QUERIES = 4
CATCH_UP_MARGIN_SECONDS = 30.0
MAX_CATCH_UP_SECONDS = 3600.0
"""How far back feedback is read after nobody looked. Counters that only grew need none of it; it brings back what
processes counted that restarted or ended meanwhile."""

logger = logging.getLogger(__name__)


class MetricsSource(Protocol):
    """The part of `PrometheusReader` that is used here; called from threads."""

    def query(self, promql: str, at_seconds: float | None = None) -> Answer:
        """Evaluate one instant query."""


class SnapshotSource(Protocol):
    """The part of `ClusterReader` that is used here."""

    async def observe(self) -> ClusterSnapshot:
        """Read the cluster once."""


class Observer:
    """Takes snapshots of the cluster and of Prometheus."""

    def __init__(
        self,
        cluster: SnapshotSource,
        metrics: MetricsSource,
        profile: Profile,
        telemetry: Telemetry,
        *,
        clock: Callable[[], float],
        namespaces: Sequence[str] = (),
    ) -> None:
        """`clock` is the machine's time in Unix seconds, used only while Prometheus does not say its own."""
        self._cluster = cluster
        self._metrics = metrics
        self._profile = profile
        self._telemetry = telemetry
        self._clock = clock
        self._namespaces = tuple(namespaces)
        self._feedback_read_at_seconds: float | None = None
        self._catch_up = True
        self._threads = ThreadPoolExecutor(MAX_PARALLEL_QUERIES, thread_name_prefix="prometheus")

    async def observe_cluster(self) -> ClusterSnapshot:
        """What the API server holds."""
        with self._telemetry.observations.labels("cluster").time():
            return await self._cluster.observe()

    async def observe_telemetry(self, needs: TelemetryNeeds) -> TelemetrySnapshot:
        """What Prometheus measured, group by group; a group that could not be read is in `problems`."""
        with self._telemetry.observations.labels("telemetry").time():
            answers = await self._ask(needs)
        if isinstance(answers, str):
            self._report({}, self._clock())
            queries = plan_queries(self._profile, needs, self._namespaces)
            return TelemetrySnapshot(self._clock(), {}, {query.group: answers for query in queries})
        at_seconds, results = answers
        problems = {group: answer for group, answer in results.items() if isinstance(answer, str)}
        groups = {g: self._parse(g, answer, needs) for g, answer in results.items() if isinstance(answer, Answer)}
        if not needs.feedback_metrics:
            groups[FEEDBACK_GROUP] = ()
        self._catch_up = FEEDBACK_GROUP not in problems or len(problems) == len(results)
        if FEEDBACK_GROUP in groups:
            self._feedback_read_at_seconds = at_seconds
        self._report(groups, at_seconds)
        return TelemetrySnapshot(at_seconds, groups, problems)

    def close(self) -> None:
        """Let the threads end; running queries end by their own deadline."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, needs: TelemetryNeeds) -> str | tuple[float, Mapping[str, Answer | str]]:
        """Prometheus' time and an answer or a problem per group; a text when not even the time could be had."""
        clock = await self._query(CLOCK_QUERY, None)
        if isinstance(clock, str):
            return clock
        at_seconds = _scalar(clock.result)
        if at_seconds is None:
            return f"{CLOCK_QUERY} did not answer a time"
        window = self._feedback_window_seconds(needs, at_seconds)
        queries = plan_queries(self._profile, needs, self._namespaces, window)
        self._telemetry.queries_tick.set(len(queries) + 1)
        answers = await asyncio.gather(*(self._query(query.promql, at_seconds) for query in queries))
        return at_seconds, {query.group: answer for query, answer in zip(queries, answers, strict=True)}

    def _feedback_window_seconds(self, needs: TelemetryNeeds, at_seconds: float) -> float:
        """Back to the last look, or to the oldest checkpoint where there was none; at least the usual window.

        A long answer that was refused is asked for no second time.
        """
        since = self._feedback_read_at_seconds
        since = needs.feedback_since_seconds if since is None else since
        if since is None or not self._catch_up:
            return needs.feedback_window_seconds
        return max(
            needs.feedback_window_seconds, min(MAX_CATCH_UP_SECONDS, at_seconds - since + CATCH_UP_MARGIN_SECONDS)
        )

    async def _query(self, promql: str, at_seconds: float | None) -> Answer | str:
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(self._threads, self._metrics.query, promql, at_seconds)
        except ObservationError as error:
            self._telemetry.queries.labels("failed").inc()
            return str(error)
        self._telemetry.queries.labels("ok").inc()
        return answer

    def _parse(self, group: str, answer: Answer, needs: TelemetryNeeds) -> tuple[Series, ...]:
        for warning in answer.warnings:
            self._telemetry.warnings.labels(group).inc()
            logger.warning("Prometheus warns about %s: %s", group, warning)
        if group == FEEDBACK_GROUP:
            return parse_feedback(valid_feedback(needs), answer.result)
        return parse_group(self._profile[group], answer.result)

    def _report(self, groups: Mapping[str, Sequence[Series]], at_seconds: float) -> None:
        self._telemetry.series.clear()
        self._telemetry.input_age.clear()
        for group, series in groups.items():
            self._telemetry.series.labels(group).set(len(series))
            times = [s.samples[-1].at_seconds for s in series if s.samples]
            if times:
                self._telemetry.input_age.labels(group).set(at_seconds - max(times))


def _scalar(result: Sequence[Any]) -> float | None:
    """The value of a scalar answer, `[time, "value"]`."""
    try:
        value = float(result[1])
    except (IndexError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
