"""FixedMixture: the cheapest mixture for means that are known beforehand, never adapted.

With the hindsight means of a stream it is the blind optimum. As a policy it takes the declared accuracy priors for the
truth; a service without priors cannot use it and is served by its safest member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wattzoo_policies.accuracy.anytime import fill_joules
from wattzoo_policies.accuracy.baseline import BaselinePolicy, BaselineState, joules_of, shares_by_name
from wattzoo_policies.accuracy.frontier import solve_mixture
from wattzoo_policies.signals import DecisionRequest, MemberCondition, Reason


@dataclass(frozen=True, slots=True)
class FixedMixtureParameters:
    """Nothing to set: the means are the members' declared priors."""


@dataclass(frozen=True, slots=True)
class FixedMixture(BaselinePolicy):
    """`argmin w.E subject to w.p >= alpha` for the declared p."""

    parameters: FixedMixtureParameters = FixedMixtureParameters()
    name: ClassVar[str] = "FixedMixture"

    def _shares(
        self, state: BaselineState, request: DecisionRequest, conditions: Sequence[MemberCondition]
    ) -> tuple[dict[str, float], Reason, str]:
        priors = {member.name: member.accuracy_prior for member in state.members}
        levels = [priors.get(condition.name) for condition in conditions]
        names = [condition.name for condition in conditions]
        if any(level is None for level in levels):
            on = names.index(request.safest_member) if request.safest_member in names else None
            even = np.full(len(names), 1.0 / len(names))
            shares = even if on is None else (np.arange(len(names)) == on).astype(float)
            message = "a member has no declared accuracy: no mixture can be computed"
            return shares_by_name(conditions, shares), Reason.NOTHING_KNOWN_YET, message
        accuracy = np.array(levels, dtype=float)
        joules = fill_joules(joules_of(conditions)[None])[0]
        shares, reached = solve_mixture(joules, accuracy, request.alpha, np.ones(len(names), dtype=bool))
        reason = Reason.FIXED_MIXTURE if bool(reached) else Reason.TARGET_UNREACHABLE
        return shares_by_name(conditions, shares), reason, f"the cheapest mixture that should reach {request.alpha:.3f}"
