"""When passes run: one loop of our own, so that event, tick and wake-up all lead to the same level-triggered pass.

An event only marks an object dirty. The loop wakes about once a second or when something is dirty, observes everything
once if anything is due, and runs the due passes: pools first, because a service must move its traffic in the same tick
in which its pool starts to drain. Work is coalesced: however many events come, ticks keep their distance.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from wattzoo.manifests import parse_time
from wattzoo.model import ClusterSnapshot, Kind, Manifest, Ref, TelemetryNeeds, TelemetrySnapshot
from wattzoo.telemetry import Telemetry

WAKE_SECONDS = 1.0
MIN_DISTANCE_SECONDS = 0.2
MAX_DISTANCE_SECONDS = 5.0
REUSE_TELEMETRY_SECONDS = 1.0
DEFAULT_SERVICE_INTERVAL_SECONDS = 15.0
FEEDBACK_OVERLAP_SECONDS = 30.0
MAX_PARALLEL_PASSES = 8
STUCK_AFTER_SECONDS = 120.0
SCHEDULED = (Kind.ACCELERATOR_POOL, Kind.MODEL_PROFILE, Kind.MODEL_POOL, Kind.LLM_SERVICE)

logger = logging.getLogger(__name__)

Item = tuple[Kind, Ref]


class Source(Protocol):
    """The part of `Observer` that the loop uses."""

    async def observe_cluster(self) -> ClusterSnapshot:
        """Read the cluster."""

    async def observe_telemetry(self, needs: TelemetryNeeds) -> TelemetrySnapshot:
        """Read Prometheus."""


class Passes(Protocol):
    """The passes over one object each."""

    async def reconcile_pool(self, ref: Ref, snapshot: ClusterSnapshot, telemetry: TelemetrySnapshot) -> None:
        """One pass over a ModelPool."""

    async def reconcile_service(self, ref: Ref, snapshot: ClusterSnapshot, telemetry: TelemetrySnapshot) -> None:
        """One pass over an LLMService."""

    async def reconcile_accelerator_pool(
        self, ref: Ref, snapshot: ClusterSnapshot, telemetry: TelemetrySnapshot
    ) -> None:
        """One pass over an AcceleratorPool."""

    async def reconcile_profile(self, ref: Ref, snapshot: ClusterSnapshot, telemetry: TelemetrySnapshot) -> None:
        """One pass over a ModelProfile."""


class Dirty:
    """Objects that somebody said have changed; marked from any thread, taken by the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: set[Item] = set()
        self._changed = asyncio.Event()

    def mark(self, kind: Kind, ref: Ref) -> None:
        """Say that an object changed."""
        self._loop.call_soon_threadsafe(self._add, (kind, ref))

    def take(self) -> frozenset[Item]:
        """All marks so far; they are gone afterwards."""
        items = frozenset(self._items)
        self._items.clear()
        self._changed.clear()
        return items

    async def wait(self, timeout_seconds: float) -> None:
        """Return when something is marked or the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def _add(self, item: Item) -> None:
        self._items.add(item)
        self._changed.set()


@dataclass(frozen=True, slots=True)
class Progress:
    """What the health endpoints need to know; times are monotonic, None means not yet."""

    tick_started_at_seconds: float | None
    finished_at_seconds: float | None

    def is_stuck(self, now_seconds: float) -> bool:
        """Whether a tick has been running for too long."""
        started = self.tick_started_at_seconds
        return started is not None and now_seconds - started > STUCK_AFTER_SECONDS


class Loop:
    """Runs ticks until it is cancelled."""

    def __init__(
        self,
        source: Source,
        passes: Passes,
        dirty: Dirty,
        telemetry: Telemetry,
        *,
        pool_interval_seconds: float,
        window_seconds: float,
        clock: Callable[[], float],
        cluster_wide: bool = True,
    ) -> None:
        """`clock` is monotonic seconds.

        Unless the operator serves the whole cluster it sees only a part of what uses an AcceleratorPool, and so may not
        speak for it: then there are no passes over those.
        """
        self._source = source
        self._passes = passes
        self._dirty = dirty
        self._telemetry = telemetry
        self._pool_interval_seconds = pool_interval_seconds
        self._window_seconds = window_seconds
        self._clock = clock
        self._scheduled = SCHEDULED if cluster_wide else SCHEDULED[1:]
        self._due_at: dict[Item, float] = {}
        self._observed_at_seconds: float | None = None
        self._kept: tuple[float, TelemetryNeeds, TelemetrySnapshot] | None = None
        self._slots = asyncio.Semaphore(MAX_PARALLEL_PASSES)
        self.progress = Progress(None, None)

    async def run(self, stopping: asyncio.Event) -> None:
        """Tick until `stopping` is set; a running tick is finished first."""
        while not stopping.is_set():
            started = self._clock()
            marked = self._dirty.take()
            if marked or self._is_anything_due(started):
                await self.tick(marked)
            elapsed = self._clock() - started
            await asyncio.sleep(min(MAX_DISTANCE_SECONDS, max(MIN_DISTANCE_SECONDS, elapsed)))
            await self._dirty.wait(WAKE_SECONDS)

    async def tick(self, marked: frozenset[Item] = frozenset()) -> None:
        """Observe once and run every pass that is due or marked."""
        started = self._clock()
        self.progress = Progress(started, self.progress.finished_at_seconds)
        snapshot = await self._source.observe_cluster()
        self._observed_at_seconds = started
        self._learn(snapshot, started)
        due = {item for item, at in self._due_at.items() if at <= started} | affected(marked, snapshot)
        telemetry = await self._observe_telemetry(snapshot) if due else None
        if telemetry is not None:
            for kind in self._scheduled:
                await self._run_all(sorted(ref for k, ref in due if k is kind), kind, snapshot, telemetry)
        self._telemetry.ticks.observe(self._clock() - started)
        readable = not any(kind in snapshot.unreadable for kind in SCHEDULED)
        self.progress = Progress(None, self._clock() if readable else self.progress.finished_at_seconds)

    def _is_anything_due(self, now: float) -> bool:
        observed = self._observed_at_seconds
        if observed is None or now - observed >= self._pool_interval_seconds:
            return True
        return any(at <= now for at in self._due_at.values())

    def _learn(self, snapshot: ClusterSnapshot, now: float) -> None:
        """New objects are due at once; those that are gone are forgotten, unless their kind could not be read."""
        present = {kind: set(_objects(snapshot, kind)) for kind in self._scheduled}
        for kind, ref in list(self._due_at):
            if kind not in snapshot.unreadable and ref not in present[kind]:
                del self._due_at[(kind, ref)]
        for kind, refs in present.items():
            for ref in refs:
                self._due_at.setdefault((kind, ref), now)
        known = {kind: {ref for k, ref in self._due_at if k is kind} for kind in SCHEDULED}
        self._telemetry.set_known(known[Kind.LLM_SERVICE], known[Kind.MODEL_POOL])

    async def _observe_telemetry(self, snapshot: ClusterSnapshot) -> TelemetrySnapshot:
        """Prometheus' view; ticks that follow each other closely share one."""
        needs = find_needs(snapshot, self._window_seconds)
        now = self._clock()
        if (
            self._kept is not None
            and _same_needs(self._kept[1], needs)
            and now - self._kept[0] < REUSE_TELEMETRY_SECONDS
        ):
            return self._kept[2]
        telemetry = await self._source.observe_telemetry(needs)
        self._kept = (self._clock(), needs, telemetry)
        return telemetry

    async def _run_all(
        self, refs: Iterable[Ref], kind: Kind, snapshot: ClusterSnapshot, telemetry: TelemetrySnapshot
    ) -> None:
        run = {
            Kind.ACCELERATOR_POOL: self._passes.reconcile_accelerator_pool,
            Kind.MODEL_PROFILE: self._passes.reconcile_profile,
            Kind.MODEL_POOL: self._passes.reconcile_pool,
            Kind.LLM_SERVICE: self._passes.reconcile_service,
        }[kind]
        present = _objects(snapshot, kind)
        items = [(ref, present[ref]) for ref in refs if ref in present]
        await asyncio.gather(*(self._run_one(kind, ref, obj, run(ref, snapshot, telemetry)) for ref, obj in items))

    async def _run_one(self, kind: Kind, ref: Ref, obj: Manifest, run: Awaitable[None]) -> None:
        """One pass; whatever goes wrong in it stays with this object."""
        async with self._slots:
            started = self._clock()
            try:
                await run
            except Exception:
                self._telemetry.failures.labels(str(kind)).inc()
                logger.exception("the pass over %s %s failed", kind, ref)
            self._telemetry.passes.labels(str(kind)).observe(self._clock() - started)
            self._due_at[(kind, ref)] = started + (
                interval_seconds(obj) if kind is Kind.LLM_SERVICE else self._pool_interval_seconds
            )


def affected(marked: Iterable[Item], snapshot: ClusterSnapshot) -> set[Item]:
    """Which objects to pass over when these changed: a pool with its services, a service with its pool."""
    pools: set[Ref] = set()
    services: set[Ref] = set()
    found: set[Item] = set()
    for kind, ref in marked:
        if kind is Kind.ACCELERATOR_POOL:
            found.add((kind, ref))
            pools |= set(snapshot.model_pools)
        elif kind is Kind.MODEL_PROFILE:
            found.add((kind, ref))
            pools |= {pool for pool in snapshot.model_pools if pool.namespace == ref.namespace}
        elif kind is Kind.MODEL_POOL:
            pools.add(ref)
        elif kind is Kind.LLM_SERVICE:
            services.add(ref)
    pools |= {pool for ref in services if (pool := pool_of(ref, snapshot.llm_services.get(ref))) is not None}
    services |= {ref for ref, obj in snapshot.llm_services.items() if pool_of(ref, obj) in pools}
    found |= {(Kind.MODEL_POOL, ref) for ref in pools} | {(Kind.LLM_SERVICE, ref) for ref in services}
    return found


def pool_of(ref: Ref, service: Manifest | None) -> Ref | None:
    """The ModelPool that an LLMService references, in its own namespace."""
    name = _at(service or {}, "spec", "modelPoolRef").get("name")
    return Ref(ref.namespace, name) if isinstance(name, str) and name else None


def find_needs(snapshot: ClusterSnapshot, window_seconds: float) -> TelemetryNeeds:
    """The feedback counters that the services name, each only in its own namespace, and since when."""
    pairs, checkpoints, longest = set(), [], window_seconds
    for ref, service in snapshot.llm_services.items():
        metric = _at(service, "spec", "feedback", "prometheus").get("metric")
        if isinstance(metric, str) and metric:
            pairs.add((metric, ref.namespace))
            checkpoints.append(parse_time(_at(service, "status", "controller").get("observedAt")))
            longest = max(longest, interval_seconds(service) + FEEDBACK_OVERLAP_SECONDS)
    known = [at for at in checkpoints if at is not None]
    return TelemetryNeeds(frozenset(pairs), window_seconds, longest, min(known, default=None))


def interval_seconds(service: Manifest) -> float:
    """Seconds between two passes over an LLMService."""
    declared = _at(service, "spec", "controller").get("intervalSeconds")
    return float(declared) if isinstance(declared, int) and declared > 0 else DEFAULT_SERVICE_INTERVAL_SECONDS


def _same_needs(before: TelemetryNeeds, now: TelemetryNeeds) -> bool:
    """Whether an answer serves both; a newer checkpoint asks for nothing more."""
    return replace(before, feedback_since_seconds=now.feedback_since_seconds) == now


def _objects(snapshot: ClusterSnapshot, kind: Kind) -> Mapping[Ref, Manifest]:
    if kind is Kind.ACCELERATOR_POOL:
        return {Ref("", name): pool for name, pool in snapshot.accelerator_pools.items()}
    if kind is Kind.MODEL_PROFILE:
        return snapshot.profiles
    return snapshot.model_pools if kind is Kind.MODEL_POOL else snapshot.llm_services


def _at(obj: Manifest, *path: str) -> Manifest:
    """The mapping at a path, or an empty one when anything on the way is not a mapping."""
    for field in path:
        found = obj.get(field)
        obj = found if isinstance(found, dict) else {}
    return obj
