"""What did not change is not written: counted from the API server's audit log, which the operator cannot flatter."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from itertools import pairwise

from e2e.operator_process import read_audit
from e2e.scenarios.zoo import Zoo, large, medium, small
from e2e.stack import OWNED, Manifest, Stack, eventually

STEADY_SECONDS = 92.0
CHECKPOINT_SECONDS = 60.0
RPS = 5.0
"""Enough for fifty requests in the window of fifteen seconds, below which shares are not judged."""


def target_of(entry: Manifest) -> str:
    """What a write was to, e.g. `llmservices/status chat`."""
    ref = entry["objectRef"]
    path = "/".join(part for part in (ref["resource"], ref.get("subresource", "")) if part)
    return f"{path} {ref.get('name', '')}"


def at_seconds(entry: Manifest) -> float:
    return datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp()


def versions(stack: Stack, namespace: str) -> dict[tuple[str, str], str]:
    """resourceVersion of everything that only its writers' changes may change."""
    kinds = ("deployment", "service", "poddisruptionbudget", "modelprofile")
    found = ((kind, item["metadata"]) for kind in kinds for item in stack.all(kind, namespace))
    return {(kind, meta["name"]): meta["resourceVersion"] for kind, meta in found}


def generations(stack: Stack, namespace: str) -> dict[tuple[str, str], int]:
    """Generation of our objects and the routes: their statuses may be written."""
    kinds = ("llmservice", "modelpool", "httproute")
    found = ((kind, item["metadata"]) for kind in kinds for item in stack.all(kind, namespace))
    return {(kind, meta["name"]): meta["generation"] for kind, meta in found}


def test_a_steady_service_and_a_second_apply_write_nothing(stack: Stack, zoo: Zoo) -> None:
    namespace = zoo.namespace
    pool = zoo.pool(small(least=4), medium(least=1, most=1), large())
    manifests = zoo.all(zoo.service("chat", 400), pool=pool)
    stack.apply(*manifests)
    stack.wait_condition("llmservice", namespace, "chat", "Ready", "True", timeout=90.0)
    stack.wait_answer(zoo.hostname("chat"))
    with stack.load(zoo.target("chat"), RPS) as load:
        load.wait_more(100, timeout=120.0)
        for condition in ("SLAMet", "SLAFeasible", "MetricsAvailable", "TrafficProgrammed", "EnergyDataFresh"):
            stack.wait_condition("llmservice", namespace, "chat", condition, "True", timeout=60.0)
        for condition in ("Ready", "Placed", "MetricsAvailable"):
            stack.wait_condition("modelpool", namespace, "zoo", condition, "True", timeout=60.0)
        mark, began = stack.audit_mark(), time.monotonic()
        eventually(lambda: time.monotonic() - began > STEADY_SECONDS, STEADY_SECONDS + 10.0, "a steady time")
        steady = [entry for entry in read_audit(stack.cluster)[mark:] if entry["responseStatus"]["code"] < 300]
        check_quiet(steady, namespace)

        before = versions(stack, namespace), generations(stack, namespace)
        mark = stack.audit_mark()
        stack.apply(*manifests)
        load.wait_more(75)
        assert (versions(stack, namespace), generations(stack, namespace)) == before
        again = {target_of(entry) for entry in stack.writes(namespace, mark)}
        assert again <= {"llmservices/status chat", "modelpools/status zoo"}
        assert load.finish()["failed"] == 0
    assert {kind for kind, _ in stack.uids(namespace)} == set(OWNED)


def check_quiet(entries: list[Manifest], namespace: str) -> None:
    """Nothing but the Lease and at most one status per object and minute."""
    lease = [entry for entry in entries if entry["objectRef"]["resource"] == "leases"]
    assert lease
    others = [entry for entry in entries if entry["objectRef"]["resource"] != "leases"]
    own = [entry for entry in others if entry["objectRef"].get("namespace", "") in {namespace, ""}]
    counts = Counter(target_of(entry) for entry in own)
    assert all(target.partition(" ")[0].endswith("/status") for target in counts), counts
    for target in counts:
        times = sorted(at_seconds(entry) for entry in own if target_of(entry) == target)
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert all(gap > CHECKPOINT_SECONDS - 1.0 for gap in gaps), (target, gaps)
