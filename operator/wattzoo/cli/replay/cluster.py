"""A cluster in memory: what the operator writes is what the next pass reads, and pods follow the plant's counts.

Objects are those of the files, as an API server would hold them; Deployments, Services and routes are those that the
operator renders. Pods are as many as the plant has replicas, in its phases: starting, ready, silent, terminating. A
scale-down takes them in Kubernetes' order (not ready first, then the lowest deletion cost), which is the plant's too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from wattzoo.api.conditions import Reason
from wattzoo.api.model_pool import ModelPool, Variant
from wattzoo.cli.fleet_model import Fleet
from wattzoo.cli.manifest_files import Manifests
from wattzoo.decide.workloads import variants_of
from wattzoo.labels import variant_name
from wattzoo.manifests import labels, metadata, template_spec
from wattzoo.model import (
    ANNOTATION_PAUSED,
    LABEL_SERVING,
    Change,
    ClusterSnapshot,
    Desired,
    EventNote,
    Kind,
    Manifest,
    Ref,
    WriteResult,
    WriteState,
)
from wattzoo.plan.planner import plan_pool
from wattzoo_policies.placement.signals import FleetPool, FleetVariant

ACT = "Act"
SILENT = "false"


class ReplayError(RuntimeError):
    """A pass broke; the text is the operator's own."""


@dataclass(slots=True)
class Pod:
    """One pod as the API server shows it; the manifest is changed in place, between passes only."""

    name: str
    manifest: Manifest
    ready: bool = False

    @property
    def serving(self) -> bool:
        """Whether the Service selects it once it is ready."""
        return labels(self.manifest).get(LABEL_SERVING) != SILENT


@dataclass(slots=True)
class Replicas:
    """The pods of one variant's Deployment: those that stay, oldest first, and those that leave."""

    pool: Ref
    deployment: Ref
    service: str
    staying: list[Pod] = field(default_factory=list)
    leaving: list[Pod] = field(default_factory=list)
    made: int = 0

    @property
    def serving(self) -> list[Pod]:
        """Ready pods that the Service selects."""
        return [pod for pod in self.staying if pod.ready and pod.serving]


def time_text(at_seconds: float) -> str:
    """A Kubernetes timestamp."""
    return datetime.fromtimestamp(at_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Cluster:
    """The API server, the controllers behind it and the gateway, as far as the operator sees them."""

    def __init__(self, found: Manifests, fleet: Fleet) -> None:
        """Hold the files' objects, with a Deployment for every variant of the fleet and no pod yet."""
        seen = found.snapshot
        self._pools = {ref: _acting(raw) for ref, raw in seen.model_pools.items()}
        self._llm_services = {ref: _acting(raw) for ref, raw in seen.llm_services.items()}
        self._objects: dict[Kind, dict[Ref, Manifest]] = {
            Kind.MODEL_POOL: self._pools,
            Kind.LLM_SERVICE: self._llm_services,
            Kind.DEPLOYMENT: {},
            Kind.SERVICE: {},
            Kind.POD_DISRUPTION_BUDGET: {},
            Kind.HTTP_ROUTE: {},
        }
        self._fixed = replace(seen, nodes=_nodes(found, fleet.pools))
        self.replicas: dict[str, Replicas] = {}
        self._by_deployment: dict[Ref, Replicas] = {}
        self._pods: dict[tuple[str, str], Pod] = {}
        self._changed: set[Ref] = set()
        self._at_seconds = 0.0
        self._deploy(found, fleet)

    def _deploy(self, found: Manifests, fleet: Fleet) -> None:
        """Bring in what an operator that ran before has left: one Deployment and one Service per variant."""
        hardware = {name: pool.spec for name, pool in found.accelerator_pools.items()}
        variants = {
            (ref, key): variant for ref, pool in found.model_pools.items() for _, variant, key in variants_of(pool)
        }
        for name, (pool, key) in fleet.keys.items():
            variant, own = variants[pool, key], Ref(pool.namespace, variant_name(pool.name, key))
            adopted = None if variant.workload_ref is None else Ref(pool.namespace, variant.workload_ref.name)
            if adopted is not None:
                self._objects[Kind.DEPLOYMENT][adopted] = _adopted(found, adopted, variant)
            self.replicas[name] = Replicas(pool, adopted or own, own.name)
            self._by_deployment[adopted or own] = self.replicas[name]
        for ref in dict.fromkeys(pool for pool, _ in fleet.keys.values()):
            parsed: ModelPool = found.model_pools[ref]
            counts = {key: 0 for pool, key in fleet.keys.values() if pool == ref}
            for desired in plan_pool(self._pools[ref], parsed.spec, counts, hardware, self.snapshot()):
                self._write(desired)

    def snapshot(self) -> ClusterSnapshot:
        """Everything as an observer reads it; passes change nothing of it."""
        return replace(
            self._fixed,
            model_pools=dict(self._pools),
            llm_services=dict(self._llm_services),
            deployments=dict(self._objects[Kind.DEPLOYMENT]),
            services=dict(self._objects[Kind.SERVICE]),
            disruption_budgets=dict(self._objects[Kind.POD_DISRUPTION_BUDGET]),
            routes=dict(self._objects[Kind.HTTP_ROUTE]),
            pods=tuple(pod.manifest for own in self.replicas.values() for pod in (*own.staying, *own.leaving)),
        )

    def follow(self, variants: Iterable[FleetVariant], at_seconds: float) -> None:
        """Let pods become what the plant's replicas have become since the last step."""
        is_first, self._at_seconds = not self._pods, at_seconds
        for variant in variants:
            own = self.replicas[variant.name]
            self._scale(own, variant.replicas)
            waiting = [pod for pod in own.staying if not pod.ready]
            for pod in waiting[: max(0, len(waiting) - (variant.replicas - variant.ready))]:
                pod.ready = True
                pod.manifest["status"] = _ready_status(0.0 if is_first else at_seconds)
            for pod in own.leaving[: max(0, len(own.leaving) - variant.terminating)]:
                own.leaving.remove(pod)
                del self._pods[own.deployment.namespace, pod.name]

    def take_changed(self) -> frozenset[Ref]:
        """ModelPools of pods that changed since the last call: what events would have marked."""
        changed = frozenset(self._changed)
        self._changed.clear()
        return changed

    def weights(self, service: Ref) -> dict[str, int]:
        """Weights of a service's live route by the name of the backend; empty without a route."""
        route = self._objects[Kind.HTTP_ROUTE].get(service)
        refs = [] if route is None else route["spec"]["rules"][0]["backendRefs"]
        return {str(ref["name"]): int(ref["weight"]) for ref in refs}

    def renew(self, service: Ref, status: Manifest | None) -> None:
        """Put an LLMService in the place of its namesake: to the operator another object, with this status."""
        raw = dict(self._llm_services[service])
        raw["metadata"] = {**raw["metadata"], "uid": f"{raw['metadata']['uid']}+"}
        raw.pop("status", None)
        self._llm_services[service] = raw if status is None else {**raw, "status": status}

    def status(self, service: Ref) -> Mapping[str, Any]:
        """What the operator last reported on an LLMService."""
        return self._llm_services[service].get("status") or {}

    async def apply(self, desired: Sequence[Desired]) -> list[WriteResult]:
        """Write as the applier would: what is there already is unchanged."""
        return [self._write(item) for item in desired]

    async def write(self, notes: Sequence[EventNote]) -> None:
        """Take no note of Events."""

    def _write(self, item: Desired) -> WriteResult:
        if item.subresource == "status":
            return self._write_status(item)
        if item.kind is Kind.POD:
            return self._label(item)
        objects = self._objects[item.kind]
        if item.change is Change.DELETE:
            objects.pop(item.ref, None)
            return WriteResult(item, WriteState.WRITTEN)
        if item.ref not in objects:
            return self._create(item)
        return self._rescale(item) if item.kind is Kind.DEPLOYMENT else self._respecify(item)

    def _create(self, item: Desired) -> WriteResult:
        meta = {**item.body["metadata"], "uid": f"{item.kind}/{item.ref}", "generation": 1}
        live = self._objects[item.kind][item.ref] = {**item.body, "metadata": meta}
        if item.kind is Kind.DEPLOYMENT:
            self._scale(self._by_deployment[item.ref], int(item.body["spec"]["replicas"]))
        return WriteResult(item, WriteState.WRITTEN, live=live)

    def _respecify(self, item: Desired) -> WriteResult:
        live = self._objects[item.kind][item.ref]
        if item.kind is not Kind.HTTP_ROUTE or live["spec"] == item.body["spec"]:
            return WriteResult(item, WriteState.UNCHANGED, live=live)
        live = self._objects[item.kind][item.ref] = {**live, "spec": item.body["spec"]}
        return WriteResult(item, WriteState.WRITTEN, live=live)

    def _rescale(self, item: Desired) -> WriteResult:
        live = self._objects[item.kind][item.ref]
        wanted = int(item.body["spec"]["replicas"])
        if wanted == live["spec"]["replicas"]:
            return WriteResult(item, WriteState.UNCHANGED, live=live)
        self._scale(self._by_deployment[item.ref], wanted)
        return WriteResult(item, WriteState.WRITTEN, live=self._objects[item.kind][item.ref])

    def _write_status(self, item: Desired) -> WriteResult:
        for row in item.body["status"].get("conditions") or ():
            if row.get("reason") == str(Reason.INTERNAL_ERROR):
                raise ReplayError(f"{item.kind}/{item.ref}: {row.get('message')}")
        live = {**self._objects[item.kind][item.ref], "status": item.body["status"]}
        self._objects[item.kind][item.ref] = live
        return WriteResult(item, WriteState.WRITTEN, live=live)

    def _label(self, item: Desired) -> WriteResult:
        pod = self._pods[item.ref.namespace, item.ref.name]
        meta = {**pod.manifest["metadata"]}
        meta["labels"] = {**meta["labels"], **item.body["metadata"]["labels"]}
        pod.manifest = {**pod.manifest, "metadata": meta}
        self._changed |= {own.pool for own in self.replicas.values() if pod in own.staying}
        return WriteResult(item, WriteState.WRITTEN, live=pod.manifest)

    def _scale(self, own: Replicas, wanted: int) -> None:
        """Do what a Deployment's controller does at once: new pods start, surplus ones go or begin to end."""
        deployment = self._objects[Kind.DEPLOYMENT][own.deployment]
        if len(own.staying) != wanted:
            self._changed.add(own.pool)
        while len(own.staying) > wanted:
            pod = min(reversed(own.staying), key=lambda one: (one.ready, one.ready and one.serving))
            own.staying.remove(pod)
            if pod.ready:
                meta = {**pod.manifest["metadata"], "deletionTimestamp": time_text(self._at_seconds)}
                pod.manifest = {**pod.manifest, "metadata": meta}
                own.leaving.append(pod)
            else:  # it has begun nothing
                del self._pods[own.deployment.namespace, pod.name]
        while len(own.staying) < wanted:
            own.made += 1
            pod = _make_pod(f"{own.deployment.name}-{own.made}", own.deployment.namespace, deployment)
            self._pods[own.deployment.namespace, pod.name] = pod
            own.staying.append(pod)
        if deployment["spec"].get("replicas") != wanted or "status" not in deployment:
            spec = {**deployment["spec"], "replicas": wanted}
            status = {"observedGeneration": 1, "replicas": wanted, "updatedReplicas": wanted}
            self._objects[Kind.DEPLOYMENT][own.deployment] = {**deployment, "spec": spec, "status": status}


def _acting(raw: Manifest) -> Manifest:
    """The object as if it were in force: what it would do is what is asked here.

    With `KEDAMetrics` somebody else scales, without packing: whoever it is follows at once.
    """
    acting = copy.deepcopy(raw)
    acting["spec"].pop("mode", None)
    (acting["metadata"].get("annotations") or {}).pop(ANNOTATION_PAUSED, None)
    scaling = acting["spec"].get("scaling") or {}
    if scaling.get("mode", ACT) != ACT:
        acting["spec"]["scaling"] = {**scaling, "mode": ACT, "packing": "Disabled"}
    return acting


def _nodes(found: Manifests, pools: Iterable[FleetPool]) -> tuple[Manifest, ...]:
    """The files' nodes, or for pools without any those that the fleet takes them to have."""
    nodes = list(found.snapshot.nodes)
    for pool in pools:
        spec = found.accelerator_pools[pool.name].spec
        if any(spec.node_selector.items() <= labels(node).items() for node in found.snapshot.nodes):
            continue
        for number, size in enumerate(pool.node_accelerators):
            amount = {spec.resource_name: str(size)}
            ready = [{"type": "Ready", "status": "True"}]
            meta = {"name": f"{pool.name}-{number}", "labels": dict(spec.node_selector)}
            status = {"capacity": amount, "allocatable": amount, "conditions": ready}
            nodes.append({"metadata": meta, "spec": {}, "status": status})
    return tuple(nodes)


def _adopted(found: Manifests, ref: Ref, variant: Variant) -> Manifest:
    """The Deployment of the files that a variant adopts, or one of which no more is known than its size."""
    own = {"app": ref.name}
    resource = found.accelerator_pools[variant.accelerator_pool or ""].spec.resource_name
    asked = {"requests": {resource: str(variant.accelerators)}}
    template = {"metadata": {"labels": own}, "spec": {"containers": [{"name": "server", "resources": asked}]}}
    bare = {"metadata": {"name": ref.name}, "spec": {"selector": {"matchLabels": own}, "template": template}}
    known = found.snapshot.deployments.get(ref, bare)
    meta = {**metadata(known), "namespace": ref.namespace, "uid": f"Deployment/{ref}", "generation": 1}
    return {**known, "metadata": meta, "spec": {**known["spec"], "replicas": 0}}


def _make_pod(name: str, namespace: str, deployment: Manifest) -> Pod:
    own = labels(deployment["spec"]["template"])
    meta = {"name": name, "namespace": namespace, "uid": name, "labels": dict(own)}
    status = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}
    return Pod(name, {"metadata": meta, "spec": template_spec(deployment), "status": status})


def _ready_status(at_seconds: float) -> Manifest:
    row = {"type": "Ready", "status": "True", "lastTransitionTime": time_text(at_seconds)}
    return {"phase": "Running", "conditions": [row]}
