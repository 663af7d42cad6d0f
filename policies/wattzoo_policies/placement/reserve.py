"""A declared reserve: capacity that only stands by, planned on top of a plan for what is served.

Planned at once with the services, a reserve that no longer fits (it grows with the load) would take the accelerators of
accurate replicas for more of the small ones, and cost those who are served now their accuracy. So there are two solves:
one for the services, then one more in which its replicas are minima and each reserve is a service of its own. What of
the reserve does not fit is short, and nothing else is given up for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from wattzoo_policies.placement.problem import Plan, PlanProblem, PlanService

RESERVE = "/reserve"
"""What a service's declared reserve is called in the planning problem."""
RESERVE_SLACK = 0.01
"""How far below alpha a reserve may answer."""


def solve_with_reserves(
    problem: PlanProblem,
    percents: Mapping[str, float],
    solve: Callable[[PlanProblem], Plan],
    slack: float = RESERVE_SLACK,
) -> tuple[PlanProblem, Plan]:
    """Return the problem with the declared reserves in it, and its plan.

    percents: by service what stands by, in percent of its high rate; a service that is missing declares none. The
    runner-up is that of the plan for what is served: with its replicas as minima nothing can be left out.
    """
    served = solve(problem)
    declared = {name: percent for name, percent in percents.items() if percent > 0.0}
    if not any(service.name in declared for service in problem.services):
        return problem, served
    problem = add_reserves(problem, served.replicas, declared, slack)
    plan = solve(problem)
    if served.runner_up_objective is None:
        return problem, replace(plan, runner_up=served.runner_up, runner_up_objective=None)
    objective = plan.objective + served.runner_up_objective - served.objective
    return problem, replace(plan, runner_up=served.runner_up, runner_up_objective=objective)


def add_reserves(
    problem: PlanProblem, replicas: Mapping[str, int], percents: Mapping[str, float], slack: float = RESERVE_SLACK
) -> PlanProblem:
    """Return the problem with reserves as further services, and the replicas that serve as minima."""
    variants = tuple(replace(v, min_replicas=max(v.min_replicas, replicas.get(v.name, 0))) for v in problem.variants)
    reserves = tuple(
        _reserve(service, percents[service.name], slack)
        for service in problem.services
        if service.name in percents and service.accuracy
    )
    return replace(problem, variants=variants, services=problem.services + reserves)


def _reserve(service: PlanService, percent: float, slack: float) -> PlanService:
    """Return the declared reserve as a service that only stands by, answering less accurately if need be."""
    alpha = max(min(service.accuracy.values()), service.alpha - slack)
    more = service.high_rate_rps * percent / 100.0
    return replace(service, name=service.name + RESERVE, rate_rps=0.0, high_rate_rps=more, alpha=alpha)
