"""Bad situations: each yields a condition with its reason, nothing crashes or shrinks, other services go on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster import CommandError
from e2e.emulator.launch import set_faults
from e2e.scenarios.zoo import LARGE, SMALL, Zoo, medium, member, server
from e2e.stack import STRICT_GATEWAY, STRICT_NAMESPACE, Load, Stack, eventually, fresh_namespace
from e2e.timeline import Timeline

RPS = 4.0


@pytest.fixture(scope="module")
def busy(running_stack: Stack) -> Iterator[tuple[Zoo, Load]]:
    """A service under load that needs more replicas than the least; the scenarios share it."""
    stack = running_stack
    stack.settle()
    with fresh_namespace(stack.cluster) as namespace:
        zoo = Zoo(namespace)
        stack.apply(*zoo.all(zoo.service("easy", members=("small", "large"))))
        stack.wait_condition("llmservice", namespace, "easy", "Ready", "True", timeout=90.0)
        stack.wait_answer(zoo.hostname("easy"))
        with stack.load(zoo.target("easy"), RPS) as load:
            eventually(lambda: stack.replicas(namespace)[SMALL] >= 2, 60.0, "more than the least replicas")
            stack.wait_condition("llmservice", namespace, "easy", "MetricsAvailable", "True")
            yield zoo, load
    stack.settle()


@pytest.fixture
def watched(running_stack: Stack, busy: tuple[Zoo, Load]) -> Iterator[Timeline]:
    """The eyes on it; a scenario must leave the operator in its place, unbroken, and no request failed."""
    zoo, load = busy
    with Timeline(running_stack, zoo.namespace, "easy") as timeline:
        yield timeline
    check_sound(running_stack)
    assert load.summary().get("failed", 0) == 0, load.summary()["errors"]


def check_sound(stack: Stack) -> None:
    """The operator is the same process, leads, and no pass broke."""
    assert stack.operator.alive()
    assert stack.operator.leading()
    page = stack.operator.fetch(stack.operator.metrics_url)[1]
    assert [line for line in page.splitlines() if line.startswith("wattzoo_pass_failures_total")] == []


def test_each_broken_object_says_why_and_others_go_on(
    running_stack: Stack, busy: tuple[Zoo, Load], watched: Timeline
) -> None:
    stack, (zoo, load) = running_stack, busy
    nowhere = member("nowhere", "none", profile="small-l4", minReplicas=1, maxReplicas=2, server=server())
    profileless = member("lost", "l4", profile="missing", minReplicas=1, maxReplicas=1, server=server())
    orphan = medium(least=1)
    orphan["variants"][0]["workloadRef"]["name"] = "missing"
    stack.apply(
        zoo.pool(nowhere, name="unplaced"),
        zoo.pool(profileless, name="unprofiled"),
        zoo.pool(orphan, name="orphaned"),
        zoo.service("lost", pool="missing"),
        zoo.service("refused", gateway=(STRICT_NAMESPACE, STRICT_GATEWAY)),
        zoo.service("gateless", gateway=(STRICT_NAMESPACE, "missing")),
    )
    for kind, name, condition, status, reason in (
        ("llmservice", "lost", "Ready", "False", "ModelPoolNotFound"),
        ("llmservice", "refused", "TrafficProgrammed", "False", "RouteNotAccepted"),
        ("llmservice", "refused", "Ready", "False", "RouteNotAccepted"),
        ("llmservice", "gateless", "TrafficProgrammed", "Unknown", "RoutePending"),
        ("llmservice", "gateless", "Ready", "False", "RoutePending"),
        ("modelpool", "unplaced", "Placed", "False", "AcceleratorsShort"),
        ("modelpool", "unprofiled", "Degraded", "True", "ProfileNotFound"),
        ("modelpool", "orphaned", "Ready", "False", "WorkloadNotFound"),
    ):
        assert stack.wait_condition(kind, zoo.namespace, name, condition, status, reason)
    assert stack.condition("acceleratorpool", "", "scenario-none", "Ready")[:2] == ("False", "NoMatchingNodes")
    unknown = zoo.service("unknown")
    unknown["spec"]["controller"]["policy"] = "Guessing"
    with pytest.raises(CommandError, match=r'spec.controller.policy: .*"Guessing"'):
        stack.apply(unknown)
    load.wait_more(30)
    assert watched.lowest(LARGE) == 1
    assert watched.lowest(SMALL) >= 2
    reasons = {(event["involvedObject"]["name"], event["reason"]) for event in stack.all("event", zoo.namespace)}
    assert {("lost", "ModelPoolNotFound"), ("refused", "RouteNotAccepted")} <= reasons
    pools, services = ("unplaced", "unprofiled", "orphaned"), ("lost", "refused", "gateless")
    stack.cluster.kubectl("delete", "modelpool", *pools, "-n", zoo.namespace)
    stack.cluster.kubectl("delete", "llmservice", *services, "-n", zoo.namespace)


def test_power_that_is_not_a_number_is_told_and_shrinks_nothing(
    running_stack: Stack, busy: tuple[Zoo, Load], watched: Timeline
) -> None:
    """The energy counters still count, so joules stay known; the NaN is told and used for nothing."""
    stack, (zoo, load) = running_stack, busy
    ours = (("modelpool", "zoo"), ("llmservice", "easy"))
    # Pods are measured from 30 s after they are ready; the scenario before may have taken less.
    stack.wait_condition("llmservice", zoo.namespace, "easy", "EnergyDataFresh", "True", timeout=120.0)
    set_faults(report_nan_power=True)
    try:
        for kind, name in ours:
            message = stack.wait_condition(kind, zoo.namespace, name, "MetricsAvailable", "False", "NonFiniteSample")
            assert "power_watts has the implausible sample nan" in message
        load.wait_more(40)
        stack.wait_condition("llmservice", zoo.namespace, "easy", "EnergyDataFresh", "True")
        assert watched.lowest(SMALL) >= 2
        assert watched.lowest(LARGE) == 1
    finally:
        set_faults(report_nan_power=False)
    for kind, name in ours:
        stack.wait_condition(kind, zoo.namespace, name, "MetricsAvailable", "True", timeout=90.0)


def test_no_metrics_no_scale_down(running_stack: Stack, busy: tuple[Zoo, Load], watched: Timeline) -> None:
    """Prometheus goes while load runs, load goes while Prometheus is away, Prometheus comes back."""
    stack, (zoo, load) = running_stack, busy
    namespace, before = zoo.namespace, watched.last
    stack.cluster.stop("prometheus")
    try:
        for kind, name in (("llmservice", "easy"), ("modelpool", "zoo")):
            stack.wait_condition(kind, namespace, name, "MetricsAvailable", "False", "PrometheusUnreachable")
        blind = watched.last
        load.wait_more(30)
        assert load.finish()["failed"] == 0
        watched.observe(20.0)  # twice staleAfter, three times the stabilisation: nothing runs, nobody knows
        assert watched.lowest(SMALL) >= before.replicas[SMALL]
        assert watched.last.replicas[LARGE] == before.replicas[LARGE]
        assert watched.last.weights == blind.weights
        assert stack.ask(zoo.hostname("easy")).status_code == 200
    finally:
        stack.cluster.restart("prometheus")
    stack.wait_condition("modelpool", namespace, "zoo", "MetricsAvailable", "True", timeout=90.0)
    eventually(lambda: stack.replicas(namespace)[SMALL] == 1, 150.0, "what is known to be idle shrinks again")
    assert stack.wait_answer(zoo.hostname("easy"))
