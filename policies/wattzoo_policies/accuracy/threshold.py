"""Threshold: a router between two members that is calibrated once, in the manner of RouteLLM.

On a calibration sample every group of requests gets a score, the share that the cheap member satisfied; groups below
a cut go to the safest member, the cut lying where the sample just reaches alpha. Nothing is adapted afterwards. In
weights mode there is one group (a gateway that splits by weights sees no request), and the cut is a share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.accuracy.anytime import fill_joules
from wattzoo_policies.accuracy.baseline import BaselinePolicy, BaselineState, joules_of, shares_by_name
from wattzoo_policies.accuracy.ledger import Outcomes
from wattzoo_policies.signals import DecisionRequest, MemberCondition, Reason

Floats = NDArray[np.float64]

_SHRINKAGE = 10.0  # outcomes of the whole sample that stand behind a group of few


@dataclass(frozen=True, slots=True)
class ThresholdParameters:
    """calibration_requests: outcomes after which the cut is fixed."""

    calibration_requests: int = 1000

    def __post_init__(self) -> None:
        if self.calibration_requests < 1:
            raise ValueError(f"calibration_requests must be at least 1, not {self.calibration_requests}")


def estimate_cut(labels: Floats, satisfied: Floats, alpha: float) -> Floats:
    """Return the share (R, G) of each group that goes to the safe member.

    labels, satisfied: (R, G, 2) calibration outcomes of the cheap and the safe member by group.
    """
    pooled = (satisfied.sum(1) + 1.0) / (labels.sum(1) + 2.0)
    level = (satisfied + _SHRINKAGE * pooled[:, None, :]) / (labels + _SHRINKAGE)
    mass = labels.sum(-1) / np.maximum(labels.sum((1, 2))[:, None], 1.0)
    order = np.argsort(level[:, :, 0], axis=1, kind="stable")
    gain = np.take_along_axis((level[:, :, 1] - level[:, :, 0]) * mass, order, 1)
    needed = (alpha - (level[:, :, 0] * mass).sum(1))[:, None]
    before = np.cumsum(gain, axis=1) - gain
    part = np.clip((needed - before) / np.where(gain > 0.0, gain, np.inf), 0.0, 1.0)
    ordered = np.where(gain > 0.0, part, (before < needed).astype(float))
    share = np.zeros(ordered.shape)
    np.put_along_axis(share, order, ordered, 1)
    return share


@dataclass(frozen=True, slots=True)
class Threshold(BaselinePolicy):
    """One group: halves until calibrated, then the share that its outcomes ask for."""

    parameters: ThresholdParameters = field(default_factory=ThresholdParameters)
    name: ClassVar[str] = "Threshold"

    def _shares(
        self, state: BaselineState, request: DecisionRequest, conditions: Sequence[MemberCondition]
    ) -> tuple[dict[str, float], Reason, str]:
        names = [condition.name for condition in conditions]
        joules = fill_joules(joules_of(conditions)[None])[0]
        cheap = int(np.argmin(joules))
        safe = names.index(request.safest_member) if request.safest_member in names else int(np.argmax(joules))
        rows = [state.ledger.members.get(names[n], Outcomes()) for n in (cheap, safe)]
        labels = np.array([[[row.total for row in rows]]])
        satisfied = np.array([[[row.satisfied for row in rows]]])
        calibrated = labels.sum() >= self.parameters.calibration_requests
        share = float(estimate_cut(labels, satisfied, request.alpha)[0, 0]) if calibrated else 0.5
        shares = np.zeros(len(names))
        shares[cheap] += 1.0 - share
        shares[safe] += share
        reason = Reason.FIXED_MIXTURE if calibrated else Reason.NOTHING_KNOWN_YET
        return shares_by_name(conditions, shares), reason, f"{share:.0%} above the threshold go to {names[safe]}"
