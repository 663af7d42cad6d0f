"""Puts the objects of one pool or one service in order: what is wanted, and what is ours and wanted no more.

Services come before Deployments, so that a server is reachable when it is ready; replicas go down before they go up, so
that accelerators are free before they are asked for; deletions come last and only for objects whose owner is exactly
this object and which nothing uses any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from wattzoo.api.accelerator_pool import AcceleratorPoolSpec
from wattzoo.api.llm_service import LLMServiceSpec
from wattzoo.api.model_pool import Member, ModelPoolSpec, Variant
from wattzoo.decisions import VariantPacking
from wattzoo.labels import bound_name, variant_name
from wattzoo.manifests import desired_replicas, is_owned_by, labels, match_labels, metadata
from wattzoo.model import (
    LABEL_MODEL_POOL,
    Backing,
    Change,
    ClusterSnapshot,
    Desired,
    Kind,
    Manifest,
    Ref,
    VariantKey,
    VariantState,
)
from wattzoo.plan.deployment import render_deployment, render_scale
from wattzoo.plan.http_route import Backend, render_http_route
from wattzoo.plan.pdb import render_pdb
from wattzoo.plan.pod import render_pod_serving
from wattzoo.plan.service import render_service, server_selector

SCALE = "scale"
ACT = "Act"


def written_replicas(
    mode: str, decided: Mapping[VariantKey, int], states: Iterable[VariantState]
) -> dict[VariantKey, int]:
    """Replicas to write: those decided, or with `KEDAMetrics` what somebody else asks for already.

    An adopted workload is then left alone altogether; a Deployment that is not there yet begins as decided.
    """
    if mode == ACT:
        return dict(decided)
    live = {state.key: state.desired for state in states if state.backing is Backing.SERVER}
    kept = {key: live[key] for key in decided if key in live}
    return {key: decided[key] if number is None else number for key, number in kept.items()}


def live_objects(snapshot: ClusterSnapshot) -> Mapping[Kind, Mapping[Ref, Manifest]]:
    """The live objects of the kinds that a ModelPool owns."""
    return {
        Kind.SERVICE: snapshot.services,
        Kind.DEPLOYMENT: snapshot.deployments,
        Kind.POD_DISRUPTION_BUDGET: snapshot.disruption_budgets,
    }


def plan_pool(
    owner: Manifest,
    pool: ModelPoolSpec,
    replicas: Mapping[VariantKey, int],
    hardware: Mapping[str, AcceleratorPoolSpec],
    snapshot: ClusterSnapshot,
    drained: Collection[Ref] = (),
    packing: Mapping[VariantKey, VariantPacking] | None = None,
) -> tuple[Desired, ...]:
    """Everything that the pool's variants need, then what may be deleted.

    `hardware` holds the AcceleratorPools that may be used; a variant whose pool is missing from it, or that is missing
    from `replicas`, keeps its Deployment exactly as it is. `drained` names Deployments that nothing uses any more.
    `packing` says which pods to wake (before anything shrinks) and to silence.
    """
    packed = packing or {}
    services: list[Desired] = []
    deployments: list[Desired] = []
    budgets: list[Desired] = []
    kept: set[tuple[Kind, Ref]] = set()
    namespace = owner["metadata"]["namespace"]
    for member in pool.members:
        for variant in member.variants:
            key = VariantKey(member.name, variant.name)
            ref = Ref(namespace, variant_name(owner["metadata"]["name"], key))
            kept |= _kept(variant, ref)
            services += _plan_service(owner, key, variant, ref, snapshot)
            if variant.workload_ref is not None:
                deployments += _plan_scale(Ref(namespace, variant.workload_ref.name), replicas.get(key), snapshot)
            specs = hardware.get(variant.accelerator_pool or "")
            if variant.server is None or specs is None or key not in replicas:
                continue
            deployments.append(_plan_deployment(owner, pool, member, variant, specs, replicas[key], ref, snapshot))
            serving = packed[key].serving if key in packed else None
            body = render_pdb(owner, key, replicas[key] if serving is None else min(serving, replicas[key]))
            budget = snapshot.disruption_budgets.get(ref)
            budgets.append(Desired(Kind.POD_DISRUPTION_BUDGET, ref, body, budget))
    deployments.sort(key=_grows)
    woken = _plan_pods((name for row in packed.values() for name in row.wake), snapshot, namespace, serving=True)
    silenced = _plan_pods((name for row in packed.values() for name in row.silence), snapshot, namespace, serving=False)
    garbage = _plan_garbage(owner, kept, snapshot, drained)
    return (*services, *woken, *deployments, *silenced, *budgets, *garbage)


def _plan_pods(names: Iterable[str], snapshot: ClusterSnapshot, namespace: str, *, serving: bool) -> list[Desired]:
    chosen = frozenset(names)
    if not chosen:
        return []
    pods = {str(metadata(pod)["name"]): pod for pod in snapshot.pods if metadata(pod).get("namespace") == namespace}
    return [
        Desired(Kind.POD, Ref(namespace, name), render_pod_serving(namespace, name, serving=serving), pods[name])
        for name in sorted(chosen)
        if name in pods
    ]


def _kept(variant: Variant, ref: Ref) -> set[tuple[Kind, Ref]]:
    if variant.service_ref is not None:
        return set()
    if variant.workload_ref is not None:
        return {(Kind.SERVICE, ref)}
    return {(Kind.SERVICE, ref), (Kind.DEPLOYMENT, ref), (Kind.POD_DISRUPTION_BUDGET, ref)}


def _plan_service(
    owner: Manifest, key: VariantKey, variant: Variant, ref: Ref, snapshot: ClusterSnapshot
) -> list[Desired]:
    if variant.service_ref is not None:
        return []
    selector: Mapping[str, str] = server_selector(owner["metadata"]["name"], key)
    if variant.workload_ref is not None:
        deployment = snapshot.deployments.get(Ref(ref.namespace, variant.workload_ref.name))
        if deployment is None or not match_labels(deployment):
            return []
        selector = match_labels(deployment)
    return [Desired(Kind.SERVICE, ref, render_service(owner, key, selector), snapshot.services.get(ref))]


def _plan_scale(ref: Ref, replicas: int | None, snapshot: ClusterSnapshot) -> list[Desired]:
    observed = snapshot.deployments.get(ref)
    if observed is None or replicas is None or desired_replicas(observed) == replicas:
        return []
    body = render_scale(ref.namespace, ref.name, replicas)
    return [Desired(Kind.DEPLOYMENT, ref, body, observed, subresource=SCALE)]


def _plan_deployment(
    owner: Manifest,
    pool: ModelPoolSpec,
    member: Member,
    variant: Variant,
    hardware: AcceleratorPoolSpec,
    replicas: int,
    ref: Ref,
    snapshot: ClusterSnapshot,
) -> Desired:
    body = render_deployment(owner, pool, member, variant, hardware, replicas)
    return Desired(Kind.DEPLOYMENT, ref, body, snapshot.deployments.get(ref))


def _grows(desired: Desired) -> bool:
    before = 0 if desired.observed is None else desired_replicas(desired.observed)
    return desired_replicas(desired.body) > before


def _plan_garbage(
    owner: Manifest, kept: Collection[tuple[Kind, Ref]], snapshot: ClusterSnapshot, drained: Collection[Ref]
) -> list[Desired]:
    """Deletions of what carries our labels and this owner's uid and is kept no more; servers only once drained."""
    meta = owner["metadata"]
    deletions = []
    for kind, objects in live_objects(snapshot).items():
        for ref, live in objects.items():
            if ref.namespace != meta["namespace"] or (kind, ref) in kept:
                continue
            if labels(live).get(LABEL_MODEL_POOL) != bound_name(meta["name"]) or not is_owned_by(live, meta["uid"]):
                continue
            if ref in drained:
                deletions.append(Desired(kind, ref, {}, live, change=Change.DELETE))
    return deletions


def plan_service(
    owner: Manifest,
    spec: LLMServiceSpec,
    backends: Sequence[Backend],
    snapshot: ClusterSnapshot,
) -> tuple[Desired, ...]:
    """The service's route; nothing while there are no weights to write."""
    if not backends or not any(backend.weight for backend in backends):
        return ()
    ref = Ref(owner["metadata"]["namespace"], owner["metadata"]["name"])
    parents = [
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", **parent.to_manifest()}
        for parent in spec.traffic.parent_refs
    ]
    body = render_http_route(owner, spec.model_pool_ref.name, parents, spec.traffic.hostnames, backends)
    return (Desired(Kind.HTTP_ROUTE, ref, body, snapshot.routes.get(ref)),)
