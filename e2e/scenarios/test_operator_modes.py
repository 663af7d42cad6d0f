"""Observe: what is decided is shown, and nothing but status is written."""

from __future__ import annotations

from e2e.scenarios.zoo import ADOPTED, SMALL, Zoo
from e2e.stack import Manifest, Stack, eventually


def written(entries: list[Manifest]) -> set[str]:
    """Kinds of what was written, statuses and Events aside."""
    refs = [entry["objectRef"] for entry in entries]
    return {ref["resource"] for ref in refs if ref.get("subresource") != "status" and ref["resource"] != "events"}


def test_observe_decides_and_writes_nothing(stack: Stack, zoo: Zoo) -> None:
    """First the pool and the service observe, then the pool acts, then both."""
    namespace = zoo.namespace
    mark = stack.audit_mark()
    watched = zoo.service("watched", mode="Observe")
    stack.apply(*zoo.all(watched, pool=zoo.pool(mode="Observe")))
    stack.wait_condition("llmservice", namespace, "watched", "Paused", "True", "ObserveMode")
    stack.wait_condition("llmservice", namespace, "watched", "TrafficProgrammed", "False", "ObserveMode")
    stack.wait_condition("modelpool", namespace, "zoo", "Paused", "True", "ObserveMode")
    pool = eventually(lambda: stack.get("modelpool", namespace, "zoo"), 5.0, "the pool")
    wanted = {row["member"]: row.get("desired") for row in pool["status"]["variants"]}
    assert wanted["small"] == 1
    assert wanted["large"] == 1
    service = eventually(lambda: stack.get("llmservice", namespace, "watched"), 5.0, "the service")
    assert service["status"]["decision"]["message"]
    assert list(stack.replicas(namespace)) == [ADOPTED]
    assert stack.all("httproute", namespace) == []
    assert written(stack.writes(namespace, mark)) == set()

    stack.patch("modelpool", namespace, "zoo", {"spec": {"mode": "Act"}})
    eventually(lambda: SMALL in stack.replicas(namespace), 30.0, "the pool acts")
    assert stack.all("httproute", namespace) == []
    stack.patch("llmservice", namespace, "watched", {"spec": {"mode": "Act"}})
    stack.wait_condition("llmservice", namespace, "watched", "Paused", "False", "Active")
    stack.wait_answer(zoo.hostname("watched"))
