"""The operator's writes as the API server's audit log has them: the one witness that the operator cannot flatter."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime

from e2e.demo.recording import Write

OPERATOR_USER = "system:serviceaccount:wattzoo-system:wattzoo"
WRITE_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def operator_writes(lines: Iterable[str], origin_unix_seconds: float, user: str = OPERATOR_USER) -> Iterator[Write]:
    """Yield each write by `user` that the API server accepted (code < 300); a line cut off at the end is passed over.

    Times are seconds since `origin_unix_seconds`.
    """
    for line in lines:
        if user not in line or not line.endswith("\n"):
            continue
        event = json.loads(line)
        reference = event.get("objectRef", {})
        if (
            event.get("user", {}).get("username") != user
            or event.get("stage") != "ResponseComplete"
            or event.get("verb") not in WRITE_VERBS
            or event.get("responseStatus", {}).get("code", 500) >= 300
            or reference.get("resource") in {"selfsubjectaccessreviews", "selfsubjectreviews", "tokenreviews"}
        ):
            continue
        at = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
        yield Write(
            at_seconds=at - origin_unix_seconds,
            verb=event["verb"],
            resource=reference.get("resource", ""),
            subresource=reference.get("subresource", ""),
            name=reference.get("name", ""),
        )
