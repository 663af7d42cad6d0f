"""Observe and pause: what is decided is shown, nothing but status is written, and leaving a pause does not jump."""

from __future__ import annotations

from e2e.scenarios.zoo import ADOPTED, SMALL, Zoo, large, medium, small
from e2e.stack import Manifest, Stack, eventually
from e2e.timeline import Timeline

PAUSED = "wattzoo.dev/paused"
LARGEST_SHIFT = 0.1


def written(entries: list[Manifest]) -> set[str]:
    """Kinds of what was written, statuses and Events aside."""
    refs = [entry["objectRef"] for entry in entries]
    return {ref["resource"] for ref in refs if ref.get("subresource") != "status" and ref["resource"] != "events"}


def test_observe_decides_and_writes_nothing(stack: Stack, zoo: Zoo) -> None:
    """The pool and one service observe; the servers are somebody else's, and a second service acts on them."""
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


def annotate(stack: Stack, namespace: str, value: str | None) -> None:
    for kind, name in (("modelpool", "zoo"), ("llmservice", "chat")):
        stack.patch(kind, namespace, name, {"metadata": {"annotations": {PAUSED: value}}})


def test_a_pause_freezes_and_leaving_it_does_not_jump(stack: Stack, zoo: Zoo) -> None:
    namespace = zoo.namespace
    pool = zoo.pool(small(least=2), medium(least=1, most=1), large())
    mixed = zoo.service("chat", 700, members=("small", "large"))
    stack.apply(*zoo.all(mixed, pool=pool))
    stack.wait_condition("llmservice", namespace, "chat", "Ready", "True", timeout=90.0)
    stack.wait_answer(zoo.hostname("chat"))
    with stack.load(zoo.target("chat"), 3.0) as load:
        load.wait_more(75, timeout=120.0)
        annotate(stack, namespace, "true")
        for kind, name in (("modelpool", "zoo"), ("llmservice", "chat")):
            stack.wait_condition(kind, namespace, name, "Paused", "True", "PausedByAnnotation")
        mark = stack.audit_mark()
        with Timeline(stack, namespace, "chat") as paused:
            # What would change everything changes nothing now.
            stack.patch("llmservice", namespace, "chat", {"spec": {"sla": {"accuracy": {"targetPerMille": 990}}}})
            stack.patch("modelpool", namespace, "zoo", {"spec": zoo.pool(small(least=4), medium(), large())["spec"]})
            load.wait_more(45)
            assert paused.largest_shift() == 0
            assert paused.last.replicas == paused.first.replicas
            assert written(stack.writes(namespace, mark)) == set()
            stack.patch("llmservice", namespace, "chat", {"spec": {"sla": {"accuracy": {"targetPerMille": 700}}}})
            stack.patch("modelpool", namespace, "zoo", {"spec": pool["spec"]})
            stack.wait_condition("modelpool", namespace, "zoo", "Paused", "True")
            annotate(stack, namespace, None)
            for kind, name in (("modelpool", "zoo"), ("llmservice", "chat")):
                stack.wait_condition(kind, namespace, name, "Paused", "False", "Active")
            load.wait_more(45)
            assert paused.largest_shift() <= LARGEST_SHIFT
            assert paused.last.pods == paused.first.pods
        assert load.finish()["failed"] == 0
