"""The PodDisruptionBudget of a server variant: a drained node must not take all its serving pods at once."""

from __future__ import annotations

from wattzoo.labels import owner_reference, variant_labels, variant_name
from wattzoo.model import Manifest, VariantKey
from wattzoo.plan.service import server_selector


def render_pdb(pool: Manifest, key: VariantKey, serving: int) -> Manifest:
    """All serving pods but one must stay; an integer, since a percentage would count silenced pods too.

    One gives 0: a budget of 1 would block the drain of its node for ever.
    """
    name = pool["metadata"]["name"]
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": variant_name(name, key),
            "namespace": pool["metadata"]["namespace"],
            "labels": variant_labels(name, key),
            "ownerReferences": [owner_reference(pool)],
        },
        "spec": {"minAvailable": max(0, serving - 1), "selector": {"matchLabels": server_selector(name, key)}},
    }
