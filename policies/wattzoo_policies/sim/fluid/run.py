"""Runs one fleet controller through a scenario: what it decides is obeyed, what it sees is the past."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from wattzoo_policies.capacity.model import RequestShape
from wattzoo_policies.placement.signals import (
    FleetController,
    FleetDecision,
    FleetObservation,
    FleetService,
    FleetVariant,
)
from wattzoo_policies.sim.fluid.outcomes import Ledger
from wattzoo_policies.sim.fluid.plant import Flows, FluidPlant
from wattzoo_policies.sim.fluid.result import FluidResult, ServiceResult, worst_hour
from wattzoo_policies.sim.fluid.scenario import FloatArray, FluidScenario

S = TypeVar("S")

Clock = Callable[[], float]
Progress = Callable[[int, int], None]


def run_fluid(
    scenario: FluidScenario,
    controller: FleetController[S],
    rng: np.random.Generator,
    *,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> FluidResult:
    """Run a scenario; `clock` (seconds) times the decisions, `progress` gets (steps done, all steps) every 20 steps.

    The demand is part of the scenario, so every controller gets the same; the generator draws routes and outcomes.
    """
    run = _Run(scenario, rng)
    state = controller.initial_state()
    steps = run.demand.steps
    for step in range(steps):
        run.begin(step)
        observation = run.observe(step)
        begun = clock() if clock else 0.0
        state, decision = controller.decide(state, observation, rng)
        if clock:
            run.note_seconds(clock() - begun, planned=decision.planned)
        run.obey(decision)
        run.serve(step)
        if progress is not None and (step % 20 == 19 or step + 1 == steps):
            progress(step + 1, steps)
    return run.result(controller.name)


class _Run:
    """The plant, its ledger and the sums of one run."""

    def __init__(self, scenario: FluidScenario, rng: np.random.Generator) -> None:
        self.scenario = scenario
        self.rng = rng
        self.demand = scenario.demand.mirrored(scenario.warmup_steps)
        self.warmup = self.demand.steps - scenario.demand.steps
        self.plant = FluidPlant(scenario)
        self.ledger = Ledger(scenario)
        self.index = {variant.name: number for number, variant in enumerate(scenario.variants)}
        self.weights = np.zeros((len(scenario.services), len(scenario.variants)))
        self.flows: Flows | None = None
        self.shapes: list[RequestShape | None] = [service.shape for service in scenario.services]
        counted, services, variants = scenario.demand.steps, len(scenario.services), len(scenario.variants)
        self.joules = np.zeros((3, counted))
        self.within = np.zeros((3, services))
        self.accelerators = np.zeros((counted, len(scenario.pools)))
        self.ready = np.zeros((counted, variants))
        self.serving = np.zeros((counted, variants))
        self.arrived, self.served = np.zeros((counted, services)), np.zeros((counted, services))
        self.outcomes, self.correct = np.zeros((counted, services)), np.zeros((counted, services))
        self.lost = 0.0
        self.backlog_before = 0.0
        self.starts_before = 0
        self.plan_seconds: list[float] = []
        self.decide_seconds = 0.0

    def begin(self, step: int) -> None:
        """Begin a step; with the first counted one the ledger starts anew."""
        self.plant.begin_step()
        if step == self.warmup:
            self.ledger.restart()
            self.backlog_before = float(self.plant.backlog.sum())
            self.starts_before = self.plant.starts

    def note_seconds(self, seconds: float, *, planned: bool) -> None:
        """Remember how long a decision took."""
        self.decide_seconds += seconds
        if planned:
            self.plan_seconds.append(seconds)

    def observe(self, step: int) -> FleetObservation:
        """Return what a controller sees before the step: the interval that has ended, and replicas now."""
        dt = self.demand.step_seconds
        return FleetObservation(
            at_seconds=(step - self.warmup) * dt,
            interval_seconds=dt,
            pools=self.scenario.pools,
            variants=tuple(self._variant(number) for number in range(len(self.scenario.variants))),
            services=tuple(self._service(number, step - 1) for number in range(len(self.scenario.services))),
        )

    def _variant(self, number: int) -> FleetVariant:
        variant, plant, flows = self.scenario.variants[number], self.plant, self.flows
        return FleetVariant(
            name=variant.name,
            member=variant.member,
            pool=variant.pool,
            model=variant.model,
            replicas=int(plant.replicas[number]),
            ready=int(plant.ready[number]),
            serving=int(plant.serving[number]),
            terminating=int(plant.terminating[number]),
            min_replicas=variant.min_replicas,
            max_replicas=variant.max_replicas,
            running=None if flows is None else float(flows.sequences[number]),
            waiting=None if flows is None else float(plant.backlog[:, number].sum()),
        )

    def _service(self, number: int, step: int) -> FleetService:
        service = self.scenario.services[number]
        rate = shape = None
        if step >= 0:
            requests = float(self.demand.requests[step, number])
            rate = requests / self.demand.step_seconds
            if requests > 0.0:
                self.shapes[number] = RequestShape(
                    float(self.demand.input_tokens[step, number]), float(self.demand.output_tokens[step, number])
                )
            shape = self.shapes[number]
        return FleetService(
            name=service.name,
            alpha=service.alpha,
            members=service.members,
            latency=service.latency,
            rate_rps=rate,
            shape=shape,
            satisfied=self.ledger.satisfied(number),
            total=self.ledger.total(number),
            accuracies=self.ledger.accuracies(number),
        )

    def obey(self, decision: FleetDecision) -> None:
        """Scale (down before up, so that nothing is refused for what has just been cancelled), silence, route."""
        wishes = [(self.index[name], number) for name, number in decision.replicas.items()]
        wishes.sort(key=lambda wish: wish[1] - int(self.plant.replicas[wish[0]]))
        for variant, replicas in wishes:
            self.plant.scale(variant, replicas)
        for name, serving in decision.serving.items():
            self.plant.set_serving(self.index[name], serving)
        for number, service in enumerate(self.scenario.services):
            shares = decision.weights.get(service.name)
            if shares:
                self.weights[number] = 0.0
                for name, share in shares.items():
                    self.weights[number, self.index[name]] = share

    def route(self, requests: FloatArray) -> FloatArray:
        """Return arrivals (services, variants): one independent draw per request among variants that serve.

        A variant without a serving replica gets nothing while another one has; a service without weights goes by
        serving replicas.
        """
        is_serving = self.plant.serving > 0
        weights = np.where(is_serving, self.weights, 0.0)
        totals = weights.sum(axis=1)
        for number in np.flatnonzero(totals <= 0.0):
            members = self.scenario.services[number].members
            usable = np.array([variant.member in members for variant in self.scenario.variants])
            weights[number] = np.where(usable, self.plant.serving, 0.0)
            if not weights[number].any():
                weights[number] = np.where(usable, 1.0, 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        return np.asarray(self.rng.multinomial(np.rint(requests).astype(np.int64), weights), dtype=np.float64)

    def serve(self, step: int) -> None:
        """Serve the step's arrivals and count what came of it."""
        tokens_in = np.nan_to_num(self.demand.input_tokens[step])
        tokens_out = self.demand.output_tokens[step]
        known = [1.0 if shape is None else shape.output_tokens for shape in self.shapes]
        tokens_out = np.where(np.isfinite(tokens_out), tokens_out, known)
        flows = self.plant.serve(self.route(self.demand.requests[step]), tokens_in, tokens_out)
        self.flows = flows
        correct, served = self.ledger.add(flows.served, self.rng)
        row = step - self.warmup
        if row < 0:
            return
        self.joules[:, row] = (flows.active_joules.sum(), flows.idle_joules.sum(), flows.start_joules.sum())
        for place, within in enumerate((flows.within_ttft, flows.within_tpot, flows.within_both)):
            self.within[place] += within.sum(axis=1)
        self.accelerators[row], self.ready[row], self.serving[row] = (
            self.plant.held,
            self.plant.ready,
            self.plant.serving,
        )
        self.arrived[row] = flows.arrived.sum(axis=1)
        self.served[row] = flows.served.sum(axis=1)
        self.outcomes[row], self.correct[row] = served, correct
        self.lost += float(flows.lost.sum())

    def result(self, policy: str) -> FluidResult:
        """Sum up."""
        dt = self.demand.step_seconds
        services = tuple(
            ServiceResult(
                name=service.name,
                alpha=service.alpha,
                arrived=float(self.arrived[:, n].sum()),
                served=float(self.served[:, n].sum()),
                outcomes=float(self.outcomes[:, n].sum()),
                correct=float(self.correct[:, n].sum()),
                within_ttft=float(self.within[0, n]),
                within_tpot=float(self.within[1, n]),
                within_both=float(self.within[2, n]),
                accuracy_worst_hour=worst_hour(self.correct[:, n], self.outcomes[:, n], dt),
            )
            for n, service in enumerate(self.scenario.services)
        )
        return FluidResult(
            policy=policy,
            step_seconds=dt,
            variants=tuple(self.index),
            services=services,
            active_joules=float(self.joules[0].sum()),
            idle_joules=float(self.joules[1].sum()),
            start_joules=float(self.joules[2].sum()),
            lost=self.lost,
            backlog=float(self.plant.backlog.sum()) - self.backlog_before,
            starts=self.plant.starts - self.starts_before,
            accelerators={pool.name: self.accelerators[:, n] for n, pool in enumerate(self.scenario.pools)},
            replicas=self.ready,
            serving=self.serving,
            power_watts=self.joules.sum(axis=0) / dt,
            plan_seconds=np.array(self.plan_seconds),
            decide_seconds=self.decide_seconds,
        )
