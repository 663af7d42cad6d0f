"""Joins a ModelPool's variants with what stands behind them: Deployments, Services and pods of one snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from wattzoo.api.model_pool import Member, ModelPool, Variant
from wattzoo.decide.by_label import LabelIndex
from wattzoo.labels import bound_name, selector_labels, variant_name
from wattzoo.manifests import (
    count_accelerators,
    desired_replicas,
    is_rolling,
    labels,
    match_labels,
    metadata,
    template_labels,
    template_spec,
    view_pod,
)
from wattzoo.model import (
    LABEL_ACCELERATOR_POOL,
    SERVER_PORT,
    Accelerators,
    Backing,
    ClusterSnapshot,
    Manifest,
    PodView,
    Ref,
    VariantKey,
    VariantState,
)

DEFAULT_RESOURCE_NAMES = frozenset({"nvidia.com/gpu"})


def variants_of(pool: ModelPool) -> Iterator[tuple[Member, Variant, VariantKey]]:
    """Every variant with its member, in the order of the spec: the order that backendRefs keep."""
    for member in pool.spec.members:
        for variant in member.variants:
            yield member, variant, VariantKey(member.name, variant.name)


def resource_names(snapshot: ClusterSnapshot) -> frozenset[str]:
    """Extended resources that count as accelerators anywhere in the cluster's AcceleratorPools."""
    named = {
        str((raw.get("spec") or {}).get("resourceName") or "nvidia.com/gpu")
        for raw in snapshot.accelerator_pools.values()
    }
    return DEFAULT_RESOURCE_NAMES | named


def _index_pods(snapshot: ClusterSnapshot) -> LabelIndex[PodView]:
    """All pods that have not ended, by label, with the namespace as a label without a name."""
    resources = resource_names(snapshot)
    views = ((pod, view_pod(pod, resources)) for pod in snapshot.pods)
    return LabelIndex(
        ({**labels(pod), "": str(metadata(pod).get("namespace"))}, view) for pod, view in views if view is not None
    )


def select_pods(snapshot: ClusterSnapshot, namespace: str, selector: Mapping[str, str]) -> tuple[PodView, ...]:
    """The pods of a namespace that carry all these labels, by name; those that have ended are left out."""
    if not selector:
        return ()
    index = snapshot.derived.once(_index_pods, lambda: _index_pods(snapshot))
    return tuple(sorted(index.find({**selector, "": namespace}), key=lambda view: view.name))


def _server(pool: ModelPool, variant: Variant, key: VariantKey, snapshot: ClusterSnapshot) -> VariantState:
    namespace, name = pool.metadata.namespace or "", variant_name(pool.metadata.name, key)
    deployment = snapshot.deployments.get(Ref(namespace, name))
    asked = Accelerators(variant.accelerator_pool, variant.accelerators)
    live = asked if deployment is None else _live_accelerators(deployment, asked, snapshot)
    return VariantState(
        key=key,
        backing=Backing.SERVER,
        exists=deployment is not None,
        desired=None if deployment is None else desired_replicas(deployment),
        pods=select_pods(snapshot, namespace, selector_labels(pool.metadata.name, key)),
        service=name,
        port=SERVER_PORT,
        service_exists=Ref(namespace, name) in snapshot.services,
        accelerator_pool=live.pool,
        accelerators_per_replica=live.count,
        rolling=deployment is not None and is_rolling(deployment),
        asked=None if live == asked else asked,
    )


def _live_accelerators(deployment: Manifest, asked: Accelerators, snapshot: ClusterSnapshot) -> Accelerators:
    """What replicas of the live template hold; what is asked for where that is the same or less of the same."""
    label = template_labels(deployment).get(LABEL_ACCELERATOR_POOL, "")
    count = count_accelerators(template_spec(deployment), resource_names(snapshot)) or asked.count
    if label in {"", bound_name(asked.pool or "")}:
        return Accelerators(asked.pool, min(count, asked.count))
    return Accelerators(next((name for name in snapshot.accelerator_pools if bound_name(name) == label), None), count)


def _adopted(
    pool: ModelPool, variant: Variant, key: VariantKey, deployment_name: str, snapshot: ClusterSnapshot
) -> VariantState:
    namespace, name = pool.metadata.namespace or "", variant_name(pool.metadata.name, key)
    deployment = snapshot.deployments.get(Ref(namespace, deployment_name))
    pods: tuple[PodView, ...] = ()
    asked = 0
    if deployment is not None:
        pods = select_pods(snapshot, namespace, match_labels(deployment))
        asked = count_accelerators(template_spec(deployment), resource_names(snapshot))
    return VariantState(
        key=key,
        backing=Backing.WORKLOAD,
        exists=deployment is not None,
        desired=None if deployment is None else desired_replicas(deployment),
        pods=pods,
        service=name,
        port=SERVER_PORT,
        service_exists=Ref(namespace, name) in snapshot.services,
        accelerator_pool=variant.accelerator_pool,
        accelerators_per_replica=max(variant.accelerators, asked),
    )


def _routed(pool: ModelPool, key: VariantKey, service: str, port: int, snapshot: ClusterSnapshot) -> VariantState:
    exists = Ref(pool.metadata.namespace or "", service) in snapshot.services
    return VariantState(
        key=key,
        backing=Backing.SERVICE,
        exists=exists,
        desired=None,
        pods=(),
        service=service,
        port=port,
        service_exists=exists,
        accelerator_pool=None,
        accelerators_per_replica=0,
    )


def observe_variants(pool: ModelPool, snapshot: ClusterSnapshot) -> tuple[VariantState, ...]:
    """The state of every variant of a pool, in the order of its spec."""
    states = []
    for _, variant, key in variants_of(pool):
        if variant.service_ref is not None:
            states.append(_routed(pool, key, variant.service_ref.name, variant.service_ref.port, snapshot))
        elif variant.workload_ref is not None:
            states.append(_adopted(pool, variant, key, variant.workload_ref.name, snapshot))
        else:
            states.append(_server(pool, variant, key, snapshot))
    return tuple(states)
