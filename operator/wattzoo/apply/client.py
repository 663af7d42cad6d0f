"""Every writing call of the operator: the verbs that its role needs are the verbs of this module, and no others.

Bodies are plain dicts. A failed write becomes the error that says what to do next: observe again (Conflict,
Unreachable), report (OwnershipConflict, Denied), or fix the body (Rejected).
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from wattzoo.errors import ApplyError, Conflict, Denied, OwnershipConflict, Rejected, Unreachable
from wattzoo.kube import NOT_FOUND, RESOURCES, ApiFailure, Reader, Transport
from wattzoo.model import FIELD_MANAGER, EventNote, Kind, Manifest, Ref

APPLY_CONTENT_TYPE = "application/apply-patch+yaml"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MICRO_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
"""Fixed by hand: `isoformat()` drops a zero fraction, and the server refuses a MicroTime without one."""
LEASE_PATH = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
CLUSTER_EVENTS_NAMESPACE = "default"
MAX_EVENT_MESSAGE = 1024
FIELD_MANAGER_CONFLICT = "FieldManagerConflict"
CONFLICT, FORBIDDEN, TOO_MANY, INTERNAL = 409, 403, 429, 500
REFUSED_BODY = frozenset({400, 405, 415, 422})


class Client:
    """Writes to one cluster, and the few reads that a write needs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._reader = Reader(transport)

    async def get(self, kind: Kind, ref: Ref) -> Manifest | None:
        """The live object or None; raises ApplyError."""
        try:
            return await self._reader.get(kind, ref)
        except ApiFailure as failure:
            raise as_apply_error(failure) from failure

    async def apply(self, kind: Kind, ref: Ref, body: Manifest, *, subresource: str = "", force: bool) -> Manifest:
        """Server-side apply as our field manager; returns the object as it is now, raises ApplyError."""
        query = [("fieldManager", FIELD_MANAGER), ("force", str(force).lower()), ("fieldValidation", "Strict")]
        path = RESOURCES[kind].path(ref.namespace, ref.name, subresource)
        return await self._write("PATCH", path, body, query=query, content_type=APPLY_CONTENT_TYPE)

    async def delete(self, kind: Kind, ref: Ref, uid: str, resource_version: str) -> None:
        """Delete exactly the object that was observed; one that is gone already is fine. Raises ApplyError."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        body = {"preconditions": preconditions, "propagationPolicy": "Background"}
        try:
            await self._transport.call("DELETE", RESOURCES[kind].path(ref.namespace, ref.name), body=body)
        except ApiFailure as failure:
            if failure.status != NOT_FOUND:
                raise as_apply_error(failure) from failure

    async def create_event(self, note: EventNote, instance: str, at: datetime) -> None:
        """Post one Kubernetes Event; raises ApplyError."""
        namespace = note.ref.namespace or CLUSTER_EVENTS_NAMESPACE
        resource, time = RESOURCES[note.kind], at.astimezone(UTC).strftime(TIME_FORMAT)
        involved = {"kind": str(note.kind), "apiVersion": resource.api_version, "name": note.ref.name, "uid": note.uid}
        body: Manifest = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{note.ref.name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
            "involvedObject": involved | ({"namespace": namespace} if note.ref.namespace else {}),
            "reason": note.reason,
            "message": note.message[:MAX_EVENT_MESSAGE],
            "type": "Warning" if note.warning else "Normal",
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": instance[:128],
        }
        await self._write("POST", f"/api/v1/namespaces/{namespace}/events", body)

    async def get_lease(self, ref: Ref, timeout_seconds: float) -> Manifest | None:
        """The Lease or None; raises ApplyError."""
        path = f"{LEASE_PATH.format(ref.namespace)}/{ref.name}"
        try:
            return await self._transport.call("GET", path, timeout_seconds=timeout_seconds)
        except ApiFailure as failure:
            if failure.status == NOT_FOUND:
                return None
            raise as_apply_error(failure) from failure

    async def create_lease(self, ref: Ref, body: Manifest, timeout_seconds: float) -> Manifest:
        """Create the Lease; raises Conflict when somebody was faster, else ApplyError."""
        return await self._write("POST", LEASE_PATH.format(ref.namespace), body, timeout_seconds=timeout_seconds)

    async def update_lease(self, ref: Ref, body: Manifest, timeout_seconds: float) -> Manifest:
        """Replace the Lease whose resourceVersion the body carries; raises Conflict when it moved on."""
        path = f"{LEASE_PATH.format(ref.namespace)}/{ref.name}"
        return await self._write("PUT", path, body, timeout_seconds=timeout_seconds)

    async def _write(
        self,
        method: str,
        path: str,
        body: Manifest,
        *,
        query: list[tuple[str, str]] | None = None,
        content_type: str = "application/json",
        timeout_seconds: float = 10.0,
    ) -> Manifest:
        try:
            return await self._transport.call(
                method, path, query=query or [], body=body, content_type=content_type, timeout_seconds=timeout_seconds
            )
        except ApiFailure as failure:
            raise as_apply_error(failure) from failure


def as_apply_error(failure: ApiFailure) -> ApplyError:
    """The error of ours for what the server said.

    An unknown field or a duplicate list key is answered 500 with the schema's words, so a 500 that names a schema or a
    field is the body's fault; any other 5xx says nothing about the write.
    """
    status, message = failure.status, failure.message
    if status == CONFLICT and FIELD_MANAGER_CONFLICT in failure.causes:
        return OwnershipConflict(message)
    if status in {CONFLICT, NOT_FOUND}:
        return Conflict(message)
    if status == FORBIDDEN:
        return Denied(message)
    if status in REFUSED_BODY or (status == INTERNAL and is_schema_complaint(message)):
        return Rejected(message)
    error = Unreachable(message)
    error.retry_after_seconds = failure.retry_after_seconds
    return error


def is_schema_complaint(message: str) -> bool:
    """Whether a 500's message is about the body's shape."""
    words = (
        "field not declared in schema",
        "duplicate entries for key",
        "failed to create typed patch",
        "strict decoding",
    )
    return any(word in message for word in words)
