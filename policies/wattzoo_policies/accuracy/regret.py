"""What a service's joules are measured by: the blind optimum of its own past, in hindsight.

The blind optimum is the cheapest request-independent mixture that reaches the target with the means that are known
now. The ratio to it says what not knowing them from the start, exploring, and holding credit have cost so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wattzoo_policies.accuracy.anytime_law import KNOWN_LABELS
from wattzoo_policies.accuracy.frontier import solve_mixture


@dataclass(frozen=True, slots=True)
class MemberPast:
    """One member's past: requests it was sent, outcomes counted, joules of one request (None: unknown)."""

    served: float
    satisfied: float
    total: float
    joules: float | None


@dataclass(frozen=True, slots=True)
class Regret:
    """Joules per request of the shares that were served and of the blind optimum, and what they differ by in all."""

    joules_per_request: float
    blind_joules_per_request: float
    joules: float

    @property
    def ratio(self) -> float:
        """Return joules as a multiple of the blind optimum's."""
        return self.joules_per_request / self.blind_joules_per_request


def estimate_regret(past: Sequence[MemberPast], target: float) -> Regret | None:
    """Return the regret at a target, all requests valued at the members' present joules.

    `None` while it cannot be said: nothing was served, a member that served has unknown joules, or no mixture of the
    members with enough outcomes reaches the target.
    """
    served = sum(row.served for row in past)
    if served <= 0.0 or any(row.served > 0.0 and not _is_known(row.joules) for row in past):
        return None
    usable = np.array([_is_known(row.joules) and row.total >= KNOWN_LABELS for row in past])
    joules = np.array([row.joules if row.joules is not None and _is_known(row.joules) else 1.0 for row in past])
    accuracy = np.array([row.satisfied / max(row.total, 1.0) for row in past])
    weights, reached = solve_mixture(joules, accuracy, target, usable)
    if not bool(reached):
        return None
    blind = float(weights @ joules)
    used = sum(row.served * float(cost) for row, cost in zip(past, joules, strict=True)) / served
    return Regret(used, blind, (used - blind) * served)


def _is_known(joules: float | None) -> bool:
    return joules is not None and bool(np.isfinite(joules)) and joules > 0.0
