"""One operator process from start to end: win the Lease, then watch and tick; give everything back in order.

Order at the start: endpoints (a standby is alive too), Lease, then watches and passes. Order at the end: no new pass,
the running one finishes or is cancelled, watches stop, the Lease is released so that a standby takes over at once. A
process that loses the Lease ends without releasing anything: its successor may be writing already.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from wattzoo import __version__
from wattzoo.apply.applier import Applier
from wattzoo.apply.client import Client
from wattzoo.apply.events import EventWriter
from wattzoo.apply.lease import Elector
from wattzoo.endpoints import Endpoints
from wattzoo.handlers import Watcher
from wattzoo.kube import Reader, Transport
from wattzoo.loop import Dirty, Loop
from wattzoo.manifests import labels
from wattzoo.model import LABEL_MODEL_POOL, Desired, Kind, Ref
from wattzoo.observe.cluster import OWN_KINDS, ClusterReader
from wattzoo.observe.observer import Observer
from wattzoo.observe.profile import Profile, load_profile
from wattzoo.observe.prometheus import PrometheusReader
from wattzoo.reconcile import Reconciler
from wattzoo.settings import Settings
from wattzoo.telemetry import Telemetry

FINISH_SECONDS = 3.5
WATCH_END_SECONDS = 1.5
LEASE_STALE_SECONDS = 60.0
READY_INTERVALS = 3.0
EXIT_STOPPED, EXIT_FAILED = 0, 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What one process is made of."""

    settings: Settings
    telemetry: Telemetry
    transport: Transport
    client: Client
    elector: Elector
    profile: Profile


def make_parts(settings: Settings) -> Parts:
    """Everything that exists before the Lease is won; raises SettingsError for a metrics profile that cannot work."""
    telemetry = Telemetry(__version__)
    transport = Transport()
    client = Client(transport)
    elector = Elector(
        client, settings.lease, telemetry, clock=time.monotonic, now=partial(datetime.now, UTC), jitter=random.random
    )
    return Parts(settings, telemetry, transport, client, elector, load_profile(settings.prometheus.profile_file))


class Leadership:
    """What runs while the Lease is held."""

    def __init__(self, parts: Parts, stopping: asyncio.Event) -> None:
        settings, telemetry, elector = parts.settings, parts.telemetry, parts.elector
        self._stopping = stopping
        self._event_loop = asyncio.get_running_loop()
        self.dirty = Dirty()
        clock, may_write = time.monotonic, lambda: elector.held
        applier = Applier(parts.client, telemetry, may_write=may_write, clock=clock, on_conflict=self._mark_conflict)
        events = EventWriter(
            parts.client,
            telemetry,
            settings.lease.identity,
            may_write=may_write,
            clock=clock,
            now=partial(datetime.now, UTC),
        )
        self._prometheus = PrometheusReader(settings.prometheus)
        self.observer = Observer(
            ClusterReader(Reader(parts.transport), telemetry, settings.watch_namespaces),
            self._prometheus,
            parts.profile,
            telemetry,
            clock=time.time,
            namespaces=settings.watch_namespaces,
        )
        self.loop = Loop(
            self.observer,
            Reconciler(applier, events, telemetry, settings, clock=time.time, mark=self.dirty.mark),
            self.dirty,
            telemetry,
            pool_interval_seconds=settings.pool_interval_seconds,
            window_seconds=settings.prometheus.window_seconds,
            clock=clock,
            cluster_wide=not settings.watch_namespaces,
        )
        self._watcher = Watcher(self.dirty.mark, settings.watch_namespaces, self._watching_ended)

    async def run(self) -> None:
        """Watch and tick until stopping; a tick that does not finish in time is cancelled."""
        self._watcher.start()
        ticking = asyncio.create_task(self.loop.run(self._stopping), name="ticks")
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((ticking, stopping), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((ticking,), timeout=FINISH_SECONDS)
        finally:
            stopping.cancel()
            ticking.cancel()
            self._watcher.stop()
            ended = await asyncio.to_thread(self._watcher.join, WATCH_END_SECONDS)
            if not ended:
                logger.info("watches are still ending; not waiting for them")
            self.observer.close()
            self._prometheus.close()
        if ticking.done() and not ticking.cancelled() and ticking.exception() is not None:
            logger.error("ticks ended", exc_info=ticking.exception())

    def _watching_ended(self) -> None:
        """Called from kopf's thread: without watches the process is not what it should be, wanted or not."""
        self._event_loop.call_soon_threadsafe(self._stopping.set)

    def _mark_conflict(self, item: Desired) -> None:
        """Pass over the owner again at once: what it planned from is old."""
        if item.kind in OWN_KINDS:
            self.dirty.mark(item.kind, item.ref)
        for owner in (item.body.get("metadata") or {}).get("ownerReferences") or ():
            if owner.get("kind") in {str(kind) for kind in OWN_KINDS}:
                self.dirty.mark(Kind(owner["kind"]), Ref(item.ref.namespace, owner["name"]))
        if item.kind is Kind.POD and (pool := labels(item.observed or {}).get(LABEL_MODEL_POOL)):
            self.dirty.mark(Kind.MODEL_POOL, Ref(item.ref.namespace, pool))


async def run_operator(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT (0), or until the Lease or the watches are lost (1)."""
    parts, stopping, signalled = make_parts(settings), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _stop, stopping, signalled)
    health = Health(parts.elector, settings, time.monotonic)
    endpoints = Endpoints(
        parts.telemetry, settings.health_address, settings.metrics_address, live=health.live, ready=health.ready
    )
    await endpoints.start()
    logger.info("wattzoo %s started as %s", __version__, settings.lease.identity)
    try:
        if await _until(stopping, parts.elector.acquire()):
            leadership = Leadership(parts, stopping)
            health.loop = leadership.loop
            await _lead(parts.elector, leadership, stopping)
    finally:
        await parts.transport.close()
        await endpoints.stop()
    logger.info("wattzoo ended")
    return EXIT_STOPPED if signalled.is_set() else EXIT_FAILED


async def _lead(elector: Elector, leadership: Leadership, stopping: asyncio.Event) -> None:
    """Run the leadership beside the renewals; losing the Lease ends it, ending it releases the Lease."""
    running = asyncio.create_task(leadership.run(), name="leadership")
    holding = asyncio.create_task(elector.hold(), name="lease")
    await asyncio.wait((running, holding), return_when=asyncio.FIRST_COMPLETED)
    stopping.set()
    await running
    if not holding.done():
        holding.cancel()
        await asyncio.wait((holding,))
        await elector.release()


async def _until(stopping: asyncio.Event, work: object) -> bool:
    """Do the work unless stopping comes first; says whether the work was done."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if task.done():
        await task
        return not stopping.is_set()
    task.cancel()
    await asyncio.wait((task,))
    return False


def _stop(stopping: asyncio.Event, signalled: asyncio.Event) -> None:
    signalled.set()
    stopping.set()


class Health:
    """Probes that reflect progress: of the Lease loop always, of the ticks once this process leads."""

    def __init__(self, elector: Elector, settings: Settings, clock: Callable[[], float]) -> None:
        self._elector = elector
        self._settings = settings
        self._clock = clock
        self._started_at_seconds = clock()
        self.loop: Loop | None = None

    def live(self) -> str:
        """What only a restart can mend; an API server or a Prometheus that is away is not among it."""
        now = self._clock()
        if now - self._elector.progress_at_seconds > LEASE_STALE_SECONDS:
            return f"the Lease loop has made no progress for {LEASE_STALE_SECONDS:g} s"
        if self.loop is not None and self.loop.progress.is_stuck(now):
            return "a tick is stuck"
        return ""

    def ready(self) -> str:
        """A standby is ready when it is alive; a leader when it has observed and decided lately."""
        problem = self.live()
        if problem or self.loop is None:
            return problem
        finished = self.loop.progress.finished_at_seconds
        if finished is None:
            return "no tick has finished yet"
        age, limit = self._clock() - finished, READY_INTERVALS * self._settings.pool_interval_seconds + 10.0
        return f"the last tick finished {age:.0f} s ago" if age > limit else ""
