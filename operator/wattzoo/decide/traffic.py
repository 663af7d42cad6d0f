"""Requests by service and variant from the gateway's counters, and feedback from the application's.

Engine counters mix the services that share a server, so who was sent what is read where it was decided: Envoy keeps one
cluster per backendRef, named by its index. A change of their order is a reset of all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from wattzoo.api.conditions import Reason
from wattzoo.api.llm_service import PrometheusFeedback
from wattzoo.decide.series import Reading, estimate_rate, increase_between, is_plausible, read_problem, sum_readings
from wattzoo.decisions import Finding, ServiceLoad
from wattzoo.model import Manifest, Ref, Series, Signal, TelemetrySnapshot, VariantKey, VariantState
from wattzoo_policies.signals import OutcomeCounter

RECENT_SECONDS = 15.0
CLUSTER_PATTERN = re.compile(r"httproute/(?P<namespace>[^/]+)/(?P<name>[^/]+)/rule/0/backend/(?P<index>\d+)")
REPLICA_LABELS = frozenset({"prometheus", "prometheus_replica"})
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


def _gateway_series(telemetry: TelemetrySnapshot, ref: Ref) -> dict[int, list[Series]]:
    found: dict[int, list[Series]] = {}
    for series in telemetry.groups.get("gateway", ()):
        if series.name != Signal.GATEWAY_REQUESTS:
            continue
        for value in series.labels.values():
            match = CLUSTER_PATTERN.fullmatch(value)
            if match and (match["namespace"], match["name"]) == (ref.namespace, ref.name):
                found.setdefault(int(match["index"]), []).append(series)
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


def estimate_outcomes(
    telemetry: TelemetrySnapshot,
    namespace: str,
    feedback: PrometheusFeedback,
    members: Iterable[str],
    stale_after_seconds: float,
) -> tuple[tuple[OutcomeCounter, ...] | None, Finding | None]:
    """Cumulative feedback counters of one service, or None and why.

    Only series of the object's own namespace that carry all `matchLabels` count, whatever Prometheus returned. An
    implausible sample condemns the whole answer: half a ledger is a wrong ledger.
    """
    if "feedback" not in telemetry.groups:
        problem = telemetry.problems.get("feedback", "feedback counters were not read")
        return None, read_problem("feedback", problem)
    wanted = {**feedback.match_labels, "namespace": namespace, NAME_LABEL: feedback.metric}
    known = frozenset(members)
    counters: list[OutcomeCounter] = []
    newest = float("-inf")
    for series in telemetry.groups["feedback"]:
        if any(series.labels.get(label) != value for label, value in wanted.items()) or not series.samples:
            continue
        sample = series.samples[-1]
        if not is_plausible(sample.value):
            return None, Finding(Reason.NON_FINITE_SAMPLE, f"{feedback.metric} has the sample {sample.value:g}")
        member = series.labels.get(feedback.member_label, "")
        if member not in known:
            continue
        newest = max(newest, sample.at_seconds)
        counters.append(_counter(series.labels, feedback, member, sample.value))
    if counters and telemetry.at_seconds - newest > stale_after_seconds:
        age = telemetry.at_seconds - newest
        return None, Finding(Reason.STALE_SAMPLES, f"the newest feedback sample is {age:.0f} s old")
    if not counters:
        return (), Finding(Reason.NO_SAMPLES, f"there is no series {feedback.metric} with these labels yet")
    return tuple(counters), None


def _counter(labels: Mapping[str, str], feedback: PrometheusFeedback, member: str, value: float) -> OutcomeCounter:
    used = {feedback.member_label, feedback.outcome_label, NAME_LABEL, *REPLICA_LABELS}
    outcome = labels.get(feedback.outcome_label, "")
    rest = {k: v for k, v in labels.items() if k not in used} | {"": outcome}
    identity = ",".join(f"{k}={v}" for k, v in sorted(rest.items()))
    return OutcomeCounter(member, identity, outcome == feedback.satisfied_value, value)
