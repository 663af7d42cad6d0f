"""Load comes and goes, members too: replicas follow, and nobody's answer is cut on the way down."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from e2e.scenarios.zoo import LARGE, SMALL, Zoo, large, medium, small
from e2e.stack import Stack, eventually
from e2e.timeline import Look, Timeline

PEAK_RPS = 9.0
QUIET = 0.15
"""Share of the peak before and after the step: 1.35 requests a second.

A replica of small carries 1.84 and 30 % are kept in reserve, so two suffice up to 2.8 a second: also for the largest of
the measurements over 15 s, each of which counts about 20 arrivals, give or take 4.5.
"""
UP_SECONDS, DOWN_SECONDS = 12, 32
SHRUNK_SECONDS = 150.0
"""The load goes down at most 20 s after the wait begins. Measurements hold some of the peak for 15 s more and are
planned for during 30 s, the last large wish stands 6 s, two passes of 2 s agree: 75 s; twice that for slow machines.
"""

pytestmark = pytest.mark.timeout(600)  # two minutes when all goes well; its waits have deadlines of their own


def test_replicas_follow_a_step_of_load_and_no_request_fails_on_the_way_down(stack: Stack, zoo: Zoo) -> None:
    namespace = zoo.namespace
    service = zoo.service("chat", 400, members=("small",))
    stack.apply(*zoo.all(service, pool=zoo.pool(small())))
    stack.wait_condition("llmservice", namespace, "chat", "Ready", "True", timeout=90.0)
    stack.wait_answer(zoo.hostname("chat"))
    steps = ("--step", f"0:{QUIET}", "--step", f"{UP_SECONDS}:1", "--step", f"{DOWN_SECONDS}:{QUIET}")
    with (
        Timeline(stack, namespace, "chat") as timeline,
        stack.load(zoo.target("chat"), PEAK_RPS, arguments=steps) as load,
    ):
        eventually(lambda: timeline.last.replicas[SMALL] >= 5, 90.0, "replicas for nine requests a second")
        eventually(lambda: timeline.last.replicas[SMALL] <= 2, SHRUNK_SECONDS, "replicas for 1.35 requests a second")
        kept = timeline.last.replicas[SMALL]
        eventually(lambda: len(timeline.last.pods) - 1 <= kept, 60.0, "the pods that had to go are gone")
        load.wait_more(10)
        done = load.finish()
    assert done["failed"] == 0, done["errors"]
    assert done["sent"] > 250
    stepped_up = done["started_unix_seconds"] + UP_SECONDS - time.time() + time.monotonic()
    assert max(look.replicas[SMALL] for look in timeline.looks if look.at_seconds < stepped_up) <= 2
    check_one_direction(timeline.looks)


def check_one_direction(looks: list[Look]) -> None:
    """Up, then down, each once: load that does not swing makes no replicas swing."""
    numbers = [look.replicas[SMALL] for look in looks]
    top = numbers.index(max(numbers))
    falls = sum(later < earlier for earlier, later in pairwise(numbers[: top + 1]))
    rises = sum(later > earlier for earlier, later in pairwise(numbers[top:]))
    assert falls <= 1
    assert rises <= 1


def test_a_member_that_nobody_uses_any_more_loses_its_traffic_first_and_then_its_server(stack: Stack, zoo: Zoo) -> None:
    namespace = zoo.namespace
    both = ("small", "large")
    stack.apply(*zoo.all(zoo.service("chat", 900, members=both), pool=zoo.pool(small(), medium(), large(least=0))))
    stack.wait_condition("llmservice", namespace, "chat", "Ready", "True", timeout=90.0)
    stack.wait_answer(zoo.hostname("chat"))
    with stack.load(zoo.target("chat"), 2.0) as load, Timeline(stack, namespace, "chat") as timeline:
        eventually(lambda: timeline.last.weights.get(LARGE, 0) > 600_000, 60.0, "most goes to the largest")
        stack.apply(zoo.service("chat", 400, members=("small",)))
        eventually(lambda: timeline.last.replicas[LARGE] == 0, 120.0, "nobody uses the largest")
        load.wait_more(10)
        assert timeline.last.weights == {SMALL: 1_000_000}
        done = load.finish()
    assert done["failed"] == 0, done["errors"]
    check_traffic_left_first(timeline.looks)


def check_traffic_left_first(looks: list[Look]) -> None:
    """Nothing is ever sent to a server that is gone, and before the largest went for good it stood without traffic.

    It may go and come before that: without requests there is no debt, and the published rule wants the cheapest alone.
    """
    assert not [look for look in looks if look.replicas[LARGE] == 0 and look.weights.get(LARGE, 0) > 0]
    last_use = max(i for i, look in enumerate(looks) if look.weights.get(LARGE, 0) > 0)
    last_server = max(i for i, look in enumerate(looks) if look.replicas[LARGE] > 0)
    assert last_use < last_server < len(looks) - 1
