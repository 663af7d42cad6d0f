"""MESS+ as published, request by request, over replicas that autoscalers keep: routing without a view of the fleet.

The virtual queue of each service moves with its outcomes and the rule is played forward through the requests of the
coming interval (`accuracy.mess_plus` says how and why); the weights are the shares of its choices. Its joules are those
of a request at the knee of the variant each member was given by hand: it never asks what the replicas idle or start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from wattzoo_policies.accuracy.virtual_queue import MAX_ITERATIONS, Arm, estimate_choices, estimate_queue, make_hull
from wattzoo_policies.baselines.fleet import Packing, ScaledState, Shares, decide_scaled, variants_named
from wattzoo_policies.baselines.hpa import HpaParameters
from wattzoo_policies.baselines.hpa_fleet import HpaScaler
from wattzoo_policies.capacity.model import RequestShape, capacity_rps, joules_per_request
from wattzoo_policies.placement.signals import FleetDecision, FleetObservation, FleetService, FleetVariant

ETA = 0.9
KNOWN_NOTHING = 0.5
"""Accuracy of a member without an estimate: neither good nor bad."""


@dataclass(frozen=True, slots=True)
class ServiceQueue:
    """The published controller's state of one service: queue, outcomes counted so far, last known shape."""

    queue: float = 0.0
    satisfied: float = 0.0
    total: float = 0.0
    shape: RequestShape | None = None


@dataclass(frozen=True, slots=True)
class MessState:
    """Queues by service, and the autoscalers."""

    queues: Mapping[str, ServiceQueue] = field(default_factory=dict)
    scaled: ScaledState = field(default_factory=ScaledState)


@dataclass(frozen=True, slots=True)
class MessHpa:
    """One variant per member; `v_per_joule` and `exploration` as published.

    The published exploration asks all members at once; here an explored request goes to one, evenly drawn, which is
    cheaper. packing: see `ScaledFleet`.
    """

    variants: tuple[str, ...]
    parameters: Mapping[str, HpaParameters]
    v_per_joule: float = 1e-4
    exploration: float = 0.1
    packing: Packing | None = None
    name: str = "mess-plus-hpa"

    def initial_state(self) -> MessState:
        """Return the state before the first observation."""
        return MessState()

    def decide(
        self, state: MessState, observation: FleetObservation, rng: np.random.Generator
    ) -> tuple[MessState, FleetDecision]:
        """Decide for the coming interval; what is random in the rule is taken in the mean."""
        del rng
        variants = variants_named(observation, self.variants)
        queues, shares = {}, {}
        for service in observation.services:
            queue = _count(state.queues.get(service.name, ServiceQueue()), service)
            queues[service.name] = queue
            shares[service.name] = self._shares(queue, service, variants, observation.interval_seconds)
        scaler = HpaScaler(self.parameters)
        scaled, decision = decide_scaled(state.scaled, observation, shares, scaler, self.packing)
        return MessState(queues, scaled), decision

    def _shares(
        self, queue: ServiceQueue, service: FleetService, variants: tuple[FleetVariant, ...], interval_seconds: float
    ) -> Shares:
        """Return the shares of the rule's choices over the coming interval; even while nothing can be compared."""
        mine = [variant for variant in variants if variant.member in service.members]
        arms = [] if queue.shape is None else [_arm(variant, service, queue.shape) for variant in mine]
        known = [arm for arm in arms if arm is not None]
        if not known:
            return {variant.name: 1.0 / len(mine) for variant in mine}
        requests = max(1, math.ceil((service.rate_rps or 0.0) * interval_seconds))
        hull, breaks = make_hull(known, self.v_per_joule)
        counts, _ = estimate_choices(queue.queue, service.alpha, hull, breaks, requests)
        explored = self._exploration_share(queue.total, requests)
        shares = {arm.name: explored / len(known) for arm in known}
        for arm, count in zip(hull, counts, strict=True):
            shares[arm.name] += (1.0 - explored) * count / requests
        return shares

    def _exploration_share(self, seen: float, requests: int) -> float:
        t = seen + 1.0 + np.arange(min(requests, MAX_ITERATIONS))
        return float(np.minimum(1.0, self.exploration / t**0.25).mean())


def _count(queue: ServiceQueue, service: FleetService) -> ServiceQueue:
    """Move the queue by the outcomes since the last observation; a counter that fell begins anew."""
    satisfied, total = service.satisfied - queue.satisfied, service.total - queue.total
    if satisfied < 0.0 or total < 0.0:
        satisfied, total = service.satisfied, service.total
    moved = estimate_queue(queue.queue, service.alpha, round(min(satisfied, total)), round(total))
    shape = service.shape if service.shape is not None else queue.shape
    return replace(queue, queue=moved, satisfied=service.satisfied, total=service.total, shape=shape)


def _arm(variant: FleetVariant, service: FleetService, shape: RequestShape) -> Arm | None:
    """Return the member as the rule sees it; `None` for a variant that cannot keep the bounds."""
    rate = capacity_rps(variant.model, shape, service.latency, ETA)
    joules = None if rate is None else joules_per_request(variant.model, shape, rate)
    if joules is None:
        return None
    accuracy = service.accuracies.get(variant.member)
    return Arm(variant.name, joules, KNOWN_NOTHING if accuracy is None else accuracy)
