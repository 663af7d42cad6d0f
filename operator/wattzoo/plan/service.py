"""The Service of a variant: what an HTTPRoute's backendRef points at."""

from __future__ import annotations

from collections.abc import Mapping

from wattzoo.labels import owner_reference, selector_labels, variant_labels, variant_name
from wattzoo.model import LABEL_SERVING, SERVER_PORT, Manifest, VariantKey


def server_selector(pool: str, key: VariantKey) -> dict[str, str]:
    """Pods of a rendered server that take traffic; a silenced pod carries "false" and drops out."""
    return {**selector_labels(pool, key), LABEL_SERVING: "true"}


def render_service(pool: Manifest, key: VariantKey, selector: Mapping[str, str]) -> Manifest:
    """A Service on port 8000 over the pods that `selector` names; owned by the ModelPool."""
    name = pool["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": variant_name(name, key),
            "namespace": pool["metadata"]["namespace"],
            "labels": variant_labels(name, key),
            "ownerReferences": [owner_reference(pool)],
        },
        "spec": {
            "type": "ClusterIP",
            "selector": dict(selector),
            "ports": [{"name": "http", "port": SERVER_PORT, "protocol": "TCP", "targetPort": SERVER_PORT}],
        },
    }
