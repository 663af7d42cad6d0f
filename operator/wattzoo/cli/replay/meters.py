"""What Prometheus would have said of a simulated step: counters of gateway, engines, accelerators and feedback.

A fleet's observation gives totals; the counters behind them are inferred. Requests by backend are the service's times
its weights. What a variant served follows from the sequences inside, for in the fluid law n = x O t0 / (1 - x w) has
one solution x; its power follows from x. Outcomes by member are the service's new ones, split by what members served
and by the accuracy that the observation reports of each. Counters have one sample per step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wattzoo.api.llm_service import PrometheusFeedback
from wattzoo.cli.replay.cluster import Cluster, Pod
from wattzoo.model import Ref, Sample, Series, Signal, TelemetrySnapshot
from wattzoo_policies.capacity.model import RequestShape, power_watts, work_seconds
from wattzoo_policies.placement.signals import FleetObservation, FleetService, FleetVariant
from wattzoo_policies.sim.fluid.outcomes import PRIOR_REQUESTS

WINDOW_SECONDS = 45.0
"""The operator's default window of raw samples."""
GROUPS = ("engine_gauges", "engine_counters", "engine_latency", "gpu_power", "gpu_energy", "gateway", "feedback")


@dataclass(slots=True)
class Counter:
    """A cumulative counter with its samples of the window."""

    value: float = 0.0
    samples: tuple[Sample, ...] = ()

    def add(self, amount: float, at_seconds: float) -> None:
        """Grow, and be scraped."""
        self.value += amount
        recent = (sample for sample in self.samples if at_seconds - sample.at_seconds <= WINDOW_SECONDS)
        self.samples = (*recent, Sample(self.value, at_seconds))


@dataclass(slots=True)
class PodMeters:
    """The counters of one server and its accelerators."""

    served: Counter = field(default_factory=Counter)
    prompt: Counter = field(default_factory=Counter)
    generated: Counter = field(default_factory=Counter)
    joules: Counter = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Metered:
    """One LLMService as its meters are labelled: its object, its feedback, and its members' own names."""

    ref: Ref
    feedback: PrometheusFeedback
    members: Mapping[str, str]


@dataclass(slots=True)
class Ledger:
    """Outcomes of one service so far: by member (satisfied, total), and the sums that were last seen."""

    satisfied: float = 0.0
    total: float = 0.0
    priors: Mapping[str, float | None] = field(default_factory=dict)
    accuracies: Mapping[str, float | None] = field(default_factory=dict)
    members: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Flow:
    """What one variant did in a step: requests/s served in all, their mean shape, and of whom."""

    served_rps: float
    shape: RequestShape
    by_service: Mapping[str, float]


class Meters:
    """All counters of a simulated fleet; `advance` once per step, before the operator looks."""

    def __init__(self, services: Mapping[str, Metered]) -> None:
        self._services = services
        self._pods: dict[tuple[str, str], PodMeters] = {}
        self._gateway: dict[tuple[str, str], Counter] = {}
        self._ledgers = {name: Ledger() for name in services}
        self._groups: dict[str, list[Series]] = {}
        self.at_seconds = 0.0

    def snapshot(self) -> TelemetrySnapshot:
        """What the operator reads now."""
        return TelemetrySnapshot(self.at_seconds, self._groups, {})

    def advance(
        self,
        observation: FleetObservation,
        cluster: Cluster,
        served_by: Mapping[str, Sequence[Pod]],
        at_seconds: float,
    ) -> frozenset[str]:
        """Count the step that has ended; `served_by` are the pods that served in it, by variant.

        Returns the services whose ledger has begun anew.
        """
        self.at_seconds = at_seconds
        self._groups = {name: [] for name in GROUPS}
        routed = {
            service.name: self._count_gateway(service, cluster, served_by, observation.interval_seconds)
            for service in observation.services
        }
        flows = {}
        for variant in observation.variants:
            flow = _estimate_flow(variant, len(served_by.get(variant.name, ())), observation.services, routed)
            flows[variant.name] = flow
            self._count_variant(variant, flow, cluster, served_by.get(variant.name, ()), observation.interval_seconds)
        renewed = {s.name for s in observation.services if self._count_outcomes(s, observation.variants, flows)}
        kept = {(own.deployment.namespace, pod.name) for own in cluster.replicas.values() for pod in own.staying}
        kept |= {(own.deployment.namespace, pod.name) for own in cluster.replicas.values() for pod in own.leaving}
        self._pods = {key: meters for key, meters in self._pods.items() if key in kept}
        return frozenset(renewed)

    def _count_gateway(
        self,
        service: FleetService,
        cluster: Cluster,
        served_by: Mapping[str, Sequence[Pod]],
        interval_seconds: float,
    ) -> dict[str, float]:
        """Count a service's requests by backend; returns its requests/s by variant.

        Without a route there is no counter, with an unknown rate no sample.
        """
        ref = self._services[service.name].ref
        names = {own.service: name for name, own in cluster.replicas.items()}
        weights = cluster.weights(ref)
        live = {names[b]: w for b, w in weights.items() if b in names and served_by.get(names[b])}
        total = sum(live.values())
        rates = {name: (service.rate_rps or 0.0) * weight / total for name, weight in live.items() if total}
        if service.rate_rps is None or not weights:
            return rates
        for index, backend in enumerate(weights):
            counter = self._gateway.setdefault((service.name, backend), Counter())
            counter.add(rates.get(names.get(backend, ""), 0.0) * interval_seconds, self.at_seconds)
            cluster_name = f"httproute/{ref.namespace}/{ref.name}/rule/0/backend/{index}"
            self._add("gateway", Signal.GATEWAY_REQUESTS, counter.samples, envoy_cluster_name=cluster_name)
        return rates

    def _count_variant(
        self,
        variant: FleetVariant,
        flow: Flow | None,
        cluster: Cluster,
        busy: Sequence[Pod],
        interval_seconds: float,
    ) -> None:
        """Count what the pods of one variant served and burned."""
        own, model = cluster.replicas[variant.name], variant.model
        names = {pod.name for pod in busy}
        for pod in (*own.staying, *own.leaving):
            is_busy = pod.name in names and flow is not None
            rate = flow.served_rps / len(busy) if is_busy and flow is not None else 0.0
            watts = model.startup_joules / max(1.0, model.startup_seconds)
            if pod.ready:
                watts = model.active_watts if pod in own.leaving else model.idle_watts
            if is_busy and flow is not None:
                watts = power_watts(model, flow.shape, rate)
            meters = self._pods.setdefault((own.deployment.namespace, pod.name), PodMeters())
            meters.joules.add(watts * interval_seconds, self.at_seconds)
            who = {"namespace": own.deployment.namespace, "pod": pod.name}
            self._add("gpu_energy", Signal.ENERGY_JOULES, meters.joules.samples, **who)
            if not pod.ready or flow is None:
                continue
            self._scrape_engine(meters, flow, rate * interval_seconds, who)
            inside = ((Signal.REQUESTS_RUNNING, variant.running), (Signal.REQUESTS_WAITING, variant.waiting))
            for name, amount in inside:
                each = (amount or 0.0) / len(busy) if is_busy else 0.0
                self._add("engine_gauges", name, (Sample(each, self.at_seconds),), **who)

    def _scrape_engine(self, meters: PodMeters, flow: Flow, requests: float, who: Mapping[str, str]) -> None:
        amounts = (
            (Signal.REQUESTS_SUCCEEDED, meters.served, requests),
            (Signal.PROMPT_TOKENS, meters.prompt, requests * flow.shape.input_tokens),
            (Signal.GENERATION_TOKENS, meters.generated, requests * flow.shape.output_tokens),
        )
        for name, counter, amount in amounts:
            counter.add(amount, self.at_seconds)
            self._add("engine_counters", name, counter.samples, **who)

    def _count_outcomes(
        self, service: FleetService, variants: Sequence[FleetVariant], flows: Mapping[str, Flow | None]
    ) -> bool:
        """Count a service's feedback by member; returns whether its ledger has begun anew."""
        ledger, metered = self._ledgers[service.name], self._services[service.name]
        if not ledger.members:
            ledger.priors = ledger.accuracies = dict(service.accuracies)
            ledger.members = dict.fromkeys(service.members, (0.0, 0.0))
        is_new = service.total < ledger.total or service.satisfied < ledger.satisfied
        new = 0.0 if is_new else service.total - ledger.total
        good = 0.0 if is_new else service.satisfied - ledger.satisfied
        served = dict.fromkeys(service.members, 0.0)
        for variant in variants:
            flow = flows.get(variant.name)
            if flow is not None and variant.member in served:
                served[variant.member] += flow.by_service.get(service.name, 0.0)
        if new > 0.0:
            _split_outcomes(ledger, service, served, new, good)
        ledger.satisfied, ledger.total, ledger.accuracies = service.satisfied, service.total, dict(service.accuracies)
        for member, (satisfied, total) in ledger.members.items():
            self._show_feedback(metered, metered.members[member], satisfied, total - satisfied)
        return is_new

    def _show_feedback(self, metered: Metered, member: str, satisfied: float, unsatisfied: float) -> None:
        feedback = metered.feedback
        for outcome, value in ((feedback.satisfied_value, satisfied), (f"not-{feedback.satisfied_value}", unsatisfied)):
            labels = {
                **feedback.match_labels,
                "__name__": feedback.metric,
                "namespace": metered.ref.namespace,
                feedback.member_label: member,
                feedback.outcome_label: outcome,
            }
            sample = (Sample(max(0.0, value), self.at_seconds),)
            self._groups["feedback"].append(Series(Signal.FEEDBACK, labels, sample))

    def _add(self, group: str, name: str, samples: tuple[Sample, ...], **labels: str) -> None:
        self._groups[group].append(Series(name, labels, samples))


def _estimate_flow(
    variant: FleetVariant,
    busy: int,
    services: Sequence[FleetService],
    routed: Mapping[str, Mapping[str, float]],
) -> Flow | None:
    """What a variant served, from the sequences that are inside; None while they or every shape are unknown."""
    shapes = {s.name: s.shape for s in services if s.shape is not None and variant.member in s.members}
    if variant.running is None or not shapes:
        return None
    rates = {name: routed.get(name, {}).get(variant.name, 0.0) for name in shapes}
    if not sum(rates.values()) > 0.0:  # nothing was sent by weights: what is inside is of whoever asks
        rates = {s.name: s.rate_rps or 1e-9 for s in services if s.name in shapes}
    total = sum(rates.values())
    shape = RequestShape(
        sum(rate * shapes[name].input_tokens for name, rate in rates.items()) / total,
        sum(rate * shapes[name].output_tokens for name, rate in rates.items()) / total,
    )
    served = 0.0
    if busy and variant.running > 0.0:
        inside, work = variant.running / busy, work_seconds(variant.model, shape)
        served = busy * inside / (shape.output_tokens * variant.model.t0_seconds + inside * work)
    return Flow(served, shape, {name: served * rate / total for name, rate in rates.items()})


def _split_outcomes(
    ledger: Ledger, service: FleetService, served: Mapping[str, float], new: float, good: float
) -> None:
    """Give each member its part of the new outcomes, so that their sums are the service's."""
    total = sum(served.values())
    shares = {name: rate / total if total > 0.0 else 1.0 / len(served) for name, rate in served.items()}
    counts = {name: new * share for name, share in shares.items()}
    guess = {name: _guess(ledger, service, name, count) for name, count in counts.items()}
    left = good - sum(guess.values())
    room = {name: (counts[name] - guess[name]) if left > 0.0 else guess[name] for name in counts}
    whole = sum(room.values())
    for name, count in counts.items():
        more = left * room[name] / whole if whole > 0.0 else 0.0
        satisfied, before = ledger.members[name]
        ledger.members[name] = (satisfied + min(count, max(0.0, guess[name] + more)), before + count)


def _guess(ledger: Ledger, service: FleetService, name: str, count: float) -> float:
    """Satisfied ones among a member's new outcomes, by the change of its estimated accuracy."""
    now, before, prior = service.accuracies.get(name), ledger.accuracies.get(name), ledger.priors.get(name)
    if now is None or count <= 0.0:
        return 0.0
    weight = 0.0 if prior is None else PRIOR_REQUESTS
    seen = ledger.members[name][1] + weight
    return min(count, max(0.0, now * (seen + count) - (now if before is None else before) * seen))
