"""Without the operator everything goes on; with it back, or with its second replica, nothing jumps."""

from __future__ import annotations

from e2e.scenarios.zoo import Zoo, large, medium, small
from e2e.stack import Load, Stack
from e2e.timeline import Timeline

RPS = 3.0
INTERVALS = 45
"""Requests that are waited for: at three a second, three intervals of the service and seven of the pool."""
LARGEST_SHIFT = 0.1
"""Share of the traffic that the policy may move by itself in this time; one that forgot everything moves most of it."""


def go_on(load: Load, timeline: Timeline) -> None:
    """Some intervals pass in which nothing may fail, jump or be replaced."""
    load.wait_more(INTERVALS, timeout=90.0)
    assert load.summary()["failed"] == 0, load.summary()["errors"]
    assert timeline.last.pods == timeline.first.pods
    assert {tuple(sorted(look.replicas.items())) for look in timeline.looks} == {
        tuple(sorted(timeline.first.replicas.items()))
    }
    assert timeline.largest_shift() <= LARGEST_SHIFT


def test_stop_kill_restart_and_takeover_move_nothing(stack: Stack, zoo: Zoo) -> None:
    namespace = zoo.namespace
    pool = zoo.pool(small(least=2), medium(least=1), large())
    mixed = zoo.service("chat", 700, members=("small", "large"))
    stack.apply(*zoo.all(mixed, pool=pool))
    stack.wait_condition("llmservice", namespace, "chat", "Ready", "True", timeout=90.0)
    stack.wait_answer(zoo.hostname("chat"))
    with stack.load(zoo.target("chat"), RPS) as load:
        load.wait_more(90, timeout=120.0)  # the ledger knows what it needs, weights have found their place
        stack.wait_condition("modelpool", namespace, "zoo", "Progressing", "False")
        generations = {d["metadata"]["name"]: d["metadata"]["generation"] for d in stack.all("deployment", namespace)}
        with Timeline(stack, namespace, "chat") as timeline:
            stack.operator.pause()
            go_on(load, timeline)
            assert timeline.largest_shift() == 0

            stack.operator.kill()
            stack.operator.start()
            stack.operator.wait_leading()
            go_on(load, timeline)

            stack.standby.start()
            stack.operator.kill()
            stack.standby.wait_leading()
            go_on(load, timeline)
        assert load.finish()["failed"] == 0
    after = {d["metadata"]["name"]: d["metadata"]["generation"] for d in stack.all("deployment", namespace)}
    assert after == generations
