"""Packing: replicas that the load does not fill fall silent and wake on a step; no answer is cut, whoever dies."""

from __future__ import annotations

from e2e.scenarios.zoo import SMALL, Zoo, small
from e2e.stack import Manifest, Stack, eventually

REPLICAS = 5
QUIET_RPS, PEAK_RPS = 1.5, 9.0
"""One replica of small carries about 2.5 requests a second: one or two serve, then at least four."""
SERVING, COST = "wattzoo.dev/serving", "controller.kubernetes.io/pod-deletion-cost"


def pods_by_label(stack: Stack, namespace: str) -> dict[str, set[str]]:
    """Names of the pods by what their serving label says."""
    found: dict[str, set[str]] = {"true": set(), "false": set()}
    for pod in stack.all("pod", namespace):
        meta = pod["metadata"]
        if "deletionTimestamp" not in meta and SERVING in meta["labels"]:
            found[meta["labels"][SERVING]].add(meta["name"])
    return found


def variant(stack: Stack, namespace: str) -> Manifest:
    """What the ModelPool says of its only variant."""
    pool = stack.get("modelpool", namespace, "zoo") or {}
    rows: list[Manifest] = pool["status"]["variants"]
    return rows[0]


def test_surplus_replicas_fall_silent_survive_the_operator_and_wake_on_a_step(stack: Stack, zoo: Zoo) -> None:
    namespace = zoo.namespace
    pool = zoo.pool(small(least=REPLICAS, most=REPLICAS))
    stack.apply(*zoo.all(zoo.service("chat", 400, members=("small",)), pool=pool))
    stack.wait_condition("modelpool", namespace, "zoo", "Progressing", "False", timeout=90.0)
    stack.wait_answer(zoo.hostname("chat"))
    with stack.load(zoo.target("chat"), QUIET_RPS) as load:
        eventually(lambda: len(pods_by_label(stack, namespace)["true"]) <= 2, 60.0, "the surplus is silent")
        check_told(stack, namespace)
        stack.operator.kill()
        before = pods_by_label(stack, namespace)
        load.wait_more(10)
        assert pods_by_label(stack, namespace) == before  # silent ones stay silent, the rest carries
        stack.operator.start()
        stack.operator.wait_leading()
        load.wait_more(8)
        assert pods_by_label(stack, namespace)["false"], "a restart wakes nobody"
        done = load.finish()
    assert done["failed"] == 0, done["errors"]
    with stack.load(zoo.target("chat"), PEAK_RPS) as load:
        eventually(
            lambda: len(pods_by_label(stack, namespace)["true"]) >= 4, 30.0, "replicas for nine requests a second"
        )
        load.wait_more(40)
        done = load.finish()
    assert done["failed"] == 0, done["errors"]
    assert stack.replicas(namespace)[SMALL] == REPLICAS


def check_told(stack: Stack, namespace: str) -> None:
    """Status, deletion cost and disruption budget say the same as the labels."""

    def agrees() -> bool:
        serving, row = len(pods_by_label(stack, namespace)["true"]), variant(stack, namespace)
        budget = stack.get("poddisruptionbudget", namespace, SMALL) or {}
        told = (row["serving"], row["silent"], budget["spec"]["minAvailable"])
        return told == (serving, REPLICAS - serving, serving - 1)

    eventually(agrees, 20.0, "status and budget follow")
    silent = pods_by_label(stack, namespace)["false"]
    for pod in stack.all("pod", namespace):
        if pod["metadata"]["name"] in silent:
            assert pod["metadata"]["annotations"][COST] == "-100"
