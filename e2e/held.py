"""What a namespace's pods hold of the accelerators, at every instant, as the API server's audit log tells it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

RESOURCE = "nvidia.com/gpu"


def replay_held(lines: Iterable[str], namespace: str) -> list[int]:
    """Accelerators that pods request, after each answer that made a pod or ended one.

    A pod counts from the answer to its creation, with or without a node, to the answer to the deletion that removed it
    (grace 0): what terminates still holds. Bodies are needed, so the audit policy records them for just these verbs.
    """
    held: dict[str, int] = {}
    totals = []
    for line in lines:
        if f'"namespace":"{namespace}"' not in line or not line.endswith("\n"):
            continue
        event = json.loads(line)
        reference, pod = event["objectRef"], event.get("responseObject") or {}
        if reference["resource"] != "pods" or "subresource" in reference or pod.get("kind") != "Pod":
            continue
        meta = pod["metadata"]
        if event["verb"] == "create":
            held[meta["uid"]] = requested(pod)
        elif event["verb"] == "delete" and meta.get("deletionGracePeriodSeconds") == 0:
            held.pop(meta["uid"], None)
        else:
            continue
        totals.append(sum(held.values()))
    return totals


def requested(pod: dict[str, Any]) -> int:
    """Accelerators that a pod requests."""
    return sum(int(c.get("resources", {}).get("limits", {}).get(RESOURCE, 0)) for c in pod["spec"]["containers"])
