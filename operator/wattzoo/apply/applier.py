"""From what is wanted to what is written: compare first, write only a difference, and say how each write ended.

Every body carries the resourceVersion and uid that were observed, so a writer that acts on old knowledge conflicts
instead of winning. Fields are taken by force only on objects that are ours; on an adopted workload another manager's
claim is reported. An adopted workload's scale is applied to the workload itself: an apply to its `scale` subresource
conflicts with the creation of the object ("before-first-apply") even where nobody claims the replicas. A refused or
unanswered write is not repeated at once: delays grow to a minute.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from wattzoo.apply.diff import first_difference, owned_part, without_nulls
from wattzoo.errors import ApplyError, Conflict, Denied, OwnershipConflict, Rejected, Unreachable
from wattzoo.kube import RESOURCES
from wattzoo.manifests import labels
from wattzoo.model import (
    FIELD_MANAGER,
    LABEL_MANAGED_BY,
    Change,
    Desired,
    Kind,
    Manifest,
    Ref,
    WriteResult,
    WriteState,
)
from wattzoo.telemetry import Telemetry

FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 60.0
SCALE = "scale"

logger = logging.getLogger(__name__)


class WritingClient(Protocol):
    """The part of `Client` that the applier uses."""

    async def get(self, kind: Kind, ref: Ref) -> Manifest | None:
        """Read one object."""

    async def apply(self, kind: Kind, ref: Ref, body: Manifest, *, subresource: str = "", force: bool) -> Manifest:
        """Server-side apply."""

    async def delete(self, kind: Kind, ref: Ref, uid: str, resource_version: str) -> None:
        """Delete exactly the observed object."""


@dataclass(frozen=True, slots=True)
class _Delay:
    """A write that failed: how it ended, and until when it is not tried again."""

    failures: int
    until_seconds: float
    fingerprint: str
    state: WriteState
    message: str

    def covers(self, fingerprint: str) -> bool:
        """Whether to wait with this body too: a refusal is about one body, no answer is about the server."""
        return self.state is WriteState.FAILED or self.fingerprint == fingerprint


class Applier:
    """Applies desired objects one after another, in the order given, so that a crash leaves a prefix."""

    def __init__(
        self,
        client: WritingClient,
        telemetry: Telemetry,
        *,
        may_write: Callable[[], bool],
        clock: Callable[[], float],
        on_conflict: Callable[[Desired], None] = lambda _: None,
    ) -> None:
        """`may_write` says whether the Lease is held now; `clock` is monotonic seconds.

        `on_conflict` is told of each object that moved on since it was observed.
        """
        self._client = client
        self._telemetry = telemetry
        self._may_write = may_write
        self._clock = clock
        self._on_conflict = on_conflict
        self._delays: dict[tuple[Kind, Ref, str], _Delay] = {}
        self._settled: dict[tuple[Kind, Ref, str], str] = {}

    async def apply(self, desired: Sequence[Desired]) -> list[WriteResult]:
        """Bring each object to what is wanted; never raises for what the server says."""
        results = []
        for item in desired:
            result = await self._apply_one(item)
            self._telemetry.writes.labels(str(item.kind), item.subresource, str(result.state)).inc()
            results.append(result)
        return results

    async def _apply_one(self, item: Desired) -> WriteResult:
        if not self._may_write():
            return WriteResult(item, WriteState.FAILED, "the Lease is not held")
        key, fingerprint = (item.kind, item.ref, item.subresource), _fingerprint(item.body)
        delay = self._delays.get(key)
        if delay is not None and self._clock() < delay.until_seconds and delay.covers(fingerprint):
            return WriteResult(item, delay.state, delay.message)
        try:
            result = await (self._delete(item) if item.change is Change.DELETE else self._write(item))
        except ApplyError as error:
            return self._failed(item, error, fingerprint)
        self._delays.pop(key, None)
        return result

    async def _delete(self, item: Desired) -> WriteResult:
        if item.observed is None or item.observed["metadata"].get("deletionTimestamp"):
            return WriteResult(item, WriteState.UNCHANGED)
        metadata = item.observed["metadata"]
        await self._client.delete(item.kind, item.ref, metadata["uid"], metadata["resourceVersion"])
        logger.info("deleted %s %s", item.kind, item.ref)
        return WriteResult(item, WriteState.WRITTEN)

    async def _write(self, item: Desired) -> WriteResult:
        observed = item.observed
        if observed is None:
            observed = await self._client.get(item.kind, item.ref)
            if observed is not None and not _is_ours(item, observed):
                raise OwnershipConflict(f"{item.kind} {item.ref} exists and was not made for this object")
        if observed is None and item.subresource:
            raise Conflict(f"{item.kind} {item.ref} is gone")
        key = (item.kind, item.ref, item.subresource)
        difference: str | None = "it does not exist"
        if observed is not None:
            difference = first_difference(item.body, observed, item.subresource)
            if difference is None or self._settled.get(key) == _pair_fingerprint(item, observed):
                return WriteResult(item, WriteState.UNCHANGED, live=observed)
        force = observed is None or _is_ours(item, observed)
        path = "" if item.subresource == SCALE else item.subresource
        live = await self._client.apply(item.kind, item.ref, _complete(item, observed), subresource=path, force=force)
        level = logging.DEBUG if item.subresource == "status" else logging.INFO
        logger.log(level, "wrote %s %s %s: %s", item.kind, item.ref, item.subresource, difference)
        return self._written(item, observed, live)

    def _written(self, item: Desired, observed: Manifest | None, live: Manifest) -> WriteResult:
        """A write that the server took; one that changed nothing is remembered, so that it is not sent again."""
        key = (item.kind, item.ref, item.subresource)
        if observed is not None and live["metadata"].get("resourceVersion") == observed["metadata"]["resourceVersion"]:
            self._settled[key] = _pair_fingerprint(item, observed)
            logger.info("%s %s: an apply changed nothing; it is not repeated", item.kind, item.ref)
            return WriteResult(item, WriteState.UNCHANGED, live=observed)
        self._settled.pop(key, None)
        return WriteResult(item, WriteState.WRITTEN, live=live)

    def _failed(self, item: Desired, error: ApplyError, fingerprint: str) -> WriteResult:
        key, message = (item.kind, item.ref, item.subresource), str(error)
        if isinstance(error, Conflict):
            self._on_conflict(item)
            return WriteResult(item, WriteState.CONFLICT, message)
        state = WriteState.FAILED
        if isinstance(error, OwnershipConflict):
            state = WriteState.OWNERSHIP_CONFLICT
        elif isinstance(error, Denied | Rejected):
            state = WriteState.DENIED
        before = self._delays.get(key)
        failures = before.failures + 1 if before is not None else 1
        wait = min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 10))
        if isinstance(error, Unreachable):
            wait = max(wait, min(MAX_DELAY_SECONDS, error.retry_after_seconds))
        self._delays[key] = _Delay(failures, self._clock() + wait, fingerprint, state, message)
        logger.warning("%s %s %s: %s: %s", item.kind, item.ref, item.subresource, state, message)
        return WriteResult(item, state, message)


def _complete(item: Desired, observed: Manifest | None) -> Manifest:
    """The body with its identity, and for an existing object with the version and uid that were observed."""
    body: Manifest = without_nulls(item.body)
    metadata = {**(body.get("metadata") or {}), "name": item.ref.name}
    if item.ref.namespace:
        metadata["namespace"] = item.ref.namespace
    if observed is not None:
        metadata["resourceVersion"] = observed["metadata"]["resourceVersion"]
        metadata["uid"] = observed["metadata"]["uid"]
    return {
        **body,
        "apiVersion": RESOURCES[item.kind].api_version,
        "kind": str(item.kind),
        "metadata": metadata,
    }


def _is_ours(item: Desired, observed: Manifest) -> bool:
    """Whether fields may be taken by force: a status of our kinds, an object that the same owner had us make, or the
    serving label of a pod that was made from a template of ours.
    """
    if item.subresource == "status":
        return True
    if item.kind is Kind.POD:
        return labels(observed).get(LABEL_MANAGED_BY) == FIELD_MANAGER
    wanted = {owner.get("uid") for owner in (item.body.get("metadata") or {}).get("ownerReferences") or ()}
    present = {owner.get("uid") for owner in observed["metadata"].get("ownerReferences") or ()}
    return bool(wanted & present - {None})


def _fingerprint(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _pair_fingerprint(item: Desired, observed: Manifest) -> str:
    """A body together with the part of the live object that an apply could change."""
    part = observed.get("status") if item.subresource == "status" else owned_part(observed)
    if isinstance(part, dict) and item.subresource != "status":
        metadata = observed["metadata"]
        kept = {field: metadata.get(field) for field in ("uid", "labels", "annotations", "ownerReferences")}
        part = {key: value for key, value in part.items() if key not in {"status", "metadata"}} | {"metadata": kept}
    return _fingerprint([item.body, part])
