"""The two fields of a pod that are ours: whether the Service selects it, and how gladly a scale-down takes it."""

from __future__ import annotations

from wattzoo.model import ANNOTATION_DELETION_COST, LABEL_SERVING, Manifest

SILENT_COST = "-100"
"""Below the 0 of pods that say nothing: without it a scale-down would take serving pods before silent ones."""


def render_pod_serving(namespace: str, name: str, *, serving: bool) -> Manifest:
    """A serving pod has no deletion cost of ours: applying this takes the one of its silence away."""
    metadata: Manifest = {"name": name, "namespace": namespace, "labels": {LABEL_SERVING: "true"}}
    if not serving:
        metadata |= {"labels": {LABEL_SERVING: "false"}, "annotations": {ANNOTATION_DELETION_COST: SILENT_COST}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
