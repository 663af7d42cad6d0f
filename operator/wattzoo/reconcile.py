"""Level-triggered passes over one object each: observe -> estimate -> decide -> plan -> apply -> report.

The pass over a ModelPool is the only writer of its servers, the pass over an LLMService the only writer of its route.
Event, tick and wake-up all lead here. A pass never raises: what goes wrong with one object is reported on that object
and the others go on. Between reading a cap and reserving what it leaves there is no await.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import numpy as np

from wattzoo.api.accelerator_pool import AcceleratorPoolSpec
from wattzoo.api.conditions import Reason
from wattzoo.api.llm_service import LLMService
from wattzoo.decide.capacity import find_poor_fit, fit_profile
from wattzoo.decide.caps import holdings, node_accelerators
from wattzoo.decide.context import POOL_KINDS, SERVICE_KINDS, Specs, find_unreadable, pool_of, read_context, read_pools
from wattzoo.decide.energy import measured_watts
from wattzoo.decide.forecast_text import render_forecasts
from wattzoo.decide.memory import STEP_SECONDS, PoolMemory, ServiceMemory
from wattzoo.decide.passes import PoolThought, ServiceThought, think_pool, think_service
from wattzoo.decide.restore import restore_pool
from wattzoo.decisions import Finding, VariantPlan
from wattzoo.manifests import metadata
from wattzoo.model import (
    ClusterSnapshot,
    Kind,
    Manifest,
    Ref,
    TelemetrySnapshot,
    WriteResult,
    WriteState,
)
from wattzoo.plan.http_route import Backend
from wattzoo.plan.planner import plan_pool, plan_service, written_replicas
from wattzoo.planning import FleetPlanner, Mark
from wattzoo.reporting import EventSink, Reporter, Writer
from wattzoo.settings import Settings
from wattzoo.status.judge import find_write_problem, may_act
from wattzoo.status.metrics import service_figures
from wattzoo.status.pool_report import (
    AcceleratorView,
    PoolView,
    judge_accelerators,
    judge_pool,
    render_accelerator_pool_status,
    render_model_pool_status,
    short_since,
)
from wattzoo.status.profile_report import judge_profile, render_profile_status
from wattzoo.status.report import (
    ServiceView,
    judge_service,
    render_llm_service_status,
)
from wattzoo.telemetry import ReplicaFigures, Telemetry

JOINT = "Joint"
PLAN_INTERVALS = 4.0
"""The joint plan is made once in so many pool intervals: every minute at the default of 15 s."""
logger = logging.getLogger(__name__)


class Reconciler:
    """Runs passes and holds what they remember."""

    def __init__(
        self,
        applier: Writer,
        events: EventSink,
        telemetry: Telemetry,
        settings: Settings,
        *,
        clock: Callable[[], float],
        mark: Mark = lambda *_: None,
        seed: int = 0,
    ) -> None:
        """`clock` is Unix seconds, for what statuses show; decisions use the telemetry's own time.

        `mark` is told what to pass over again soon.
        """
        self._applier = applier
        self._reporter = Reporter(applier, events, clock)
        self._telemetry = telemetry
        self._settings = settings
        self._clock = clock
        self._mark = mark
        self.planner = FleetPlanner(
            telemetry, mark, PLAN_INTERVALS * settings.pool_interval_seconds, objective=settings.objective
        )
        self._rng = np.random.default_rng(seed)
        self._specs = Specs()
        self._locks: dict[tuple[Kind, Ref], asyncio.Lock] = {}
        self._pools: dict[tuple[Ref, str], PoolMemory] = {}
        self._services: dict[tuple[Ref, str], ServiceMemory] = {}
        self._reserved: dict[Ref, Mapping[str, Mapping[Ref, int]]] = {}
        self._short: dict[Ref, tuple[VariantPlan, ...]] = {}
        self._failures: dict[tuple[Kind, Ref], str] = {}

    async def reconcile_pool(self, ref: Ref, snapshot: ClusterSnapshot, telemetry: TelemetrySnapshot) -> None:
        """One pass over a ModelPool."""
        raw = snapshot.model_pools.get(ref)
        if raw is not None:
            await self._isolated(Kind.MODEL_POOL, ref, raw, self._pool_pass(ref, raw, snapshot, telemetry))

    async def reconcile_service(self, ref: Ref, snapshot: ClusterSnapshot, telemetry: TelemetrySnapshot) -> None:
        """One pass over an LLMService."""
        raw = snapshot.llm_services.get(ref)
        if raw is not None:
            await self._isolated(Kind.LLM_SERVICE, ref, raw, self._service_pass(ref, raw, snapshot, telemetry))

    async def reconcile_accelerator_pool(
        self, ref: Ref, snapshot: ClusterSnapshot, telemetry: TelemetrySnapshot
    ) -> None:
        """One pass over an AcceleratorPool: only its status is written."""
        raw = snapshot.accelerator_pools.get(ref.name)
        if raw is not None:
            work = self._accelerator_pass(ref, raw, snapshot, telemetry)
            await self._isolated(Kind.ACCELERATOR_POOL, ref, raw, work)

    async def reconcile_profile(self, ref: Ref, snapshot: ClusterSnapshot, telemetry: TelemetrySnapshot) -> None:
        """One pass over a ModelProfile: only its status is written."""
        raw = snapshot.profiles.get(ref)
        if raw is not None:
            del telemetry
            await self._isolated(Kind.MODEL_PROFILE, ref, raw, self._profile_pass(ref, raw))

    async def _isolated(self, kind: Kind, ref: Ref, raw: Manifest, work: Awaitable[None]) -> None:
        """Run one pass alone per object; a pass that breaks is logged once and reported on its object."""
        async with self._locks.setdefault((kind, ref), asyncio.Lock()):
            try:
                await work
                self._failures.pop((kind, ref), None)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                self._telemetry.failures.labels(str(kind)).inc()
                if self._failures.get((kind, ref)) != text:
                    self._failures[(kind, ref)] = text
                    logger.exception("the pass over %s %s failed", kind, ref)
                await self._reporter.report_broken(kind, ref, raw, Finding(Reason.INTERNAL_ERROR, text))

    async def _pool_pass(
        self, ref: Ref, raw: Manifest, snapshot: ClusterSnapshot, telemetry: TelemetrySnapshot
    ) -> None:
        pool = find_unreadable(snapshot, POOL_KINDS) or self._specs.model_pool(raw)
        if isinstance(pool, Finding):
            await self._reporter.report_broken(Kind.MODEL_POOL, ref, raw, pool)
            return
        key = (ref, str(metadata(raw).get("uid")))
        users = read_context(self._specs, ref, pool, snapshot)[0].services
        step_seconds = min(STEP_SECONDS, float(self._settings.pool_interval_seconds))
        memory = self._pools.get(key) or restore_pool(raw, telemetry.at_seconds, users, step_seconds)
        services = {name: memory_ for (name, _), memory_ in self._services.items()}
        self._forget(snapshot)
        joint = pool.spec.scaling.planner == JOINT
        plan = self.planner.plan_of(ref, telemetry.at_seconds) if joint else None
        thought = think_pool(self._specs, ref, raw, pool, snapshot, telemetry, memory, services, self._reserved, plan)
        self.planner.note(ref, thought.part if joint else None)
        self.planner.start_if_due(snapshot, read_pools(self._specs, snapshot), telemetry.at_seconds)
        self._pools[key] = thought.memory
        self._short[ref] = tuple(plan for plan in thought.decision.variants if plan.limited_by is not None)
        results: list[WriteResult] = []
        self._reserved.pop(ref, None)  # what was granted before and written is seen, the rest is asked for no more
        if may_act(raw, pool.spec.mode):
            self._reserved[ref] = thought.reserved
            desired = plan_pool(
                raw,
                pool.spec,
                written_replicas(pool.spec.scaling.mode, thought.decision.replicas(), thought.context.states),
                thought.context.hardware,
                snapshot,
                thought.drained,
                thought.packing,
            )
            results = await self._applier.apply(desired)
        self._show_pool(ref, thought)
        view = PoolView(
            obj=raw,
            spec=pool.spec,
            states=thought.context.states,
            decision=thought.decision,
            energy=dict(thought.estimate.energy),
            weighted=thought.weighted,
            metrics=thought.estimate.problems[0] if thought.estimate.problems else None,
            writes=find_write_problem(results),
            findings=thought.findings,
            unplanned=self.planner.refused_of(ref) if joint else (),
            no_plan=self.planner.missing_of(ref) if joint and thought.decision.plan is None else "",
            history=thought.memory.history.to_json(),
            forecast=render_forecasts(thought.memory.forecasts),
        )
        await self._reporter.report(
            Kind.MODEL_POOL, ref, raw, judge_pool(view), lambda c, g: render_model_pool_status(view, c, g)
        )

    def _show_pool(self, ref: Ref, thought: PoolThought) -> None:
        self._telemetry.count_decision(str(Kind.MODEL_POOL), thought.decision.reason)
        plans = {plan.key: plan for plan in thought.decision.variants}
        self._telemetry.set_pool(
            ref,
            {
                state.key: ReplicaFigures(plans[state.key].replicas, len(state.ready), len(state.serving))
                for state in thought.context.states
            },
        )

    async def _service_pass(
        self, ref: Ref, raw: Manifest, snapshot: ClusterSnapshot, telemetry: TelemetrySnapshot
    ) -> None:
        service = find_unreadable(snapshot, SERVICE_KINDS) or self._specs.llm_service(raw)
        if isinstance(service, Finding):
            await self._reporter.report_broken(Kind.LLM_SERVICE, ref, raw, service)
            return
        key = (ref, str(metadata(raw).get("uid")))
        thought = self._think_service(ref, raw, service, snapshot, telemetry, self._services.get(key))
        if isinstance(thought, Finding):
            await self._reporter.report_broken(Kind.LLM_SERVICE, ref, raw, thought)
            return
        self._services[key] = thought.memory
        results: list[WriteResult] = []
        if may_act(raw, service.spec.mode):
            weights = thought.decision.weights
            backends = [Backend(s.key, s.service, s.port, weights.get(s.key, 0)) for s in thought.states]
            results = await self._applier.apply(plan_service(raw, service.spec, backends, snapshot))
            if any(result.state is WriteState.WRITTEN for result in results) and any(s.silent for s in thought.states):
                self._mark(Kind.MODEL_POOL, pool_of(ref, service.spec))  # other shares may need other pods awake
        view = self._service_view(raw, service, thought, snapshot.routes.get(ref), results)
        self._show_service(ref, service, thought)
        await self._reporter.report(
            Kind.LLM_SERVICE, ref, raw, judge_service(view), lambda c, g: render_llm_service_status(view, c, g)
        )

    def _think_service(
        self,
        ref: Ref,
        raw: Manifest,
        service: LLMService,
        snapshot: ClusterSnapshot,
        telemetry: TelemetrySnapshot,
        memory: ServiceMemory | None,
    ) -> ServiceThought | Finding:
        pool_ref = pool_of(ref, service.spec)
        raw_pool = snapshot.model_pools.get(pool_ref)
        if raw_pool is None:
            return Finding(Reason.MODEL_POOL_NOT_FOUND, f"ModelPool {pool_ref.name} does not exist")
        pool = self._specs.model_pool(raw_pool)
        if isinstance(pool, Finding):
            return Finding(pool.reason, f"ModelPool {pool_ref.name}: {pool.message}")
        pool_memory = self._pools.get((pool_ref, str(metadata(raw_pool).get("uid"))))
        return think_service(
            self._specs, ref, raw, service.spec, pool, snapshot, telemetry, memory, pool_memory, self._rng
        )

    def _service_view(
        self,
        raw: Manifest,
        service: LLMService,
        thought: ServiceThought,
        route: Manifest | None,
        results: Sequence[WriteResult],
    ) -> ServiceView:
        state = thought.memory.state
        written = next((result.live for result in results if result.live is not None), None)
        return ServiceView(
            obj=raw,
            spec=service.spec,
            decision=thought.decision,
            figures=thought.figures,
            route=written or route,
            usable=frozenset(s.key.member for s in thought.states if s.usable),
            starting=any(s.starting or s.desired for s in thought.states),
            metrics=thought.metrics,
            writes=find_write_problem(results),
            infeasible=thought.infeasible,
            findings=thought.findings,
            state=None if state is None else (thought.memory.policy, state.to_json()),
            counters=thought.memory.counting.to_json(),
            observed_at_seconds=thought.memory.observed_at_seconds,
        )

    def _show_service(self, ref: Ref, service: LLMService, thought: ServiceThought) -> None:
        self._telemetry.count_decision(str(Kind.LLM_SERVICE), thought.decision.reason)
        self._telemetry.set_service(ref, service_figures(service.spec, thought.decision, thought.figures))

    async def _profile_pass(self, ref: Ref, raw: Manifest) -> None:
        profile = self._specs.profile(raw)
        if isinstance(profile, Finding):
            await self._reporter.report_broken(Kind.MODEL_PROFILE, ref, raw, profile)
            return
        fit = fit_profile(profile, profile.resident_watts)
        poor = None if isinstance(fit, Finding) else find_poor_fit(fit)
        judgements = judge_profile(f"{Kind.MODEL_PROFILE}/{ref}", fit, poor)
        await self._reporter.report(Kind.MODEL_PROFILE, ref, raw, judgements, render_profile_status)

    async def _accelerator_pass(
        self, ref: Ref, raw: Manifest, snapshot: ClusterSnapshot, telemetry: TelemetrySnapshot
    ) -> None:
        spec = find_unreadable(snapshot, (Kind.MODEL_POOL, Kind.DEPLOYMENT, Kind.POD)) or self._specs.hardware(raw)
        if isinstance(spec, Finding):
            await self._reporter.report_broken(Kind.ACCELERATOR_POOL, ref, raw, spec)
            return
        view = self._accelerator_view(ref, raw, spec, snapshot)
        del telemetry
        await self._reporter.report(
            Kind.ACCELERATOR_POOL,
            ref,
            raw,
            judge_accelerators(view),
            lambda c, g: render_accelerator_pool_status(view, c, g),
        )

    def _accelerator_view(
        self, ref: Ref, raw: Manifest, spec: AcceleratorPoolSpec, snapshot: ClusterSnapshot
    ) -> AcceleratorView:
        unreadable = snapshot.unreadable.get(Kind.NODE, "")
        nodes = (None, None, None) if unreadable else node_accelerators(snapshot.nodes, spec)
        held = holdings(snapshot, read_pools(self._specs, snapshot)).get(ref.name, {})
        short = self._find_short(ref.name, snapshot)
        return AcceleratorView(
            spec=spec,
            nodes=nodes[0],
            accelerators=nodes[1],
            allocatable=nodes[2],
            held=sum(held.values()),
            watts=measured_watts(self._pools.values(), ref.name),
            short=short,
            short_since_seconds=short_since(raw, short, self._clock()),
            unreadable=unreadable,
        )

    def _find_short(self, name: str, snapshot: ClusterSnapshot) -> Finding | None:
        """What some pool wants of these accelerators and cannot have."""
        for pool in read_pools(self._specs, snapshot):
            pools = {
                (member.name, variant.name): variant.accelerator_pool
                for member in pool.spec.members
                for variant in member.variants
            }
            plans = self._short.get(Ref(pool.metadata.namespace or "", pool.metadata.name), ())
            for plan in plans:
                limit = plan.limited_by
                if limit is not None and pools.get((plan.key.member, plan.key.variant)) == name:
                    return Finding(limit.reason, f"{pool.metadata.namespace}/{pool.metadata.name}: {limit.message}")
        return None

    def _forget(self, snapshot: ClusterSnapshot) -> None:
        """Drop what is remembered of objects that are gone."""
        pools = {(ref, str(metadata(raw).get("uid"))) for ref, raw in snapshot.model_pools.items()}
        services = {(ref, str(metadata(raw).get("uid"))) for ref, raw in snapshot.llm_services.items()}
        if Kind.MODEL_POOL not in snapshot.unreadable:
            self._pools = {key: memory for key, memory in self._pools.items() if key in pools}
            self.planner.keep(snapshot.model_pools)
            self._reserved = {ref: grants for ref, grants in self._reserved.items() if ref in snapshot.model_pools}
        if Kind.LLM_SERVICE not in snapshot.unreadable:
            self._services = {key: memory for key, memory in self._services.items() if key in services}
