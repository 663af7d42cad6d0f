"""When a status is worth a write: at once for what a reader would act on, else at most once a minute."""

from __future__ import annotations

from typing import Any

from wattzoo.model import Manifest

CHECKPOINT_SECONDS = 60.0


def essence(status: Manifest) -> dict[str, Any]:
    """The part of a status whose change is news: conditions, weights, replicas, the plan; never figures."""
    return {
        "generation": status.get("observedGeneration"),
        "conditions": [[c.get("type"), c.get("status"), c.get("reason")] for c in status.get("conditions") or ()],
        "weights": [[m.get("name"), m.get("weight")] for m in status.get("members") or ()],
        "plan": (status.get("plan") or {}).get("id"),
        "replicas": [
            [v.get("member"), v.get("name"), v.get("desired"), v.get("ready"), v.get("serving")]
            for v in status.get("variants") or ()
        ],
        "policy": (status.get("controller") or {}).get("policy"),
        "nodes": [status.get("nodes"), status.get("allocatable"), status.get("allocatedByWattZoo")],
    }


def is_due(live: Manifest, status: Manifest, written_at_seconds: float | None, at_seconds: float) -> bool:
    """Whether to write `status` over `live` now."""
    if essence(live) != essence(status):
        return True
    return written_at_seconds is None or at_seconds - written_at_seconds >= CHECKPOINT_SECONDS
