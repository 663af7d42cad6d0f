"""Bad situations: each yields a condition with its reason, nothing crashes or shrinks, other services go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from e2e.cluster import CommandError
from e2e.emulator.launch import set_faults
from e2e.scenarios.zoo import ADOPTED, LARGE, SMALL, Zoo, large, medium, member, server, small
from e2e.stack import STRICT_GATEWAY, STRICT_NAMESPACE, Load, Stack, eventually
from e2e.timeline import Timeline

RPS = 4.0


@contextmanager
def running(stack: Stack, zoo: Zoo) -> Iterator[tuple[Load, Timeline]]:
    """A service on two members under load; more small replicas run than the least."""
    pool = zoo.pool(small(), medium(), large())
    stack.apply(*zoo.all(zoo.service("chat", 400, members=("small", "large")), pool=pool))
    stack.wait_condition("llmservice", zoo.namespace, "chat", "Ready", "True", timeout=90.0)
    stack.wait_answer(zoo.hostname("chat"))
    with stack.load(zoo.target("chat"), RPS) as load:
        eventually(lambda: stack.replicas(zoo.namespace)[SMALL] >= 2, 60.0, "more than the least replicas")
        stack.wait_condition("llmservice", zoo.namespace, "chat", "MetricsAvailable", "True")
        with Timeline(stack, zoo.namespace, "chat") as timeline:
            yield load, timeline


def check_sound(stack: Stack) -> None:
    """The operator is the same process, leads, and no pass broke."""
    assert stack.operator.alive()
    assert stack.operator.leading()
    page = stack.operator.fetch(stack.operator.metrics_url)[1]
    assert [line for line in page.splitlines() if line.startswith("wattzoo_pass_failures_total")] == []


def test_each_broken_object_says_why_and_others_go_on(stack: Stack, zoo: Zoo) -> None:
    namespace = zoo.namespace
    nowhere = member("nowhere", "none", profile="small-l4", minReplicas=1, maxReplicas=2, server=server())
    profileless = member("lost", "l4", profile="missing", minReplicas=1, maxReplicas=1, server=server())
    orphan = medium(least=1)
    orphan["variants"][0]["workloadRef"]["name"] = "missing"
    strict = (STRICT_NAMESPACE, STRICT_GATEWAY)
    with running(stack, zoo) as (load, timeline):
        stack.apply(
            zoo.pool(nowhere, name="unplaced"),
            zoo.pool(profileless, name="unprofiled"),
            zoo.pool(orphan, name="orphaned"),
            zoo.service("lost", pool="missing"),
            zoo.service("refused", gateway=strict),
            zoo.service("gateless", gateway=(STRICT_NAMESPACE, "missing")),
        )
        for kind, name, condition, status, reason in (
            ("llmservice", "lost", "Ready", "False", "ModelPoolNotFound"),
            ("llmservice", "refused", "TrafficProgrammed", "False", "RouteNotAccepted"),
            ("llmservice", "refused", "Ready", "False", "RouteNotAccepted"),
            ("llmservice", "gateless", "TrafficProgrammed", "Unknown", "RoutePending"),
            ("llmservice", "gateless", "Ready", "False", "RoutePending"),
            ("modelpool", "unplaced", "Placed", "False", ""),
            ("modelpool", "unprofiled", "Degraded", "True", "ProfileNotFound"),
            ("modelpool", "orphaned", "Ready", "False", "WorkloadNotFound"),
        ):
            message = stack.wait_condition(kind, namespace, name, condition, status, reason)
            assert message
        empty = stack.condition("acceleratorpool", "", "scenario-none", "Ready")
        assert empty[:2] == ("False", "NoMatchingNodes")
        unknown = zoo.service("unknown")
        unknown["spec"]["controller"]["policy"] = "Guessing"
        with pytest.raises(CommandError, match=r'spec.controller.policy: .*"Guessing"'):
            stack.apply(unknown)
        load.wait_more(40)
        assert timeline.lowest(LARGE) >= 1
        assert timeline.lowest(SMALL) >= 1
        check_sound(stack)
        assert load.finish()["failed"] == 0
    reasons = {(event["involvedObject"]["name"], event["reason"]) for event in stack.all("event", namespace)}
    assert {("lost", "ModelPoolNotFound"), ("refused", "RouteNotAccepted")} <= reasons


def test_no_metrics_no_scale_down(stack: Stack, zoo: Zoo) -> None:
    """Prometheus goes while load runs, load goes while Prometheus is away, Prometheus comes back."""
    namespace = zoo.namespace
    with running(stack, zoo) as (load, timeline):
        before = timeline.last
        stack.cluster.stop("prometheus")
        try:
            for kind, name in (("llmservice", "chat"), ("modelpool", "zoo")):
                stack.wait_condition(kind, namespace, name, "MetricsAvailable", "False", "PrometheusUnreachable")
            load.wait_more(40)
            assert load.finish()["failed"] == 0
            timeline.observe(20.0)  # twice staleAfter, three times the stabilisation: nothing runs, nobody knows
            assert timeline.lowest(SMALL) >= before.replicas[SMALL]
            assert timeline.last.replicas[LARGE] == before.replicas[LARGE]
            assert timeline.last.weights == timeline.looks[-30].weights
            assert stack.wait_answer(zoo.hostname("chat"))
            check_sound(stack)
        finally:
            stack.cluster.restart("prometheus")
        stack.wait_condition("modelpool", namespace, "zoo", "MetricsAvailable", "True", timeout=90.0)
        eventually(lambda: stack.replicas(namespace)[SMALL] == 1, 90.0, "what is known to be idle shrinks again")
        assert stack.wait_answer(zoo.hostname("chat"))


def test_power_that_is_not_a_number_is_told_and_shrinks_nothing(stack: Stack, zoo: Zoo) -> None:
    namespace = zoo.namespace
    with running(stack, zoo) as (load, timeline):
        before = timeline.last.replicas[SMALL]
        set_faults(report_nan_power=True)
        try:
            for kind, name in (("modelpool", "zoo"), ("llmservice", "chat")):
                stack.wait_condition(kind, namespace, name, "MetricsAvailable", "False", "NonFiniteSample")
            load.wait_more(40)
            assert timeline.lowest(SMALL) >= min(before, 2)  # load that goes on needs two at least
            check_sound(stack)
        finally:
            set_faults(report_nan_power=False)
        for kind, name in (("modelpool", "zoo"), ("llmservice", "chat")):
            stack.wait_condition(kind, namespace, name, "MetricsAvailable", "True", timeout=90.0)
        stack.wait_condition("llmservice", namespace, "chat", "EnergyDataFresh", "True")
        assert load.finish()["failed"] == 0
    assert ADOPTED in stack.replicas(namespace)
