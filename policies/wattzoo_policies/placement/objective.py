"""What a plan minimises: energy, carbon or cost, as the two coefficients that the planner takes of each pool.

Energy is watts, carbon milligrams of CO2 equivalent per second, cost millionths of a currency per second: of all three
an accelerator at work counts some tens to thousands, which keeps one program well conditioned. Carbon and cost count a
trace of energy too, so that among plans of equal carbon or price the one of fewest joules is made; it is far below the
gap at which a search ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

JOULES_PER_KILOWATT_HOUR = 3.6e6
SECONDS_PER_HOUR = 3600.0
EVEN_GRAMS = 0.1
"""Grams per kWh that every pool counts on top: energy decides where carbon does not."""
EVEN_PRICE = 1e-3
"""Millionths of a currency that a joule counts with objective Cost: energy decides where prices do not."""


class Objective(StrEnum):
    """What is least in a plan; service levels and caps hold under each."""

    ENERGY = "Energy"
    CARBON = "Carbon"
    COST = "Cost"


@dataclass(frozen=True, slots=True)
class Coefficients:
    """What a joule, and what an accelerator and second of one pool count."""

    objective_weight: float = 1.0
    price_per_accelerator_second: float = 0.0


def make_coefficients(
    objective: Objective, grams_per_kilowatt_hour: float | None, price_per_accelerator_hour: float | None
) -> Coefficients | None:
    """Return the coefficients of a pool; `None` where the figure that the objective needs is unknown.

    grams_per_kilowatt_hour: of CO2 equivalent. price_per_accelerator_hour: in the currency of all pools.
    """
    if objective is Objective.ENERGY:
        return Coefficients()
    if objective is Objective.CARBON:
        if grams_per_kilowatt_hour is None:
            return None
        return Coefficients(1e3 * (grams_per_kilowatt_hour + EVEN_GRAMS) / JOULES_PER_KILOWATT_HOUR)
    if price_per_accelerator_hour is None:
        return None
    return Coefficients(EVEN_PRICE, 1e6 * price_per_accelerator_hour / SECONDS_PER_HOUR)
