"""How many accelerators are held, and how many may be: the promise that a declared cap is never exceeded.

A Deployment may hold what it asks for or what its pods hold, whichever is more, and terminating pods on top: their
accelerators are taken until they are gone, while a ReplicaSet starts their successors at once. A pod holds those of the
pool that it was placed on, whatever its spec says by now, and longer than its Deployment exists.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from wattzoo.api.accelerator_pool import AcceleratorPoolSpec
from wattzoo.api.model_pool import ModelPool
from wattzoo.decide.workloads import observe_variants, resource_names, select_pods
from wattzoo.labels import bound_name
from wattzoo.manifests import (
    count_accelerators,
    desired_replicas,
    labels,
    match_labels,
    metadata,
    template_labels,
    template_spec,
    view_pod,
)
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

T = TypeVar("T")


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

    def allows(self, held: int) -> bool:
        """Whether so many accelerators in all stay within every bound."""
        return self.bound is None or held <= self.bound


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


def holdings(snapshot: ClusterSnapshot, pools: Iterable[ModelPool]) -> Mapping[str, Mapping[Ref, int]]:
    """Accelerators held now by AcceleratorPool and Deployment, of everything that WattZoo manages.

    Deployments of pools that are gone or cannot be read are found by the label of their pods.
    """
    return _once_for(snapshot, pools, _holdings)


def _once_for(
    snapshot: ClusterSnapshot,
    pools: Iterable[ModelPool],
    find: Callable[[ClusterSnapshot, tuple[ModelPool, ...]], T],
) -> T:
    """What is found for these pools in a snapshot, worked out once for all passes that share both."""
    read = tuple(pools)  # kept with what they came to: an id is only good while its object lives
    return snapshot.derived.once((find, *map(id, read)), lambda: (read, find(snapshot, read)))[1]


def _holdings(snapshot: ClusterSnapshot, pools: Iterable[ModelPool]) -> dict[str, dict[Ref, int]]:
    held: dict[str, dict[Ref, int]] = {}
    counted: set[Ref] = set()
    for pool in pools:
        for state in observe_variants(pool, snapshot):
            if state.accelerator_pool is not None and state.backing is not Backing.SERVICE:
                owner = deployment_ref(pool, state)
                here = _placed_on(state.pods, state.accelerator_pool)
                counted |= {Ref(owner.namespace, pod.name) for pod in here}
                held.setdefault(state.accelerator_pool, {})[owner] = held_by_variant(replace(state, pods=here))
    known = {ref for by_owner in held.values() for ref in by_owner}
    by_label = _names_by_label(snapshot)
    resources = resource_names(snapshot)
    for ref, deployment in snapshot.deployments.items():
        name = by_label.get(template_labels(deployment).get(LABEL_ACCELERATOR_POOL, ""))
        if name is None or ref in known:
            continue
        pods = _placed_on(select_pods(snapshot, ref.namespace, match_labels(deployment)), name)
        counted |= {Ref(ref.namespace, pod.name) for pod in pods}
        per_replica = count_accelerators(template_spec(deployment), resources)
        held.setdefault(name, {})[ref] = held_accelerators(desired_replicas(deployment), pods, per_replica)
    for name, pods_left in _other_pods(snapshot, counted, by_label, resources).items():
        held.setdefault(name, {}).update(pods_left)
    return held


def _placed_on(pods: Iterable[PodView], name: str) -> tuple[PodView, ...]:
    """The pods that hold accelerators of this pool; those of adopted workloads do not say and are believed."""
    return tuple(pod for pod in pods if pod.placed_label in {"", bound_name(name)})


def _other_pods(
    snapshot: ClusterSnapshot, counted: Collection[Ref], by_label: Mapping[str, str], resources: frozenset[str]
) -> dict[str, dict[Ref, int]]:
    """By AcceleratorPool what pods hold whose Deployment is gone or has moved elsewhere."""
    found: dict[str, dict[Ref, int]] = {}
    for raw in snapshot.pods:
        name = by_label.get(labels(raw).get(LABEL_ACCELERATOR_POOL, ""))
        ref = Ref(str(metadata(raw).get("namespace", "")), str(metadata(raw).get("name", "")))
        if name is None or ref in counted:
            continue
        pod = view_pod(raw, resources)
        if pod is not None:
            found.setdefault(name, {})[ref] = pod.accelerators
    return found


def find_drains(snapshot: ClusterSnapshot, pools: Iterable[ModelPool], unknown_seconds: float) -> dict[str, float]:
    """By AcceleratorPool on which managed pods end, the longest drain timeout of their ModelPools.

    unknown_seconds: for pods whose ModelPool or variant is gone.
    """
    known, ending = _once_for(snapshot, pools, _find_drains)
    return dict.fromkeys(ending, unknown_seconds) | known


def _find_drains(snapshot: ClusterSnapshot, pools: Iterable[ModelPool]) -> tuple[dict[str, float], frozenset[str]]:
    """The timeouts that are known, and every AcceleratorPool on which a pod ends."""
    drains: dict[str, float] = {}
    by_label = _names_by_label(snapshot)
    for pool in pools:
        seconds = float(pool.spec.scaling.drain_timeout_seconds)
        for state in observe_variants(pool, snapshot):
            for pod in state.pods:
                name = by_label.get(pod.placed_label, state.accelerator_pool)
                if name is not None and pod.terminating:
                    drains[name] = max(seconds, drains.get(name, 0.0))
    ending = (raw for raw in snapshot.pods if metadata(raw).get("deletionTimestamp") is not None)
    names = (by_label.get(labels(raw).get(LABEL_ACCELERATOR_POOL, "")) for raw in ending)
    return drains, frozenset(name for name in names if name is not None)


def _names_by_label(snapshot: ClusterSnapshot) -> dict[str, str]:
    """AcceleratorPools by what a pod's label calls them."""
    return {bound_name(name): name for name in snapshot.accelerator_pools}


def settle_changes(states: Iterable[VariantState], headroom: Mapping[str, Headroom]) -> tuple[VariantState, ...]:
    """The states with each change of their accelerators let through that stays within every bound; the others wait.

    A template is written for all replicas at once, so all must fit. What waits keeps the template that it has.
    """
    settled = list(states)
    for index, state in enumerate(settled):
        room = None if state.asked is None else headroom.get(state.asked.pool or "")
        if state.asked is None or room is None:
            continue
        changed = replace(
            state, accelerator_pool=state.asked.pool, accelerators_per_replica=state.asked.count, asked=None
        )
        after = [*settled[:index], changed, *settled[index + 1 :]]
        if room.allows(sum(held_by_variant(s) for s in after if s.accelerator_pool == changed.accelerator_pool)):
            settled[index] = changed
    return tuple(settled)


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
        key = (node_accelerators, spec.resource_name, *sorted(spec.node_selector.items()))
        nodes = snapshot.derived.once(key, lambda: node_accelerators(snapshot.nodes, spec))
        allocatable = max(0, nodes[2] - others)
    return Headroom(
        accelerators=None if spec.max_accelerators is None else max(0, spec.max_accelerators - others),
        allocatable=allocatable,
        watts=watts,
        watts_per_accelerator=per_accelerator,
    )
