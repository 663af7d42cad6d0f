"""A whole service in the plant: requests, weighted routes, replicas that come and go, and whoever decides about them.

The controllers see at their ticks what the running operator would see (counters, replicas, requests inside), and the
result says energy together with latency and satisfaction, since none means anything without the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count

import numpy as np

from wattzoo_policies.capacity.model import LatencyTarget
from wattzoo_policies.sim.fleet import Fleet, VariantEnergy
from wattzoo_policies.sim.plant import Replica
from wattzoo_policies.sim.request import EventKind, PlantEvent, PlantRequest
from wattzoo_policies.sim.scenario import (
    GRACE_REQUESTS,
    LoopMoment,
    LoopRequest,
    LoopResult,
    LoopView,
    PodLife,
    ReplicasController,
    Scenario,
    ServiceOutcome,
    VariantView,
    Weights,
    WeightsController,
)


def run_closed_loop(
    scenario: Scenario,
    weights: WeightsController,
    replicas: ReplicasController,
    rng: np.random.Generator,
    moment_seconds: float = 5.0,
) -> LoopResult:
    """Run a scenario under two controllers; `moment_seconds` is the spacing of the timeline."""
    loop = _Loop(scenario, rng)
    for variant in scenario.variants:
        for _ in range(variant.initial_replicas):
            loop.fleet.start(variant.name, 0.0, started=True)

    def decide_weights(at: float) -> None:
        loop.set_weights(weights.decide(loop.observe_view(at)))

    def decide_replicas(at: float) -> None:
        for variant, number in replicas.decide(loop.observe_view(at)).items():
            loop.fleet.scale(variant, number, at)

    loop.repeat(decide_weights, weights.interval_seconds, 0)
    loop.repeat(decide_replicas, replicas.interval_seconds, 1)
    loop.repeat(loop.note_moment, moment_seconds, 2)
    return loop.run()


def replay_closed_loop(
    scenario: Scenario,
    pods: tuple[PodLife, ...],
    weights: tuple[tuple[float, Weights], ...],
    rng: np.random.Generator,
    moment_seconds: float = 5.0,
) -> LoopResult:
    """Run a scenario on recorded decisions: pods with their real lives, and weights by the time they took effect.

    The variants' replica bounds and initial replicas do not matter here. A pod that was never ready burns start power
    until it is gone; one that terminates drains, and holds its accelerators until it is gone. One that falls silent
    finishes what is inside and then idles, ready to be woken.
    """
    loop = _Loop(scenario, rng, begin_seconds=min((0.0, *(pod.started_seconds for pod in pods))))
    if loop.begin_seconds < 0.0:
        loop.act(0.0, -1, loop.note_before)
    for pod in pods:
        loop.add_pod(pod)
    for at, step in weights:
        loop.act(at, 1, lambda _, step=step: loop.set_weights(step))  # type: ignore[misc]
    loop.repeat(loop.note_moment, moment_seconds, 2)
    return loop.run()


class _Loop:
    """State of one run: the fleet, the routes, the counters and the agenda of timed actions."""

    def __init__(self, scenario: Scenario, rng: np.random.Generator, begin_seconds: float = 0.0) -> None:
        self.scenario = scenario
        self.rng = rng
        self.fleet = Fleet({variant.name: variant for variant in scenario.variants}, scenario.linger_seconds)
        self.begin_seconds = begin_seconds
        self.weights: dict[str, Mapping[str, float]] = {}
        self.agenda: list[tuple[float, int, int, Callable[[float], None]]] = []
        self.serial = count()
        self.before: dict[str, VariantEnergy] = {}
        self.inside: dict[tuple[Replica, int], LoopRequest] = {}
        self.arrivals = dict.fromkeys(scenario.services, 0)
        self.outcomes: dict[tuple[str, str], tuple[int, int]] = {}
        self.served: dict[tuple[str, str], int] = {}
        self.routed = {variant.name: [0, 0, 0, 0] for variant in scenario.variants}  # requests, completed, in, out
        self.failed = 0
        self.latencies: list[tuple[float, float | None, LatencyTarget]] = []
        self.debts = dict.fromkeys(scenario.services, (0, 0))
        self.worst: dict[str, float | None] = dict.fromkeys(scenario.services)
        self.timeline: list[LoopMoment] = []

    def act(self, at: float, order: int, action: Callable[[float], None]) -> None:
        """Put an action on the agenda; of equal times the lower order first."""
        heapq.heappush(self.agenda, (at, order, next(self.serial), action))

    def repeat(self, action: Callable[[float], None], interval: float, order: int) -> None:
        """Do something at 0 and every interval until the scenario ends."""

        def again(at: float, turn: int) -> None:
            action(at)
            if (turn + 1) * interval < self.scenario.end_seconds:
                self.act((turn + 1) * interval, order, lambda at: again(at, turn + 1))

        self.act(0.0, order, lambda at: again(at, 0))

    def add_pod(self, pod: PodLife) -> None:
        """Put a recorded pod's life on the agenda."""
        model = self.fleet.variants[pod.variant].model
        end = self.scenario.end_seconds
        ready = pod.ready_seconds if pod.ready_seconds is not None else end + 1e9
        model = model.with_startup(max(0.0, ready - pod.started_seconds))

        def start(at: float) -> None:
            replica = self.fleet.start(pod.variant, at, model=model)
            for when, serving in pod.serving:
                self.act(max(at, when), 0, partial(self.set_serving, replica, serving))
            if pod.terminating_seconds is not None:
                gone = pod.gone_seconds
                linger = 0.0 if gone is None else max(0.0, gone - pod.terminating_seconds)
                self.act(max(at, pod.terminating_seconds), 0, lambda at: replica.drain(at, linger))
            elif pod.gone_seconds is not None:
                self.act(max(at, pod.gone_seconds), 0, lambda at: self.collect_lost(replica.kill(at)))

        self.act(pod.started_seconds, 0, start)

    def set_serving(self, replica: Replica, serving: bool, _at: float) -> None:
        """Wake or silence a replica."""
        self.fleet.set_serving(replica, serving=serving)

    def collect_lost(self, tickets: tuple[int, ...]) -> None:
        """Count requests that were cut."""
        self.failed += len(tickets)

    def set_weights(self, weights: Weights) -> None:
        """Take over weights of the services that are named with any."""
        self.weights |= {service: shares for service, shares in weights.items() if shares}

    def run(self) -> LoopResult:
        """Play everything, complete what is inside at the end, and sum up."""
        for request in self.scenario.requests:
            self.act_until(request.at_seconds)
            self.arrive(request)
        self.act_until(self.scenario.end_seconds)
        self.collect(self.scenario.end_seconds)
        energy = {name: self.fleet.energy(name, self.scenario.end_seconds) for name in self.fleet.variants}
        energy = {name: _minus(after, self.before[name]) if self.before else after for name, after in energy.items()}
        self.agenda.clear()
        at = self.scenario.end_seconds
        while self.fleet.open_requests() and at < self.scenario.end_seconds + 3600.0:
            at += 10.0
            self.collect(at)
        self.failed += self.fleet.open_requests()
        return self.result(energy)

    def act_until(self, until: float) -> None:
        """Do what is on the agenda up to a moment, moving the fleet along."""
        while self.agenda and self.agenda[0][0] <= until:
            at, _, _, action = heapq.heappop(self.agenda)
            self.collect(at)
            action(at)

    def note_before(self, at: float) -> None:
        """Remember what was burnt before the run's zero."""
        self.before = {name: self.fleet.energy(name, at) for name in self.fleet.variants}

    def arrive(self, request: LoopRequest) -> None:
        """Route one request."""
        self.arrivals[request.service] += 1
        forms = {
            name: PlantRequest(request.request_id, request.input_tokens, request.output_tokens[variant.member])
            for name, variant in self.fleet.variants.items()
        }
        taken = self.fleet.submit(self.weights.get(request.service, {}), forms, request.at_seconds, self.rng)
        if taken is None:
            self.failed += 1
            return
        variant, replica, ticket = taken
        self.inside[replica, ticket] = request
        row = self.routed[variant]
        row[0] += 1
        row[2] += request.input_tokens
        row[3] += forms[variant].output_tokens
        place = request.service, self.fleet.variants[variant].member
        self.served[place] = self.served.get(place, 0) + 1

    def collect(self, at: float) -> None:
        """Move the fleet and count what completed, in order of time."""
        for variant, replica, event in self.fleet.advance(at):
            if event.kind is EventKind.COMPLETED:
                self.complete(variant, self.inside.pop((replica, event.ticket)), event)

    def complete(self, variant: str, request: LoopRequest, event: PlantEvent) -> None:
        """Book latency and outcome of one answer."""
        self.routed[variant][1] += 1
        target = self.scenario.services[request.service]
        self.latencies.append((event.ttft_seconds, event.tpot_seconds, target.latency))
        member = self.fleet.variants[variant].member
        good = request.correct[member]
        satisfied, total = self.outcomes.get((request.service, member), (0, 0))
        self.outcomes[request.service, member] = (satisfied + good, total + 1)
        satisfied, total = self.debts[request.service]
        self.debts[request.service] = satisfied, total = satisfied + good, total + 1
        if total >= GRACE_REQUESTS:
            deficit = target.alpha - satisfied / total
            self.worst[request.service] = max(self.worst[request.service] or 0.0, deficit)

    def observe_view(self, at: float) -> LoopView:
        """Return what controllers see."""
        views = {}
        for name, variant in self.fleet.variants.items():
            requests, completed, tokens_in, tokens_out = self.routed[name]
            joules = self.fleet.energy(name, at).joules
            counts = self.fleet.counts(name)
            views[name] = VariantView(variant, counts, requests, completed, tokens_in, tokens_out, joules)
        return LoopView(at, views, dict(self.arrivals), dict(self.outcomes), dict(self.served))

    def note_moment(self, at: float) -> None:
        """Add a row to the timeline."""
        counts = {name: self.fleet.counts(name) for name in self.fleet.variants}
        replicas = {name: (count.ready, count.starting) for name, count in counts.items()}
        self.timeline.append(LoopMoment(at, self.fleet.power_watts(at), replicas, dict(self.weights)))

    def result(self, energy: Mapping[str, VariantEnergy]) -> LoopResult:
        """Sum up."""
        ttfts = [ttft for ttft, _, _ in self.latencies]
        tpots = [tpot for _, tpot, _ in self.latencies if tpot is not None]
        return LoopResult(
            energy=energy,
            requests=len(self.scenario.requests),
            failed=self.failed,
            ttft_attainment=_share(
                [_within(ttft, target.ttft_seconds) for ttft, _, target in self.latencies], self.failed
            ),
            tpot_attainment=_share(
                [_within(tpot, target.tpot_seconds) for _, tpot, target in self.latencies if tpot is not None],
                self.failed,
            ),
            ttft_p95_seconds=float(np.quantile(ttfts, 0.95)) if ttfts else None,
            tpot_p95_seconds=float(np.quantile(tpots, 0.95)) if tpots else None,
            services={
                name: ServiceOutcome(satisfied, total, satisfied / total if total else None, self.worst[name])
                for name, (satisfied, total) in self.debts.items()
            },
            timeline=tuple(self.timeline),
        )


def _minus(after: VariantEnergy, before: VariantEnergy) -> VariantEnergy:
    return VariantEnergy(
        after.active_joules - before.active_joules,
        after.idle_joules - before.idle_joules,
        after.start_joules - before.start_joules,
        after.replica_seconds - before.replica_seconds,
        after.starts - before.starts,
    )


def _within(value: float, bound: float | None) -> bool:
    return bound is None or value <= bound


def _share(hits: list[bool], failed: int) -> float | None:
    return sum(hits) / (len(hits) + failed) if hits or failed else None
