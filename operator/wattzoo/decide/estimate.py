"""From one observation to what is known of a pool: signals and capacity by variant, joules by member, load by service.

Pure and total: whatever is missing, stale or implausible becomes unknown with its reason, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from wattzoo.api.accelerator_pool import AcceleratorPoolSpec
from wattzoo.api.llm_service import LLMServiceSpec
from wattzoo.api.model_pool import ModelPool
from wattzoo.api.model_profile import ModelProfileSpec
from wattzoo.decide.capacity import estimate_capacity, service_bounds, strictest_bounds
from wattzoo.decide.energy import estimate_energy, estimate_members
from wattzoo.decide.engine_args import EngineLimits
from wattzoo.decide.engines import PodSeries, estimate_variant, index_series, warm_pods
from wattzoo.decide.latencies import estimate_late_share, estimate_quantile
from wattzoo.decide.memory import MemberMemory, PoolEstimate, PoolMemory
from wattzoo.decide.series import read_problem
from wattzoo.decide.traffic import estimate_service_load, live_weights
from wattzoo.decide.workloads import variants_of
from wattzoo.decisions import Capacity, Finding, Latencies, ServiceLoad, VariantSignals
from wattzoo.model import (
    ClusterSnapshot,
    PodView,
    Ref,
    Signal,
    TelemetrySnapshot,
    VariantKey,
    VariantState,
)
from wattzoo_policies.capacity.model import LatencyTarget, RequestShape

QUANTILE = 0.95


@dataclass(frozen=True, slots=True)
class PoolContext:
    """A pool with everything it refers to, as far as that exists and can be read.

    taken: variants whose Deployment is scaled for another variant; traffic may go there, replicas are not theirs.
    """

    ref: Ref
    pool: ModelPool
    states: tuple[VariantState, ...]
    profiles: Mapping[str, ModelProfileSpec]
    hardware: Mapping[str, AcceleratorPoolSpec]
    services: Mapping[Ref, LLMServiceSpec]
    limits: Mapping[VariantKey, EngineLimits] = field(default_factory=dict)
    taken: frozenset[VariantKey] = frozenset()


def _shape(memory: MemberMemory | None) -> RequestShape | None:
    if memory is None or memory.input_tokens is None or not memory.output_tokens:
        return None
    return RequestShape(memory.input_tokens, memory.output_tokens)


def _mean_shape(members: Mapping[str, MemberMemory]) -> RequestShape | None:
    """Shape of the pool's requests over all members, for one that has not served any yet."""
    known = [(memory.served_rps, shape) for memory in members.values() if (shape := _shape(memory)) is not None]
    total = sum(rate for rate, _ in known)
    if total <= 0.0:
        return None
    return RequestShape(
        sum(rate * shape.input_tokens for rate, shape in known) / total,
        sum(rate * shape.output_tokens for rate, shape in known) / total,
    )


def estimate_capacities(context: PoolContext, members: Mapping[str, MemberMemory]) -> dict[VariantKey, Capacity]:
    """Capacity of one replica of every variant at the strictest bounds that hold for the pool."""
    return _capacities_within(context, members, find_bounds(context, members))


def find_bounds(context: PoolContext, members: Mapping[str, MemberMemory]) -> LatencyTarget:
    """The strictest latency bounds of the services that use the pool.

    A service whose own bounds no variant keeps is told so and gets what the others leave: it must not stop them.
    """
    services = tuple(context.services.values())
    strictest = strictest_bounds(services)
    if len(services) < 2 or _is_any_known(_capacities_within(context, members, strictest)):
        return strictest
    kept = [s for s in services if _is_any_known(_capacities_within(context, members, service_bounds(s)))]
    return strictest_bounds(kept) if kept else strictest


def _is_any_known(capacities: Mapping[VariantKey, Capacity]) -> bool:
    return any(capacity.rps is not None for capacity in capacities.values())


def _capacities_within(
    context: PoolContext, members: Mapping[str, MemberMemory], bounds: LatencyTarget
) -> dict[VariantKey, Capacity]:
    typical = _mean_shape(members)
    capacities = {}
    for member, variant, key in variants_of(context.pool):
        hardware = context.hardware.get(variant.accelerator_pool or "")
        figures = None if hardware is None else hardware.figures()
        resident = None if figures is None else float(figures.resident_watts * variant.accelerators)
        shape = _shape(members.get(member.name)) or typical
        profile = context.profiles.get(variant.profile)
        limits = context.limits.get(key, EngineLimits())
        capacity = estimate_capacity(profile, bounds, shape, resident, variant.accelerators, limits)
        if capacity.problem is not None:
            text = f"{key}, ModelProfile {variant.profile}: {capacity.problem.message}"
            capacity = replace(capacity, problem=replace(capacity.problem, message=text))
        capacities[key] = capacity
    return capacities


def _max_watts(context: PoolContext, state: VariantState) -> float | None:
    hardware = context.hardware.get(state.accelerator_pool or "")
    figures = None if hardware is None else hardware.figures()
    return None if figures is None else float(figures.max_watts)


def _estimate_signals(
    context: PoolContext, state: VariantState, index: PodSeries, bounds: LatencyTarget
) -> VariantSignals:
    namespace = context.ref.namespace
    signals = estimate_variant(namespace, state, index, _max_watts(context, state))
    late = estimate_late_share(namespace, warm_pods(state, index.at_seconds), index, bounds)
    return replace(signals, late_share=late)


def estimate_loads(
    context: PoolContext,
    snapshot: ClusterSnapshot,
    telemetry: TelemetrySnapshot,
    order_since: Mapping[Ref, float | None],
) -> dict[Ref, ServiceLoad]:
    """What the gateway sent for each service, by variant."""
    stale = float(context.pool.spec.scaling.stale_after_seconds)
    return {
        ref: estimate_service_load(
            telemetry, ref, tuple(live_weights(snapshot.routes.get(ref), context.states)), order_since.get(ref), stale
        )
        for ref in context.services
    }


def _latencies(context: PoolContext, index: PodSeries, weights: Mapping[VariantKey, int]) -> Latencies:
    pods: list[PodView] = [
        pod for state in context.states if weights.get(state.key, 0) > 0 for pod in warm_pods(state, index.at_seconds)
    ]
    namespace = context.ref.namespace
    return Latencies(
        estimate_quantile(namespace, pods, index, Signal.TIME_TO_FIRST_TOKEN_SECONDS, QUANTILE),
        estimate_quantile(namespace, pods, index, Signal.TIME_PER_OUTPUT_TOKEN_SECONDS, QUANTILE),
    )


def estimate_pool(
    context: PoolContext,
    snapshot: ClusterSnapshot,
    telemetry: TelemetrySnapshot,
    memory: PoolMemory,
    order_since: Mapping[Ref, float | None],
) -> tuple[PoolEstimate, PoolMemory]:
    """What is known now, and the memory with its smoothed figures moved on."""
    stale = float(context.pool.spec.scaling.stale_after_seconds)
    now = telemetry.at_seconds
    index = index_series(telemetry, stale)
    bounds = find_bounds(context, memory.members)
    signals = {state.key: _estimate_signals(context, state, index, bounds) for state in context.states}
    capacities = _capacities_within(context, memory.members, bounds)
    members = estimate_members(context.states, signals, capacities, memory.members, now)
    energy = {
        member.name: estimate_energy(
            member.name,
            context.states,
            signals,
            capacities,
            members.get(member.name),
            shared=len(context.services) > 1,
            stale=member.name not in members or now - members[member.name].at_seconds > stale,
        )
        for member in context.pool.spec.members
    }
    estimate = PoolEstimate(
        at_seconds=now,
        signals=signals,
        capacities=capacities,
        energy=energy,
        loads=estimate_loads(context, snapshot, telemetry, order_since),
        latencies={
            ref: _latencies(context, index, live_weights(snapshot.routes.get(ref), context.states))
            for ref in context.services
        },
        accelerator_pools={state.key: state.accelerator_pool for state in context.states},
        problems=_problems(signals, telemetry),
    )
    return estimate, replace(memory, members=members, estimate=estimate)


def _problems(signals: Mapping[VariantKey, VariantSignals], telemetry: TelemetrySnapshot) -> tuple[Finding, ...]:
    """Why something could not be known: groups that were not read, then series that cannot be used."""
    groups = [read_problem(group, text) for group, text in sorted(telemetry.problems.items())]
    pairs = ((key, problem) for key, seen in signals.items() for problem in seen.problems)
    return (*groups, *(Finding(problem.reason, f"{key}: {problem.message}") for key, problem in pairs))
