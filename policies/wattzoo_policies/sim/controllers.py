"""Controllers for the closed loop: the package's laws and baselines, fed with what the plant shows at a tick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wattzoo_policies.baselines.hpa import HpaObservation, HpaParameters, HpaState, decide_hpa
from wattzoo_policies.capacity.model import LatencyTarget, RequestShape, capacity_rps, joules_per_request
from wattzoo_policies.capacity.replicas import (
    average_shares,
    estimate_max_shares,
    estimate_peak_rps,
    estimate_variant_demand,
)
from wattzoo_policies.limits.replicas import make_default_replica_law
from wattzoo_policies.protocols import ControllerPolicy
from wattzoo_policies.signals import (
    Decision,
    DecisionRequest,
    Member,
    MemberCondition,
    Observation,
    OutcomeCounter,
    ReplicaHistory,
    ReplicaRequest,
    ServedCounter,
    VariantDemand,
)
from wattzoo_policies.sim.scenario import LoopView, Scenario, VariantView, Weights

MIN_COMPLETED = 10
"""Requests of a variant below which their mean tokens are taken from the scenario instead of the measurement."""


@dataclass(slots=True)
class FixedWeights:
    """The same shares of variants for every service, for ever."""

    weights: Weights
    interval_seconds: float = 1e9

    def decide(self, view: LoopView) -> Weights:
        """Return the shares."""
        del view
        return self.weights


@dataclass(slots=True)
class FixedReplicas:
    """A fixed number of replicas by variant (static provisioning)."""

    replicas: Mapping[str, int]
    interval_seconds: float = 1e9

    def decide(self, view: LoopView) -> Mapping[str, int]:
        """Return the numbers."""
        del view
        return self.replicas


@dataclass(slots=True)
class PolicyWeights:
    """A controller policy per service; the share of a member goes to its variants by ready capacity.

    shape: mean tokens used for capacities and joules before anything has been measured.
    """

    policy: ControllerPolicy[Any]
    scenario: Scenario
    shape: RequestShape
    interval_seconds: float = 15.0
    seed: int = 0
    priors: tuple[Member, ...] = ()
    decisions: dict[str, Decision] = field(default_factory=dict)
    planned: dict[str, dict[str, float]] = field(default_factory=dict)
    _states: dict[str, Any] = field(default_factory=dict)
    _last_view: LoopView | None = None
    _count: int = 0

    def decide(self, view: LoopView) -> Weights:
        """Update every service's state from the counters and return its new weights."""
        joules = self._member_joules(view)
        before, self._last_view = self._last_view, view
        self._count += 1
        max_shares = self._max_shares(view, before)
        weights: dict[str, Mapping[str, float]] = {}
        for service, target in self.scenario.services.items():
            state = self._states.get(service)
            if state is None:
                state = self.policy.initial_state(self.priors or tuple(Member(name) for name in joules))
            counters = tuple(
                OutcomeCounter(member, service, satisfied, float(good if satisfied else total - good))
                for (of, member), (good, total) in view.outcomes.items()
                if of == service
                for satisfied in (True, False)
            )
            served = tuple(
                ServedCounter(member, service, float(number))
                for (of, member), number in view.served.items()
                if of == service
            )
            state = self.policy.update(state, Observation(view.at_seconds, target.alpha, counters, served))
            self._states[service] = state
            arrived = view.arrivals[service] - before.arrivals[service] if before else None
            request = DecisionRequest(
                members=tuple(
                    MemberCondition(name, _ready(view, name) > 0, joules[name], max_shares.get(name)) for name in joules
                ),
                alpha=target.alpha,
                expected_requests=arrived,
                at_seconds=view.at_seconds,
                safest_member=target.safest_member,
                current_weights=self.decisions[service].weights if service in self.decisions else None,
            )
            rng = np.random.default_rng((self.seed, self._count, round(view.at_seconds * 1000)))
            decision = self.policy.decide(state, request, rng)
            self.decisions[service] = decision
            self.planned[service] = average_shares(self.planned.get(service, {}), decision.wish or decision.weights)
            weights[service] = self._split(view, decision.weights)
        return weights

    def _max_shares(self, view: LoopView, before: LoopView | None) -> dict[str, float]:
        """Return the share of all requests that each member's ready replicas carry, at the last interval's rate."""
        if before is None or view.at_seconds <= before.at_seconds:
            return {}
        arrived = sum(view.arrivals.values()) - sum(before.arrivals.values())
        variants = [observe_variant(seen, None, self.shape, self.scenario) for seen in view.variants.values()]
        return estimate_max_shares(variants, arrived / (view.at_seconds - before.at_seconds))

    def _split(self, view: LoopView, shares: Mapping[str, float]) -> dict[str, float]:
        split: dict[str, float] = {}
        for name, seen in view.variants.items():
            share = shares.get(seen.variant.member, 0.0)
            ready = _ready(view, seen.variant.member)
            if share > 0.0 and ready:
                split[name] = share * seen.counts.ready / ready
        return split

    def _member_joules(self, view: LoopView) -> dict[str, float | None]:
        """Return the model's joules per request at the knee, as the operator compares members.

        A measured average would make a member with little traffic look dear because it has little traffic.
        """
        latency = strictest(self.scenario)
        joules: dict[str, float | None] = {}
        for name in dict.fromkeys(seen.variant.member for seen in view.variants.values()):
            mine = [seen for seen in view.variants.values() if seen.variant.member == name]
            planned = [planned_joules(seen, self.shape, latency) for seen in mine]
            joules[name] = min((value for value in planned if value is not None), default=None)
        return joules


@dataclass(slots=True)
class DemandReplicas:
    """The operator's replica rule: demand from the wished shares and the measured rates, reserve, stabilisation.

    rate_seconds: the window over which a rate is measured. horizon_seconds, lead_seconds: see `estimate_peak_rps`.
    """

    scenario: Scenario
    weights: PolicyWeights
    shape: RequestShape
    interval_seconds: float = 15.0
    reserve: float = 0.3
    down_stabilization_seconds: float = 300.0
    rate_seconds: float = 15.0
    horizon_seconds: float = 60.0
    lead_seconds: float = 0.0
    _history: ReplicaHistory = field(default_factory=ReplicaHistory)
    _arrivals: list[tuple[float, Mapping[str, int]]] = field(default_factory=list)
    _rates: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def decide(self, view: LoopView) -> Mapping[str, int]:
        """Return replicas by variant."""
        rates = self._peak_rates(view)
        wishes = [(rates[service], shares) for service, shares in self.weights.planned.items()]
        demand = estimate_variant_demand(wishes, self._splits())
        request = ReplicaRequest(
            view.at_seconds,
            tuple(
                observe_variant(seen, demand.get(name), self.shape, self.scenario)
                for name, seen in view.variants.items()
            ),
            self.scenario.max_accelerators,
        )
        law = make_default_replica_law(self.reserve, self.down_stabilization_seconds)
        self._history, plan = law(self._history, request)
        return plan.replicas()

    def _peak_rates(self, view: LoopView) -> dict[str, float | None]:
        at = view.at_seconds
        self._arrivals.append((at, view.arrivals))
        then, before = next(
            ((t, a) for t, a in self._arrivals if t >= at - self.rate_seconds - 1e-9), self._arrivals[0]
        )
        peaks: dict[str, float | None] = {}
        for service, count in view.arrivals.items():
            samples = self._rates.setdefault(service, [])
            if at > then:
                samples.append((at, (count - before[service]) / (at - then)))
            peaks[service] = estimate_peak_rps(samples, at, self.horizon_seconds, self.lead_seconds)
        return peaks

    def _splits(self) -> dict[str, dict[str, float]]:
        splits: dict[str, dict[str, float]] = {}
        for variant in self.scenario.variants:
            splits.setdefault(variant.member, {})[variant.name] = 1.0
        return {member: {name: 1.0 / len(names) for name in names} for member, names in splits.items()}


@dataclass(slots=True)
class HpaReplicas:
    """One HorizontalPodAutoscaler per variant on requests running and waiting per pod."""

    parameters: Mapping[str, HpaParameters]
    interval_seconds: float
    _states: dict[str, HpaState] = field(default_factory=dict)

    def decide(self, view: LoopView) -> Mapping[str, int]:
        """Return replicas by variant that has an autoscaler."""
        desired = {}
        for name, parameters in self.parameters.items():
            counts = view.variants[name].counts
            loads = zip(counts.running_by_replica, counts.waiting_by_replica, strict=True)
            observation = HpaObservation(
                replicas=counts.current,
                metrics=tuple(float(running + waiting) for running, waiting in loads),
                missing=counts.starting,
            )
            state = self._states.get(name, HpaState())
            self._states[name], desired[name] = decide_hpa(state, observation, parameters, view.at_seconds)
        return desired


def measured_shape(seen: VariantView, fallback: RequestShape) -> RequestShape:
    """Return mean tokens of the requests that went to a variant, or the fallback before there are ten."""
    if seen.routed < MIN_COMPLETED:
        return fallback
    return RequestShape(seen.input_tokens / seen.routed, max(1.0, seen.output_tokens / seen.routed))


def observe_variant(
    seen: VariantView, demand_rps: float | None, fallback: RequestShape, scenario: Scenario
) -> VariantDemand:
    """Return what the replica rule and the capacity cap want to know of a variant."""
    target, variant = strictest(scenario), seen.variant
    return VariantDemand(
        variant=variant.name,
        demand_rps=demand_rps,
        capacity_rps=capacity_rps(variant.model, measured_shape(seen, fallback), target),
        current_replicas=seen.counts.current,
        ready_replicas=seen.counts.ready,
        min_replicas=variant.min_replicas,
        max_replicas=variant.max_replicas,
        accelerators_per_replica=variant.model.accelerators,
        accelerator_pool=variant.accelerator_pool or None,
        member=variant.member,
    )


def strictest(scenario: Scenario) -> LatencyTarget:
    """Return the latency bounds that satisfy every service."""
    target = LatencyTarget()
    for service in scenario.services.values():
        target = target.strictest(service.latency)
    return target


def planned_joules(seen: VariantView, fallback: RequestShape, target: LatencyTarget) -> float | None:
    """Return joules per request at the SLO knee according to the model."""
    shape = measured_shape(seen, fallback)
    rate = capacity_rps(seen.variant.model, shape, target)
    return None if rate is None else joules_per_request(seen.variant.model, shape, rate)


def _ready(view: LoopView, member: str) -> int:
    return sum(seen.counts.ready for seen in view.variants.values() if seen.variant.member == member)
