"""When the joint plan is made, and where: in a thread beside the event loop, for a bounded time, the last one kept.

Every ModelPool's pass brings its part and takes its share of the newest plan; nobody waits for a solver. A plan that is
too old is none: the pool then follows its own demand, which never lowers anything on what is unknown.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from wattzoo.api.model_pool import ModelPool
from wattzoo.decide.caps import Headroom, deployment_ref, estimate_headroom, holdings
from wattzoo.decide.objective import find_fallbacks, weigh_pools
from wattzoo.decide.plan_fleet import (
    PlanPart,
    cut_refused,
    cut_reserve,
    find_refused,
    find_unknown,
    make_problem,
    read_plan,
)
from wattzoo.decisions import Finding, PoolPlan
from wattzoo.model import ClusterSnapshot, Kind, Ref
from wattzoo.telemetry import Telemetry
from wattzoo_policies.placement.objective import Objective
from wattzoo_policies.placement.problem import Plan, PlanProblem
from wattzoo_policies.placement.solve import solve_plan

TIME_LIMIT_SECONDS = 2.0
KEPT_INTERVALS = 5.0
"""A plan older than so many intervals is none."""
RESERVE_SHARES = (1.0, 0.5, 0.0)
"""Shares of the declared reserve to try; what comes before its time is worth less than a promise that is broken now."""
ACCURACY_TOLERANCE = 1e-3
"""A tenth of a point: less than this is no reason to give up a reserve, and may be a solver's rounding."""
FAILED = "Failed"

Mark = Callable[[Kind, Ref], None]

logger = logging.getLogger(__name__)


class Solve(Protocol):
    """`solve_plan`, as it is called here."""

    def __call__(
        self, problem: PlanProblem, *, time_limit_seconds: float, previous: Plan | None, explain: bool
    ) -> Plan:
        """Return a plan within about the time limit."""


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
        self._asked: frozenset[Ref] = frozenset()
        self._running: asyncio.Task[None] | None = None
        self._failure = ""

    def note(self, ref: Ref, part: PlanPart | None) -> None:
        """Take in what a pool's pass knows; None for a pool that is not planned jointly."""
        if part is None:
            self._parts.pop(ref, None)
            self._refused = {name: found for name, found in self._refused.items() if name != ref}
        else:
            self._parts[ref] = part

    def keep(self, refs: Collection[Ref]) -> None:
        """Forget the pools that are not among these."""
        self._parts = {ref: part for ref, part in self._parts.items() if ref in refs}

    def plan_of(self, ref: Ref, at_seconds: float) -> PoolPlan | None:
        """A pool's share of the newest plan that still holds."""
        plan = self._plans.get(ref)
        old = plan is None or at_seconds - plan.at_seconds > KEPT_INTERVALS * self._interval_seconds
        return None if old else plan

    def refused_of(self, ref: Ref) -> tuple[Finding, ...]:
        """What of a pool the last plan had to leave out, or to plan for another objective than asked for."""
        return self._refused.get(ref, ())

    def start_if_due(self, snapshot: ClusterSnapshot, pools: Iterable[ModelPool], at_seconds: float) -> None:
        """Begin a plan when the interval is over, when a pool is new, or when load exceeds what was planned for."""
        if not self._parts or (self._running is not None and not self._running.done()):
            return
        held = holdings(snapshot, pools)
        known = self._headroom(snapshot, held, self._parts.values())
        parts = tuple(part for _, part in sorted(self._parts.items()) if not find_unknown(part, known))
        if not parts or not self._is_due(parts, at_seconds):
            return
        self._started_at_seconds, self._asked = at_seconds, frozenset(part.context.ref for part in parts)
        try:
            problem, refused = cut_refused(make_problem(parts, self._headroom(snapshot, held, parts), snapshot))
        except ValueError as error:
            self._failed(error)
            return
        specs = {name: spec for part in parts for name, spec in part.context.hardware.items()}
        problem, fallbacks = weigh_pools(problem, specs, self._objective)
        self._refused = {
            part.context.ref: (*find_refused(part, refused), *find_fallbacks(part, fallbacks)) for part in parts
        }
        self._running = asyncio.create_task(self._plan(parts, problem, at_seconds), name="plan")

    async def wait(self) -> None:
        """Return when no plan is being made."""
        if self._running is not None:
            await self._running

    def _is_due(self, parts: tuple[PlanPart, ...], at_seconds: float) -> bool:
        started = self._started_at_seconds
        if started is None or not started <= at_seconds < started + self._interval_seconds:
            return True
        if frozenset(part.context.ref for part in parts) != self._asked:
            return True
        return any(self._exceeds(part) for part in parts) and at_seconds > started

    def _exceeds(self, part: PlanPart) -> bool:
        """Whether a service's rate is above what was planned for, or one was not planned for at all."""
        plan = self._plans.get(part.context.ref)
        if plan is None:
            return False
        for ref in part.context.services:
            load, planned = part.estimate.loads.get(ref), plan.rates.get(ref)
            if planned is None or (load is not None and (load.total_rps or 0.0) > planned):
                return True
        return False

    def _headroom(
        self, snapshot: ClusterSnapshot, held: Mapping[str, Mapping[Ref, int]], parts: Collection[PlanPart]
    ) -> dict[str, Headroom]:
        """What these parts together may hold of each AcceleratorPool besides what others hold."""
        own = [deployment_ref(part.context.pool, state) for part in parts for state in part.context.states]
        specs = {name: spec for part in parts for name, spec in part.context.hardware.items()}
        return {name: estimate_headroom(spec, snapshot, held.get(name, {}), own) for name, spec in specs.items()}

    async def _plan(self, parts: tuple[PlanPart, ...], problem: PlanProblem, at_seconds: float) -> None:
        began = time.monotonic()
        try:
            problem, plan = await asyncio.to_thread(self._solve_elastic, problem)
        except (ValueError, ArithmeticError) as error:
            self._failed(error)
            return
        finally:
            self._telemetry.plan_seconds.observe(time.monotonic() - began)
        self._failure, self._last = "", plan
        self._telemetry.plans.labels(str(plan.status)).inc()
        before = self._plans
        self._plans = {part.context.ref: read_plan(part, problem, plan, at_seconds, self._objective) for part in parts}
        for ref, share in self._plans.items():
            known = before.get(ref)
            if known is None or known.replicas != share.replicas:
                self._mark(Kind.MODEL_POOL, ref)

    def _solve_elastic(self, problem: PlanProblem) -> tuple[PlanProblem, Plan]:
        """A plan with the declared reserve, or with less of it where the whole would cost the promised accuracy.

        Runs in a thread of its own.
        """
        best: tuple[PlanProblem, Plan] | None = None
        for share in RESERVE_SHARES:
            asked = cut_reserve(problem, share)
            plan = self._solve(asked, time_limit_seconds=TIME_LIMIT_SECONDS, previous=self._last, explain=True)
            missing = sum(plan.accuracy_missing.values())
            if best is None or missing < sum(best[1].accuracy_missing.values()) - ACCURACY_TOLERANCE:
                best = asked, plan
            if missing <= ACCURACY_TOLERANCE:
                break
        if best is None:
            raise ValueError("no share of the reserve to plan with")
        return best

    def _failed(self, error: Exception) -> None:
        """Count it, and say it once; the last plan holds until it is too old."""
        self._telemetry.plans.labels(FAILED).inc()
        if self._failure != str(error):
            self._failure = str(error)
            logger.warning("no plan: %s", error)
