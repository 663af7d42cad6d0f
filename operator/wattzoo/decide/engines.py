"""What the model servers and their accelerators say, joined with the pods that are there.

A series whose pod is gone is a ghost (Prometheus keeps answering for minutes) and is never looked up. A pod that has
just become ready is slow for reasons of its own, so its samples stay out of means until it is warm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wattzoo.api.conditions import Reason
from wattzoo.decide.series import Reading, estimate_latest, estimate_rate, is_plausible, sum_readings, unknown
from wattzoo.decisions import VariantSignals
from wattzoo.model import PodView, Series, Signal, TelemetrySnapshot, VariantState

WARM_UP_SECONDS = 30.0
POWER_HEADROOM = 1.2
"""A board may exceed its limit for moments; beyond this the unit or the label is wrong."""
SCRAPER_LABELS = frozenset({"job", "instance", "endpoint", "service", "prometheus", "prometheus_replica", "replica"})
"""Labels that say who scraped; two series that differ only in them are one series seen twice."""
GROUPS = ("engine_gauges", "engine_counters", "engine_latency", "gpu_power", "gpu_energy")


@dataclass(frozen=True, slots=True)
class PodSeries:
    """All series of pods, by (namespace, pod) and canonical name, each seen once."""

    by_pod: Mapping[tuple[str, str], Mapping[str, tuple[Series, ...]]]
    at_seconds: float
    stale_after_seconds: float

    def find(self, namespace: str, pod: str, name: str) -> tuple[Series, ...]:
        """The series of one pod under one name."""
        return self.by_pod.get((namespace, pod), {}).get(name, ())


def index_series(telemetry: TelemetrySnapshot, stale_after_seconds: float) -> PodSeries:
    """Group the snapshot's per-pod series; of duplicates by several scrapers the one with the newest sample counts."""
    by_pod = telemetry.derived.once(index_series, lambda: _group_by_pod(telemetry))
    return PodSeries(by_pod, telemetry.at_seconds, stale_after_seconds)


def _group_by_pod(telemetry: TelemetrySnapshot) -> dict[tuple[str, str], dict[str, tuple[Series, ...]]]:
    newest: dict[tuple[str, str], dict[str, dict[frozenset[tuple[str, str]], Series]]] = {}
    for group in GROUPS:
        for series in telemetry.groups.get(group, ()):
            pod = series.labels.get("pod")
            if not pod:
                continue
            names = newest.setdefault((series.labels.get("namespace", ""), pod), {}).setdefault(series.name, {})
            identity = frozenset((k, v) for k, v in series.labels.items() if k not in SCRAPER_LABELS)
            if identity not in names or _newest(series) > _newest(names[identity]):
                names[identity] = series
    return {pod: {name: tuple(found.values()) for name, found in names.items()} for pod, names in newest.items()}


def _newest(series: Series) -> float:
    return series.samples[-1].at_seconds if series.samples else float("-inf")


def warm_pods(state: VariantState, at_seconds: float) -> tuple[PodView, ...]:
    """Ready pods whose samples count: ready for at least the warm-up time."""
    return tuple(
        pod
        for pod in state.pods
        if pod.ready_since_seconds is not None
        and not pod.terminating
        and at_seconds - pod.ready_since_seconds >= WARM_UP_SECONDS
    )


def _sum_pods(index: PodSeries, namespace: str, pods: Iterable[PodView], name: str, *, rate: bool) -> Reading:
    readings = []
    for pod in pods:
        found = index.find(namespace, pod.name, name)
        if not found:
            return unknown(f"{pod.name} has no series {name}")
        for series in found:
            if rate:
                readings.append(estimate_rate(series, index.at_seconds, index.stale_after_seconds))
            else:
                readings.append(estimate_latest(series, index.at_seconds, index.stale_after_seconds))
    return sum_readings(readings)


def estimate_pod_watts(index: PodSeries, namespace: str, pod: PodView, max_watts: float | None) -> Reading:
    """Power of one pod: its energy counters' rate, else its power gauges; above 1.2 times the limit it is rejected."""
    energy = index.find(namespace, pod.name, Signal.ENERGY_JOULES)
    reading = unknown(f"{pod.name} has no energy series")
    if energy:
        reading = sum_readings(estimate_rate(s, index.at_seconds, index.stale_after_seconds) for s in energy)
    if not reading.known and (power := index.find(namespace, pod.name, Signal.POWER_WATTS)):
        reading = sum_readings(estimate_latest(s, index.at_seconds, index.stale_after_seconds) for s in power)
    limit = None if max_watts is None else POWER_HEADROOM * max_watts * max(1, pod.accelerators)
    if reading.value is not None and limit is not None and reading.value > limit:
        text = f"{pod.name} reports {reading.value:.0f} W, more than {limit:.0f} W: implausible"
        return unknown(text, Reason.NON_FINITE_SAMPLE)
    return reading


def estimate_variant(namespace: str, state: VariantState, index: PodSeries, max_watts: float | None) -> VariantSignals:
    """Signals of one variant. A warm pod without a fresh series makes the sum unknown: a part is not the whole."""
    warm = warm_pods(state, index.at_seconds)
    young = [p for p in state.pods if p.name in state.ready and p not in warm and _has_gauges(index, namespace, p)]
    seen = (*warm, *young)
    running = _sum_pods(index, namespace, seen, Signal.REQUESTS_RUNNING, rate=False)
    waiting = _sum_pods(index, namespace, seen, Signal.REQUESTS_WAITING, rate=False)
    served = _sum_pods(index, namespace, warm, Signal.REQUESTS_SUCCEEDED, rate=True)
    prompt = _sum_pods(index, namespace, warm, Signal.PROMPT_TOKENS, rate=True)
    generated = _sum_pods(index, namespace, warm, Signal.GENERATION_TOKENS, rate=True)
    more = _growth(index, namespace, warm, Signal.REQUESTS_RUNNING)
    queued = _growth(index, namespace, warm, Signal.REQUESTS_WAITING)
    power = {pod.name: estimate_pod_watts(index, namespace, pod, max_watts) for pod in state.pods}
    known = [reading for reading in power.values() if reading.known]
    serving = sum_readings(power[pod.name] for pod in warm)
    gauges = (series for pod in state.pods for series in index.find(namespace, pod.name, Signal.POWER_WATTS))
    told = (estimate_latest(series, index.at_seconds, index.stale_after_seconds) for series in gauges)
    # A gauge that lies is told even while the energy counters stand in for it.
    found = (reading.problem for reading in (*power.values(), *told))
    implausible = (problem for problem in found if problem and problem.reason is Reason.NON_FINITE_SAMPLE)
    missing = (reading.problem for reading in ((running, waiting) if seen else ()) + ((served,) if warm else ()))
    problems = tuple(dict.fromkeys(problem for problem in (*missing, *implausible) if problem is not None))
    return VariantSignals(
        running=running.value,
        waiting=waiting.value,
        served_rps=served.value,
        arrived_rps=None if served.value is None else max(0.0, served.value + more + queued),
        input_tokens=_ratio(prompt.value, served.value, more),
        output_tokens=_ratio(generated.value, served.value, more / 2.0),
        watts=sum_readings(known).value,
        serving_watts=serving.value,
        warm=len(warm),
        silent=sum(1 for pod in warm if not pod.serving),
        observed_at_seconds=running.at_seconds,
        energy_at_seconds=sum_readings(known).at_seconds,
        covered=sum(1 for pod in warm if power[pod.name].known),
        problems=problems,
    )


def _has_gauges(index: PodSeries, namespace: str, pod: PodView) -> bool:
    found = index.find(namespace, pod.name, Signal.REQUESTS_RUNNING)
    return bool(found) and estimate_latest(found[0], index.at_seconds, index.stale_after_seconds).known


def _growth(index: PodSeries, namespace: str, pods: Sequence[PodView], name: str) -> float:
    """Requests per second by which more came to run (or to wait) than ceased to; unknown counts as none."""
    growth = 0.0
    for pod in pods:
        for series in index.find(namespace, pod.name, name):
            if not series.samples or not all(is_plausible(sample.value) for sample in series.samples):
                continue
            first, last = series.samples[0], series.samples[-1]
            if last.at_seconds > first.at_seconds:
                growth += (last.value - first.value) / (last.at_seconds - first.at_seconds)
    return growth


def _ratio(amount: float | None, ended: float | None, more: float) -> float | None:
    """Tokens per request, by requests per second that ended and that were begun on top of those.

    Prompts are read when a request begins and answers written while it runs. Divided by what ended alone, a server that
    fills up would seem to get requests of thousands of tokens, and replicas would be planned for them.
    """
    if amount is None or ended is None or ended <= 0.0:
        return None
    return amount / max(ended + more, ended / 2.0)
