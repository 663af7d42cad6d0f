"""Accelerators held, replayed from lines of an audit log."""

from __future__ import annotations

import json
from typing import Any

from e2e.held import replay_held


def line(verb: str, uid: str, gpus: int, *, namespace: str = "ns", kind: str = "Pod", grace: int | None = None) -> str:
    meta: dict[str, Any] = {"uid": uid} | ({} if grace is None else {"deletionGracePeriodSeconds": grace})
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    body = {"kind": kind, "metadata": meta, "spec": {"containers": [{"resources": {"limits": limits}}]}}
    event = {"verb": verb, "objectRef": {"resource": "pods", "namespace": namespace}, "responseObject": body}
    return json.dumps(event, separators=(",", ":")) + "\n"


def test_what_terminates_holds_until_the_deletion_that_removes_it() -> None:
    lines = [
        line("create", "a", 4),
        line("create", "b", 1),
        line("delete", "a", 4, grace=30),
        line("create", "c", 2),
        line("delete", "a", 4, grace=0),
        line("delete", "b", 1, grace=0),
    ]
    assert replay_held(lines, "ns") == [4, 5, 7, 3, 2]


def test_others_refusals_and_a_line_that_is_cut_off_count_for_nothing() -> None:
    lines = [
        line("create", "a", 1),
        line("create", "x", 8, namespace="other"),
        line("create", "refused", 8, kind="Status"),
        line("create", "cut", 8)[:-9],
    ]
    assert replay_held(lines, "ns") == [1]
