"""Builds every PromQL query: a handful for the whole fleet, whatever its size.

Each selects raw samples of one group (a range selector in an instant query), so that ages and counter resets are judged
from the samples themselves. Nothing a tenant wrote enters a query unescaped; a tenant's metric name must be in
Prometheus' grammar, and its namespace is always matched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wattzoo.model import Sample, Series, Signal, TelemetryNeeds
from wattzoo.observe.profile import FEEDBACK_GROUP, METRIC_NAME_PATTERN, Group, Profile

CLOCK_QUERY = "time()"
"""Prometheus' own time; all other queries are evaluated at it."""
MAX_QUERIES = 10
NAME_LABEL = "__name__"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL text and the group of the snapshot that its answer fills."""

    group: str
    promql: str


def plan_queries(
    profile: Profile,
    needs: TelemetryNeeds,
    namespaces: Sequence[str] = (),
    feedback_window_seconds: float | None = None,
) -> tuple[Query, ...]:
    """One query per group; `namespaces` restricts the engines' series, empty means all.

    Feedback may be asked for over a longer window than the rest: what happened while nobody looked.
    """
    window = f"[{max(1, round(needs.window_seconds))}s]"
    feedback_window = f"[{max(1, round(feedback_window_seconds or needs.window_seconds))}s]"
    queries = []
    for name, group in profile.items():
        matchers = [f"{label}=~{quote(pattern)}" for label, pattern in group.matchers.items()]
        if namespaces and name.startswith("engine_"):
            matchers.append(f"namespace=~{quote(any_of(namespaces))}")
        names = [metric for source in group.signals.values() for metric in source.names]
        queries.append(Query(name, select(names, matchers) + window))
    pairs = valid_feedback(needs)
    if pairs:
        matchers = [f"namespace=~{quote(any_of(namespace for _, namespace in pairs))}"]
        queries.append(Query(FEEDBACK_GROUP, select((metric for metric, _ in pairs), matchers) + feedback_window))
    if len(queries) + 1 > MAX_QUERIES:
        raise AssertionError(f"{len(queries) + 1} queries a tick, at most {MAX_QUERIES} are promised")
    return tuple(queries)


def select(names: Iterable[str], matchers: Iterable[str]) -> str:
    """A selector of any of these metrics with all of these matchers."""
    return "{" + ",".join([f"{NAME_LABEL}=~{quote(any_of(names))}", *matchers]) + "}"


def any_of(values: Iterable[str]) -> str:
    """A regular expression that matches exactly one of these texts; sorted, so that the query is the same each tick."""
    return "|".join(re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", value) for value in sorted(set(values)))


def quote(text: str) -> str:
    """A PromQL string literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def valid_feedback(needs: TelemetryNeeds) -> frozenset[tuple[str, str]]:
    """The feedback counters whose names are in Prometheus' grammar; others are not asked for."""
    return frozenset(pair for pair in needs.feedback_metrics if re.fullmatch(METRIC_NAME_PATTERN, pair[0]))


def parse_group(group: Group, result: Sequence[Mapping[str, object]]) -> tuple[Series, ...]:
    """Series under their canonical names and in our units; of two names for one signal the preferred one counts."""
    by_name = {
        metric: (signal, rank, source.scale)
        for signal, source in group.signals.items()
        for rank, metric in enumerate(source.names)
    }
    found: dict[tuple[Signal, frozenset[tuple[str, str]]], tuple[int, Series]] = {}
    for entry in result:
        labels = dict(entry["metric"])  # type: ignore[call-overload]
        signal, rank, scale = by_name.get(labels.pop(NAME_LABEL, ""), (None, 0, 1.0))
        if signal is None:
            continue
        labels = _rename(labels, group.labels)
        key = (signal, frozenset(labels.items()))
        if key not in found or rank < found[key][0]:
            found[key] = (rank, Series(str(signal), labels, parse_samples(entry.get("values"), scale)))
    return tuple(series for _, series in found.values())


def parse_feedback(pairs: frozenset[tuple[str, str]], result: Sequence[Mapping[str, object]]) -> tuple[Series, ...]:
    """Feedback counters of exactly the asked (metric, namespace) pairs, under their own names (also as a label)."""
    series = []
    for entry in result:
        labels: dict[str, str] = dict(entry["metric"])  # type: ignore[call-overload]
        name = labels.get(NAME_LABEL, "")
        if (name, labels.get("namespace")) in pairs:
            series.append(Series(name, labels, parse_samples(entry.get("values"), 1.0)))
    return tuple(series)


def parse_samples(values: object, scale: float) -> tuple[Sample, ...]:
    """`[[seconds, "value"], ...]` as samples; NaN and infinities stay what they are, for who estimates to refuse."""
    if not isinstance(values, list):
        return ()
    return tuple(Sample(float(value) * scale, float(at)) for at, value in values)


def _rename(labels: Mapping[str, str], preferences: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The labels with each preferred source moved to its canonical name."""
    renamed = dict(labels)
    for canonical, sources in preferences.items():
        value = next((labels[source] for source in sources if labels.get(source)), None)
        for source in sources:
            renamed.pop(source, None)
        if value is not None:
            renamed[canonical] = value
    return renamed
