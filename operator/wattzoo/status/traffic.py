"""Whether the gateway does what the route says: accepted for our parent, and shares at the data plane that agree.

Gateways exist that accept weights and ignore them, so acceptance alone proves nothing; without counters the answer is
unknown, never yes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wattzoo.api.conditions import ConditionType, Reason
from wattzoo.api.llm_service import ParentRef
from wattzoo.decisions import Finding, ServiceLoad
from wattzoo.manifests import metadata
from wattzoo.model import TOTAL_WEIGHT, Manifest, VariantKey
from wattzoo.status.conditions import Judgement, Truth

DEVIATIONS = 4.0
"""Standard deviations that a share may be off: with 16 backends judged every 15 s, one false alarm in about a month."""
MIN_REQUESTS = 50
"""Requests since the weights were last changed before shares say anything."""
JUDGED = frozenset({Reason.SHARES_AGREE, Reason.SHARES_DISAGREE})
"""What stands while there are too few; that a gateway had not answered yet or had refused does not."""


def _is_parent(status: Mapping[str, Any], parent: ParentRef, namespace: str) -> bool:
    ref = status.get("parentRef") or {}
    return (
        ref.get("name") == parent.name
        and ref.get("namespace", namespace) == (parent.namespace or namespace)
        and ref.get("sectionName") == parent.section_name
    )


def find_route_problem(route: Manifest | None, parents: Sequence[ParentRef]) -> Finding | None:
    """What keeps the route from being programmed for our parents, each judged for the present generation."""
    if route is None:
        return Finding(Reason.ROUTE_PENDING, "the HTTPRoute does not exist yet")
    namespace = str(metadata(route).get("namespace", ""))
    statuses = (route.get("status") or {}).get("parents") or ()
    for parent in parents:
        own = [status for status in statuses if _is_parent(status, parent, namespace)]
        if not own:
            return Finding(Reason.ROUTE_PENDING, f"no gateway controller has taken the route for {parent.name}")
        problem = _find_parent_problem(own[0], parent, int(metadata(route).get("generation") or 0))
        if problem is not None:
            return problem
    return None


def _find_parent_problem(status: Mapping[str, Any], parent: ParentRef, generation: int) -> Finding | None:
    rows = {c.get("type"): c for c in status.get("conditions") or () if isinstance(c, dict)}
    for kind, refused in (("Accepted", Reason.ROUTE_NOT_ACCEPTED), ("ResolvedRefs", Reason.REFS_NOT_RESOLVED)):
        row = rows.get(kind)
        if row is None or int(row.get("observedGeneration") or 0) < generation:
            return Finding(Reason.ROUTE_PENDING, f"{parent.name} has not judged {kind} of the present route yet")
        if row.get("status") != "True":
            return Finding(refused, f"{parent.name}: {row.get('reason')}: {row.get('message')}")
    return None


def find_disagreement(weights: Mapping[VariantKey, int], counted: Mapping[VariantKey, float]) -> str | None:
    """The first share that its weight cannot explain, or None: |n_i - n w_i| within four deviations plus one."""
    total = sum(counted.values())
    for key, weight in weights.items():
        share = weight / TOTAL_WEIGHT
        expected, seen = total * share, counted.get(key, 0.0)
        allowed = DEVIATIONS * math.sqrt(total * share * (1.0 - share)) + 1.0
        if abs(seen - expected) > allowed:
            return f"{key} was sent {seen:.0f} of {total:.0f} requests, its weight asks for {expected:.0f}"
    return None


def judge_traffic(
    route: Manifest | None, parents: Sequence[ParentRef], weights: Mapping[VariantKey, int], load: ServiceLoad
) -> Judgement:
    """Accepted, resolved, and shares that agree; too few requests keep an earlier judgement."""
    kind = ConditionType.TRAFFIC_PROGRAMMED
    problem = find_route_problem(route, parents)
    if problem is not None:
        status: Truth = "Unknown" if problem.reason is Reason.ROUTE_PENDING else "False"
        return Judgement(kind, status, problem.reason, problem.message)
    if load.total_rps is None:
        return Judgement(kind, "Unknown", Reason.NO_GATEWAY_COUNTERS, load.problem)
    total = sum(load.counted.values())
    if total < MIN_REQUESTS:
        text = f"fewer than {MIN_REQUESTS} requests since the weights changed"
        return Judgement(kind, "Unknown", Reason.TOO_FEW_REQUESTS, text, JUDGED)
    disagreement = find_disagreement(weights, load.counted)
    if disagreement is not None:
        return Judgement(kind, "False", Reason.SHARES_DISAGREE, disagreement)
    return Judgement(kind, "True", Reason.SHARES_AGREE)


def share_per_mille(counted: Mapping[VariantKey, float], members: Iterable[str]) -> dict[str, int]:
    """Shares of the counted requests by member in thousandths; empty without requests."""
    total = sum(counted.values())
    if total <= 0.0:
        return {}
    by_member = dict.fromkeys(members, 0.0)
    for key, count in counted.items():
        by_member[key.member] = by_member.get(key.member, 0.0) + count
    return {member: round(1000 * count / total) for member, count in by_member.items()}
