"""The status of ModelProfiles: whether the figures can be those of one replica, and how well the law fits them."""

from __future__ import annotations

from dataclasses import replace

from wattzoo.api.conditions import Condition, ConditionType, Reason
from wattzoo.api.model_profile import ModelProfileStatus
from wattzoo.decisions import Finding
from wattzoo.status.conditions import Judgement, from_finding
from wattzoo.status.judge import judge_degraded
from wattzoo_policies.capacity.fit import ReplicaFit

PROFILE_CONDITIONS = (ConditionType.READY, ConditionType.DEGRADED)


def judge_profile(subject: str, fit: ReplicaFit | Finding, poor: Finding | None) -> list[Judgement]:
    """Both conditions of the profile called `subject` in messages.

    Without a law its points still say what a replica carries, and its pools are not planned jointly.
    """
    if isinstance(fit, Finding):
        named = replace(fit, message=f"{subject}: {fit.message}")
        return [from_finding(ConditionType.READY, "False", named), judge_degraded((named,))]
    named_poor = None if poor is None else replace(poor, message=f"{subject}: {poor.message}")
    text = (
        f"a law fitted to {fit.points_used} points is off by {fit.tpot_error_mean:.1%} on average in time per output "
        f"token ({fit.tpot_error_max:.1%} at most) and by {fit.power_error_mean:.1%} in power "
        f"({fit.power_error_max:.1%} at most)"
    )
    return [Judgement(ConditionType.READY, "True", Reason.AVAILABLE, text), judge_degraded((named_poor,))]


def render_profile_status(conditions: tuple[Condition, ...], generation: int | None) -> ModelProfileStatus:
    """The whole status."""
    return ModelProfileStatus(observed_generation=generation, conditions=conditions)
