"""What accuracy to aim at: a floor that lets small services fall silent, plans that do not follow their surplus."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
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
    """All 10,000 satisfied: the floor is credit + (.5 - .4) * 50 + two deviations of 50 answers below zero."""
    debt = observe_debt(Debt(), replace(SERVICE, satisfied=10_000.0, total=10_000.0), 0.5, 60.0)
    assert debt.queue == pytest.approx(-3.0 * math.sqrt(50.0) - 5.0 - math.sqrt(50.0))
    assert aim(debt) == 0.4


def test_a_large_services_surplus_is_a_share_of_its_hour() -> None:
    """10/s: 600 requests repay, so 20 to reach the least member at most, and two thousandths of 36,000 to give back."""
    debt = observe_debt(Debt(), replace(SERVICE, satisfied=10_000.0, total=10_000.0), 10.0, 60.0)
    assert debt.queue == pytest.approx(-3.0 * math.sqrt(600.0) - 20.0 - 72.0)


def test_hours_of_a_slow_service_stray_less_than_chance() -> None:
    """600 answers an hour stray by .5 / sqrt(600) = .020; repaid over 50, by a debt's 2.5 * sqrt(2) / 600 = .006."""
    rng, debt, service, hours = np.random.default_rng(1), Debt(), SERVICE, []
    for _ in range(60):
        before = service.satisfied
        for _ in range(200):
            good = float(rng.binomial(3, aim(debt)))
            service = replace(service, satisfied=service.satisfied + good, total=service.total + 3.0)
            debt = observe_debt(debt, service, 1.0 / 6.0, 60.0)
        hours.append((service.satisfied - before) / 600.0)
    settled = np.array(hours[2:])  # the first ones earn the credit
    assert settled.mean() == pytest.approx(0.5, abs=0.002)
    assert settled.std() < 0.008
    assert settled.min() > 0.48


def test_a_plan_follows_a_small_services_surplus_forty_times_less() -> None:
    debt = Debt(queue=-estimate_credit(0.5, 60.0) - 4.0)
    assert aim(debt) == pytest.approx(0.5 - 4.0 / 50.0)
    assert aim(debt, least_requests=PLAN_LEAST_REQUESTS) == pytest.approx(0.5 - 4.0 / 2000.0)
