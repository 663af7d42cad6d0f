"""What accuracy to aim at: a floor that lets small services fall silent, plans that do not follow their surplus."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from wattzoo_policies.capacity.model import LatencyTarget
from wattzoo_policies.placement.signals import FleetService
from wattzoo_policies.placement.target import (
    PLAN_LEAST_REQUESTS,
    Debt,
    decide_target,
    estimate_credit,
    observe_debt,
)

ACCURACIES = {"small": 0.4, "large": 0.8}
SERVICE = FleetService("s", 0.5, ("small", "large"), LatencyTarget(), 0.5, None, 0.0, 0.0, ACCURACIES)


def aim(debt: Debt, **changes: float) -> float:
    credit = estimate_credit(0.5, 60.0)
    return decide_target(0.5, debt, 0.5, ACCURACIES, margin=0.0, credit=credit, repay_seconds=60.0, **changes)


def test_a_surplus_of_a_small_service_reaches_down_to_its_least_member() -> None:
    """All 10,000 satisfied: the floor is credit + (.5 - .4) * 200 + half the root of an hour's requests below zero."""
    debt = observe_debt(Debt(), replace(SERVICE, satisfied=10_000.0, total=10_000.0), 0.5, 60.0)
    assert debt.queue == pytest.approx(-estimate_credit(0.5, 60.0) - 20.0 - 0.5 * math.sqrt(1800.0))
    assert aim(debt) == 0.4


def test_a_plan_follows_a_small_services_surplus_ten_times_less() -> None:
    debt = Debt(queue=-estimate_credit(0.5, 60.0) - 10.0)
    assert aim(debt) == pytest.approx(0.5 - 10.0 / 200.0)
    assert aim(debt, least_requests=PLAN_LEAST_REQUESTS) == pytest.approx(0.5 - 10.0 / 2000.0)
