"""Room for chance on serving replicas is not bought with the promise."""

from __future__ import annotations

import pytest

from wattzoo_policies.placement.filling import keep_promises
from wattzoo_policies.placement.problem import PlanService, PlanVariant
from wattzoo_policies.placement.weights import Weights

ACCURACY = {"small": 0.4, "large": 0.8}


def decide(care: float) -> tuple[list[PlanVariant], Weights]:
    """All large replicas serve and take .6 of the requests when nothing is kept free on them."""
    large = 0.6 / (1.0 + 2.0 * care)
    return [], Weights({"s": {"small": 1.0 - large, "large": large}})


def share_of_large(target: float, promise: float = 0.5) -> float:
    service = PlanService("s", 10.0, 10.0, target, {"small": 0.1, "large": 0.1}, ACCURACY)
    return keep_promises(decide, [service], {"s": promise}, 2.5)[1].shares["s"]["large"]


def test_where_the_promise_asks_for_it_less_room_is_kept() -> None:
    """At a care of 2.5 large takes a tenth (.44); .5 needs a quarter: 1 + 2 * .7 = 2.4 times the load, not 6."""
    assert 0.25 <= share_of_large(0.5) <= 0.6 / (1.0 + 2.0 * (0.7 - 2.25 / 32.0))


def test_debt_is_repaid_with_what_room_leaves() -> None:
    """A target of .7 would take the room of three quarters of the requests; the promise takes that of a quarter."""
    assert share_of_large(0.7) == share_of_large(0.5)


def test_a_surplus_takes_no_room() -> None:
    assert share_of_large(0.44) == pytest.approx(0.1)


def test_a_promise_out_of_reach_takes_no_room() -> None:
    """Least room leaves 1 / 1.5 of .6 to large: .56. For .6 accuracy gives way, not latency."""
    assert share_of_large(0.6, promise=0.6) == pytest.approx(0.1)
    assert share_of_large(0.55, promise=0.55) > 0.37
