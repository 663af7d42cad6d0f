"""Reads the few facts the stages need out of raw Kubernetes objects. Total: a missing or odd field reads as absent."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

from wattzoo.model import LABEL_ACCELERATOR_POOL, LABEL_SERVING, Manifest, PodView


def metadata(obj: Manifest) -> Mapping[str, Any]:
    """The object's metadata, or nothing."""
    meta = obj.get("metadata")
    return meta if isinstance(meta, dict) else {}


def labels(obj: Manifest) -> Mapping[str, str]:
    """The object's labels, or none."""
    found = metadata(obj).get("labels")
    return found if isinstance(found, dict) else {}


def parse_time(text: object) -> float | None:
    """Unix seconds of a Kubernetes timestamp, None when there is none."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def conditions(obj: Manifest) -> Iterator[Mapping[str, Any]]:
    """The conditions in an object's status."""
    found = (obj.get("status") or {}).get("conditions")
    if isinstance(found, list):
        yield from (c for c in found if isinstance(c, dict))


def is_owned_by(obj: Manifest, uid: str) -> bool:
    """Whether the object's controlling owner is the object with this uid."""
    owners = metadata(obj).get("ownerReferences") or ()
    return any(isinstance(o, dict) and o.get("uid") == uid and o.get("controller") is True for o in owners)


def count_accelerators(pod_spec: Mapping[str, Any], resource_names: Collection[str]) -> int:
    """Accelerators (of any of these extended resources) that the containers of a pod spec request."""
    total = 0
    for container in pod_spec.get("containers") or ():
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for name, amount in asked.items():
            if name in resource_names and str(amount).isdigit():
                total += int(amount)
    return total


def template_labels(deployment: Manifest) -> Mapping[str, str]:
    """The labels that a Deployment's pods are made with."""
    return labels((deployment.get("spec") or {}).get("template") or {})


def template_spec(deployment: Manifest) -> Mapping[str, Any]:
    """The pod spec of a Deployment's template."""
    template = (deployment.get("spec") or {}).get("template") or {}
    return template.get("spec") or {}


def match_labels(deployment: Manifest) -> Mapping[str, str]:
    """The equality part of a Deployment's selector."""
    return ((deployment.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}


def desired_replicas(deployment: Manifest) -> int:
    """`spec.replicas`; one when it is absent, as the API server has it."""
    replicas = (deployment.get("spec") or {}).get("replicas")
    return replicas if isinstance(replicas, int) else 1


def is_rolling(deployment: Manifest) -> bool:
    """Whether pods of an older template are still there, or the controller has not yet looked at the newest spec."""
    status = deployment.get("status") or {}
    behind = (status.get("observedGeneration") or 0) < (metadata(deployment).get("generation") or 0)
    return behind or (status.get("updatedReplicas") or 0) < (status.get("replicas") or 0)


def view_pod(pod: Manifest, resource_names: Collection[str]) -> PodView | None:
    """What the passes need of a pod; None for one that has ended and holds nothing any more."""
    status = pod.get("status") or {}
    if status.get("phase") in {"Succeeded", "Failed"}:
        return None
    ready_since = waiting_since = None
    waiting_message = ""
    for condition in conditions(pod):
        since = parse_time(condition.get("lastTransitionTime"))
        if condition.get("type") == "Ready" and condition.get("status") == "True":
            ready_since = since if since is not None else 0.0
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            waiting_since = since if since is not None else 0.0
            waiting_message = str(condition.get("message") or condition.get("reason") or "")
    return PodView(
        name=str(metadata(pod).get("name", "")),
        accelerators=count_accelerators(pod.get("spec") or {}, resource_names),
        ready_since_seconds=ready_since,
        terminating=metadata(pod).get("deletionTimestamp") is not None,
        serving=labels(pod).get(LABEL_SERVING, "true") == "true",
        waiting_since_seconds=waiting_since,
        waiting_message=waiting_message,
        placed_label=labels(pod).get(LABEL_ACCELERATOR_POOL, ""),
    )
