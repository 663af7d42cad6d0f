"""At most one writer: leader election on a coordination.k8s.io Lease, with the semantics of client-go.

Whether a Lease has expired is judged by the local monotonic clock since its record was last *seen to change*, never by
comparing the times that another machine wrote. A leader that cannot renew within the renew deadline stops before a
standby may take over, and `held` turns false by itself when a stopped process wakes up late.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from wattzoo.apply.client import MICRO_TIME_FORMAT
from wattzoo.errors import ApplyError, Conflict
from wattzoo.model import Manifest, Ref
from wattzoo.settings import LeaseSettings
from wattzoo.telemetry import Telemetry

JITTER = 0.2
RELEASE_TIMEOUT_SECONDS = 2.0
RELEASED_DURATION_SECONDS = 1

logger = logging.getLogger(__name__)


class LeaseClient(Protocol):
    """The part of `Client` that the election uses."""

    async def get_lease(self, ref: Ref, timeout_seconds: float) -> Manifest | None:
        """Read the Lease."""

    async def create_lease(self, ref: Ref, body: Manifest, timeout_seconds: float) -> Manifest:
        """Create the Lease."""

    async def update_lease(self, ref: Ref, body: Manifest, timeout_seconds: float) -> Manifest:
        """Replace the Lease that was read."""


class Elector:
    """One candidate for one Lease."""

    def __init__(
        self,
        client: LeaseClient,
        settings: LeaseSettings,
        telemetry: Telemetry,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        sleep: Callable[[float], Any] = asyncio.sleep,
        jitter: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`clock` is monotonic seconds and decides; `now` is only written into the record. `jitter` lies in [0, 1]."""
        self._client = client
        self._settings = settings
        self._telemetry = telemetry
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._jitter = jitter
        self._ref = Ref(settings.namespace, settings.name)
        self._lease: Manifest | None = None
        self._seen: tuple[Any, ...] | None = None
        self._seen_at_seconds = 0.0
        self._renewed_at_seconds: float | None = None
        self.progress_at_seconds = clock()

    @property
    def held(self) -> bool:
        """Whether this process may write now."""
        renewed = self._renewed_at_seconds
        return renewed is not None and self._clock() - renewed < self._settings.renew_deadline_seconds

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        logger.info("waiting for Lease %s as %s", self._ref, self._settings.identity)
        while not await self._try():
            await self._sleep(self._settings.retry_period_seconds * (1 + JITTER * self._jitter()))
        self._telemetry.lease.set(1)
        self._telemetry.transitions.labels("leader").inc()
        logger.info("acquired Lease %s", self._ref)

    async def hold(self) -> None:
        """Renew until the Lease is lost, then return; the process must end."""
        while self.held:
            await self._sleep(self._settings.retry_period_seconds)
            if not await self._try() and self._is_foreign():
                break
        self._renewed_at_seconds = None
        self._telemetry.lease.set(0)
        self._telemetry.transitions.labels("lost").inc()
        logger.error("lost Lease %s", self._ref)

    async def release(self) -> None:
        """Give the Lease up, so that a standby takes over at its next try; a failure only delays that."""
        lease, held = self._lease, self.held
        self._renewed_at_seconds = None
        self._telemetry.lease.set(0)
        if lease is None or not held:
            return
        try:
            await self._give_up(lease)
        except ApplyError as error:
            logger.warning("Lease %s was not released, it will expire: %s", self._ref, error)
            return
        self._telemetry.transitions.labels("released").inc()
        logger.info("released Lease %s", self._ref)

    async def _give_up(self, lease: Manifest) -> None:
        """Clear the holder; when a last renewal was still under way, once more with what it left."""
        for attempt in (1, 2):
            body = self._record(lease, holder="", duration=RELEASED_DURATION_SECONDS)
            try:
                await self._client.update_lease(self._ref, body, RELEASE_TIMEOUT_SECONDS)
            except Conflict:
                current = await self._client.get_lease(self._ref, RELEASE_TIMEOUT_SECONDS)
                if attempt == 2 or current is None or _spec(current).get("holderIdentity") != self._settings.identity:
                    raise
                lease = current
            else:
                return

    async def _try(self) -> bool:
        """One attempt to acquire or renew; the renewal counts from before the request was sent."""
        started = self._clock()
        self.progress_at_seconds = started
        try:
            renewed = await self._renew_known() or await self._acquire_or_renew()
        except ApplyError as error:
            logger.warning("Lease %s: %s", self._ref, error)
            return False
        finally:
            self.progress_at_seconds = self._clock()
        if renewed:
            self._renewed_at_seconds = started
        return renewed

    async def _renew_known(self) -> bool:
        """Renew without reading first while the Lease is held; a conflict falls back to reading."""
        if self._lease is None or not self.held:
            return False
        try:
            self._observe(await self._client.update_lease(self._ref, self._record(self._lease), self._timeout))
        except Conflict:
            return False
        return True

    async def _acquire_or_renew(self) -> bool:
        lease = await self._client.get_lease(self._ref, self._timeout)
        if lease is None:
            self._observe(await self._client.create_lease(self._ref, self._record(None), self._timeout))
            return True
        self._observe(lease)
        if self._is_foreign() and not self._is_expired():
            return False
        self._observe(await self._client.update_lease(self._ref, self._record(lease), self._timeout))
        return True

    @property
    def _timeout(self) -> float:
        return max(1.0, self._settings.renew_deadline_seconds / 2)

    @property
    def _holder(self) -> str:
        return str(_spec(self._lease).get("holderIdentity") or "")

    def _is_foreign(self) -> bool:
        return self._holder not in {"", self._settings.identity}

    def _is_expired(self) -> bool:
        """Whether the holder has not renewed for the duration it declared, by our clock since we saw it change."""
        duration = _spec(self._lease).get("leaseDurationSeconds")
        declared = float(duration) if isinstance(duration, int) else self._settings.duration_seconds
        return self._clock() >= self._seen_at_seconds + declared

    def _observe(self, lease: Manifest) -> None:
        """Keep the record; its age counts from the moment its content changed before our eyes."""
        self._lease = lease
        spec = _spec(lease)
        seen = tuple(spec.get(field) for field in ("holderIdentity", "renewTime", "acquireTime", "leaseTransitions"))
        if seen != self._seen:
            self._seen, self._seen_at_seconds = seen, self._clock()

    def _record(self, lease: Manifest | None, holder: str | None = None, duration: int | None = None) -> Manifest:
        """The Lease to write: `lease` with us (or `holder`) in it; None for one that does not exist yet."""
        spec = _spec(lease)
        holder = self._settings.identity if holder is None else holder
        now = self._now().astimezone(UTC).strftime(MICRO_TIME_FORMAT)
        same_holder = spec.get("holderIdentity") == self._settings.identity
        transitions = int(spec.get("leaseTransitions") or 0)
        metadata: dict[str, Any] = {"name": self._ref.name, "namespace": self._ref.namespace}
        if lease is not None:
            metadata["resourceVersion"] = lease["metadata"]["resourceVersion"]
            metadata["uid"] = lease["metadata"]["uid"]
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": duration or max(1, round(self._settings.duration_seconds)),
                "acquireTime": spec["acquireTime"] if same_holder and spec.get("acquireTime") else now,
                "renewTime": now,
                "leaseTransitions": transitions + (lease is not None and not same_holder),
            },
        }


def _spec(lease: Manifest | None) -> dict[str, Any]:
    spec = (lease or {}).get("spec")
    return spec if isinstance(spec, dict) else {}
