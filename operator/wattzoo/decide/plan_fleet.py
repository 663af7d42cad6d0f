"""One plan for every ModelPool that is planned jointly: from what each pass knows to plain numbers, and back.

Services of pools that share accelerators are solved together; the planner itself finds what is connected. A pool of
which something is unknown (a profile, a rate) is left out and follows its own demand: nothing is planned from guesses.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from wattzoo.api.conditions import Reason
from wattzoo.api.llm_service import LLMServiceSpec
from wattzoo.decide.caps import Headroom, node_sizes
from wattzoo.decide.context import find_missing_members
from wattzoo.decide.estimate import PoolContext
from wattzoo.decide.forecast import estimate_present_rps, estimate_rates
from wattzoo.decide.memory import STEP_SECONDS, PoolEstimate, PoolMemory
from wattzoo.decisions import Capacity, Finding, PoolPlan
from wattzoo.model import ClusterSnapshot, Kind, Ref, VariantKey, VariantState
from wattzoo_policies.capacity.model import work_seconds
from wattzoo_policies.placement.check import PlanError, check_problem
from wattzoo_policies.placement.objective import Objective
from wattzoo_policies.placement.problem import KEPT_ETA, Plan, PlanPool, PlanProblem, PlanService, PlanVariant
from wattzoo_policies.placement.reserve import RESERVE
from wattzoo_policies.placement.target import REACH, Debt, decide_target, estimate_credit
from wattzoo_policies.signals import LedgerSummary, MemberOutcomes

ETA = 0.9
"""Share of the knee that a replica is filled to: what `Capacity.rps` already is."""
MARGIN = 0.003
REPAY_SECONDS = 600.0
PLAN_STEPS = 4.0
"""Steps of the forecast from one plan to the next."""
LEAST_REQUESTS = 200.0
"""Requests over which servers are planned to repay debt at least: they stay for longer than weights."""
LEAST_RPS = 1e-3
"""A service without requests is planned for as if it had one in a quarter of an hour: somebody must hold the first."""
MIN_LABELS = 20.0
PRESENT_LABELS = 500.0
MOST_COUNTED = 5000.0
"""The past counts ten times what is at present, at most: members do change, and debts tell of it besides."""


@dataclass(frozen=True, slots=True)
class PlanPart:
    """What one ModelPool brings in: its last estimate and, by variant, the bounds that its passes keep."""

    context: PoolContext
    estimate: PoolEstimate
    memory: PoolMemory
    bounds: Mapping[VariantKey, tuple[int, int]]
    ledgers: Mapping[Ref, LedgerSummary | None]


def variant_name(ref: Ref, key: VariantKey) -> str:
    """Name of a variant in the problem."""
    return f"{ref}/{key}"


def find_unknown(part: PlanPart, headroom: Mapping[str, Headroom]) -> str:
    """Why a pool cannot be planned jointly; empty when it can."""
    for state in part.context.states:
        room = headroom.get(state.accelerator_pool or "")
        if state.key in part.bounds and (room is None or room.bound is None):
            return f"how much of {state.accelerator_pool} there is for {state.key} is unknown"
        capacity = part.estimate.capacities.get(state.key)
        if state.key in part.bounds and (capacity is None or capacity.model is None or capacity.shape is None):
            return f"what a replica of {state.key} carries is unknown"
    if part.bounds and all(part.estimate.capacities[key].rps is None for key in part.bounds):
        return "no variant keeps the latency bounds"
    for ref in part.context.services:
        load = part.estimate.loads.get(ref)
        if load is None or load.total_rps is None:
            return f"the rate of {ref.name} is unknown"
    return ""


def cut_refused(problem: PlanProblem) -> tuple[PlanProblem, tuple[PlanError, ...]]:
    """The problem without what the planner refuses, and why; one bad object must not cost the others their plan.

    With an AcceleratorPool go its variants. Raises `PlanError` for what concerns the problem as a whole.
    """
    refused: list[PlanError] = []
    while True:
        try:
            check_problem(problem)
        except PlanError as error:
            if error.kind == "problem":
                raise
            refused.append(error)
            problem = _without(problem, error.kind, error.name)
        else:
            return problem, tuple(refused)


def _without(problem: PlanProblem, kind: str, name: str) -> PlanProblem:
    """The problem without one pool with its variants, one variant, or one service."""
    pools = tuple(pool for pool in problem.pools if (kind, name) != ("pool", pool.name))
    variants = tuple(v for v in problem.variants if name not in {"pool": (v.pool,), "variant": (v.name,)}.get(kind, ()))
    kept = {variant.name for variant in variants}
    services = tuple(
        replace(
            service,
            work_seconds={key: work for key, work in service.work_seconds.items() if key in kept},
            accuracy={key: value for key, value in service.accuracy.items() if key in kept},
        )
        for service in problem.services
        if (kind, name) != ("service", service.name)
    )
    return replace(problem, pools=pools, variants=variants, services=services)


def find_refused(part: PlanPart, refused: Sequence[PlanError]) -> tuple[Finding, ...]:
    """What of a part the planner refused."""
    pools = {state.accelerator_pool for state in part.context.states if state.key in part.bounds}
    own = {
        "pool": {name for name in pools if name is not None},
        "variant": {variant_name(part.context.ref, key) for key in part.bounds},
        "service": {str(ref) for ref in part.context.services},
    }
    shown = {"pool": Kind.ACCELERATOR_POOL, "variant": "variant", "service": Kind.LLM_SERVICE}
    return tuple(
        Finding(
            Reason.NOT_PLANNED,
            f"{shown[error.kind]}/{error.name}: {error.field} is {error.value}, but {error.rule}; "
            "it is left out of the joint plan",
        )
        for error in refused
        if error.name in own.get(error.kind, ())
    )


def make_problem(parts: Sequence[PlanPart], headroom: Mapping[str, Headroom], snapshot: ClusterSnapshot) -> PlanProblem:
    """The problem of all parts; `headroom` is what they may hold of each AcceleratorPool together."""
    variants: list[PlanVariant] = []
    services: list[PlanService] = []
    used: set[str] = set()
    for part in parts:
        unknown = _unknown_members(part)
        for state in part.context.states:
            pool = state.accelerator_pool
            if state.key in part.bounds and pool is not None:
                used.add(pool)
                variants.append(_make_variant(part, state, part.estimate.capacities[state.key], unknown))
        services += [_make_service(part, ref, spec) for ref, spec in part.context.services.items()]
    pools = [PlanPool(name, headroom[name].bound or 0, _nodes(parts, name, snapshot)) for name in sorted(used)]
    return PlanProblem(tuple(pools), tuple(variants), tuple(services), eta=ETA, kept_eta=_kept_eta(parts))


def _kept_eta(parts: Sequence[PlanPart]) -> float:
    """How full what is there may become before the high rate's accuracy alone starts anything.

    Starts that are over before the next plan are not spared: laws give credit back to cheap members, and costly ones
    never rest where those do not come.
    """
    models = [part.estimate.capacities[key].model for part in parts for key in part.bounds]
    quickest = min((model.startup_seconds for model in models if model is not None), default=0.0)
    step_seconds = min((part.memory.forecasts.step_seconds for part in parts), default=STEP_SECONDS)
    return ETA if quickest <= PLAN_STEPS * step_seconds else KEPT_ETA


def _nodes(parts: Sequence[PlanPart], name: str, snapshot: ClusterSnapshot) -> tuple[int, ...]:
    spec = next((part.context.hardware[name] for part in parts if name in part.context.hardware), None)
    return () if spec is None else node_sizes(snapshot.nodes, spec)


def _unknown_members(part: PlanPart) -> frozenset[str]:
    """Members that some service knows nothing of: they must run somewhere to be learned."""
    unknown = set()
    for ref, spec in part.context.services.items():
        known = _accuracies(part, ref, spec)
        unknown |= {name for name, accuracy in known.items() if accuracy is None}
    return frozenset(unknown)


def _make_variant(part: PlanPart, state: VariantState, capacity: Capacity, unknown: frozenset[str]) -> PlanVariant:
    model, shape = capacity.model, capacity.shape
    if model is None or shape is None:
        raise ValueError(f"{state.key} has no model of a replica: its pool is not to be planned jointly")
    least, most = part.bounds[state.key]
    first = next(s.key for s in part.context.states if s.key.member == state.key.member and s.key in part.bounds)
    if state.key.member in unknown and state.key == first:
        least = max(least, min(1, most))
    knee = None if capacity.rps is None else capacity.rps * work_seconds(model, shape) / ETA
    return PlanVariant(
        name=variant_name(part.context.ref, state.key),
        member=f"{part.context.ref}/{state.key.member}",
        pool=state.accelerator_pool or "",
        accelerators=max(1, state.accelerators_per_replica),
        idle_watts=model.idle_watts,
        active_watts=model.active_watts,
        max_watts=model.max_watts,
        start_joules=model.startup_joules,
        knee_load=knee,
        current_replicas=state.desired or 0,
        min_replicas=least,
        max_replicas=most,
    )


def _accuracies(part: PlanPart, ref: Ref, spec: LLMServiceSpec) -> dict[str, float | None]:
    """The satisfied share of each member of a service: as its law estimates it, else as declared, else unknown."""
    names, _ = find_missing_members(spec, part.context.pool)
    ledger = part.ledgers.get(ref)
    rows = {} if ledger is None else {row.name: row for row in ledger.members}
    priors = {m.name: m.accuracy_prior_per_mille for m in spec.members or ()}
    known: dict[str, float | None] = {}
    for name in names:
        row, prior = rows.get(name), priors.get(name)
        known[name] = None if prior is None else prior / 1e3
        if row is not None and row.accuracy is not None and (prior is not None or row.total >= MIN_LABELS):
            known[name] = steady_accuracy(row, row.accuracy)
    return known


def steady_accuracy(row: MemberOutcomes, present: float) -> float:
    """The satisfied share of a member to plan for: all that was counted of it, and a little of how it is now.

    Laws follow what traffic is like at present, on hundreds of answers; chance in those swings the mixture by a tenth
    and would start and stop servers for it.
    """
    counted = min(row.total, MOST_COUNTED)
    past = row.satisfied / row.total if row.total > 0.0 else present
    return (counted * past + PRESENT_LABELS * present) / (counted + PRESENT_LABELS)


def _make_service(part: PlanPart, ref: Ref, spec: LLMServiceSpec) -> PlanService:
    alpha = spec.sla.accuracy.target_per_mille / 1e3
    estimated = _accuracies(part, ref, spec)
    floor = min((value for value in estimated.values() if value is not None), default=alpha + REACH)
    accuracy = {name: floor if value is None else value for name, value in estimated.items()}
    rate, high = (max(LEAST_RPS, rps) for rps in estimate_rates(part.estimate, part.memory, ref))
    ledger = part.ledgers.get(ref)
    # The service's own law aims at a credit; servers are planned so that it can repay and give back.
    floor_requests = -estimate_credit(rate, REPAY_SECONDS)
    debt = Debt(0.0 if ledger is None else max(floor_requests, ledger.debt_requests))
    target = decide_target(
        alpha,
        debt,
        rate,
        accuracy,
        margin=MARGIN,
        credit=0.0,
        repay_seconds=REPAY_SECONDS,
        least_requests=LEAST_REQUESTS,
    )
    work, by_variant = {}, {}
    for state in part.context.states:
        capacity = part.estimate.capacities[state.key]
        if state.key in part.bounds and state.key.member in accuracy and capacity.model and capacity.shape:
            name = variant_name(part.context.ref, state.key)
            work[name] = work_seconds(capacity.model, capacity.shape)
            by_variant[name] = accuracy[state.key.member]
    return PlanService(str(ref), rate, high, min(1.0, max(0.0, target)), work, by_variant)


def declared_reserves(parts: Sequence[PlanPart]) -> dict[str, float]:
    """By service of the problem the reserve that its ModelPool declares, in percent of the high rate."""
    percents = [(part, part.context.pool.spec.scaling.reserve_percent or 0) for part in parts]
    return {str(ref): float(percent) for part, percent in percents for ref in part.context.services}


def is_exceeded(part: PlanPart, plan: PoolPlan, asked: Collection[Ref]) -> bool:
    """Whether a service sends more than was planned for, or has come since.

    asked: the services that the planner was last asked about. One of those that the plan lacks was refused: it is
    asked about again when the interval is over, not in every pass.
    """
    for ref in part.context.services:
        planned = plan.rates.get(ref)
        if planned is None and ref in asked:
            continue
        if planned is None or estimate_present_rps(part.estimate, part.memory, ref) > planned:
            return True
    return False


def _held(part: PlanPart, key: VariantKey) -> int:
    """Replicas of a variant that the planner refused: what it has, within its bounds."""
    least, most = part.bounds[key]
    current = next((state.desired for state in part.context.states if state.key == key), None)
    return max(least, min(current or 0, most))


def read_plan(
    part: PlanPart, problem: PlanProblem, plan: Plan, at_seconds: float, objective: Objective = Objective.ENERGY
) -> PoolPlan:
    """A part's share of the plan; variants that were left out of the problem keep what they have."""
    ref = part.context.ref
    names = {variant_name(ref, key): key for key in part.bounds}
    asked = {variant.name for variant in problem.variants}
    used = {state.accelerator_pool for state in part.context.states if state.key in part.bounds}
    counts_joules = all(pool.objective_weight == 1.0 for pool in problem.pools if pool.name in used)
    services = {service.name: service for service in problem.services}
    own = {name: service for name in part.context.services if (service := services.get(str(name))) is not None}
    high: dict[VariantKey, float] = dict.fromkeys(names.values(), 0.0)
    expected = dict(high)
    for service in own.values():
        swing = service.high_rate_rps / service.rate_rps if service.rate_rps > 0.0 else 1.0
        for name, rate in plan.flows.get(service.name, {}).items():
            if name in names:
                expected[names[name]] += rate
                high[names[name]] += rate * swing
    return PoolPlan(
        at_seconds=at_seconds,
        replicas={
            key: plan.replicas.get(name, 0) if name in asked else _held(part, key) for name, key in names.items()
        },
        expected_rps=expected,
        high_rps=high,
        rates={name: service.high_rate_rps for name, service in own.items()},
        reserves={
            name: reserve.high_rate_rps for name in own if (reserve := services.get(f"{name}{RESERVE}")) is not None
        },
        status=str(plan.status),
        watts=plan.watts,
        binding=plan.binding,
        runner_up=plan.runner_up,
        objective=Objective.ENERGY if counts_joules else objective,
        price={
            name: price
            for name in own
            if counts_joules  # else the dual is grams or money
            if str(name) not in plan.accuracy_missing  # there the dual is the penalty, not joules
            and (price := plan.price_joules_per_satisfied.get(str(name))) is not None
            and math.isfinite(price)
        },
    )
