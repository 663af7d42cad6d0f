"""`--objective` of `wattzoo plan` and `wattzoo simulate`: what pools count for, and the units that it is shown in.

In files nothing will come later, so a figure that is missing is an error here, where the operator plans for Energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from wattzoo.api.accelerator_pool import AcceleratorPool
from wattzoo.decide.objective import FIELDS, find_coefficients
from wattzoo.errors import InvalidSpec, Problem
from wattzoo_policies.placement.objective import Coefficients, Objective

ObjectiveOption = Annotated[
    Objective, typer.Option(help="What plans minimise; Carbon and Cost need a figure at every AcceleratorPool in use.")
]


@dataclass(frozen=True, slots=True)
class Units:
    """Units of the planner's objective and of its prices per request, and what people are shown of a rate."""

    objective: str
    request: str
    shown: str
    shown_factor: float
    digits: int = 1

    def show(self, value: float, sign: str = "") -> str:
        """Return a rate in the unit that is shown; sign: "+" shows it of positive ones too."""
        return f"{value * self.shown_factor:{sign},.{self.digits}f} {self.shown}"


UNITS = {
    Objective.ENERGY: Units("W", "J", "W", 1.0),
    Objective.CARBON: Units("mg CO2e/s", "mg CO2e", "g CO2e/h", 3.6),
    Objective.COST: Units("millionths/s", "millionths", "of the currency per hour", 3600.0 / 1e6, 4),
}


def read_coefficients(pool: AcceleratorPool, objective: Objective) -> Coefficients:
    """Return what a pool counts for; raises `InvalidSpec` where it does not say."""
    found = find_coefficients(pool.spec, objective)
    if found is None:
        rule = f"--objective {objective} needs it of every AcceleratorPool in use"
        raise InvalidSpec(f"AcceleratorPool/{pool.metadata.name}", (Problem(FIELDS[objective], "nothing", rule),))
    return found
