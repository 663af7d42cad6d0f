from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from e2e.demo.audit import OPERATOR_USER, operator_writes

ORIGIN = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def line(verb: str = "patch", code: int = 200, user: str = OPERATOR_USER, **reference: str) -> str:
    event: dict[str, Any] = {
        "stage": "ResponseComplete",
        "verb": verb,
        "user": {"username": user},
        "objectRef": {"resource": "httproutes", "namespace": "demo", "name": "chat", **reference},
        "responseStatus": {"code": code},
        "requestReceivedTimestamp": "2026-01-01T00:00:05.500000Z",
    }
    return json.dumps(event) + "\n"


def test_an_accepted_write_is_counted_at_its_time() -> None:
    (write,) = operator_writes([line(resource="llmservices", subresource="status")], ORIGIN)
    assert (write.at_seconds, write.verb, write.resource, write.subresource) == (5.5, "patch", "llmservices", "status")


def test_reads_refusals_and_others_are_not_counted() -> None:
    lines = [line("get"), line(code=409), line(user="admin"), line(resource="selfsubjectaccessreviews")]
    assert list(operator_writes(lines, ORIGIN)) == []


def test_a_line_cut_off_by_a_running_log_is_passed_over() -> None:
    assert list(operator_writes([line()[:-20]], ORIGIN)) == []
