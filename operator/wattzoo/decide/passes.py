"""The thinking of one pass as one pure function: snapshot, telemetry and memory in, decision and memory out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from wattzoo.api.conditions import Reason
from wattzoo.api.llm_service import LLMServiceSpec
from wattzoo.api.model_pool import ModelPool
from wattzoo.decide.capacity import estimate_capacity, service_bounds
from wattzoo.decide.caps import (
    Headroom,
    deployment_ref,
    estimate_headroom,
    find_drains,
    held_by_variant,
    holdings,
    settle_changes,
)
from wattzoo.decide.context import Specs, find_missing_members, read_context, read_pools
from wattzoo.decide.counting import count_requests, feedback_source
from wattzoo.decide.demand import PEAK_SECONDS, PoolInputs
from wattzoo.decide.engines import index_series
from wattzoo.decide.estimate import PoolContext, estimate_pool
from wattzoo.decide.figures import estimate_figures
from wattzoo.decide.filling import find_asked, find_coming
from wattzoo.decide.forecast import observe_forecasts
from wattzoo.decide.garbage import find_drained
from wattzoo.decide.memory import PoolEstimate, PoolMemory, ServiceMemory
from wattzoo.decide.packing import decide_packing, find_drained_pods, may_silence, note_silent
from wattzoo.decide.pipeline import ServiceInputs, decide_service, summarise_service
from wattzoo.decide.plan_fleet import PlanPart
from wattzoo.decide.planned import covers
from wattzoo.decide.replicas import decide_pool, replica_bounds
from wattzoo.decide.restore import restore_pool, restore_service
from wattzoo.decide.series import read_problem
from wattzoo.decide.shortage import note_shortages
from wattzoo.decide.traffic import (
    SETTLE_SECONDS,
    estimate_outcomes,
    estimate_service_load,
    find_resets,
    live_weights,
    read_request_counters,
)
from wattzoo.decisions import (
    Finding,
    PoolDecision,
    PoolPlan,
    ServiceDecision,
    ServiceFigures,
    ServiceLoad,
    VariantPacking,
)
from wattzoo.manifests import metadata
from wattzoo.model import ClusterSnapshot, Manifest, Ref, TelemetrySnapshot, VariantKey, VariantState
from wattzoo_policies.capacity.replicas import estimate_peak_rps
from wattzoo_policies.signals import LedgerSummary

COUNT_HEADROOM = 0.1
"""A little more than one standard deviation of 150 requests, which is 15 s at ten a second."""
MIN_JUDGED = 100
"""Judged requests from which on a ledger that had to begin anew speaks for itself."""

Reserved = Mapping[Ref, Mapping[str, Mapping[Ref, int]]]
"""By ModelPool: what its last decision may hold, by AcceleratorPool and Deployment, in accelerators."""


@dataclass(frozen=True, slots=True)
class PoolThought:
    """What one pass over a ModelPool came to."""

    context: PoolContext
    decision: PoolDecision
    estimate: PoolEstimate
    memory: PoolMemory
    drained: frozenset[Ref]
    findings: tuple[Finding, ...]
    reserved: Mapping[str, Mapping[Ref, int]]
    packing: Mapping[VariantKey, VariantPacking]
    weighted: frozenset[str]
    part: PlanPart


@dataclass(frozen=True, slots=True)
class ServiceThought:
    """What one pass over an LLMService came to."""

    decision: ServiceDecision
    memory: ServiceMemory
    figures: ServiceFigures
    states: tuple[VariantState, ...]
    metrics: Finding | None
    infeasible: Finding | None
    findings: tuple[Finding, ...] = field(default=())


def _headroom(context: PoolContext, specs: Specs, snapshot: ClusterSnapshot, reserved: Reserved) -> dict[str, Headroom]:
    """What this pool may hold of each AcceleratorPool, what others hold or have been granted taken off."""
    held = {name: dict(by_ref) for name, by_ref in holdings(snapshot, read_pools(specs, snapshot)).items()}
    for pool, grants in reserved.items():
        for name, by_ref in grants.items():
            for ref, count in by_ref.items():
                if pool != context.ref:
                    held.setdefault(name, {})[ref] = max(count, held.get(name, {}).get(ref, 0))
    own = [deployment_ref(context.pool, state) for state in context.states]
    return {name: estimate_headroom(spec, snapshot, held.get(name, {}), own) for name, spec in context.hardware.items()}


def remember_rates(
    rates: Mapping[Ref, tuple[tuple[float, float], ...]], estimate: PoolEstimate
) -> dict[Ref, tuple[tuple[float, float], ...]]:
    """Recent rates by service with the newest added; a gap in the measurements adds nothing."""
    kept = {}
    for ref, load in estimate.loads.items():
        rate = load.latest_rps
        before = tuple(row for row in rates.get(ref, ()) if estimate.at_seconds - row[0] <= PEAK_SECONDS)
        new = rate is not None and (not before or before[-1][0] < estimate.at_seconds)
        kept[ref] = (*before, (estimate.at_seconds, rate)) if new and rate is not None else before
    return kept


def _remember(
    context: PoolContext, estimate: PoolEstimate, memory: PoolMemory, drains: Mapping[str, float]
) -> PoolMemory:
    """The memory with what was just observed: rates, what is forecast from them, and accelerators that do not come."""
    timeout = float(context.pool.spec.scaling.placement_timeout_seconds)
    return replace(
        memory,
        rates=remember_rates(memory.rates, estimate),
        shortages=note_shortages(context.states, memory.shortages, estimate.at_seconds, timeout, drains),
        forecasts=observe_forecasts(context, estimate, memory.forecasts),
    )


def _reserve(context: PoolContext, decision: PoolDecision) -> dict[str, dict[Ref, int]]:
    grants: dict[str, dict[Ref, int]] = {}
    replicas = decision.replicas()
    for state in context.states:
        if state.accelerator_pool is not None and state.key in replicas:
            ref = deployment_ref(context.pool, state)
            grants.setdefault(state.accelerator_pool, {})[ref] = held_by_variant(state, replicas[state.key])
    return grants


def think_pool(
    specs: Specs,
    ref: Ref,
    raw: Manifest,
    pool: ModelPool,
    snapshot: ClusterSnapshot,
    telemetry: TelemetrySnapshot,
    memory: PoolMemory,
    services: Mapping[Ref, ServiceMemory],
    reserved: Reserved,
    plan: PoolPlan | None = None,
) -> PoolThought:
    """Replicas of one pool, from what is seen now and what was remembered; by the joint plan where there is one."""
    context, findings = read_context(specs, ref, pool, snapshot)
    headroom = _headroom(context, specs, snapshot, reserved)
    context = replace(context, states=settle_changes(context.states, headroom))
    order_since = {name: memory_.order_since_seconds for name, memory_ in services.items()}
    estimate, memory = estimate_pool(context, snapshot, telemetry, memory, order_since)
    drains = find_drains(snapshot, read_pools(specs, snapshot), float(pool.spec.scaling.drain_timeout_seconds))
    memory = _remember(context, estimate, memory, drains)
    inputs = PoolInputs(
        context=context,
        estimate=estimate,
        wishes={
            name: services[name].decision.wish  # type: ignore[union-attr]
            for name in context.services
            if name in services and services[name].decision is not None
        },
        live={name: live_weights(snapshot.routes.get(name), context.states) for name in context.services},
        headroom=headroom,
        at_seconds=telemetry.at_seconds,
        rates=memory.rates,
        shortages=memory.shortages,
        forecasts=memory.forecasts.services,
    )
    if plan is not None and covers(plan, replica_bounds(inputs), context.services):
        inputs = replace(inputs, plan=plan)
    index = index_series(telemetry, float(pool.spec.scaling.stale_after_seconds))
    memory = replace(memory, silent_since_seconds=note_silent(inputs, memory))
    inputs = replace(inputs, drained=find_drained_pods(inputs, index, memory.silent_since_seconds))
    decision, memory = decide_pool(inputs, memory)
    packing, memory = decide_packing(inputs, decision.replicas(), index, memory)
    wanted = {deployment_ref(pool, state) for state in context.states}
    drained, unused = find_drained(
        raw, wanted, snapshot, index, memory.unused_since_seconds, pool.spec.scaling.drain_timeout_seconds
    )
    weighted = frozenset(str(key) for live in inputs.live.values() for key, weight in live.items() if weight > 0)
    memory = replace(memory, unused_since_seconds=unused, asked=find_asked(inputs, services))
    return PoolThought(
        context=context,
        decision=decision,
        estimate=estimate,
        memory=memory,
        drained=drained,
        findings=findings,
        reserved=_reserve(context, decision),
        packing=packing,
        weighted=weighted,
        part=PlanPart(context, estimate, memory, replica_bounds(inputs), _ledgers(context, services)),
    )


def _ledgers(context: PoolContext, services: Mapping[Ref, ServiceMemory]) -> dict[Ref, LedgerSummary | None]:
    """What each service of a pool counted so far."""
    return {
        ref: summarise_service(spec, services[ref]) if ref in services else None
        for ref, spec in context.services.items()
    }


def observe_route(memory: ServiceMemory, live: Mapping[VariantKey, int], at_seconds: float) -> ServiceMemory:
    """Note when the order of the live route or its weights changed; what was first seen has been so for ever."""
    order, weights = tuple(live), tuple(live.values())
    if memory.route_order and order != memory.route_order:
        memory = replace(memory, order_since_seconds=at_seconds)
    if memory.live and weights != memory.live:
        memory = replace(memory, live_since_seconds=at_seconds + SETTLE_SECONDS)
    return replace(memory, route_order=order, live=weights)


def _find_infeasible(context: PoolContext, spec: LLMServiceSpec, states: tuple[VariantState, ...]) -> Finding | None:
    """Whether no variant of any member can keep this service's own latency bounds."""
    profiles = {
        VariantKey(member.name, variant.name): context.profiles.get(variant.profile)
        for member in context.pool.spec.members
        for variant in member.variants
    }
    known = [state for state in states if profiles.get(state.key) is not None]
    bounds = service_bounds(spec)
    found = [(state, estimate_capacity(profiles[state.key], bounds, None, None)) for state in known]
    late = [
        Finding(capacity.problem.reason, f"{capacity.problem.message} ({state.key} as any other)")
        for state, capacity in found
        if capacity.rps is None and capacity.problem is not None
    ]
    return late[0] if known and len(late) == len(known) else None


def _known_estimate(
    context: PoolContext, snapshot: ClusterSnapshot, telemetry: TelemetrySnapshot, memory: PoolMemory | None
) -> PoolEstimate:
    """What the pool's last pass came to; before the first one, what is known without a memory."""
    if memory is not None and memory.estimate is not None:
        return memory.estimate
    return estimate_pool(context, snapshot, telemetry, restore_pool({}, telemetry.at_seconds), {})[0]


def think_service(
    specs: Specs,
    ref: Ref,
    raw: Manifest,
    spec: LLMServiceSpec,
    pool: ModelPool,
    snapshot: ClusterSnapshot,
    telemetry: TelemetrySnapshot,
    memory: ServiceMemory | None,
    pool_memory: PoolMemory | None,
    rng: np.random.Generator,
) -> ServiceThought | Finding:
    """Weights of one service; a finding when none of its members is in the pool."""
    context, _ = read_context(specs, Ref(ref.namespace, pool.metadata.name), pool, snapshot)
    names, missing = find_missing_members(spec, pool)
    if missing is not None and (not names or spec.members is None):
        return missing
    states = tuple(state for state in context.states if state.key.member in names)
    live = live_weights(snapshot.routes.get(ref), states)
    now, stale = telemetry.at_seconds, float(pool.spec.scaling.stale_after_seconds)
    if memory is None:
        memory = restore_service(raw, spec, names, now, has_route=bool(live))
    memory = observe_route(memory, live, now)
    counters = read_request_counters(telemetry, ref, tuple(live), memory.order_since_seconds, stale)
    memory = replace(memory, counting=count_requests(memory.counting, names, tuple(live), counters, now))
    estimate = _known_estimate(context, snapshot, telemetry, pool_memory)
    load = estimate_service_load(
        telemetry, ref, tuple(live), memory.order_since_seconds, stale, memory.live_since_seconds
    )
    feedback = spec.feedback.prometheus
    outcomes, problem = estimate_outcomes(telemetry, ref.namespace, feedback, stale)
    inputs = ServiceInputs(
        spec=spec,
        member_names=names,
        states=states,
        estimate=estimate,
        live=live,
        outcomes=outcomes,
        retiring=frozenset() if pool_memory is None else pool_memory.retiring,
        load_rps=load.total_rps,
        pool_rps=_pool_rate(context, estimate, ref, load, _peaks(snapshot, estimate, pool_memory)),
        at_seconds=now,
        resets=find_resets(telemetry, ref.namespace, feedback),
        feedback_source=feedback_source(feedback),
        requests_known=counters is not None,
        planned={} if pool_memory is None else pool_memory.planned,
        coming=find_coming(context, snapshot, ref, load, estimate, pool_memory),
        fills=may_silence(context),
    )
    decision, memory = decide_service(inputs, memory, rng)
    figures = estimate_figures(ref, names, context, estimate, load, memory, summarise_service(spec, memory))
    return ServiceThought(
        decision=decision,
        memory=memory,
        figures=figures,
        states=states,
        metrics=problem or _find_metrics_problem(telemetry, estimate, load, snapshot.routes.get(ref)),
        infeasible=_find_infeasible(context, spec, states),
        findings=tuple(finding for finding in (missing, _find_lost(memory, figures.ledger)) if finding is not None),
    )


def _find_lost(memory: ServiceMemory, ledger: LedgerSummary | None) -> Finding | None:
    """That a stored state could not be used, until the new ledger can be judged."""
    if not memory.lost or (ledger is not None and ledger.total >= MIN_JUDGED):
        return None
    return Finding(Reason.STATE_LOST, memory.lost)


def _pool_rate(
    context: PoolContext,
    estimate: PoolEstimate,
    ref: Ref,
    own: ServiceLoad,
    peaks: Mapping[Ref, float],
) -> float | None:
    """Requests per second that all services of a pool may send, their recent peak; None as soon as one is unknown.

    Shares that fill a member at the rate of a lull overfill it when the lull is over, before the next weights; so do
    shares that leave no room for what a count of the coming interval may lie above that of the last.
    """
    total = 0.0
    for name in context.services:
        rate = own.total_rps if name == ref else estimate.loads.get(name, own).total_rps
        if rate is None:
            return None
        total += max(rate, peaks.get(name, 0.0))
    return total * (1.0 + COUNT_HEADROOM)


def _peaks(snapshot: ClusterSnapshot, estimate: PoolEstimate, memory: PoolMemory | None) -> Mapping[Ref, float]:
    """The recent peak of each service of a pool, worked out once for the passes of all of them."""
    if memory is None:
        return {}

    def find() -> tuple[PoolMemory, dict[Ref, float]]:
        now = estimate.at_seconds
        peaks = {name: estimate_peak_rps(recent, now, PEAK_SECONDS) or 0.0 for name, recent in memory.rates.items()}
        return memory, peaks  # the memory is kept, so the id stays its own

    return snapshot.derived.once((_peaks, id(memory)), find)[1]


def _find_metrics_problem(
    telemetry: TelemetrySnapshot, estimate: PoolEstimate, load: ServiceLoad, route: Manifest | None
) -> Finding | None:
    """What a service misses besides its feedback: a group that was not read, a series that cannot be used."""
    for group, text in sorted(telemetry.problems.items()):
        return read_problem(group, text)
    if estimate.problems:
        return estimate.problems[0]
    if route is not None and load.total_rps is None:
        return Finding(Reason.NO_SAMPLES, load.problem)
    return None


def owner_uid(raw: Manifest) -> str:
    """The uid of an object, by which one that was deleted and created anew is told from the old one."""
    return str(metadata(raw).get("uid", ""))
