"""Follows a joint plan: its wishes for one pool through every limit, with what the limits must know of the pool."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from wattzoo.decide.context import find_missing_members
from wattzoo.decide.demand import PoolInputs
from wattzoo.decisions import PoolPlan
from wattzoo.model import Ref, VariantKey, VariantState
from wattzoo_policies.limits.replicas import decide_planned_replicas
from wattzoo_policies.signals import ReplicaHistory, ReplicaPlan, ReplicaRequest, ServiceDemand, VariantDemand


def covers(plan: PoolPlan, variants: Collection[VariantKey], services: Collection[Ref]) -> bool:
    """Whether a plan speaks of every variant that may be scaled and every service that the pool has now."""
    return set(variants) <= plan.replicas.keys() and set(services) <= plan.rates.keys()


def planned_demand(inputs: PoolInputs, plan: PoolPlan) -> dict[VariantKey, float | None]:
    """Requests per second that each variant shall be able to carry; unknown as soon as a service's rate is."""
    known = all(
        (load := inputs.estimate.loads.get(ref)) is not None and load.total_rps is not None
        for ref in inputs.context.services
    )
    return {state.key: plan.high_rps.get(state.key, 0.0) if known else None for state in inputs.context.states}


def follow_plan(
    inputs: PoolInputs, plan: PoolPlan, history: ReplicaHistory, request: ReplicaRequest, down_seconds: float
) -> tuple[ReplicaHistory, ReplicaPlan]:
    """Replicas for this pass: up at once, down by every limit of the joint planner."""
    states = {str(state.key): state for state in inputs.context.states}
    variants = tuple(_complete(inputs, states[row.variant], row, plan) for row in request.variants)
    names = {row.accelerator_pool for row in variants}
    bounds = {name: room.bound for name, room in inputs.headroom.items() if name in names}
    full = replace(
        request,
        variants=variants,
        max_accelerators={name: bound for name, bound in bounds.items() if bound is not None},
        services=_services(inputs, plan),
    )
    wishes = {str(key): count for key, count in plan.replicas.items()}
    for row in variants:
        if row.capacity_rps is None:  # known when the plan was made, unknown now: a kept plan lowers nothing
            wishes[row.variant] = max(wishes.get(row.variant, 0), row.current_replicas)
    return decide_planned_replicas(history, full, wishes, down_seconds, _messages(plan, full))


def _complete(inputs: PoolInputs, state: VariantState, row: VariantDemand, plan: PoolPlan) -> VariantDemand:
    users = [
        ref
        for ref, spec in inputs.context.services.items()
        if state.key.member in find_missing_members(spec, inputs.context.pool)[0]
    ]
    reachable = sum(plan.rates.get(ref, 0.0) + plan.reserves.get(ref, 0.0) for ref in users)
    model = inputs.estimate.capacities[state.key].model
    return replace(
        row,
        terminating_replicas=state.terminating,
        start_joules=None if model is None else model.startup_joules,
        saved_watts=None if model is None else model.idle_watts,
        reachable_rps=reachable if users else None,
    )


def _services(inputs: PoolInputs, plan: PoolPlan) -> tuple[ServiceDemand, ...]:
    return tuple(
        ServiceDemand(str(ref), find_missing_members(spec, inputs.context.pool)[0], plan.rates.get(ref))
        for ref, spec in inputs.context.services.items()
    )


def _messages(plan: PoolPlan, request: ReplicaRequest) -> Mapping[str, str]:
    """Why each variant is wished so."""
    capacities = {row.variant: row.capacity_rps for row in request.variants}
    texts = {}
    for key, count in plan.replicas.items():
        each = capacities.get(str(key))
        text = f"{count} planned for {plan.high_rps.get(key, 0.0):.2f} requests/s"
        texts[str(key)] = text if each is None else f"{text} at {each:.2f} per replica"
    return texts
