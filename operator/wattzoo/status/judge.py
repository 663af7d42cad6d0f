"""Judgements that all kinds share: what is refused, paused, unwritten, unmeasured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from wattzoo.api.conditions import ConditionType, Reason, allows
from wattzoo.decisions import Finding, MemberEnergy
from wattzoo.manifests import metadata
from wattzoo.model import ANNOTATION_PAUSED, Manifest, WriteResult, WriteState
from wattzoo.status.conditions import Judgement, from_finding

WRITE_REASONS = {
    WriteState.OWNERSHIP_CONFLICT: Reason.OWNERSHIP_CONFLICT,
    WriteState.DENIED: Reason.WRITE_DENIED,
    WriteState.FAILED: Reason.APPLY_FAILED,
}
"""A conflict is routine: the object moved on and is observed again at once."""


def is_paused(obj: Manifest) -> bool:
    """Whether the object carries the pause annotation."""
    return (metadata(obj).get("annotations") or {}).get(ANNOTATION_PAUSED) == "true"


def may_act(obj: Manifest, mode: str) -> bool:
    """The one branch before apply: Act mode and no pause."""
    return mode == "Act" and not is_paused(obj)


def judge_paused(obj: Manifest, mode: str) -> Judgement:
    """Whether anything but status is written."""
    if is_paused(obj):
        text = f"annotation {ANNOTATION_PAUSED} is set: nothing but status is written"
        return Judgement(ConditionType.PAUSED, "True", Reason.PAUSED_BY_ANNOTATION, text)
    if mode != "Act":
        text = "mode is Observe: decisions are reported and not written"
        return Judgement(ConditionType.PAUSED, "True", Reason.OBSERVE_MODE, text)
    return Judgement(ConditionType.PAUSED, "False", Reason.ACTIVE)


def judge_broken(types: Iterable[ConditionType], finding: Finding, paused: Judgement) -> list[Judgement]:
    """All conditions of an object that cannot be served as it is: what it promises is unknown, that it fails is not."""
    rows = [paused]
    for kind in types:
        if kind is ConditionType.PAUSED or not allows(kind, finding.reason):
            continue
        if kind is ConditionType.READY:
            rows.append(from_finding(kind, "False", finding))
        elif kind is ConditionType.DEGRADED:
            rows.append(from_finding(kind, "True", finding))
        elif kind is ConditionType.PROGRESSING:
            rows.append(from_finding(kind, "False", finding))
        else:
            rows.append(from_finding(kind, "Unknown", finding))
    return rows


def find_write_problem(results: Sequence[WriteResult]) -> Finding | None:
    """The first write that was refused or unanswered, in the API server's own words."""
    for result in results:
        reason = WRITE_REASONS.get(result.state)
        if reason is not None:
            text = f"{result.desired.kind} {result.desired.ref}: {result.message}"
            if reason is Reason.OWNERSHIP_CONFLICT and result.desired.subresource == "scale":
                text += "; to let WattZoo scale it, apply the Deployment server-side and without spec.replicas"
            return Finding(reason, text)
    return None


def judge_degraded(findings: Iterable[Finding | None]) -> Judgement:
    """The first finding that is there says what is not as asked for."""
    for finding in findings:
        if finding is not None:
            return from_finding(ConditionType.DEGRADED, "True", finding, Reason.HOLDING)
    return Judgement(ConditionType.DEGRADED, "False", Reason.AS_EXPECTED)


def judge_energy(energy: Mapping[str, MemberEnergy]) -> Judgement:
    """Whether joules are measured for everything that has been ready for a while."""
    kind = ConditionType.ENERGY_DATA_FRESH
    covered = {name: row.coverage_percent for name, row in sorted(energy.items()) if row.coverage_percent is not None}
    if not covered:
        return Judgement(kind, "Unknown", Reason.NO_SAMPLES, "no pod has been ready long enough to be measured")
    if not any(covered.values()):
        return Judgement(kind, "False", Reason.NO_SAMPLES, "no power or energy is measured; profiles stand in")
    missing = [name for name, percent in covered.items() if percent < 100]
    if missing:
        text = f"power of some ready pods of {', '.join(missing)} is missing or implausible; profiles stand in"
        return Judgement(kind, "False", Reason.PARTIAL_COVERAGE, text)
    return Judgement(kind, "True", Reason.FRESH)
