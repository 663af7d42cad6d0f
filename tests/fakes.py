"""A cluster in memory that the applier's fake writes into, so that a second pass sees what the first one did."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.builders import NAMESPACE, make_meta, make_pod
from wattzoo.apply.diff import first_difference
from wattzoo.model import (
    ANNOTATION_DELETION_COST,
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

SERVER_KINDS = (Kind.DEPLOYMENT, Kind.SERVICE, Kind.POD_DISRUPTION_BUDGET, Kind.HTTP_ROUTE)


def merge(live: Any, body: Any) -> Any:
    """The live value with the body's fields set; lists are replaced."""
    if isinstance(live, Mapping) and isinstance(body, Mapping):
        return {**live, **{key: merge(live.get(key), value) for key, value in body.items()}}
    return copy.deepcopy(body)


@dataclass
class FakeCluster:
    """Objects by kind and reference; `apply` is the writer that passes see, `writes` what reached the server."""

    objects: dict[Kind, dict[Ref, Manifest]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    writes: list[Desired] = field(default_factory=list)
    refuse: dict[Kind, WriteResult | WriteState] = field(default_factory=dict)
    unreadable: dict[Kind, str] = field(default_factory=dict)
    version: int = 1

    def add(self, kind: Kind, *manifests: Manifest) -> None:
        """Put objects in."""
        for manifest in manifests:
            meta = manifest["metadata"]
            self.objects[kind][Ref(meta.get("namespace", ""), meta["name"])] = manifest

    def get(self, kind: Kind, name: str, namespace: str = NAMESPACE) -> Manifest:
        """One object that exists."""
        return self.objects[kind][Ref(namespace, name)]

    def snapshot(self) -> ClusterSnapshot:
        """A copy of everything, as an observer reads it."""
        held = copy.deepcopy(self.objects)
        for kind in self.unreadable:
            held[kind] = {}
        return ClusterSnapshot(
            accelerator_pools={ref.name: pool for ref, pool in held[Kind.ACCELERATOR_POOL].items()},
            model_pools=held[Kind.MODEL_POOL],
            profiles=held[Kind.MODEL_PROFILE],
            llm_services=held[Kind.LLM_SERVICE],
            deployments=held[Kind.DEPLOYMENT],
            services=held[Kind.SERVICE],
            disruption_budgets=held[Kind.POD_DISRUPTION_BUDGET],
            routes=held[Kind.HTTP_ROUTE],
            pods=tuple(held[Kind.POD].values()),
            nodes=tuple(held[Kind.NODE].values()),
            unreadable=dict(self.unreadable),
        )

    async def apply(self, desired: Sequence[Desired]) -> list[WriteResult]:
        """Write what differs, as the real applier would."""
        return [self._apply_one(item) for item in desired]

    def _apply_one(self, item: Desired) -> WriteResult:
        refused = self.refuse.get(item.kind)
        if isinstance(refused, WriteState) and item.subresource != "status":
            return WriteResult(item, refused, "refused by a test")
        live = self.objects[item.kind].get(item.ref)
        if item.change is Change.DELETE:
            self.writes.append(item)
            self.objects[item.kind].pop(item.ref, None)
            return WriteResult(item, WriteState.WRITTEN)
        if live is not None and first_difference(item.body, live, item.subresource) is None:
            return WriteResult(item, WriteState.UNCHANGED, live=live)
        self.writes.append(item)
        self.version += 1
        if item.subresource == "status":
            assert live is not None
            after = {**live, "status": copy.deepcopy(item.body["status"])}
        else:
            created = {"metadata": make_meta(item.ref.name, item.ref.namespace)}
            after = merge(live or created, item.body)
            if item.kind is Kind.POD and "annotations" not in item.body["metadata"]:
                after["metadata"].pop("annotations", None)
            changed = (live or {}).get("spec") != after.get("spec")
            after["metadata"]["generation"] = after["metadata"].get("generation", 0) + int(changed and live is not None)
        after["metadata"] = {**after["metadata"], "resourceVersion": str(self.version)}
        self.objects[item.kind][item.ref] = after
        return WriteResult(item, WriteState.WRITTEN, live=None if item.subresource == "scale" else after)

    def server_writes(self) -> list[Desired]:
        """Writes so far besides statuses; forgets all writes."""
        found = [item for item in self.writes if item.subresource != "status"]
        self.writes.clear()
        return found

    def replicas(self, name: str) -> int:
        """What a Deployment asks for."""
        count: int = self.get(Kind.DEPLOYMENT, name)["spec"]["replicas"]
        return count

    def run_pods(self, ready_since: float) -> None:
        """What controllers and nodes do: as many ready pods as a Deployment asks for, the cheapest to delete first."""
        before = dict(self.objects[Kind.POD])
        self.objects[Kind.POD].clear()
        for ref, deployment in self.objects[Kind.DEPLOYMENT].items():
            labels = deployment["spec"]["template"]["metadata"]["labels"]
            names = [r for r in before if r.namespace == ref.namespace and r.name.rpartition("-")[0] == ref.name]
            names.sort(key=lambda r: -int(_deletion_cost(before[r])))
            names += [r for n in range(99) if (r := Ref(ref.namespace, f"{ref.name}-{n}")) not in before]
            kept = names[: deployment["spec"]["replicas"]]
            for name in kept:
                new = make_pod(name.name, labels, ready_since=ready_since, namespace=name.namespace)
                self.add(Kind.POD, before.get(name, new))
            generation = deployment["metadata"].get("generation", 0)
            deployment["status"] = {
                "observedGeneration": generation,
                "replicas": len(kept),
                "updatedReplicas": len(kept),
            }

    def accept_routes(self, parent: str = "inference-gateway") -> None:
        """What a gateway does: accept every route in its present generation."""
        for route in self.objects[Kind.HTTP_ROUTE].values():
            generation = route["metadata"]["generation"]
            rows = [
                {"type": kind, "status": "True", "reason": kind, "message": "", "observedGeneration": generation}
                for kind in ("Accepted", "ResolvedRefs")
            ]
            route["status"] = {"parents": [{"parentRef": {"name": parent}, "conditions": rows}]}


def _deletion_cost(pod: Manifest) -> str:
    annotations = pod["metadata"].get("annotations") or {}
    return str(annotations.get(ANNOTATION_DELETION_COST, "0"))


class FakeEvents:
    """Collects Events."""

    def __init__(self) -> None:
        self.notes: list[EventNote] = []

    async def write(self, notes: Sequence[EventNote]) -> None:
        """Keep them."""
        self.notes += notes
