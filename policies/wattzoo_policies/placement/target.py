"""What accuracy to aim at now, so that the promise holds over all requests: a debt, spread over some requests.

The debt is a virtual queue, Q <- max(floor, Q + alpha - s): negative is credit. Its floor lets a surplus be given back,
but only so much of it that no hour ends far below alpha; what is beyond that is forgotten. Since Q is never less than
the ledger's alpha * N - satisfied, keeping Q at minus the wished credit keeps the promise. The target is
alpha + margin + (Q + credit) / requests of the repayment time, between the least member's and the best reachable.

The credit covers the chance of the repayment time's outcomes, at most `CREDIT`: small services need less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wattzoo_policies.placement.signals import FleetService

CREDIT = 150.0
CREDIT_DEVIATIONS = 6.0
HOUR_SECONDS = 3600.0
LEAST_REQUESTS = 50.0
"""Requests over which debt is repaid at least, however rare they are: outcomes of fewer say little.

A debt sways by half the root of half of them (variance 1/4 each, forgotten at a rate of one in so many), and an hour by
that over its requests: with 200, the nights of a slow service would stray by more than they need.
"""
PLAN_LEAST_REQUESTS = 2000.0
"""The same for plans: replicas stay for longer than a small service's surplus or debt lasts."""
MOST_SWING = 200.0
"""Requests over which a surplus may bring the target down to the least member, so that costly replicas fall silent."""
GIVE_BACK = 0.002
"""Share of an hour's requests that a surplus may give back."""
GIVE_CHANCE = 4.0
"""Times the requests of the repayment time, whose chance may be given back if that is more: two of its deviations."""
REACH = 1e-4


@dataclass(frozen=True, slots=True)
class Debt:
    """The queue of one service, and the ledger's counts up to which it has been brought."""

    queue: float = 0.0
    satisfied: float = 0.0
    total: float = 0.0


def observe_debt(debt: Debt, service: FleetService, rate_rps: float, repay_seconds: float) -> Debt:
    """Return the queue after the outcomes since the last look; a ledger that starts anew starts the queue anew."""
    new = service.total - debt.total
    if new < 0.0 or service.satisfied < debt.satisfied:
        return Debt(0.0, service.satisfied, service.total)
    owed = service.alpha * new - (service.satisfied - debt.satisfied)
    least = min(known_accuracies(service).values(), default=service.alpha)
    repaid = repay_requests(rate_rps, repay_seconds)
    swing = max(0.0, service.alpha - least) * min(MOST_SWING, repaid)
    floor = -estimate_credit(rate_rps, repay_seconds) - swing - estimate_give_back(rate_rps, GIVE_CHANCE * repaid)
    return Debt(max(floor, debt.queue + owed), service.satisfied, service.total)


def estimate_credit(rate_rps: float, repay_seconds: float) -> float:
    """Return the credit to aim at: six standard deviations of the repayment time's outcomes, at most `CREDIT`."""
    return min(CREDIT, CREDIT_DEVIATIONS * 0.5 * math.sqrt(repay_requests(rate_rps, repay_seconds)))


def estimate_give_back(rate_rps: float, chance_requests: float | None = None) -> float:
    """Return the surplus in requests that an hour may give back: a share of it, or what chance does if that is more.

    chance_requests: requests whose outcomes' standard deviation is meant; `None`: all of the hour's.
    """
    hour = HOUR_SECONDS * max(0.0, rate_rps)
    return max(GIVE_BACK * hour, 0.5 * math.sqrt(hour if chance_requests is None else chance_requests))


def repay_requests(rate_rps: float, repay_seconds: float, least: float = LEAST_REQUESTS) -> float:
    """Return the requests over which debt is repaid."""
    return max(least, rate_rps * repay_seconds)


def decide_target(
    alpha: float,
    debt: Debt,
    rate_rps: float,
    accuracies: Mapping[str, float],
    *,
    margin: float,
    credit: float,
    repay_seconds: float,
    least_requests: float = LEAST_REQUESTS,
) -> float:
    """Return the accuracy to aim at; accuracies: of the members that can serve (at least one)."""
    best, least = max(accuracies.values()), min(accuracies.values())
    wished = alpha + margin + (debt.queue + credit) / repay_requests(rate_rps, repay_seconds, least_requests)
    return min(max(wished, least), best - REACH)


def known_accuracies(service: FleetService) -> dict[str, float]:
    """Return accuracies by member; one of which nothing is known counts as the least known one.

    With nothing known at all every member counts as reaching alpha: then energy alone decides until outcomes come.
    """
    known = {name: value for name, value in service.accuracies.items() if value is not None}
    floor = min(known.values(), default=service.alpha + REACH)
    return {name: known.get(name, floor) for name in service.members}
