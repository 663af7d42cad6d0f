"""When a plan asks for starts: for a busy minute's accuracy what is there is filled to its knee first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wattzoo_policies.placement.check import PlanError
from wattzoo_policies.placement.problem import PlanPool, PlanProblem, PlanService, PlanVariant
from wattzoo_policies.placement.solve import solve_plan

# .1 s of work a request: new replicas are planned for .9 * .5 / .1 = 4.5 requests/s, the knee is at 5
VARIANT = PlanVariant("v", "m", "p", 1, 100.0, 400.0, 600.0, 12_000.0, 0.5, current_replicas=1)
SERVICE = PlanService("s", 4.0, 4.8, 0.5, {"v": 0.1}, {"v": 0.6})
PROBLEM = PlanProblem((PlanPool("p", 4),), (VARIANT,), (SERVICE,))
# a second member that is less often right
OTHER = replace(VARIANT, name="w", member="n")
MIXED = PlanService("s", 4.0, 4.8, 0.55, {"v": 0.1, "w": 0.1}, {"v": 0.6, "w": 0.4})
PAIRED = replace(PROBLEM, variants=(VARIANT, OTHER), services=(MIXED,))


def replicas(problem: PlanProblem) -> dict[str, int]:
    """Return the planned replicas; nothing is short in any of these problems."""
    plan = solve_plan(problem)
    assert not plan.short_rps
    assert not plan.accuracy_missing
    return dict(plan.replicas)


@pytest.mark.parametrize(
    ("high_rps", "planned"), [(5.8, {"v": 1, "w": 1}), (6.4, {"v": 1, "w": 1}), (6.9, {"v": 2, "w": 0})]
)
def test_accuracy_fills_what_is_there_to_the_knee_before_a_start(high_rps: float, planned: dict[str, int]) -> None:
    # accuracy .55 takes three quarters on v: 4.5 / .75 = 6 requests/s as new replicas are planned, 6.7 at the knee
    assert replicas(replace(PAIRED, services=(replace(MIXED, high_rate_rps=high_rps),))) == planned


@pytest.mark.parametrize(("there", "planned"), [(1, {"v": 2, "w": 1}), (2, {"v": 1, "w": 2})])
def test_what_is_kept_carries_the_high_rate_with_the_usual_room(there: int, planned: dict[str, int]) -> None:
    # accuracy .505 takes .525 * 9.2 = 4.83 on v, which the knee allows; both carry 2 * 4.5 < 9.2 with room for latency
    service = replace(MIXED, high_rate_rps=9.2, alpha=0.505)
    variants = (VARIANT, replace(OTHER, current_replicas=there))
    assert replicas(replace(PAIRED, variants=variants, services=(service,))) == planned


@pytest.mark.parametrize(("high_rps", "planned"), [(4.4, 1), (4.8, 2)])
def test_latency_has_no_margin_to_the_knee(high_rps: float, planned: int) -> None:
    assert replicas(replace(PROBLEM, services=(replace(SERVICE, high_rate_rps=high_rps),))) == {"v": planned}


def test_what_starts_is_planned_for_less_than_the_knee() -> None:
    assert replicas(replace(PROBLEM, variants=(replace(VARIANT, current_replicas=0),))) == {"v": 2}


def test_the_expected_rate_has_no_such_margin() -> None:
    service = replace(SERVICE, rate_rps=4.6)
    assert replicas(replace(PROBLEM, services=(service,))) == {"v": 2}


def test_a_declared_reserve_stands_by_whole() -> None:
    reserve = replace(SERVICE, name="s/reserve", rate_rps=0.0, high_rate_rps=4.8)
    assert replicas(replace(PROBLEM, services=(reserve,))) == {"v": 2}


@pytest.mark.parametrize(("start_joules", "planned"), [(1_200.0, {"v": 0, "w": 1}), (60_000.0, {"v": 1, "w": 0})])
def test_a_start_that_pays_within_its_time_is_made(start_joules: float, planned: dict[str, int]) -> None:
    # a tenth of the watts; 1.2 kJ over 120 s are 10 W, 60 kJ are 500 W, more than all that v draws at four fifths
    other = PlanVariant("w", "m", "p", 1, 10.0, 40.0, 60.0, start_joules, 0.5)
    service = replace(SERVICE, high_rate_rps=4.4, work_seconds={"v": 0.1, "w": 0.1}, accuracy={"v": 0.6, "w": 0.6})
    assert replicas(replace(PROBLEM, variants=(VARIANT, other), services=(service,))) == planned


def test_more_than_the_knee_is_refused() -> None:
    with pytest.raises(PlanError, match=r"kept_eta is 1\.1"):
        solve_plan(replace(PROBLEM, kept_eta=1.1))
