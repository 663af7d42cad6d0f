"""One zoo under constant load: nothing is written, and pause, stop, restart and takeover move nothing.

The scenarios share the zoo and follow each other, as warming one up takes longer than most of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import pytest

from e2e.operator_process import read_audit
from e2e.scenarios.zoo import Zoo, large, medium, small
from e2e.stack import Load, Manifest, Stack, eventually, fresh_namespace
from e2e.timeline import Timeline

RPS = 5.0
"""Enough for fifty requests in the window of fifteen seconds, below which shares are not judged."""
STEADY_SECONDS = 92.0
CHECKPOINT_SECONDS = 60.0
SETTLED_SECONDS = 25.0
"""Longer than the zoo's scale-down window; statuses are then checkpoints, one a minute."""
INTERVALS = 75
"""Requests that are waited for: three intervals of the service and seven of the pool."""
LARGEST_SHIFT = 0.1
"""Share of the traffic that the policy may move by itself in this time; one that forgot everything moves most of it."""
PAUSED = "wattzoo.dev/paused"
OURS = (("modelpool", "zoo"), ("llmservice", "chat"))

pytestmark = pytest.mark.timeout(600)  # three minutes when all goes well; its waits have deadlines of their own


@dataclass(frozen=True)
class Steady:
    """A zoo of more replicas than the load needs."""

    stack: Stack
    zoo: Zoo
    pool: Manifest

    @property
    def namespace(self) -> str:
        return self.zoo.namespace

    def generations(self, *kinds: str) -> dict[tuple[str, str], int]:
        """What was changed by somebody who asked for it; statuses do not count."""
        found = ((kind, item["metadata"]) for kind in kinds for item in self.stack.all(kind, self.namespace))
        return {(kind, meta["name"]): meta["generation"] for kind, meta in found}

    def versions(self, *kinds: str) -> dict[tuple[str, str], str]:
        """What was written at all."""
        found = ((kind, item["metadata"]) for kind in kinds for item in self.stack.all(kind, self.namespace))
        return {(kind, meta["name"]): meta["resourceVersion"] for kind, meta in found}


@pytest.fixture(scope="module")
def steady(running_stack: Stack) -> Iterator[Steady]:
    stack = running_stack
    stack.settle()
    with fresh_namespace(stack.cluster) as namespace:
        zoo = Zoo(namespace)
        pool = zoo.pool(small(least=4), medium(least=1), large())
        stack.apply(*zoo.all(zoo.service("easy"), pool=pool))
        stack.wait_condition("llmservice", namespace, "easy", "Ready", "True", timeout=90.0)
        stack.wait_answer(zoo.hostname("easy"))
        yield Steady(stack, zoo, pool)
    stack.settle()


@pytest.fixture
def mixed(steady: Steady) -> Iterator[tuple[Load, Timeline]]:
    """A service that needs two members for its promise, warm and under load, and the eyes on it.

    Its policy moves nothing by itself, so whatever moves was moved by the pause or the restart; that a law which learns
    goes on without a jump too is the ledger's scenario.
    """
    stack, zoo = steady.stack, steady.zoo
    stack.apply(zoo.service("chat", 700, members=("small", "large"), controller={"policy": "FixedMixture"}))
    stack.wait_condition("llmservice", zoo.namespace, "chat", "Ready", "True", timeout=60.0)
    stack.wait_answer(zoo.hostname("chat"))
    with stack.load(zoo.target("chat"), RPS) as load:
        load.wait_more(INTERVALS, timeout=90.0)
        stack.wait_condition("modelpool", zoo.namespace, "zoo", "Progressing", "False")
        with Timeline(stack, zoo.namespace, "chat") as timeline:
            yield load, timeline
        done = load.finish()
        assert done["failed"] == 0, done["errors"]


def target_of(entry: Manifest) -> str:
    """What a write was to, e.g. `llmservices/status chat`."""
    ref = entry["objectRef"]
    path = "/".join(part for part in (ref["resource"], ref.get("subresource", "")) if part)
    return f"{path} {ref.get('name', '')}"


def at_seconds(entry: Manifest) -> float:
    return datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp()


def check_quiet(entries: list[Manifest], namespace: str) -> None:
    """Nothing but the Lease and at most one status per object and minute."""
    assert [entry for entry in entries if entry["objectRef"]["resource"] == "leases"]
    others = (entry for entry in entries if entry["objectRef"]["resource"] != "leases")
    own = [entry for entry in others if entry["objectRef"].get("namespace", "") in {namespace, ""}]
    counts = Counter(target_of(entry) for entry in own)
    assert all(target.partition(" ")[0].endswith("/status") for target in counts), counts
    for target in counts:
        gaps = [b - a for a, b in pairwise(sorted(at_seconds(entry) for entry in own if target_of(entry) == target))]
        assert all(gap > CHECKPOINT_SECONDS - 1.0 for gap in gaps), (target, gaps)


def settled(steady: Steady) -> bool:
    """Whether nothing was written for a while: the load's start asks for replicas that go again when it is known."""
    latest = max(at_seconds(entry) for entry in steady.stack.writes(steady.namespace))
    return time.time() - latest > SETTLED_SECONDS


def test_a_steady_service_and_a_second_apply_write_nothing(steady: Steady) -> None:
    """Counted from the API server's audit log, which the operator cannot flatter."""
    stack, zoo = steady.stack, steady.zoo
    namespace = zoo.namespace
    with stack.load(zoo.target("easy"), RPS) as load:
        load.wait_more(100, timeout=120.0)
        for condition in ("SLAMet", "SLAFeasible", "MetricsAvailable", "TrafficProgrammed", "EnergyDataFresh"):
            stack.wait_condition("llmservice", namespace, "easy", condition, "True")
        for condition in ("Ready", "Placed", "MetricsAvailable"):
            stack.wait_condition("modelpool", namespace, "zoo", condition, "True")
        eventually(lambda: settled(steady), 180.0, "servers that fit the load")
        mark, began = stack.audit_mark(), time.monotonic()
        eventually(lambda: time.monotonic() - began > STEADY_SECONDS, STEADY_SECONDS + 10.0, "a steady time")
        entries = [entry for entry in read_audit(stack.cluster)[mark:] if entry["responseStatus"]["code"] < 300]
        check_quiet(entries, namespace)

        untouched = ("deployment", "service", "poddisruptionbudget", "modelprofile")
        with_status = ("llmservice", "modelpool", "httproute")
        before, mark = (steady.versions(*untouched), steady.generations(*with_status)), stack.audit_mark()
        stack.apply(*zoo.all(zoo.service("easy"), pool=steady.pool))
        load.wait_more(INTERVALS)
        assert (steady.versions(*untouched), steady.generations(*with_status)) == before
        written = {target_of(entry) for entry in stack.writes(namespace, mark)}
        assert written <= {"llmservices/status easy", "modelpools/status zoo"}
        assert load.finish()["failed"] == 0


def annotate(steady: Steady, value: str | None) -> None:
    for kind, name in OURS:
        steady.stack.patch(kind, steady.namespace, name, {"metadata": {"annotations": {PAUSED: value}}})
    status = ("False", "Active") if value is None else ("True", "PausedByAnnotation")
    for kind, name in OURS:
        steady.stack.wait_condition(kind, steady.namespace, name, "Paused", *status)


def ask_for(steady: Steady, target: int, pool: Manifest) -> None:
    sla = {"accuracy": {"targetPerMille": target}}
    steady.stack.patch("llmservice", steady.namespace, "chat", {"spec": {"sla": sla}})
    steady.stack.patch("modelpool", steady.namespace, "zoo", {"spec": pool["spec"]})


def test_a_pause_freezes_and_leaving_it_does_not_jump(steady: Steady, mixed: tuple[Load, Timeline]) -> None:
    stack, (load, timeline) = steady.stack, mixed
    annotate(steady, "true")
    mark = stack.audit_mark()
    with Timeline(stack, steady.namespace, "chat") as paused:
        # What would change everything changes nothing now.
        ask_for(steady, 990, steady.zoo.pool(small(least=6), medium(), large()))
        for kind, name in OURS:  # judged for the new generation, so seen
            stack.wait_condition(kind, steady.namespace, name, "Paused", "True")
        load.wait_more(INTERVALS // 2)
        assert paused.largest_shift() == 0
        assert paused.last.replicas == paused.first.replicas
        written = {target_of(entry).partition(" ")[0] for entry in stack.writes(steady.namespace, mark)}
        assert written <= {"llmservices/status", "modelpools/status", "events"}
        ask_for(steady, 700, steady.pool)
        for kind, name in OURS:
            stack.wait_condition(kind, steady.namespace, name, "Paused", "True")
    annotate(steady, None)
    go_on(load, timeline)


def go_on(load: Load, timeline: Timeline) -> None:
    """Some intervals pass in which nothing may fail, jump or be replaced."""
    load.wait_more(INTERVALS, timeout=90.0)
    assert load.summary()["failed"] == 0, load.summary()["errors"]
    assert timeline.last.pods == timeline.first.pods
    assert all(look.replicas == timeline.first.replicas for look in timeline.looks)
    assert timeline.largest_shift() <= LARGEST_SHIFT


def test_stop_kill_restart_and_takeover_move_nothing(steady: Steady, mixed: tuple[Load, Timeline]) -> None:
    """Every GPU pod survives, and what is rendered anew for the same spec is the same."""
    stack, (load, timeline) = steady.stack, mixed
    before = steady.generations("deployment")
    with Timeline(stack, steady.namespace, "chat") as stopped:
        stack.operator.pause()
        load.wait_more(INTERVALS // 2)
        assert load.summary()["failed"] == 0, load.summary()["errors"]
        assert stopped.largest_shift() == 0

    stack.operator.kill()
    stack.operator.start()
    stack.operator.wait_leading()
    go_on(load, timeline)

    stack.standby.start()
    stack.operator.kill()
    stack.standby.wait_leading()
    go_on(load, timeline)
    assert steady.generations("deployment") == before
