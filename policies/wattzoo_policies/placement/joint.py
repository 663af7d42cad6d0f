"""The joint controller: replicas and placement of all services by one plan, weights and packing between plans.

Every minute a plan (`solve_plan`) for the expected and the high load of each service, at the accuracy its debt asks
for; what it wishes goes through all limits (`limits.replicas`). Every interval weights over what is ready, and as few
serving replicas as the next interval's load fills; the rest is silent. Pure: it sees the past only, its state is one
value that survives as text, and the operator and the fluid plant call the same code.

Serving replicas are whole, so a mixture at exactly the target leaves one half empty. Where one service is alone, its
serving replicas are filled with the most accurate answers they can give; what that earns lowers the target until a
replica falls silent. So costly replicas are full or silent in turn, and the mean is still the promise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from wattzoo_policies.capacity.model import work_seconds
from wattzoo_policies.limits.replicas import DOWN_STABILIZATION_SECONDS, decide_planned_replicas
from wattzoo_policies.placement.filling import MOST_FILLED, count_serving, fill_serving, keep_promises, with_route_noise
from wattzoo_policies.placement.joint_demand import (
    FIRST_CARE,
    Foresight,
    Group,
    ServiceLoad,
    estimate_groups,
    estimate_knees,
    estimate_loads,
    follow_groups,
    group_services,
    learn_care,
    observe_services,
)
from wattzoo_policies.placement.joint_state import JointState, KeptPlan, ServiceMemory
from wattzoo_policies.placement.problem import Plan, PlanProblem, PlanService, PlanStatus, PlanVariant, make_plan_pool
from wattzoo_policies.placement.reserve import RESERVE_SLACK, solve_with_reserves
from wattzoo_policies.placement.signals import FleetDecision, FleetObservation, FleetVariant
from wattzoo_policies.placement.solve import solve_plan
from wattzoo_policies.placement.target import (
    LEAST_REQUESTS,
    PLAN_LEAST_REQUESTS,
    decide_target,
    estimate_credit,
    known_accuracies,
)
from wattzoo_policies.placement.weights import Weights, decide_weights
from wattzoo_policies.signals import ReplicaHistory, ReplicaPlan, ReplicaRequest, ServiceDemand, VariantDemand


@dataclass(frozen=True, slots=True)
class JointParameters:
    """One set of defaults for all fleets and traces.

    eta: share of the knee that planned replicas are filled to. plan_seconds: between plans. tau_seconds: over which a
    start's joules are spread. margin: planned above alpha. plan_repay_seconds, repay_seconds: over which plan and
    weights repay debt. reserve_percent: standby capacity on top of the high load; reserve_slack: how far below alpha
    it may answer. fill: fill serving replicas with the most accurate answers (see the module's text).
    """

    eta: float = 0.9
    plan_seconds: float = 60.0
    tau_seconds: float = 120.0
    margin: float = 0.003
    plan_repay_seconds: float = 300.0
    repay_seconds: float = 60.0
    reserve_percent: float = 0.0
    reserve_slack: float = RESERVE_SLACK
    fill: bool = True
    gap: float = 0.01
    time_limit_seconds: float = 2.0
    down_stabilization_seconds: float = DOWN_STABILIZATION_SECONDS


@dataclass(frozen=True, slots=True)
class _View:
    """One moment, as far as the controller knows it."""

    observation: FleetObservation
    groups: tuple[Group, ...]
    loads: Mapping[str, ServiceLoad]
    knees: Mapping[str, float | None]
    work: Mapping[str, Mapping[str, float]]
    accuracies: Mapping[str, Mapping[str, float]]
    memories: Mapping[str, ServiceMemory]
    care: Mapping[str, float]

    def services(self, parameters: JointParameters, *, is_plan: bool) -> list[PlanService]:
        """Return the services as the plan or the weights take them."""
        services = []
        for group in self.groups:
            for service in group.services:
                load, known = self.loads[service.name], known_accuracies(service)
                alpha = decide_target(
                    service.alpha,
                    self.memories[service.name].debt,
                    load.rate_rps,
                    known,
                    margin=parameters.margin if is_plan else 0.0,
                    credit=estimate_credit(load.rate_rps, parameters.repay_seconds),
                    repay_seconds=parameters.plan_repay_seconds if is_plan else parameters.repay_seconds,
                    least_requests=PLAN_LEAST_REQUESTS if is_plan else LEAST_REQUESTS,
                )
                rate = load.rate_rps if is_plan else load.next_rps
                work, accuracy = self.work[service.name], self.accuracies[service.name]
                services.append(PlanService(service.name, rate, max(rate, load.high_rps), alpha, work, accuracy))
        return services

    def variants(self) -> tuple[PlanVariant, ...]:
        """Return the variants as the plan takes them; those of a short pool get no more."""
        short = {pool.name for pool in self.observation.pools if pool.short}
        return tuple(
            _plan_variant(variant, self.knees[variant.name], is_short=variant.pool in short)
            for variant in self.observation.variants
        )


@dataclass(frozen=True, slots=True)
class JointController:
    """The joint controller as a fleet controller; `foresight` is for comparisons alone."""

    parameters: JointParameters = JointParameters()
    name: str = "joint"
    foresight: Foresight | None = None

    def initial_state(self) -> JointState:
        """Return the state before the first observation."""
        return JointState()

    def decide(
        self, state: JointState, observation: FleetObservation, rng: np.random.Generator
    ) -> tuple[JointState, FleetDecision]:
        """Decide for the coming interval; services whose rate or size was never seen are left as they are."""
        del rng
        memories = observe_services(state, observation, self.parameters.repay_seconds)
        grouped = group_services(observation, memories)
        state = follow_groups(state, observation, grouped, memories)
        groups, load_memories = estimate_groups(observation, grouped, memories, state.loads)
        care = {
            group.key: learn_care(state.care.get(group.key, FIRST_CARE), group, observation, memories)
            for group in groups
        }
        state = replace(state, services=memories, loads=load_memories, care=care)
        if not groups:
            return state, FleetDecision({}, {}, {})
        if self.foresight is not None and self.foresight.knows_next:
            groups = [group.foreseen() for group in groups]
        view = self._view(state, observation, groups)
        planned = self._is_due(state, view)
        if planned:
            state = replace(state, plan=self._plan(state, view))
        history, replicas = self._replicas(state, view)
        weights, serving = self._route(view, replicas.replicas())
        reasons = {entry.variant: f"{entry.reason}: {entry.message}" for entry in replicas.variants}
        decision = FleetDecision(replicas.replicas(), serving, weights, reasons, planned=planned)
        return replace(state, history=history), decision

    def _view(self, state: JointState, observation: FleetObservation, groups: list[Group]) -> _View:
        loads: dict[str, ServiceLoad] = {}
        for group in groups:
            loads |= estimate_loads(
                group,
                state.services,
                self.foresight,
                at_seconds=observation.at_seconds,
                interval_seconds=observation.interval_seconds,
                care=state.care.get(group.key, FIRST_CARE),
                fill=self.parameters.eta,
            )
        work: dict[str, Mapping[str, float]] = {}
        accuracies: dict[str, Mapping[str, float]] = {}
        for group in groups:
            for service in group.services:
                usable = [v for v in observation.variants if v.member in service.members]
                known = known_accuracies(service)
                work[service.name] = {v.name: work_seconds(v.model, loads[service.name].shape) for v in usable}
                accuracies[service.name] = {v.name: known[v.member] for v in usable}
        knees = estimate_knees(observation.variants, groups, loads)
        return _View(observation, tuple(groups), loads, knees, work, accuracies, state.services, state.care)

    def _is_due(self, state: JointState, view: _View) -> bool:
        """Whether to plan: the time has come, or a load is above what the last plan was made for."""
        plan = state.plan
        if plan is None or view.observation.at_seconds - plan.at_seconds >= self.parameters.plan_seconds - 1e-6:
            return True
        if view.observation.at_seconds < plan.at_seconds:
            return True
        return any(group.forecast.next_load > plan.high_load.get(group.key, 0.0) for group in view.groups)

    def _plan(self, state: JointState, view: _View) -> KeptPlan:
        parameters, observation = self.parameters, view.observation
        services = view.services(parameters, is_plan=True)
        problem = PlanProblem(
            pools=tuple(make_plan_pool(pool) for pool in observation.pools),
            variants=tuple(_with_light_load(variant, view) for variant in view.variants()),
            services=tuple(services),
            eta=parameters.eta,
            tau_seconds=parameters.tau_seconds,
        )
        previous = None if state.plan is None else _as_plan(state.plan)
        try:
            problem, plan = solve_with_reserves(
                problem,
                dict.fromkeys((service.name for service in services), parameters.reserve_percent),
                lambda asked: _solve(asked, parameters, previous),
                parameters.reserve_slack,
            )
        except ArithmeticError as error:  # the solver gave up on a program that has a solution
            if state.plan is None:
                raise
            return replace(state.plan, at_seconds=observation.at_seconds, binding=f"last plan kept: {error}")
        high: dict[str, float] = {}
        for service in problem.services:
            for variant, rate in plan.flows.get(service.name, {}).items():
                grown = rate * service.high_rate_rps / service.rate_rps if service.rate_rps > 0.0 else 0.0
                high[variant] = high.get(variant, 0.0) + grown
        high_load = {group.key: group.forecast.high for group in view.groups}
        return KeptPlan(observation.at_seconds, plan.replicas, high, high_load, plan.watts, plan.binding)

    def _replicas(self, state: JointState, view: _View) -> tuple[ReplicaHistory, ReplicaPlan]:
        """Return what the limits make of the last plan."""
        observation, plan = view.observation, state.plan
        services = [service for group in view.groups for service in group.services]
        high = {service.name: view.loads[service.name].high_rps for service in services}
        reserved = {name: rate * (1.0 + self.parameters.reserve_percent / 100.0) for name, rate in high.items()}
        request = ReplicaRequest(
            at_seconds=observation.at_seconds,
            variants=tuple(_variant_demand(v, view, plan, reserved, self.parameters.eta) for v in observation.variants),
            max_accelerators={pool.name: pool.accelerators for pool in observation.pools},
            free_accelerators={pool.name: 0 for pool in observation.pools if pool.short},
            services=tuple(ServiceDemand(s.name, s.members, high[s.name]) for s in services),
        )
        wished = {} if plan is None else plan.replicas
        return decide_planned_replicas(state.history, request, wished, self.parameters.down_stabilization_seconds)

    def _route(self, view: _View, replicas: Mapping[str, int]) -> tuple[dict[str, Mapping[str, float]], dict[str, int]]:
        """Return weights by service, and serving replicas by variant: filled, one group after the other.

        replicas: what has just been decided; a ready one that leaves now carries nothing any more.
        """
        variants = {variant.name: variant for variant in view.variants()}
        ready = {v.name: min(v.ready, replicas.get(v.name, v.ready)) for v in view.observation.variants}
        serving = dict(ready)
        counted = {pool.name: pool.objective_weight for pool in view.observation.pools}
        wanted = {service.name: service for service in view.services(self.parameters, is_plan=False)}
        weights: dict[str, Mapping[str, float]] = {}
        for group in view.groups:
            services = [wanted[service.name] for service in group.services]
            own = [v for v in variants.values() if any(v.name in service.work_seconds for service in services)]
            found, used = self._route_group(view, group, services, own, ready, counted)
            weights |= found.shares
            serving |= {name: max(number, min(1, ready[name])) for name, number in used.items()}
        return weights, serving

    def _route_group(
        self,
        view: _View,
        group: Group,
        services: list[PlanService],
        variants: list[PlanVariant],
        ready: Mapping[str, int],
        counted: Mapping[str, float],
    ) -> tuple[Weights, dict[str, int]]:
        """Return weights and serving replicas of one group over the variants that it may use."""
        eta, seconds = 1.0 / group.next_ratio, view.observation.interval_seconds
        first = decide_weights(services, variants, ready, eta=eta, objective_weights=counted)

        def decide(care: float) -> tuple[list[PlanVariant], Weights]:
            noisy = with_route_noise(variants, first, services, ready, group, care, seconds)
            return noisy, decide_weights(services, noisy, ready, eta=eta, objective_weights=counted)

        alphas = {service.name: service.alpha for service in group.services}
        own, found = keep_promises(decide, services, alphas, view.care.get(group.key, FIRST_CARE))
        used = count_serving(found, services, own, ready, eta)
        if self.parameters.fill and len(services) <= MOST_FILLED and found.overload == 0.0:
            found = fill_serving(found, services, own, used, eta, counted)
            used = count_serving(found, services, own, used, eta)
        return found, used


def _solve(problem: PlanProblem, parameters: JointParameters, previous: Plan | None) -> Plan:
    """Return the plan within the parameters' time and gap."""
    limit = parameters.time_limit_seconds
    return solve_plan(problem, time_limit_seconds=limit, gap=parameters.gap, previous=previous)


def _with_light_load(variant: PlanVariant, view: _View) -> PlanVariant:
    """Return the variant with the active watts of one replica that all its services together do not fill.

    A plan counts a half empty replica as half of one that is active. Where everything fits one replica there is no
    other to be silent instead: while the variant serves, it draws the watts of the requests inside, however few.
    """
    users = [s for group in view.groups for s in group.services if variant.name in view.work[s.name]]
    rates = [view.loads[s.name].rate_rps for s in users]
    load = sum(rate * view.work[s.name][variant.name] for rate, s in zip(rates, users, strict=True))
    if variant.knee_load is None or not 0.0 < load < variant.knee_load:
        return variant
    model = next(v.model for v in view.observation.variants if v.name == variant.name)
    tokens = sum(rate * view.loads[s.name].shape.output_tokens for rate, s in zip(rates, users, strict=True))
    inside = tokens * model.t0_seconds / (1.0 - load)
    more = (variant.active_watts - variant.idle_watts) * max(0.0, -math.expm1(-inside) * variant.knee_load / load - 1.0)
    return replace(variant, active_watts=variant.active_watts + more, max_watts=variant.max_watts + more)


def _plan_variant(variant: FleetVariant, knee: float | None, *, is_short: bool) -> PlanVariant:
    model = variant.model
    most = min(variant.max_replicas, variant.replicas) if is_short else variant.max_replicas
    return PlanVariant(
        name=variant.name,
        member=variant.member,
        pool=variant.pool,
        accelerators=model.accelerators,
        idle_watts=model.idle_watts,
        active_watts=model.active_watts,
        max_watts=model.max_watts,
        start_joules=model.startup_joules,
        knee_load=knee,
        current_replicas=variant.replicas,
        min_replicas=min(variant.min_replicas, most),
        max_replicas=most,
    )


def _variant_demand(
    variant: FleetVariant, view: _View, plan: KeptPlan | None, reserved: Mapping[str, float], eta: float
) -> VariantDemand:
    """Return one variant as the limits take it: demand is what the plan gives it at high load."""
    users = [s for group in view.groups for s in group.services if variant.member in s.members]
    rate = sum(view.loads[s.name].rate_rps for s in users)
    work = [view.loads[s.name].rate_rps * view.work[s.name][variant.name] for s in users]
    knee = view.knees[variant.name]
    mean_work = sum(work) / rate if rate > 0.0 else 0.0
    capacity = eta * knee / mean_work if knee is not None and mean_work > 0.0 else None
    return VariantDemand(
        variant=variant.name,
        demand_rps=None if plan is None else plan.high_rps.get(variant.name, 0.0),
        capacity_rps=capacity,
        current_replicas=variant.replicas,
        ready_replicas=variant.ready,
        min_replicas=variant.min_replicas,
        max_replicas=variant.max_replicas,
        accelerators_per_replica=variant.model.accelerators,
        accelerator_pool=variant.pool,
        member=variant.member,
        terminating_replicas=variant.terminating,
        start_joules=variant.model.startup_joules,
        saved_watts=variant.model.idle_watts,
        reachable_rps=sum(reserved[s.name] for s in users) if users else None,
    )


def _as_plan(kept: KeptPlan) -> Plan:
    """Return the last plan as what the planner may keep."""
    return Plan(kept.replicas, {}, {}, kept.watts or 0.0, 0.0, PlanStatus.KEPT)
