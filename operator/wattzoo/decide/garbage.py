"""Which servers that left the spec may be deleted: those that no route sends to and on which nothing runs any more."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from wattzoo.decide.by_label import LabelIndex
from wattzoo.decide.context import live_services
from wattzoo.decide.engines import PodSeries
from wattzoo.decide.series import estimate_latest
from wattzoo.decide.workloads import select_pods
from wattzoo.labels import bound_name
from wattzoo.manifests import is_owned_by, labels, match_labels, metadata
from wattzoo.model import LABEL_MODEL_POOL, ClusterSnapshot, Manifest, Ref, Signal


def owned_refs(owner: Manifest, snapshot: ClusterSnapshot) -> frozenset[Ref]:
    """Names of everything that the ModelPool owns and that carries its label."""
    meta = metadata(owner)
    wanted = {LABEL_MODEL_POOL: bound_name(str(meta.get("name"))), "": str(meta.get("namespace"))}
    labelled = snapshot.derived.once(owned_refs, lambda: _index_objects(snapshot)).find(wanted)
    return frozenset(ref for ref, live in labelled if is_owned_by(live, str(meta.get("uid"))))


def _index_objects(snapshot: ClusterSnapshot) -> LabelIndex[tuple[Ref, Manifest]]:
    """Everything that a ModelPool can own, by label, with the namespace as a label without a name."""
    kinds = (snapshot.deployments, snapshot.services, snapshot.disruption_budgets)
    return LabelIndex(
        ({**labels(live), "": ref.namespace}, (ref, live)) for objects in kinds for ref, live in objects.items()
    )


def _is_idle(ref: Ref, deployment: Manifest, snapshot: ClusterSnapshot, index: PodSeries, since_seconds: float) -> bool:
    """Whether a scrape after `since_seconds` saw nothing running or waiting on any pod of a Deployment."""
    for pod in select_pods(snapshot, ref.namespace, match_labels(deployment)):
        for name in (Signal.REQUESTS_RUNNING, Signal.REQUESTS_WAITING):
            found = index.find(ref.namespace, pod.name, name)
            readings = [estimate_latest(s, index.at_seconds, index.stale_after_seconds) for s in found]
            if not readings or any(r.value != 0.0 or (r.at_seconds or 0.0) <= since_seconds for r in readings):
                return False
    return True


def find_drained(
    owner: Manifest,
    wanted: Collection[Ref],
    snapshot: ClusterSnapshot,
    index: PodSeries,
    unused_since: Mapping[Ref, float],
    drain_timeout_seconds: float,
) -> tuple[frozenset[Ref], dict[Ref, float]]:
    """Names whose objects may be deleted, and since when each leftover has had no traffic.

    `wanted` are the names that the spec still asks for in some form.
    """
    weights = live_services(snapshot, str(metadata(owner).get("namespace")))
    left = [ref for ref in owned_refs(owner, snapshot) if weights.get(ref.name, 0) == 0]
    since = {ref: unused_since.get(ref, index.at_seconds) for ref in left}
    drained = set()
    for ref, at in since.items():
        deployment = snapshot.deployments.get(ref)
        if deployment is None:
            if ref not in wanted or index.at_seconds > at:
                drained.add(ref)
        elif index.at_seconds - at >= drain_timeout_seconds or _is_idle(ref, deployment, snapshot, index, at):
            drained.add(ref)
    return frozenset(drained), since
