"""Requests by service and variant from the gateway's counters, and feedback from the application's.

Engine counters mix the services that share a server, so who was sent what is read where it was decided: Envoy keeps one
cluster per backendRef, named by its index. A change of their order is a reset of all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from wattzoo.api.conditions import Reason
from wattzoo.api.llm_service import PrometheusFeedback
from wattzoo.decide.by_label import LabelIndex
from wattzoo.decide.series import Reading, estimate_rate, increase_between, is_plausible, read_problem, sum_readings
from wattzoo.decisions import Finding, ServiceLoad
from wattzoo.model import Manifest, Ref, Series, Signal, TelemetrySnapshot, VariantKey, VariantState
from wattzoo_policies.signals import OutcomeCounter

RECENT_SECONDS = 15.0
CLUSTER_PATTERN = re.compile(r"httproute/(?P<namespace>[^/]+)/(?P<name>[^/]+)/rule/0/backend/(?P<index>\d+)")
REPLICA_LABELS = frozenset({"prometheus", "prometheus_replica"})
SCRAPER_LABELS = frozenset({"job"})
"""Says who scraped, not who counts: two jobs that scrape one instance see one series."""
SETTLE_SECONDS = 5.0
"""A gateway follows a route within a second or so; what it counted before that follows the old weights or order."""
MAX_RESETS = 20
"""Restarts of exposing pods that are looked at within one answer; older ones lose what their pod had counted last."""
NAME_LABEL = "__name__"


def route_backends(route: Manifest | None) -> tuple[tuple[str, int], ...]:
    """(Service name, weight) of the backendRefs of a route's first rule, in order; weight 1 where none is written."""
    rules = ((route or {}).get("spec") or {}).get("rules")
    first = rules[0] if isinstance(rules, list) and rules else {}
    refs = [ref for ref in first.get("backendRefs") or () if isinstance(ref, dict)]
    return tuple((str(ref.get("name", "")), int(ref.get("weight", 1))) for ref in refs)


def live_weights(route: Manifest | None, states: Sequence[VariantState]) -> dict[VariantKey, int]:
    """Weights of the live route by variant, in the route's order; backends that are no variant of ours are left out."""
    keys: dict[str, list[VariantKey]] = {}
    for state in states:
        keys.setdefault(state.service, []).append(state.key)
    weights: dict[VariantKey, int] = {}
    for service, weight in route_backends(route):
        if keys.get(service):
            weights[keys[service].pop(0)] = weight
    return weights


def _gateway_series(telemetry: TelemetrySnapshot, ref: Ref) -> Mapping[int, Sequence[Series]]:
    """A route's counters by the index of the backend."""
    return telemetry.derived.once(_gateway_series, lambda: _index_gateway(telemetry)).get(ref, {})


def _index_gateway(telemetry: TelemetrySnapshot) -> dict[Ref, dict[int, list[Series]]]:
    found: dict[Ref, dict[int, list[Series]]] = {}
    for series in telemetry.groups.get("gateway", ()):
        if series.name != Signal.GATEWAY_REQUESTS:
            continue
        for value in series.labels.values():
            match = CLUSTER_PATTERN.fullmatch(value)
            if match:
                own = found.setdefault(Ref(match["namespace"], match["name"]), {})
                own.setdefault(int(match["index"]), []).append(series)
    return found


def _count(series: Series, since_seconds: float | None) -> float:
    return increase_between(x for x in series.samples if since_seconds is None or x.at_seconds >= since_seconds)


def estimate_service_load(
    telemetry: TelemetrySnapshot,
    ref: Ref,
    order: Sequence[VariantKey],
    order_since_seconds: float | None,
    stale_after_seconds: float,
    counted_since_seconds: float | None = None,
) -> ServiceLoad:
    """Requests per second of one service by variant; `order` is that of the live route since `order_since_seconds`.

    `counted` holds only requests since `counted_since_seconds`, when the present weights came into force.

    Several gateways (or several replicas of one) each count their own, so they are added.
    """
    if "gateway" not in telemetry.groups:
        return ServiceLoad(problem=telemetry.problems.get("gateway", "the gateway's counters were not read"))
    found = _gateway_series(telemetry, ref)
    if not found:
        return ServiceLoad(problem="the gateway has no request counters for this route")
    now = telemetry.at_seconds
    rates: dict[VariantKey, Reading] = {}
    counted: dict[VariantKey, float] = {}
    for index, key in enumerate(order):
        series = found.get(index, [])
        rates[key] = sum_readings(estimate_rate(s, now, stale_after_seconds, order_since_seconds) for s in series)
        if rates[key].known:
            counted[key] = sum(_count(one, counted_since_seconds or order_since_seconds) for one in series)
    known = {key: reading for key, reading in rates.items() if reading.known}
    missing = next(
        (reading for key, reading in rates.items() if key not in known and found.get(order.index(key))), None
    )
    if not known or missing is not None:
        problem = None if missing is None else missing.problem
        return ServiceLoad(problem="the gateway's counters are too young" if problem is None else problem.message)
    recent = sum_readings(
        estimate_rate(s, now, stale_after_seconds, max(order_since_seconds or 0.0, now - RECENT_SECONDS))
        for index in range(len(order))
        for s in found.get(index, [])
    )
    return ServiceLoad(
        total_rps=sum(reading.value or 0.0 for reading in known.values()),
        recent_rps=recent.value,
        by_variant_rps={key: reading.value or 0.0 for key, reading in known.items()},
        counted=counted,
        observed_at_seconds=sum_readings(known.values()).at_seconds,
    )


def read_request_counters(
    telemetry: TelemetrySnapshot,
    ref: Ref,
    order: Sequence[VariantKey],
    order_since_seconds: float | None,
    stale_after_seconds: float,
) -> tuple[OutcomeCounter, ...] | None:
    """The gateway's cumulative requests of one service by member, every one counted as satisfied; None is unknown.

    Until the gateway follows a new order its counters belong to nobody.
    """
    if "gateway" not in telemetry.groups or not order:
        return None
    counters: list[OutcomeCounter] = []
    for index, series in sorted(_gateway_series(telemetry, ref).items()):
        for one in series if index < len(order) else ():
            if not one.samples:
                continue
            sample = one.samples[-1]
            early = order_since_seconds is not None and sample.at_seconds < order_since_seconds + SETTLE_SECONDS
            old = telemetry.at_seconds - sample.at_seconds > stale_after_seconds
            if early or old or not is_plausible(sample.value):
                return None
            identity = f"{index},{_identity(one.labels)}"
            counters.append(OutcomeCounter(order[index].member, identity, satisfied=True, count=sample.value))
    return tuple(counters)


def _feedback_series(telemetry: TelemetrySnapshot, namespace: str, feedback: PrometheusFeedback) -> list[Series]:
    """Series of the object's own namespace that carry all `matchLabels`, whatever Prometheus returned."""
    wanted = {**feedback.match_labels, "namespace": namespace, NAME_LABEL: feedback.metric}
    return telemetry.derived.once(_feedback_series, lambda: _index_feedback(telemetry)).find(wanted)


def _index_feedback(telemetry: TelemetrySnapshot) -> LabelIndex[Series]:
    return LabelIndex((series.labels, series) for series in telemetry.groups.get("feedback", ()) if series.samples)


def find_resets(
    telemetry: TelemetrySnapshot, namespace: str, feedback: PrometheusFeedback
) -> tuple[tuple[float, tuple[OutcomeCounter, ...]], ...]:
    """The counters as they were just before and after each restart of an exposing pod, with their times, oldest first.

    Between two looks a pod may count, restart and count past its old value; its fall is then in the samples between.
    """
    series = _feedback_series(telemetry, namespace, feedback)
    series = [one for one in series if all(is_plausible(sample.value) for sample in one.samples)]
    falls = [pair for one in series for pair in pairwise(one.samples) if pair[1].value < pair[0].value]
    steps = []
    for at_seconds in sorted({sample.at_seconds for pair in falls for sample in pair})[-2 * MAX_RESETS :]:
        seen = ((one, [s.value for s in one.samples if s.at_seconds <= at_seconds]) for one in series)
        steps.append((at_seconds, tuple(_counter(one.labels, feedback, values[-1]) for one, values in seen if values)))
    return tuple(steps)


def estimate_outcomes(
    telemetry: TelemetrySnapshot, namespace: str, feedback: PrometheusFeedback, stale_after_seconds: float
) -> tuple[tuple[OutcomeCounter, ...] | None, Finding | None]:
    """Cumulative feedback counters of one service, or None and why.

    A member that the pool does not know counts too: its requests were promised as well. An implausible sample condemns
    the whole answer: half a ledger is a wrong ledger.
    """
    if "feedback" not in telemetry.groups:
        problem = telemetry.problems.get("feedback", "feedback counters were not read")
        return None, read_problem("feedback", problem)
    counters: list[OutcomeCounter] = []
    newest = float("-inf")
    for series in _feedback_series(telemetry, namespace, feedback):
        sample = series.samples[-1]
        if not is_plausible(sample.value):
            return None, Finding(Reason.NON_FINITE_SAMPLE, f"{feedback.metric} has the sample {sample.value:g}")
        newest = max(newest, sample.at_seconds)
        counters.append(_counter(series.labels, feedback, sample.value))
    if counters and telemetry.at_seconds - newest > stale_after_seconds:
        age = telemetry.at_seconds - newest
        return None, Finding(Reason.STALE_SAMPLES, f"the newest feedback sample is {age:.0f} s old")
    if not counters:
        return (), Finding(Reason.NO_SAMPLES, f"there is no series {feedback.metric} with these labels yet")
    return tuple(counters), None


def _counter(labels: Mapping[str, str], feedback: PrometheusFeedback, value: float) -> OutcomeCounter:
    outcome = labels.get(feedback.outcome_label, "")
    rest = {k: v for k, v in labels.items() if k not in {feedback.member_label, feedback.outcome_label}}
    member = labels.get(feedback.member_label, "")
    return OutcomeCounter(member, _identity({**rest, "": outcome}), outcome == feedback.satisfied_value, value)


def _identity(labels: Mapping[str, str]) -> str:
    """What tells one counting process from another: its labels without those that only say who scraped it."""
    dropped = {NAME_LABEL, *REPLICA_LABELS, *(SCRAPER_LABELS if labels.get("instance") else ())}
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items()) if k not in dropped)
