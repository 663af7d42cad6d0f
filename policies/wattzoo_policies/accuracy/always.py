"""AlwaysLargest: everything on the member that the service declares safest. What most people run today."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wattzoo_policies.accuracy.anytime import fill_joules
from wattzoo_policies.accuracy.baseline import BaselinePolicy, BaselineState, joules_of, shares_by_name
from wattzoo_policies.signals import DecisionRequest, MemberCondition, Reason


@dataclass(frozen=True, slots=True)
class AlwaysLargestParameters:
    """Nothing to set."""


@dataclass(frozen=True, slots=True)
class AlwaysLargest(BaselinePolicy):
    """All traffic to the safest member; where none is declared or ready, to the dearest."""

    parameters: AlwaysLargestParameters = AlwaysLargestParameters()
    name: ClassVar[str] = "AlwaysLargest"

    def _shares(
        self, state: BaselineState, request: DecisionRequest, conditions: Sequence[MemberCondition]
    ) -> tuple[dict[str, float], Reason, str]:
        del state
        names = [condition.name for condition in conditions]
        joules = fill_joules(joules_of(conditions)[None])[0]
        largest = names.index(request.safest_member) if request.safest_member in names else int(np.argmax(joules))
        shares = (np.arange(len(names)) == largest).astype(float)
        return shares_by_name(conditions, shares), Reason.FIXED_MIXTURE, f"everything on {names[largest]}"
