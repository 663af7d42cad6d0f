"""Two signals that partial feedback needs, as additions to the border's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wattzoo_policies.signals import DecisionRequest as BaseRequest
from wattzoo_policies.signals import Observation as BaseObservation


@dataclass(frozen=True, slots=True)
class ServedCounter:
    """Last sample of one cumulative counter of requests that a member answered; `series` as in `OutcomeCounter`."""

    member: str
    series: str
    count: float


@dataclass(frozen=True, slots=True)
class Observation(BaseObservation):
    """`served`: cumulative requests by member; `None` where nobody counts them."""

    served: tuple[ServedCounter, ...] | None = None


@dataclass(frozen=True, slots=True)
class DecisionRequest(BaseRequest):
    """`current_weights`: shares now in force, by member; `None` when unknown."""

    current_weights: Mapping[str, float] | None = None
