"""How many accelerators are held, and how many may be: the promise that a declared cap is never exceeded.

A Deployment may hold what it asks for or what its pods hold, whichever is more, and terminating pods on top: their
accelerators are taken until they are gone, while a ReplicaSet starts their successors at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wattzoo.api.accelerator_pool import AcceleratorPoolSpec
from wattzoo.api.model_pool import ModelPool
from wattzoo.decide.workloads import observe_variants, resource_names, select_pods
from wattzoo.labels import bound_name
from wattzoo.manifests import count_accelerators, desired_replicas, labels, match_labels, metadata, template_spec
from wattzoo.model import (
    LABEL_ACCELERATOR_POOL,
    Backing,
    ClusterSnapshot,
    Kind,
    Manifest,
    PodView,
    Ref,
    VariantState,
)


@dataclass(frozen=True, slots=True)
class Headroom:
    """What an AcceleratorPool still allows one ModelPool to hold in all; None is no bound.

    accelerators: of the declared cap. allocatable: of what the nodes have. watts: of the power budget.
    """

    accelerators: int | None
    allocatable: int | None
    watts: float | None
    watts_per_accelerator: float | None

    @property
    def bound(self) -> int | None:
        """Accelerators that every one of these bounds allows; None while no bound is known."""
        bounds = [bound for bound in (self.accelerators, self.allocatable) if bound is not None]
        if self.watts is not None and self.watts_per_accelerator:
            bounds.append(int(self.watts / self.watts_per_accelerator))
        return min(bounds, default=None)


def held_accelerators(replicas: int, pods: Iterable[PodView], per_replica: int) -> int:
    """Accelerators of a Deployment that asks for `replicas`: asked for or held, whichever is more, plus terminating."""
    running = sum(max(pod.accelerators, per_replica) for pod in pods if not pod.terminating)
    leaving = sum(max(pod.accelerators, per_replica) for pod in pods if pod.terminating)
    return max(replicas * per_replica, running) + leaving


def held_by_variant(state: VariantState, replicas: int | None = None) -> int:
    """Accelerators of one variant with its present (or another) number of replicas."""
    if state.backing is Backing.SERVICE:
        return 0
    asked = replicas if replicas is not None else state.desired or 0
    return held_accelerators(asked, state.pods, state.accelerators_per_replica)


def deployment_ref(pool: ModelPool, state: VariantState) -> Ref:
    """The Deployment behind a variant: ours by name, an adopted one by its reference."""
    namespace = pool.metadata.namespace or ""
    for member in pool.spec.members:
        for variant in member.variants:
            if (member.name, variant.name) == (state.key.member, state.key.variant) and variant.workload_ref:
                return Ref(namespace, variant.workload_ref.name)
    return Ref(namespace, state.service)


def holdings(snapshot: ClusterSnapshot, pools: Iterable[ModelPool]) -> dict[str, dict[Ref, int]]:
    """Accelerators held now by AcceleratorPool and Deployment, of everything that WattZoo manages.

    Deployments of pools that are gone or cannot be read are found by the label of their pods.
    """
    held: dict[str, dict[Ref, int]] = {}
    for pool in pools:
        for state in observe_variants(pool, snapshot):
            if state.accelerator_pool is not None and state.backing is not Backing.SERVICE:
                owner = deployment_ref(pool, state)
                held.setdefault(state.accelerator_pool, {})[owner] = held_by_variant(state)
    known = {ref for by_owner in held.values() for ref in by_owner}
    by_label = {bound_name(name): name for name in snapshot.accelerator_pools}
    resources = resource_names(snapshot)
    for ref, deployment in snapshot.deployments.items():
        name = by_label.get(_template_labels(deployment).get(LABEL_ACCELERATOR_POOL, ""))
        if name is None or ref in known:
            continue
        pods = select_pods(snapshot, ref.namespace, match_labels(deployment))
        per_replica = count_accelerators(template_spec(deployment), resources)
        held.setdefault(name, {})[ref] = held_accelerators(desired_replicas(deployment), pods, per_replica)
    return held


def _template_labels(deployment: Manifest) -> Mapping[str, str]:
    return labels(((deployment.get("spec") or {}).get("template")) or {})


def node_accelerators(nodes: Iterable[Manifest], spec: AcceleratorPoolSpec) -> tuple[int, int, int]:
    """(nodes, accelerators in all, accelerators that can be requested now) of the nodes that the pool selects."""
    count = capacity = allocatable = 0
    for node in nodes:
        own = labels(node)
        if any(own.get(key) != value for key, value in spec.node_selector.items()):
            continue
        count += 1
        status = node.get("status") or {}
        capacity += _amount((status.get("capacity") or {}).get(spec.resource_name))
        if _is_schedulable(node):
            allocatable += _amount((status.get("allocatable") or {}).get(spec.resource_name))
    return count, capacity, allocatable


def node_sizes(nodes: Iterable[Manifest], spec: AcceleratorPoolSpec) -> tuple[int, ...]:
    """Accelerators of each node of a pool that takes pods."""
    sizes = (node_accelerators([node], spec)[2] for node in nodes)
    return tuple(size for size in sizes if size)


def _amount(value: object) -> int:
    return int(str(value)) if str(value).isdigit() else 0


def _is_schedulable(node: Manifest) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return (
        ready and not (node.get("spec") or {}).get("unschedulable") and metadata(node).get("deletionTimestamp") is None
    )


def estimate_headroom(
    spec: AcceleratorPoolSpec,
    snapshot: ClusterSnapshot,
    held: Mapping[Ref, int],
    own: Iterable[Ref],
) -> Headroom:
    """What one ModelPool, whose Deployments are `own`, may hold of an AcceleratorPool besides what others hold."""
    mine = frozenset(own)
    others = sum(count for ref, count in held.items() if ref not in mine)
    figures = spec.figures()
    per_accelerator = None if figures is None else float(figures.max_watts)
    watts = None
    if spec.power_budget_watts is not None and per_accelerator is not None:
        watts = max(0.0, spec.power_budget_watts - others * per_accelerator)
    allocatable = None
    if Kind.NODE not in snapshot.unreadable:
        allocatable = max(0, node_accelerators(snapshot.nodes, spec)[2] - others)
    return Headroom(
        accelerators=None if spec.max_accelerators is None else max(0, spec.max_accelerators - others),
        allocatable=allocatable,
        watts=watts,
        watts_per_accelerator=per_accelerator,
    )
