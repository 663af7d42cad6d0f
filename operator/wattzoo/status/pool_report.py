"""The status of ModelPools and AcceleratorPools: what runs, what is planned, what is short."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from wattzoo.api.accelerator_pool import AcceleratorPoolSpec, AcceleratorPoolStatus
from wattzoo.api.base import timestamp
from wattzoo.api.conditions import Condition, ConditionType, Reason, allows
from wattzoo.api.model_pool import ModelPoolSpec, ModelPoolStatus, Plan, ScalingState, VariantStatus
from wattzoo.decisions import Finding, MemberEnergy, PoolDecision, VariantPlan
from wattzoo.manifests import parse_time
from wattzoo.model import Backing, Manifest, Ref, VariantState
from wattzoo.status.conditions import Judgement, from_finding
from wattzoo.status.judge import judge_degraded, judge_energy, judge_paused

POOL_CONDITIONS = (
    ConditionType.READY,
    ConditionType.METRICS_AVAILABLE,
    ConditionType.ENERGY_DATA_FRESH,
    ConditionType.PLACED,
    ConditionType.PROGRESSING,
    ConditionType.DEGRADED,
    ConditionType.PAUSED,
)
ACCELERATOR_CONDITIONS = (ConditionType.READY, ConditionType.DEGRADED)
SHORT_REASONS = frozenset(
    {Reason.UNSCHEDULABLE, Reason.ACCELERATORS_SHORT, Reason.MAX_ACCELERATORS_REACHED, Reason.POWER_BUDGET_REACHED}
)
PLAN_ID_LENGTH = 10


@dataclass(frozen=True, slots=True)
class PoolView:
    """Everything that the status of one ModelPool is rendered from.

    no_plan: why a pool that asks for the joint plan follows none; empty where it follows one, or asks for none.
    """

    obj: Manifest
    spec: ModelPoolSpec
    states: tuple[VariantState, ...]
    decision: PoolDecision
    energy: dict[str, MemberEnergy]
    weighted: frozenset[str]
    metrics: Finding | None
    writes: Finding | None
    findings: tuple[Finding, ...] = ()
    unplanned: tuple[Finding, ...] = ()
    no_plan: str = ""
    history: str = ""
    forecast: str = ""
    at_seconds: float = 0.0


def judge_pool(view: PoolView) -> list[Judgement]:
    """All conditions of a pool that can be read."""
    missing = list(view.findings)
    unplaced = [f for f in view.decision.findings if allows(ConditionType.PLACED, f.reason)]
    others = [f for f in view.decision.findings if f not in unplaced]
    ready = {state.key.member for state in view.states if state.usable}
    held = Finding(Reason.HOLDING, "replicas are held: what is needed is unknown") if view.decision.held else None
    return [
        _judge_ready(view, ready, missing),
        _judge_metrics(view.metrics),
        judge_energy(view.energy),
        _judge_placed(view, [*missing, *unplaced]),
        _judge_progress(view),
        judge_degraded((view.writes, *missing, *unplaced, *others, *view.unplanned, held)),
        judge_paused(view.obj, view.spec.mode),
    ]


def _judge_ready(view: PoolView, ready: set[str], missing: list[Finding]) -> Judgement:
    kind = ConditionType.READY
    if ready:
        return Judgement(kind, "True", Reason.AVAILABLE, f"{', '.join(sorted(ready))} can answer")
    if missing:
        return from_finding(kind, "False", missing[0])
    if any(plan.replicas for plan in view.decision.variants):
        return Judgement(kind, "False", Reason.STARTING, "the first replicas are starting")
    return Judgement(kind, "False", Reason.NO_READY_MEMBER, "nothing runs")


def _judge_metrics(problem: Finding | None) -> Judgement:
    if problem is None:
        return Judgement(ConditionType.METRICS_AVAILABLE, "True", Reason.SCRAPED)
    return from_finding(ConditionType.METRICS_AVAILABLE, "False", problem, Reason.OBSERVATION_FAILED)


def _judge_placed(view: PoolView, findings: list[Finding]) -> Judgement:
    kind = ConditionType.PLACED
    for finding in findings:
        if allows(kind, finding.reason):
            return from_finding(kind, "False", finding)
    if any(pod.waiting_since_seconds is not None for state in view.states for pod in state.pods):
        return Judgement(kind, "Unknown", Reason.STARTING, "pods are waiting for a node")
    return Judgement(kind, "True", Reason.ALL_PLACED)


def _judge_progress(view: PoolView) -> Judgement:
    kind = ConditionType.PROGRESSING
    plans = {plan.key: plan for plan in view.decision.variants}
    for state in view.states:
        wanted = plans[state.key].replicas if state.key in plans else None
        if wanted is None:
            continue
        if wanted > len(state.ready):
            return Judgement(kind, "True", Reason.SCALING_UP, f"{state.key}: {len(state.ready)} of {wanted} ready")
        if plans[state.key].retiring or wanted < len(state.ready):
            return Judgement(kind, "True", Reason.SCALING_DOWN, f"{state.key} goes down")
    return Judgement(kind, "False", Reason.STEADY)


def plan_id(decision: PoolDecision) -> str:
    """Changes whenever the wanted replicas change, and only then."""
    text = ",".join(f"{plan.key}={plan.replicas}" for plan in decision.variants)
    return hashlib.sha256(text.encode()).hexdigest()[:PLAN_ID_LENGTH]


def render_model_pool_status(
    view: PoolView, conditions: tuple[Condition, ...], generation: int | None
) -> ModelPoolStatus:
    """The whole status."""
    decision, joint = view.decision, view.decision.plan
    plans = {plan.key: plan for plan in decision.variants}
    known = [row.watts for row in view.energy.values() if row.watts is not None]
    held = sum(pod.accelerators for state in view.states for pod in state.pods)
    return ModelPoolStatus(
        observed_generation=generation,
        desired_replicas=sum(plan.replicas or 0 for plan in decision.variants),
        ready_replicas=sum(len(state.ready) for state in view.states),
        accelerators=held,
        power_watts=round(sum(known)) if known else None,
        plan=Plan(
            id=plan_id(decision),
            time=timestamp(decision.at_seconds),
            watts=None if decision.watts is None else round(decision.watts),
            reason=decision.reason,
            message="; ".join(text for text in (_render_no_plan(view.no_plan), decision.message) if text),
            binding_constraint=decision.binding_constraint or (None if joint is None else joint.binding or None),
            runner_up=None if joint is None else joint.runner_up or None,
            planner="PerVariant" if joint is None else "Joint",
            objective=None if joint is None else str(joint.objective),
            price=None if joint is None else _render_prices(joint.price) or None,
        ),
        variants=tuple(_render_variant(state, plans.get(state.key), view) for state in view.states),
        scaling=_render_scaling(view),
        conditions=conditions,
    )


def _render_no_plan(why: str) -> str:
    return f"no joint plan, each variant follows its own load: {why}" if why else ""


def _render_scaling(view: PoolView) -> ScalingState | None:
    if not view.history:
        return None
    observed = timestamp(view.decision.at_seconds)
    return ScalingState(state=view.history, forecast=view.forecast or None, observed_at=observed)


def _render_prices(prices: Mapping[Ref, float]) -> str:
    return ", ".join(f"{ref.name} {joules:.3g} J" for ref, joules in sorted(prices.items()))


def _render_variant(state: VariantState, plan: VariantPlan | None, view: PoolView) -> VariantStatus:
    ready = len(state.ready)
    serving = len(state.serving) if str(state.key) in view.weighted else 0
    utilisation = None if plan is None or plan.utilisation is None else round(1000 * plan.utilisation)
    return VariantStatus(
        member=state.key.member,
        name=state.key.variant,
        pool=state.accelerator_pool,
        desired=None if plan is None or state.backing is Backing.SERVICE else plan.replicas,
        ready=None if state.backing is Backing.SERVICE else ready,
        serving=None if state.backing is Backing.SERVICE else serving,
        silent=None if state.backing is Backing.SERVICE else ready - len(state.serving),
        starting=None if state.backing is Backing.SERVICE else state.starting,
        utilisation_per_mille=utilisation,
    )


@dataclass(frozen=True, slots=True)
class AcceleratorView:
    """Everything that the status of one AcceleratorPool is rendered from; None is unknown."""

    spec: AcceleratorPoolSpec
    nodes: int | None
    accelerators: int | None
    allocatable: int | None
    held: int
    watts: float | None
    short: Finding | None
    short_since_seconds: float | None
    unreadable: str = ""


def short_since(obj: Manifest, short: Finding | None, at_seconds: float) -> float | None:
    """Since when an AcceleratorPool is short: the time its status shows, else now; None while it is not."""
    if short is None or short.reason not in SHORT_REASONS:
        return None
    known = parse_time((obj.get("status") or {}).get("shortSince"))
    return at_seconds if known is None else known


def judge_accelerators(view: AcceleratorView) -> list[Judgement]:
    """Whether there is hardware that we know, and enough of it."""
    kind = ConditionType.READY
    if view.unreadable:
        ready = Judgement(kind, "Unknown", Reason.CLUSTER_UNREADABLE, view.unreadable)
    elif not view.nodes:
        ready = Judgement(kind, "False", Reason.NO_MATCHING_NODES, "no node carries the pool's labels")
    elif view.accelerators == 0:
        text = f"spec.resourceName: none of the {view.nodes} nodes with the pool's labels has {view.spec.resource_name}"
        ready = Judgement(kind, "False", Reason.NO_MATCHING_NODES, text)
    elif view.spec.figures() is None:
        text = "set spec.accelerator: the built-in table does not know this product"
        ready = Judgement(kind, "False", Reason.ACCELERATOR_UNKNOWN, text)
    else:
        ready = Judgement(kind, "True", Reason.AVAILABLE, f"{view.nodes} nodes, {view.accelerators} accelerators")
    return [ready, judge_degraded((view.short, _find_nothing_usable(view)))]


def _find_nothing_usable(view: AcceleratorView) -> Finding | None:
    """That no replica can ever be placed here as things are."""
    if view.spec.max_accelerators == 0:
        return Finding(Reason.MAX_ACCELERATORS_REACHED, "spec.maxAccelerators: it is 0, so that nothing may be placed")
    if view.accelerators and view.allocatable == 0:
        text = f"none of {view.accelerators} {view.spec.resource_name} is on a node that is ready and takes pods"
        return Finding(Reason.ACCELERATORS_SHORT, text)
    return None


def render_accelerator_pool_status(
    view: AcceleratorView, conditions: tuple[Condition, ...], generation: int | None
) -> AcceleratorPoolStatus:
    """The whole status."""
    return AcceleratorPoolStatus(
        observed_generation=generation,
        nodes=view.nodes,
        accelerators=view.accelerators,
        allocatable=view.allocatable,
        allocated_by_watt_zoo=view.held,
        short_since=None if view.short_since_seconds is None else timestamp(view.short_since_seconds),
        power_watts=None if view.watts is None else round(view.watts),
        conditions=conditions,
    )
