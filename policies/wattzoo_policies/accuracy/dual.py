"""Online primal-dual: the textbook rule for a long-run constraint, here as a baseline.

The price of a satisfied request rises by a step times the debt of each interval and falls with its surplus, never below
zero; traffic goes to the member that is cheapest at that price, `argmin E_m - price * p_m`. The step shrinks as
1 / sqrt(n), so the debt grows like sqrt(n): it meets its target in the limit and at no stated time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DualParameters:
    """step: price moved per unit of relative debt, in units of the zoo's range of joules; exploration: its first share."""

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
