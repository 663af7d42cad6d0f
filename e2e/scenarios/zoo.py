"""The small zoo that the operator's scenarios share: three sizes on three kinds of GPU, one of them adopted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.paths import REPOSITORY_DIR
from e2e.stack import GATEWAY, GATEWAY_NAMESPACE

PROFILES = REPOSITORY_DIR / "examples" / "profiles"
STARTUP_SECONDS = 2
REQUESTS, PROMPT_TOKENS, OUTPUT_TOKENS = 400, 200, 40
PRIORS = {"small": 500, "medium": 750, "large": 1000}
"""Satisfied requests to `chat` out of a thousand, as the table has them and as all services declare them."""
PRODUCTS = {"l4": "NVIDIA-L4", "a100": "NVIDIA-A100-SXM4-80GB", "h100": "NVIDIA-H100-80GB-HBM3", "none": "NVIDIA-NONE"}
SMALL, MEDIUM, LARGE = "zoo-small-l4", "zoo-medium-a100", "zoo-large-h100"
ADOPTED = "ran-before"

Manifest = dict[str, Any]


def write_table(path: Path) -> None:
    """Requests of one shape to two services.

    To `chat` small satisfies every second one, medium three of four, large all; to `easy` everyone satisfies all.
    """
    header = ["request_id", "service", "prompt_tokens"]
    header += [f"{member}_{column}" for member in PRIORS for column in ("out_tokens", "correct")]
    rows = []
    for i in range(REQUESTS):
        correct = (i % 2, int(i % 4 > 0), 1)
        for name, outcomes in (("chat", correct), ("easy", (1, 1, 1))):
            answers = ",".join(f"{OUTPUT_TOKENS},{outcome}" for outcome in outcomes)
            rows.append(f"{name}-{i},{name},{PROMPT_TOKENS},{answers}")
    path.write_text("\n".join([",".join(header), *rows]), "utf-8")


def of_ours(kind: str, name: str, spec: Manifest, namespace: str = "") -> Manifest:
    """An object of our API."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "wattzoo.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def accelerator_pools() -> list[Manifest]:
    """One AcceleratorPool per kind of GPU for all namespaces, and one whose nodes do not exist."""
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    pools = []
    for name, product in PRODUCTS.items():
        spec: Manifest = {
            "nodeSelector": {"nvidia.com/gpu.product": product},
            "resourceName": "nvidia.com/gpu",
            "tolerations": tolerations,
            "allowedNamespaces": {"all": True},
            "maxAccelerators": 16,
        }
        if name == "none":
            spec["accelerator"] = {"idleWatts": 10, "residentWatts": 20, "maxWatts": 100}
        pools.append(of_ours("AcceleratorPool", f"scenario-{name}", spec))
    return pools


MESS_PLUS: Manifest = {"policy": "MESSPlus", "messPlus": {"explorationPerMille": 0}}


@dataclass(frozen=True)
class Zoo:
    """The manifests of one namespace."""

    namespace: str

    def hostname(self, service: str) -> str:
        """The host name that a service answers to."""
        return f"{service}.{self.namespace}.example"

    def target(self, service: str) -> str:
        """The service as the load generator takes it."""
        return f"{self.namespace}/{service}={self.hostname(service)}"

    def profiles(self) -> list[Manifest]:
        """The demo's profiles with a start of the same power and two seconds.

        Small's is cut to four requests at a time, so that it must scale, and to the shape of the table's requests, so
        that its capacity is known before the first one.
        """
        found = []
        for name in ("small-l4", "medium-a100", "large-h100x4"):
            profile: Manifest = yaml.safe_load((PROFILES / f"{name}.yaml").read_text("utf-8"))
            profile["metadata"]["namespace"] = self.namespace
            start = profile["spec"]["startup"]
            joules = start["joules"] * STARTUP_SECONDS // start["seconds"]
            profile["spec"]["startup"] = {"seconds": STARTUP_SECONDS, "joules": joules}
            found.append(profile)
        tokens = {"inputTokens": PROMPT_TOKENS, "contextTokens": PROMPT_TOKENS + OUTPUT_TOKENS // 2}
        points = found[0]["spec"]["points"]
        found[0]["spec"]["points"] = [point | tokens for point in points if point["runningRequests"] <= 4]
        return found

    def adopted(self) -> Manifest:
        """A Deployment that somebody else wrote; it says nothing of replicas."""
        labels = {"app": ADOPTED}
        container = {
            "name": "server",
            "image": "vllm/vllm-openai:v0.11.0",
            "ports": [{"name": "http", "containerPort": 8000}],
            "resources": {"limits": {"nvidia.com/gpu": "1"}},
        }
        pod = {
            "terminationGracePeriodSeconds": 60,
            "nodeSelector": {"nvidia.com/gpu.product": PRODUCTS["a100"]},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "containers": [container],
        }
        metadata = {"labels": labels, "annotations": {"emulator.wattzoo.dev/profile": "medium-a100"}}
        spec = {"selector": {"matchLabels": labels}, "template": {"metadata": metadata, "spec": pod}}
        meta = {"name": ADOPTED, "namespace": self.namespace}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}

    def pool(self, *members: Manifest, name: str = "zoo", mode: str = "Act") -> Manifest:
        """The ModelPool; without members the whole zoo.

        Each variant follows its own load, which says what to expect in seconds; the joint plan, which looks back for
        minutes, has scenarios of its own.
        """
        scaling = {
            "planner": "PerVariant",
            "downStabilizationSeconds": 6,
            "drainTimeoutSeconds": 20,
            "staleAfterSeconds": 10,
        }
        chosen = list(members) or [small(), medium(), large()]
        spec = {"servedModelName": "zoo", "mode": mode, "scaling": scaling, "members": chosen}
        return of_ours("ModelPool", name, spec, self.namespace)

    def service(
        self,
        name: str,
        target: int = 400,
        *,
        pool: str = "zoo",
        members: tuple[str, ...] = ("small", "medium", "large"),
        mode: str = "Act",
        gateway: tuple[str, str] = (GATEWAY_NAMESPACE, GATEWAY),
        controller: Manifest | None = None,
    ) -> Manifest:
        """An LLMService that promises `target` satisfied requests of a thousand; by MESSPlus without exploration."""
        feedback = {"metric": "wattzoo_feedback_total", "memberLabel": "member", "outcomeLabel": "outcome"}
        latency = {
            "timeToFirstToken": {"p95Milliseconds": 2000},
            "timePerOutputToken": {"p95Milliseconds": 60},
        }
        spec = {
            "modelPoolRef": {"name": pool},
            "members": [{"name": m, "accuracyPriorPerMille": PRIORS[m], "priorSamples": 200} for m in members],
            "safestMember": members[-1],
            "sla": {"accuracy": {"targetPerMille": target}, "latency": latency},
            "controller": {"intervalSeconds": 5, **(controller or MESS_PLUS)},
            "feedback": {"prometheus": {**feedback, "matchLabels": {"service": name}}},
            "traffic": {
                "parentRefs": [{"namespace": gateway[0], "name": gateway[1]}],
                "hostnames": [self.hostname(name)],
            },
            "mode": mode,
        }
        return of_ours("LLMService", name, spec, self.namespace)

    def all(self, *services: Manifest, pool: Manifest | None = None) -> list[Manifest]:
        """Profiles, the adopted Deployment, the pool and these services."""
        return [*self.profiles(), self.adopted(), pool or self.pool(), *services]


def member(name: str, hardware: str, **variant: Any) -> Manifest:
    """A member with one variant, named after its hardware."""
    spec = {"name": hardware, "acceleratorPool": f"scenario-{hardware}", "acceleratorsPerReplica": 1, **variant}
    return {"name": name, "model": f"example/{name}", "variants": [spec]}


def server(*arguments: str) -> Manifest:
    """A server block."""
    return {
        "image": "vllm/vllm-openai:v0.11.0",
        "args": list(arguments),
        "resources": {"cpu": "1", "memory": "1Gi"},
        "startup": {"timeoutSeconds": 120},
    }


def small(least: int = 1, most: int = 6) -> Manifest:
    """Four requests at a time on an L4: about 2.5 requests a second per replica."""
    return member(
        "small",
        "l4",
        profile="small-l4",
        minReplicas=least,
        maxReplicas=most,
        server=server("--max-num-seqs", "4"),
    )


def medium(least: int = 0, most: int = 2) -> Manifest:
    """The Deployment that was there before, on A100s."""
    reference = {"kind": "Deployment", "name": ADOPTED}
    return member("medium", "a100", profile="medium-a100", minReplicas=least, maxReplicas=most, workloadRef=reference)


def large(least: int = 1, most: int = 2) -> Manifest:
    """Four H100s a replica."""
    return member(
        "large",
        "h100",
        profile="large-h100x4",
        acceleratorsPerReplica=4,
        minReplicas=least,
        maxReplicas=most,
        server=server("--max-num-seqs", "64"),
    )
