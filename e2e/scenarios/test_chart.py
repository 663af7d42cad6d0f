"""The chart on a real API server: what it lets the operator do, what it lets tenants do, and who leads when."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from e2e.cluster import Cluster, CommandError
from e2e.cluster.paths import REPOSITORY_DIR
from e2e.operator_process import NAMESPACE, RELEASE, USERNAME, OperatorProcess, install_chart, read_audit

FAST_LEASE = {"durationSeconds": 4, "renewDeadlineSeconds": 3, "retryPeriodSeconds": 0.5}
TAKEOVER_SECONDS = FAST_LEASE["durationSeconds"] + 4.0
PROFILE = REPOSITORY_DIR / "examples" / "profiles" / "small-l4.yaml"
WRITING_VERBS = {"create", "update", "patch", "delete"}


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Cluster]:
    """The chart in a namespace that enforces the restricted Pod Security profile, alone on the cluster."""
    cluster.kubectl("create", "namespace", NAMESPACE, check=False)
    cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    install_chart(cluster, {"lease": FAST_LEASE, "poolIntervalSeconds": 2})
    yield cluster
    cluster.helm("uninstall", RELEASE, "--namespace", NAMESPACE, check=False)
    cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce-", check=False)


@pytest.fixture
def operators(installed: Cluster) -> Iterator[tuple[OperatorProcess, OperatorProcess]]:
    """Two replicas, not started; those that a test started are stopped."""
    pair = OperatorProcess(installed, 0), OperatorProcess(installed, 1)
    yield pair
    for operator in pair:
        if operator.alive():
            operator.resume()
            operator.stop()
    installed.kubectl("delete", "lease", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found")


def apply(cluster: Cluster, *manifests: dict[str, Any], user: str = "") -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
    cluster.kubectl("apply", "--server-side", "-f", "-", *([f"--as={user}"] if user else []), input=text)


def of_ours(kind: str, name: str, spec: dict[str, Any], namespace: str = "") -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "wattzoo.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


@dataclass(frozen=True)
class Zoo:
    """A pool of two variants on one kind of GPU with one service, in a namespace of its own."""

    namespace: str

    @property
    def accelerators(self) -> dict[str, Any]:
        spec = {
            "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
            "resourceName": "nvidia.com/gpu",
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "allowedNamespaces": {"names": [self.namespace]},
            "maxAccelerators": 4,
        }
        return of_ours("AcceleratorPool", f"l4-{self.namespace}", spec)

    @property
    def profile(self) -> dict[str, Any]:
        profile: dict[str, Any] = yaml.safe_load(PROFILE.read_text())
        profile["metadata"]["namespace"] = self.namespace
        return profile

    def pool(self, *members: str) -> dict[str, Any]:
        def member(name: str) -> dict[str, Any]:
            variant = {
                "name": "l4",
                "acceleratorPool": f"l4-{self.namespace}",
                "acceleratorsPerReplica": 1,
                "profile": "small-l4",
                "minReplicas": 1,
                "maxReplicas": 2,
                "server": {"image": "vllm:1", "resources": {"cpu": "1", "memory": "1Gi"}},
            }
            return {"name": name, "model": f"example/{name}", "variants": [variant]}

        scaling = {"downStabilizationSeconds": 1, "drainTimeoutSeconds": 1}
        spec = {"servedModelName": "zoo", "mode": "Act", "scaling": scaling, "members": [member(n) for n in members]}
        return of_ours("ModelPool", "zoo", spec, self.namespace)

    @property
    def service(self) -> dict[str, Any]:
        spec = {
            "modelPoolRef": {"name": "zoo"},
            "safestMember": "big",
            "sla": {"accuracy": {"targetPerMille": 500}},
            "controller": {"policy": "MESSPlus", "intervalSeconds": 5},
            "feedback": {"prometheus": {"metric": "answers_total", "memberLabel": "member", "outcomeLabel": "outcome"}},
            "traffic": {"parentRefs": [{"name": "nobody"}], "hostnames": ["zoo.example"]},
            "mode": "Act",
        }
        return of_ours("LLMService", "chat", spec, self.namespace)


@pytest.fixture
def zoo(installed: Cluster, namespace: str) -> Iterator[Zoo]:
    zoo = Zoo(namespace)
    yield zoo
    installed.kubectl("delete", "accpool", f"l4-{namespace}", "--ignore-not-found")


def names(cluster: Cluster, kind: str, namespace: str) -> set[str]:
    return set(cluster.kubectl("get", kind, "-n", namespace, "-o", "jsonpath={.items[*].metadata.name}").split())


def wait_for_names(cluster: Cluster, kind: str, namespace: str, wanted: set[str]) -> None:
    cluster.wait_until(lambda: names(cluster, kind, namespace) == wanted, 60.0, f"{kind}: {', '.join(sorted(wanted))}")


def start_with_zoo(operator: OperatorProcess, zoo: Zoo) -> None:
    """Both members' Deployments and the route exist when this returns."""
    cluster = operator.cluster
    apply(cluster, zoo.accelerators, zoo.profile, zoo.pool("small", "big"), zoo.service)
    operator.start(wait_ready=True)
    wait_for_names(cluster, "deploy", zoo.namespace, {"zoo-small-l4", "zoo-big-l4"})
    wait_for_names(cluster, "httproute", zoo.namespace, {"chat"})


def test_the_pods_are_admitted_by_the_restricted_profile(installed: Cluster) -> None:
    installed.kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", NAMESPACE, "--timeout=30s")
    policies = json.loads(installed.kubectl("get", "validatingadmissionpolicy", "-o", "json"))["items"]
    ours = [policy for policy in policies if policy["metadata"]["name"].startswith(RELEASE)]
    assert len(ours) == 2
    installed.wait_until(
        lambda: "{}" in installed.kubectl("get", *ADMISSION, "-o", "jsonpath={.status.typeChecking}"), 20.0, "checked"
    )


ADMISSION = ("validatingadmissionpolicy", f"{RELEASE}-operator-may-only-label-pods")


@pytest.mark.parametrize(
    "question",
    [
        "get secrets",
        "list secrets",
        "create pods",
        "delete pods",
        "create pods/exec",
        "create serviceaccounts/token",
        "patch clusterroles",
        "create rolebindings",
        "patch nodes",
        "delete httproutes",
        "update modelpools",
        "patch llmservices",
        "delete leases",
        "list leases",
    ],
)
def test_what_the_token_may_not_do(installed: Cluster, question: str) -> None:
    answer = installed.kubectl("auth", "can-i", *question.split(), "--as", USERNAME, "-A", check=False)
    assert answer.strip() == "no"


def test_every_writing_right_is_used_and_no_call_is_refused(
    operators: tuple[OperatorProcess, OperatorProcess], zoo: Zoo
) -> None:
    operator, cluster = operators[0], operators[0].cluster
    before = len(read_audit(cluster))
    start_with_zoo(operator, zoo)
    apply(cluster, zoo.pool("big"))
    for kind in ("deploy", "svc", "pdb"):
        wait_for_names(cluster, kind, zoo.namespace, {"zoo-big-l4"})
    check_pods_are_woken(operator, zoo.namespace)
    entries = read_audit(cluster)[before:]
    assert [entry for entry in entries if entry["responseStatus"]["code"] in {401, 403}] == []
    assert granted(cluster) == {right for entry in entries for right in used(entry)}
    assert metric(operator, "wattzoo_unreadable_total") == []
    assert metric(operator, "wattzoo_pass_failures_total") == []


def check_pods_are_woken(operator: OperatorProcess, namespace: str) -> None:
    """What is silent and not known to be surplus is told to serve; pods of the member that left only end."""
    kubectl = operator.cluster.kubectl
    own, silent = (
        ("-n", namespace, "-l", "wattzoo.dev/model-pool=zoo,wattzoo.dev/member=big"),
        "wattzoo.dev/serving=false",
    )
    operator.cluster.wait_until(lambda: bool(kubectl("get", "pod", *own, "-o", "name").strip()), 30.0, "a pod")
    kubectl("label", "pod", *own, silent, "--overwrite")
    query = ("get", "pod", *own[:3], f"{own[3]},{silent}", "-o", "name")
    operator.cluster.wait_until(lambda: not kubectl(*query).strip(), 30.0, "every pod serves")


def used(entry: dict[str, Any]) -> set[tuple[str, str]]:
    """The rights that an audited request needed; an apply that creates needs the right to create too."""
    target = entry["objectRef"]
    resource = "/".join(part for part in (target["resource"], target.get("subresource", "")) if part)
    created = entry["verb"] == "patch" and entry["responseStatus"]["code"] == 201
    return {(resource, entry["verb"])} | ({(resource, "create")} if created else set())


def granted(cluster: Cluster) -> set[tuple[str, str]]:
    """All writing rights of the operator's roles."""
    rights: set[tuple[str, str]] = set()
    for kind, name in (("clusterrole", RELEASE), ("role", f"{RELEASE}-lease")):
        role = json.loads(cluster.kubectl("get", kind, name, "-n", NAMESPACE, "-o", "json"))
        for rule in role["rules"]:
            rights |= {(r, verb) for r in rule["resources"] for verb in rule["verbs"] if verb in WRITING_VERBS}
    return rights


def metric(operator: OperatorProcess, name: str) -> list[str]:
    return [line for line in operator.fetch(operator.metrics_url)[1].splitlines() if line.startswith(name)]


def wait_for_ticks(operator: OperatorProcess, count: int = 3) -> None:
    """Until the operator has observed and decided that many times more."""

    def ticks() -> float:
        return sum(float(line.split()[-1]) for line in metric(operator, "wattzoo_tick_seconds_count"))

    before = ticks()
    operator.cluster.wait_until(lambda: ticks() >= before + count, 30.0, f"{count} more ticks")


def test_the_token_may_label_a_pod_but_not_change_what_it_runs(installed: Cluster, namespace: str) -> None:
    """And only a pod of its own servers, even where somebody grants it more."""
    labels = {"wattzoo.dev/serving": "true", "app": "x", "app.kubernetes.io/managed-by": "wattzoo"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "server", "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "server", "image": "good"}]},
    }
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "patch"]}]
    meta = {"name": "patch-pods", "namespace": namespace}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": rules}
    foreign = {**pod, "metadata": {"name": "foreign", "namespace": namespace, "labels": {"app": "x"}}}
    apply(installed, pod, foreign, role)
    account = f"--serviceaccount={NAMESPACE}:{RELEASE}"
    installed.kubectl("create", "rolebinding", "patch-pods", "--role=patch-pods", account, "-n", namespace)

    def patch(body: dict[str, Any], name: str = "server") -> None:
        text = json.dumps(body)
        installed.kubectl("patch", "pod", name, "-n", namespace, "-p", text, "--as", USERNAME)

    cost = {"controller.kubernetes.io/pod-deletion-cost": "-100"}
    silence = {"metadata": {"labels": {"wattzoo.dev/serving": "false"}, "annotations": cost}}
    patch(silence)
    with pytest.raises(CommandError, match="servers that it manages"):
        patch(silence, "foreign")
    for body, words in (
        ({"spec": {"containers": [{"name": "server", "image": "evil"}]}}, "may not change a pod's spec"),
        ({"metadata": {"labels": {"app": "y"}}}, "wattzoo.dev/serving label"),
        ({"metadata": {"labels": {"app": None}}}, "wattzoo.dev/serving label"),
        ({"metadata": {"labels": {"wattzoo.dev/model-pool": "other"}}}, "wattzoo.dev/serving label"),
        ({"metadata": {"annotations": {"x": "y"}}}, "deletion cost"),
        ({"metadata": {"finalizers": ["a.b/c"]}}, "finalizers"),
    ):
        with pytest.raises(CommandError, match=words):
            patch(body)


def grant(cluster: Cluster, namespace: str, user: str, *resources: tuple[str, str]) -> None:
    rules = [{"apiGroups": [group], "resources": [name], "verbs": ["*"]} for group, name in resources]
    meta = {"name": user, "namespace": namespace}
    api = "rbac.authorization.k8s.io/v1"
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user}
    binding = {"apiVersion": api, "kind": "RoleBinding", "metadata": meta, "roleRef": ref, "subjects": [subject]}
    apply(cluster, {"apiVersion": api, "kind": "Role", "metadata": meta, "rules": rules}, binding)


def test_an_author_needs_the_right_to_do_it_directly(installed: Cluster, zoo: Zoo) -> None:
    ours = [("wattzoo.dev", "modelpools"), ("wattzoo.dev", "llmservices")]
    grant(installed, zoo.namespace, "tenant", *ours)
    grant(
        installed, zoo.namespace, "author", *ours, ("apps", "deployments"), ("gateway.networking.k8s.io", "httproutes")
    )
    with pytest.raises(CommandError, match="tenant may not create Deployments"):
        apply(installed, zoo.pool("big"), user="tenant")
    with pytest.raises(CommandError, match="tenant may not create HTTPRoutes"):
        apply(installed, zoo.service, user="tenant")
    apply(installed, zoo.pool("big"), zoo.service, user="author")
    with pytest.raises(CommandError, match="tenant may not create Deployments"):
        installed.kubectl(
            "patch",
            "mpool",
            "zoo",
            "-n",
            zoo.namespace,
            "--as=tenant",
            "--type=merge",
            "-p",
            '{"spec":{"mode":"Observe"}}',
        )
    installed.kubectl("label", "mpool", "zoo", "-n", zoo.namespace, "a=b", "--as=tenant")


def test_leadership_passes_on_release_on_death_and_on_silence(
    operators: tuple[OperatorProcess, OperatorProcess],
) -> None:
    first, second = operators
    first.start(wait_ready=True)
    second.start()
    assert second.fetch(f"{second.health_url}/readyz")[0] == 200
    assert second.lease_holder() == first.identity

    started = time.monotonic()
    first.stop()
    second.wait_leading(5.0)
    assert time.monotonic() - started < 5.0
    assert first.cluster.processes()[first.name]["exit_code"] == 0

    first.start()
    second.kill()
    first.wait_leading(TAKEOVER_SECONDS)

    second.start()
    first.pause()
    second.wait_leading(TAKEOVER_SECONDS)
    others = [entry for entry in read_audit(first.cluster) if entry["objectRef"]["resource"] != "leases"]
    first.resume()
    first.cluster.wait_until(lambda: not first.alive(), 10.0, "the late leader has ended")
    assert first.cluster.processes()[first.name]["exit_code"] == 1
    assert second.leading()
    after = [entry for entry in read_audit(first.cluster) if entry["objectRef"]["resource"] != "leases"]
    assert after == others


def test_restart_upgrade_and_uninstall_leave_the_servers_alone(
    operators: tuple[OperatorProcess, OperatorProcess], zoo: Zoo
) -> None:
    operator, cluster = operators[0], operators[0].cluster
    start_with_zoo(operator, zoo)
    wait_for_ticks(operator)

    def facts() -> list[tuple[str, int]]:
        objects = json.loads(cluster.kubectl("get", "deploy,httproute", "-n", zoo.namespace, "-o", "json"))["items"]
        return sorted((item["metadata"]["uid"], item["metadata"]["generation"]) for item in objects)

    before = facts()
    operator.restart()
    operator.wait_leading()
    wait_for_ticks(operator)
    assert facts() == before
    install_chart(cluster, {"lease": FAST_LEASE, "poolIntervalSeconds": 3, "logLevel": "debug"})
    operator.restart()
    operator.wait_leading()
    wait_for_ticks(operator)
    assert facts() == before
    operator.stop()
    cluster.helm("uninstall", RELEASE, "--namespace", NAMESPACE)
    assert facts() == before
    cluster.kubectl("delete", "mpool,llmsvc", "--all", "-n", zoo.namespace, "--timeout=20s")
    cluster.wait_until(lambda: facts() == [], 20.0, "what they owned is collected")
    install_chart(cluster, {"lease": FAST_LEASE, "poolIntervalSeconds": 2})
