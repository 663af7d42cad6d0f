"""Online primal-dual: the textbook rule for a long-run constraint, here as a baseline.

The price of a satisfied request rises by a step times the debt of each interval and falls with its surplus, never below
zero; traffic goes to the member that is cheapest at that price, `argmin E_m - price * p_m`. The step shrinks as
1 / sqrt(n), so the debt grows like sqrt(n): it meets its target in the limit and at no stated time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.accuracy.anytime import fill_joules
from wattzoo_policies.accuracy.baseline import BaselinePolicy, BaselineState, joules_of, shares_by_name
from wattzoo_policies.accuracy.ledger import Outcomes
from wattzoo_policies.signals import DecisionRequest, MemberCondition, Reason

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DualParameters:
    """What may be set.

    step: price moved per request owed, in units of the zoo's range of joules, times 1 / sqrt(n).
    exploration: even share of the traffic, times n^(-1/4).
    """

    step: float = 1.0
    exploration: float = 0.1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step) and self.step > 0.0):
            raise ValueError(f"step must be a positive number, not {self.step}")
        if not 0.0 <= self.exploration <= 1.0:
            raise ValueError(f"exploration must lie between 0 and 1, not {self.exploration}")


def apply_outcomes(
    price: Floats,
    labels_before: Floats,
    labels: Floats,
    satisfied: Floats,
    joules: Floats,
    alpha: float,
    parameters: DualParameters,
) -> Floats:
    """Return the price (R,) after new outcomes; the arrays are (R, M)."""
    owed = alpha * labels.sum(-1) - satisfied.sum(-1)
    total = labels_before.sum(-1) + labels.sum(-1)
    spread = joules.max(-1) - joules.min(-1)
    return np.asarray(np.maximum(0.0, price + parameters.step * spread * owed / np.sqrt(np.maximum(total, 1.0))))


def decide_by_price(
    price: Floats, labels: Floats, satisfied: Floats, joules: Floats, ready: Bools, parameters: DualParameters
) -> tuple[Floats, Floats]:
    """Return weights (R, M) with and without exploration, which is even and shrinks as t^(-1/4)."""
    accuracy = (satisfied + 1.0) / (labels + 2.0)
    value = np.where(ready, joules - price[:, None] * accuracy, np.inf)
    best = np.argmin(value, axis=-1)[:, None]
    plan = np.where(ready, (np.arange(ready.shape[-1]) == best).astype(float), 0.0)
    total = labels.sum(-1, keepdims=True)
    explored = np.where(total > 0.0, np.minimum(1.0, parameters.exploration / np.maximum(total, 1.0) ** 0.25), 1.0)
    even = ready / np.maximum(ready.sum(-1, keepdims=True), 1)
    return (1.0 - explored) * plan + explored * even, plan


@dataclass(frozen=True, slots=True)
class PrimalDual(BaselinePolicy):
    """The rule over the counters of one service; the state's number is the price."""

    parameters: DualParameters = field(default_factory=DualParameters)
    name: ClassVar[str] = "PrimalDual"

    def _remember(self, state: BaselineState, fresh: dict[str, Outcomes], alpha: float) -> tuple[float, ...]:
        names = [member.name for member in state.members]
        before, new = _table(state.ledger.members, names), _table(fresh, names)
        price = np.array(state.numbers or (0.0,))
        unit = np.array([[0.0, 1.0]])  # joules are known when deciding only: the price is kept in units of their range
        return (float(apply_outcomes(price, before[0], new[0], new[1], unit, alpha, self.parameters)[0]),)

    def _shares(
        self, state: BaselineState, request: DecisionRequest, conditions: Sequence[MemberCondition]
    ) -> tuple[dict[str, float], Reason, str]:
        del request
        joules = fill_joules(joules_of(conditions)[None])
        price = np.array(state.numbers or (0.0,)) * (joules.max() - joules.min())
        labels, satisfied = _table(state.ledger.members, [condition.name for condition in conditions])
        ready = np.ones(joules.shape, dtype=bool)
        weights, _ = decide_by_price(price, labels, satisfied, joules, ready, self.parameters)
        reason = Reason.REPAYING_DEBT if state.ledger.debt_requests > 0.0 else Reason.HOLDING_TARGET
        return shares_by_name(conditions, weights[0]), reason, f"price {price[0]:.0f} J per satisfied request"


def _table(rows: Mapping[str, Outcomes], names: Sequence[str]) -> tuple[Floats, Floats]:
    """Return labels and satisfied (1, M) of these members."""
    chosen = [rows.get(name, Outcomes()) for name in names]
    return np.array([[row.total for row in chosen]]), np.array([[row.satisfied for row in chosen]])
