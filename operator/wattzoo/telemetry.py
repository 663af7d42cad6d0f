"""What the operator says about itself: every metric it exports, declared in one place.

The reference page is generated from the table below. Figures of our objects (targets, weights, replicas) are kept as
values and turned into series when scraped, so that a deleted object's series vanish with it, and an unknown figure has
no series at all: unknown is never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from wattzoo.model import Ref, VariantKey

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the reference: exported name, type, labels and meaning."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


def _metric(name: str, kind: str, help_text: str, *labels: str) -> Metric:
    return Metric(f"wattzoo_{name}", kind, labels, help_text)


def _of_service(name: str, help_text: str) -> Metric:
    return _metric(name, "gauge", help_text, "namespace", "service")


def _of_variant(name: str, help_text: str) -> Metric:
    return _metric(name, "gauge", help_text, "namespace", "modelpool", "member", "variant")


METRICS: Mapping[str, Metric] = {
    "decisions": _metric("decisions_total", "counter", "Decisions by kind of object and reason.", "kind", "reason"),
    "passes": _metric("pass_seconds", "histogram", "Duration of one pass over one object.", "kind"),
    "failures": _metric("pass_failures_total", "counter", "Passes that ended in an unexpected error.", "kind"),
    "plans": _metric("plans_total", "counter", "Joint plans by how they came about (or Failed).", "status"),
    "plan_seconds": _metric("plan_seconds", "histogram", "Time that one joint plan took, beside everything else."),
    "ticks": _metric("tick_seconds", "histogram", "Duration of one tick: observing plus all due passes."),
    "observations": _metric("observe_seconds", "histogram", "Duration of one observation, by source.", "source"),
    "unreadable": _metric("unreadable_total", "counter", "Reads of the cluster that failed, by kind.", "kind"),
    "writes": _metric("writes_total", "counter", "Writes by kind and outcome.", "kind", "subresource", "outcome"),
    "events": _metric("events_total", "counter", "Kubernetes Events by outcome (written, failed).", "outcome"),
    "queries": _metric("telemetry_queries_total", "counter", "Prometheus queries by outcome (ok, failed).", "outcome"),
    "queries_tick": _metric("telemetry_queries_per_tick", "gauge", "Prometheus queries of the last observation."),
    "warnings": _metric("telemetry_warnings_total", "counter", "Warnings in Prometheus' answers, by group.", "group"),
    "series": _metric("telemetry_series", "gauge", "Series read in the last observation, by group.", "group"),
    "input_age": _metric("input_age_seconds", "gauge", "Age of a group's newest sample by Prometheus' clock.", "group"),
    "lease": _metric("lease_held", "gauge", "1 while this process holds the Lease, else 0."),
    "transitions": _metric("lease_transitions_total", "counter", "How often this process won or lost the Lease.", "to"),
    "build": _metric("build_info", "gauge", "Always 1; the version is a label.", "version"),
    "target": _of_service("sla_target_ratio", "Declared share of satisfied requests."),
    "achieved": _of_service("sla_achieved_ratio", "Measured share of satisfied ones."),
    "debt": _of_service("sla_debt_requests", "Satisfied requests owed to the target, of those judged."),
    "credit": _of_service("sla_credit_requests", "Estimated satisfied requests ahead, judged or not."),
    "reachable": _metric("sla_reachable_ratio", "gauge", "Least and most share.", "namespace", "service", "bound"),
    "promised_from": _of_service("sla_promised_from_request", "Number of the request from which the promise holds."),
    "confidence": _of_service("sla_confidence_ratio", "Probability with which it then holds for good."),
    "feedback_share": _of_service("feedback_ratio", "Share of requests that are judged, as estimated."),
    "joules": _of_service("joules_per_request", "Joules that a request costs on average."),
    "joules_satisfied": _of_service("joules_per_satisfied_request", "The same per satisfied request."),
    "price": _of_service("price_joules_per_satisfied_request", "Joules that one more satisfied request costs now."),
    "blind": _of_service("blind_joules_per_request", "Joules of the blind optimum in hindsight."),
    "ratio": _of_service("energy_ratio_to_blind", "Joules so far over those of the blind optimum."),
    "regret": _of_service("regret_joules", "Joules so far above those of the blind optimum."),
    "weight": _metric("weight_ratio", "gauge", "Share decided for a member.", "namespace", "service", "member"),
    "desired": _of_variant("desired_replicas", "Replicas wanted."),
    "ready": _of_variant("ready_replicas", "Replicas that are ready."),
    "serving": _of_variant("serving_replicas", "Ready replicas that traffic is sent to; the others are silent."),
}  # fmt: skip


VARIANT_METRICS = ("desired", "ready", "serving")
SERVICE_METRICS = tuple(key for key, metric in METRICS.items() if metric.labels == ("namespace", "service"))


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """What one LLMService's last pass knew; None means unknown and yields no series. Shares lie in [0, 1].

    values: by key of `METRICS`, of those in `SERVICE_METRICS`. reachable: least and most satisfaction.
    """

    values: Mapping[str, float | None] = field(default_factory=dict)
    reachable: tuple[float, float] | None = None
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplicaFigures:
    """Replicas of one variant; None means unknown."""

    desired: int | None
    ready: int | None
    serving: int | None = None


class Telemetry:
    """The metrics of one operator process, in a registry of its own so that tests can have several."""

    def __init__(self, version: str = "") -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter
        self.registry = CollectorRegistry()
        self._services: dict[Ref, ServiceFigures] = {}
        self._pools: dict[Ref, Mapping[VariantKey, ReplicaFigures]] = {}
        self.decisions = self._counter("decisions")
        self.passes = self._histogram("passes")
        self.failures = self._counter("failures")
        self.plans = self._counter("plans")
        self.plan_seconds = self._histogram("plan_seconds")
        self.ticks = self._histogram("ticks")
        self.observations = self._histogram("observations")
        self.unreadable = self._counter("unreadable")
        self.writes = self._counter("writes")
        self.events = self._counter("events")
        self.queries = self._counter("queries")
        self.queries_tick = self._gauge("queries_tick")
        self.warnings = self._counter("warnings")
        self.series = self._gauge("series")
        self.input_age = self._gauge("input_age")
        self.lease = self._gauge("lease")
        self.transitions = self._counter("transitions")
        self._gauge("build").labels(version).set(1)
        self.registry.register(_Figures(self._services, self._pools))

    def set_service(self, ref: Ref, figures: ServiceFigures) -> None:
        """Show these figures of a service from now on."""
        self._services[ref] = figures

    def set_pool(self, ref: Ref, figures: Mapping[VariantKey, ReplicaFigures]) -> None:
        """Show these replicas of a pool from now on."""
        self._pools[ref] = dict(figures)

    def set_known(self, services: Iterable[Ref], pools: Iterable[Ref]) -> None:
        """Forget the figures of objects that are not among these any more."""
        for figures, known in ((self._services, set(services)), (self._pools, set(pools))):
            for ref in [ref for ref in figures if ref not in known]:
                del figures[ref]

    def count_decision(self, kind: str, reason: str) -> None:
        """Count one decision about an object of `kind`."""
        self.decisions.labels(kind, reason).inc()

    def render(self) -> bytes:
        """The exposition text of every metric."""
        return generate_latest(self.registry)

    def _counter(self, key: str) -> Counter:
        metric = METRICS[key]
        return Counter(metric.name.removesuffix("_total"), metric.help, metric.labels, registry=self.registry)

    def _gauge(self, key: str) -> Gauge:
        metric = METRICS[key]
        return Gauge(metric.name, metric.help, metric.labels, registry=self.registry)

    def _histogram(self, key: str) -> Histogram:
        metric = METRICS[key]
        return Histogram(metric.name, metric.help, metric.labels, registry=self.registry, buckets=DURATION_BUCKETS)


class _Figures(Collector):
    """Turns the kept figures into series at scrape time."""

    def __init__(
        self, services: Mapping[Ref, ServiceFigures], pools: Mapping[Ref, Mapping[VariantKey, ReplicaFigures]]
    ) -> None:
        self._services = services
        self._pools = pools

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = {
            key: GaugeMetricFamily(METRICS[key].name, METRICS[key].help, labels=METRICS[key].labels)
            for key in (*SERVICE_METRICS, "reachable", "weight", *VARIANT_METRICS)
        }
        for ref, figures in list(self._services.items()):
            labels = (ref.namespace, ref.name)
            for metric in SERVICE_METRICS:
                _add(families[metric], labels, figures.values.get(metric))
            for bound, level in zip(("least", "most"), figures.reachable or (), strict=False):
                _add(families["reachable"], (*labels, bound), level)
            for member, weight in figures.weights.items():
                _add(families["weight"], (*labels, member), weight)
        for ref, variants in list(self._pools.items()):
            for key, replicas in variants.items():
                labels4 = (ref.namespace, ref.name, key.member, key.variant)
                for metric in VARIANT_METRICS:
                    _add(families[metric], labels4, getattr(replicas, metric))
        yield from families.values()


def _add(family: GaugeMetricFamily, labels: tuple[str, ...], value: float | None) -> None:
    if value is not None:
        family.add_metric(labels, value)


def render_reference() -> str:
    """The reference page of all metrics, in Markdown."""
    lines = [
        "# Metrics",
        "",
        "Generated from `wattzoo.telemetry`; change it there. Served at `/metrics` on the metrics port. A figure that",
        "is unknown has no series. Histograms have the usual `_bucket`, `_sum` and `_count` series.",
        "",
        "| Metric | Type | Labels | Meaning |",
        "|---|---|---|---|",
    ]
    for metric in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
        lines.append(f"| `{metric.name}` | {metric.type} | {labels} | {metric.help} |")
    return "\n".join(lines) + "\n"
