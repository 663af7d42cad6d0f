"""When the joint plan is made, and where: in a thread beside the event loop, for a bounded time, the last one kept.

Every ModelPool's pass brings its part and takes its share of the newest plan; nobody waits for a solver. A plan that is
too old is none: the pool then follows its own demand, which never lowers anything on what is unknown. A pool that is
unknown for a moment keeps its share meanwhile, and whatever a plan fails of, passes go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from wattzoo.api.model_pool import ModelPool
from wattzoo.decide.caps import Headroom, deployment_ref, estimate_headroom, holdings
from wattzoo.decide.objective import find_fallbacks, weigh_pools
from wattzoo.decide.plan_fleet import (
    PlanPart,
    cut_refused,
    declared_reserves,
    find_refused,
    find_unknown,
    is_exceeded,
    make_problem,
    read_plan,
)
from wattzoo.decisions import Finding, PoolPlan
from wattzoo.model import ClusterSnapshot, Kind, Ref
from wattzoo.telemetry import Telemetry
from wattzoo_policies.placement.objective import Objective
from wattzoo_policies.placement.problem import Plan, PlanProblem
from wattzoo_policies.placement.reserve import solve_with_reserves
from wattzoo_policies.placement.solve import solve_plan

TIME_LIMIT_SECONDS = 2.0
"""For each solve: one for what is served, one more where a reserve is declared."""
KEPT_INTERVALS = 5.0
"""A plan older than so many intervals is none."""
PART_INTERVALS = 0.5
"""What a pass knew is planned for no longer than so many intervals: no plan rests on a pool whose passes fail."""
FAILED = "Failed"

Mark = Callable[[Kind, Ref], None]

logger = logging.getLogger(__name__)


class Solve(Protocol):
    """`solve_plan`, as it is called here."""

    def __call__(
        self, problem: PlanProblem, *, time_limit_seconds: float, previous: Plan | None, explain: bool
    ) -> Plan:
        """Return a plan within about the time limit."""


@dataclass(frozen=True, slots=True)
class FleetProblem:
    """What is to be planned for some parts, and what of them had to be left out or planned for another objective.

    reserves: by service of the problem, in percent of its high rate.
    """

    parts: tuple[PlanPart, ...]
    problem: PlanProblem
    reserves: Mapping[str, float]
    refused: Mapping[Ref, tuple[Finding, ...]]
    objective: Objective


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """One plan for all parts, and each ModelPool's share of it."""

    plan: Plan
    shares: Mapping[Ref, PoolPlan]
    refused: Mapping[Ref, tuple[Finding, ...]]


def estimate_fleet_headroom(
    snapshot: ClusterSnapshot, pools: Iterable[ModelPool], parts: Collection[PlanPart]
) -> dict[str, Headroom]:
    """What these parts together may hold of each AcceleratorPool besides what others hold."""
    held = holdings(snapshot, pools)
    own = [
        deployment_ref(part.context.pool, state)
        for part in parts
        for state in part.context.states
        if state.key in part.bounds
    ]
    specs = {name: spec for part in parts for name, spec in part.context.hardware.items()}
    return {name: estimate_headroom(spec, snapshot, held.get(name, {}), own) for name, spec in specs.items()}


def make_fleet_problem(
    parts: Sequence[PlanPart],
    headroom: Mapping[str, Headroom],
    snapshot: ClusterSnapshot,
    objective: Objective = Objective.ENERGY,
) -> FleetProblem:
    """The problem of these parts, of which everything must be known; raises ValueError for what cannot be planned."""
    problem, refused = cut_refused(make_problem(parts, headroom, snapshot))
    specs = {name: spec for part in parts for name, spec in part.context.hardware.items()}
    problem, fallbacks = weigh_pools(problem, specs, objective)
    findings = {part.context.ref: (*find_refused(part, refused), *find_fallbacks(part, fallbacks)) for part in parts}
    return FleetProblem(tuple(parts), problem, declared_reserves(parts), findings, objective)


def solve_fleet(asked: FleetProblem, at_seconds: float, previous: Plan | None, solve: Solve = solve_plan) -> FleetPlan:
    """The plan, with the declared reserves on top; raises ValueError or ArithmeticError when there is none."""

    def solve_one(problem: PlanProblem) -> Plan:
        explain = problem is asked.problem
        return solve(problem, time_limit_seconds=TIME_LIMIT_SECONDS, previous=previous, explain=explain)

    problem, plan = solve_with_reserves(asked.problem, asked.reserves, solve_one)
    shares = {part.context.ref: read_plan(part, problem, plan, at_seconds, asked.objective) for part in asked.parts}
    return FleetPlan(plan, shares, asked.refused)


class FleetPlanner:
    """Makes one plan for all pools that ask for it, and hands each its share."""

    def __init__(
        self,
        telemetry: Telemetry,
        mark: Mark,
        interval_seconds: float,
        solve: Solve = solve_plan,
        objective: Objective = Objective.ENERGY,
    ) -> None:
        """`mark` is told of every ModelPool whose wishes changed."""
        self._telemetry = telemetry
        self._mark = mark
        self._interval_seconds = interval_seconds
        self._solve = solve
        self._objective = objective
        self._parts: dict[Ref, PlanPart] = {}
        self._plans: Mapping[Ref, PoolPlan] = {}
        self._refused: Mapping[Ref, tuple[Finding, ...]] = {}
        self._last: Plan | None = None
        self._started_at_seconds: float | None = None
        self._asked: Mapping[Ref, frozenset[Ref]] = {}
        self._running: asyncio.Task[None] | None = None
        self._unknown: Mapping[Ref, str] = {}
        self._failure = ""

    def note(self, ref: Ref, part: PlanPart | None) -> None:
        """Take in what a pool's pass knows; None for a pool that is not planned jointly."""
        if part is None:
            self.keep(self._parts.keys() - {ref})
        else:
            self._parts[ref] = part

    def keep(self, refs: Collection[Ref]) -> None:
        """Forget the pools that are not among these."""
        self._parts = {ref: part for ref, part in self._parts.items() if ref in refs}
        self._plans = {ref: plan for ref, plan in self._plans.items() if ref in refs}
        self._refused = {ref: found for ref, found in self._refused.items() if ref in refs}

    def plan_of(self, ref: Ref, at_seconds: float) -> PoolPlan | None:
        """A pool's share of the newest plan that still holds."""
        plan = self._plans.get(ref)
        old = plan is None or abs(at_seconds - plan.at_seconds) > KEPT_INTERVALS * self._interval_seconds
        return None if old else plan

    def refused_of(self, ref: Ref) -> tuple[Finding, ...]:
        """What of a pool the last plan had to leave out, or to plan for another objective than asked for."""
        return self._refused.get(ref, ())

    def missing_of(self, ref: Ref) -> str:
        """Why a pool has no share of a plan, as far as is known now."""
        failed = f"planning failed ({self._failure})" if self._failure else "it is being made"
        return self._unknown.get(ref) or failed

    def start_if_due(self, snapshot: ClusterSnapshot, pools: Iterable[ModelPool], at_seconds: float) -> None:
        """Begin a plan when the interval is over, when a pool is new, or when load exceeds what was planned for."""
        if not self._parts or (self._running is not None and not self._running.done()):
            return
        pools = tuple(pools)
        try:
            parts = self._known_parts(snapshot, pools, at_seconds)
            if not parts or not self._is_due(parts, at_seconds):
                return
            self._started_at_seconds = at_seconds
            self._asked = {part.context.ref: frozenset(part.context.services) for part in parts}
            headroom = estimate_fleet_headroom(snapshot, pools, parts)
            asked = make_fleet_problem(parts, headroom, snapshot, self._objective)
        except Exception as error:  # noqa: BLE001 (logged; the pass that asked goes on without a plan)
            self._failed(error)
            return
        self._refused = asked.refused
        self._running = asyncio.create_task(self._plan(asked, at_seconds), name="plan")

    async def wait(self) -> None:
        """Return when no plan is being made."""
        if self._running is not None:
            await self._running

    def _known_parts(
        self, snapshot: ClusterSnapshot, pools: Iterable[ModelPool], at_seconds: float
    ) -> tuple[PlanPart, ...]:
        """What can be planned now: everything of it is known, and has been seen lately."""
        known = estimate_fleet_headroom(snapshot, pools, self._parts.values())
        self._unknown = {ref: why for ref, part in self._parts.items() if (why := find_unknown(part, known))}
        oldest = PART_INTERVALS * self._interval_seconds
        return tuple(
            part
            for ref, part in sorted(self._parts.items())
            if abs(at_seconds - part.estimate.at_seconds) <= oldest and ref not in self._unknown
        )

    def _is_due(self, parts: tuple[PlanPart, ...], at_seconds: float) -> bool:
        started = self._started_at_seconds
        if started is None or not started <= at_seconds < started + self._interval_seconds:
            return True
        if {part.context.ref for part in parts} != self._asked.keys():
            return True
        return any(self._exceeds(part) for part in parts) and at_seconds > started

    def _exceeds(self, part: PlanPart) -> bool:
        plan = self._plans.get(part.context.ref)
        return plan is not None and is_exceeded(part, plan, self._asked.get(part.context.ref, frozenset()))

    async def _plan(self, asked: FleetProblem, at_seconds: float) -> None:
        began = time.monotonic()
        try:
            found = await asyncio.to_thread(solve_fleet, asked, at_seconds, self._last, self._solve)
        except Exception as error:  # noqa: BLE001 (logged; nobody waits for this task, it would be lost)
            self._failed(error)
            return
        finally:
            self._telemetry.plan_seconds.observe(time.monotonic() - began)
        self._failure, self._last = "", found.plan
        self._telemetry.plans.labels(str(found.plan.status)).inc()
        before, present = self._plans, {ref: share for ref, share in found.shares.items() if ref in self._parts}
        self._plans = {**before, **present}
        for ref, share in present.items():
            known = before.get(ref)
            if known is None or known.replicas != share.replicas:
                self._mark(Kind.MODEL_POOL, ref)

    def _failed(self, error: Exception) -> None:
        """Count it, and say it once; the last plan holds until it is too old."""
        self._telemetry.plans.labels(FAILED).inc()
        text = f"{type(error).__name__}: {error}"
        if self._failure != text:
            self._failure = text
            expected = isinstance(error, ValueError | ArithmeticError)
            logger.warning("no plan: %s", text, exc_info=None if expected else error)
