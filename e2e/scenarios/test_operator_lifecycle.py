"""From `kubectl apply` to an answer, and back: what is created is placed, and what is deleted takes only its own."""

from __future__ import annotations

from typing import Any

from e2e.scenarios.zoo import ADOPTED, LARGE, MEDIUM, PRODUCTS, SMALL, Zoo, large, medium, small
from e2e.stack import Stack, eventually

NODE_OF = {"small": "l4-", "large": "h100-"}


def owned_by(item: dict[str, Any], kind: str, name: str) -> bool:
    return any((o["kind"], o["name"]) == (kind, name) for o in item["metadata"].get("ownerReferences", ()))


def start_zoo(stack: Stack, zoo: Zoo) -> None:
    """Two services over one pool, and a second pool beside it, all Ready."""
    other = zoo.pool(small(least=1, most=1), name="other")
    pool = zoo.pool(small(), medium(least=1), large())  # no member is scaled away meanwhile, used or not
    stack.apply(*zoo.all(zoo.service("chat"), zoo.service("search", 700), pool=pool), other)
    for service in ("chat", "search"):
        stack.wait_condition("llmservice", zoo.namespace, service, "Ready", "True", timeout=90.0)
    stack.wait_condition("modelpool", zoo.namespace, "other", "Ready", "True")


def check_placement(stack: Stack, zoo: Zoo) -> None:
    """Every server pod sits on a node of its kind and asks for its GPUs; the adopted one is left as it was."""
    pods = [pod for pod in stack.all("pod", zoo.namespace) if "wattzoo.dev/member" in pod["metadata"]["labels"]]
    assert {pod["metadata"]["labels"]["wattzoo.dev/member"] for pod in pods} == set(NODE_OF)
    for pod in pods:
        member = pod["metadata"]["labels"]["wattzoo.dev/member"]
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert pod["spec"]["nodeName"].startswith(NODE_OF[member])
        assert pod["spec"]["nodeSelector"]["nvidia.com/gpu.product"] in PRODUCTS.values()
        assert limits["nvidia.com/gpu"] == {"small": "1", "large": "4"}[member]
    adopted = stack.get("deployment", zoo.namespace, ADOPTED)
    assert adopted is not None
    assert "ownerReferences" not in adopted["metadata"]
    assert "wattzoo.dev/model-pool" not in adopted["metadata"].get("labels", {})


def test_a_zoo_is_placed_routed_answers_and_goes_away_piece_by_piece(stack: Stack, zoo: Zoo) -> None:
    namespace = zoo.namespace
    start_zoo(stack, zoo)
    check_placement(stack, zoo)
    assert stack.wait_answer(zoo.hostname("chat")) in {"small", "medium", "large"}
    stack.wait_answer(zoo.hostname("search"))
    for service in ("chat", "search"):
        weights = stack.weights(namespace, service)
        assert list(weights) == [SMALL, MEDIUM, LARGE]
        assert sum(weights.values()) == 1_000_000

    # An LLMService takes its route and nothing else.
    before = stack.uids(namespace) | stack.uids(namespace, "pod", "modelprofile")
    stack.cluster.kubectl("delete", "llmservice", "search", "-n", namespace, "--timeout=30s")
    eventually(lambda: stack.get("httproute", namespace, "search") is None, 30.0, "its route is collected")
    del before["httproute", "search"]
    assert stack.uids(namespace) | stack.uids(namespace, "pod", "modelprofile") == before
    assert stack.ask(zoo.hostname("chat")).status_code == 200

    # A ModelPool takes its servers; what it adopted, profiles and the other pool stay.
    own = {
        (kind, item["metadata"]["name"])
        for kind in ("deployment", "service", "poddisruptionbudget")
        for item in stack.all(kind, namespace)
        if owned_by(item, "ModelPool", "zoo")
    }
    assert own >= {("deployment", SMALL), ("deployment", LARGE), ("service", MEDIUM), ("poddisruptionbudget", LARGE)}
    kept = stack.uids(namespace) | stack.uids(namespace, "modelprofile")
    stack.cluster.kubectl("delete", "modelpool", "zoo", "-n", namespace, "--timeout=30s")
    kept = {key: uid for key, uid in kept.items() if key not in own}
    eventually(lambda: stack.uids(namespace) | stack.uids(namespace, "modelprofile") == kept, 30.0, "only its own goes")
    stack.wait_condition("llmservice", namespace, "chat", "Ready", "False", "ModelPoolNotFound")
    eventually(
        lambda: {name.partition("-")[0] for name in stack.gpu_pods(namespace)} == {"other", "ran"},
        60.0,
        "its pods are gone, the others are not",
    )
    assert stack.condition("modelpool", namespace, "other", "Ready")[0] == "True"

    # The namespace with all that is left ends without the operator's help.
    stack.operator.stop()
    stack.cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    eventually(lambda: stack.api.get(f"/api/v1/namespaces/{namespace}") is None, 90.0, "the namespace has ended")


def test_an_adopted_deployment_is_scaled_and_otherwise_left_alone(stack: Stack, zoo: Zoo) -> None:
    """Its scale is ours as long as nobody else wants it; one who does is reported and not fought."""
    namespace = zoo.namespace
    only = zoo.pool(medium(least=2))
    stack.apply(*zoo.all(zoo.service("chat", members=("medium",)), pool=only))
    eventually(lambda: stack.replicas(namespace)[ADOPTED] == 2, 60.0, "two replicas, as the pool wants")
    stack.wait_condition("llmservice", namespace, "chat", "Ready", "True", timeout=60.0)
    assert stack.wait_answer(zoo.hostname("chat")) == "medium"
    adopted = stack.get("deployment", namespace, ADOPTED)
    assert adopted is not None
    assert adopted["metadata"]["generation"] == 2  # somebody's creation, our scale
    ours = [row for row in adopted["metadata"]["managedFields"] if row["manager"] == "wattzoo"]
    assert [row["fieldsV1"] for row in ours] == [{"f:spec": {"f:replicas": {}}}]

    stack.cluster.kubectl("scale", "deployment", ADOPTED, "--replicas=1", "-n", namespace)
    message = stack.wait_condition("modelpool", namespace, "zoo", "Degraded", "True", "OwnershipConflict")
    assert ADOPTED in message
    assert stack.replicas(namespace)[ADOPTED] == 1
