"""One connected component: choose whole replicas, then lay the flows of every service over them.

Lexicographic: first a plan without any shortage; only when there is none the least shortage (penalties), and then the
least cost at that shortage. So no penalty is ever weighed against watts, however small a service is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wattzoo_policies.placement.decompose import choose_candidates, keep_within, restrict
from wattzoo_policies.placement.greedy import plan_greedy
from wattzoo_policies.placement.group import group_demands
from wattzoo_policies.placement.instance import Demand, Fleet, FloatArray, IntArray, tighten_upper
from wattzoo_policies.placement.milp import (
    Program,
    Relaxation,
    Slacks,
    Solution,
    bound_penalty,
    fix_replicas,
    make_program,
    solve_linear,
    solve_program,
)
from wattzoo_policies.placement.problem import PlanStatus
from wattzoo_policies.placement.prune import find_useful
from wattzoo_policies.placement.repair import improve_replicas, raise_replicas

LARGE_VARIANTS = 24
"""Above so many variants the relaxation chooses which of them get an integer."""

FIRST_SHARE = 0.5
"""Of the time: for the candidates, which bring a plan; the rest goes to what the relaxation cannot rule out then."""

MOST_REPACKS = 12
MOST_REPAIRS = 6
KEPT_TIME = 0.25
"""Share of the time limit for the plan without starts, which comes on top: what is there is quickly searched."""
PENALTY_SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how exactly to solve, and the penalties of shortage.

    shortage_share: of the time that is kept for the least shortage, should there be no plan without any.
    """

    time_limit_seconds: float
    gap: float
    overload_penalty: float
    accuracy_penalty: float
    shortage_share: float = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Flows:
    """Flows over fixed replicas: the program, its solution with duals, and whether it has slack columns."""

    program: Program
    relaxed: Relaxation
    has_slacks: bool

    @property
    def cost(self) -> float:
        """Return the objective without penalties."""
        return float(self.program.cost @ self.relaxed.values)

    @property
    def penalty(self) -> float:
        """Return the penalties of what is short (solver noise counts as none)."""
        penalty = float(self.program.penalty @ np.where(self.relaxed.values > PENALTY_SLACK, self.relaxed.values, 0.0))
        return penalty if self.has_slacks else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Replicas of a component and the flows over them; `bound` is proven for the integers that were searched."""

    replicas: IntArray
    flows: Flows
    bound: float
    status: PlanStatus

    @property
    def rank(self) -> tuple[float, float]:
        """Return what is compared: penalties first, then cost."""
        return self.flows.penalty, self.flows.cost


def plan_component(fleet: Fleet, demands: Sequence[Demand], effort: Effort, previous: IntArray | None) -> Answer:
    """Return the best plan found in the time; the previous replicas or a greedy plan when the solver brings none."""
    fleet = tighten_upper(fleet, demands)
    found = _search(fleet, demands, effort)
    answers = []
    if found is not None:
        replicas, solution = found
        flows = lay_flows(fleet, demands, replicas, effort)
        status = PlanStatus.OPTIMAL if solution.is_complete else PlanStatus.TIME_LIMIT
        answers.append(Answer(replicas, flows, solution.bound, status))
        if solution.is_complete:
            return answers[0]
    if previous is not None:
        kept = clip_replicas(fleet, previous)
        answers.append(Answer(kept, lay_flows(fleet, demands, kept, effort), -np.inf, PlanStatus.KEPT))
    if not answers:
        greedy = plan_greedy(fleet, demands)
        answers.append(Answer(greedy, lay_flows(fleet, demands, greedy, effort), -np.inf, PlanStatus.GREEDY))
    return min(answers, key=lambda answer: answer.rank)


def plan_sparing_starts(
    fleet: Fleet, demands: Sequence[Demand], effort: Effort, previous: IntArray | None, fuller: float
) -> Answer:
    """Return the best plan, one without any start where nothing is short without and the gap does not tell them apart.

    fuller: how many times as full as a new replica the high demand may make one that is there for the sake of its
    accuracy. Without this margin each chance of a forecast at the edge of what is there starts a replica that the next
    plan does not want. Latency has no such margin: by then every replica would serve, and a start comes too late.
    """
    answer = plan_component(fleet, demands, effort, previous)
    held = fleet.with_upper(np.minimum(fleet.upper, fleet.current))
    if fuller <= 1.0 or not (answer.replicas > held.upper).any():
        return answer
    eased, inaccurate = [_eased(demand, fuller) for demand in demands], [_inaccurate(demand) for demand in demands]
    if not all(_carries(held, some, held.upper) for some in (inaccurate, eased)):
        return answer
    quick = replace(effort, time_limit_seconds=KEPT_TIME * effort.time_limit_seconds)
    kept = plan_component(held, eased, quick, previous)
    if kept.flows.has_slacks:
        return answer
    if not _carries(held, inaccurate, kept.replicas):
        relaxed = solve_linear(make_program(held.with_lower(kept.replicas), inaccurate, Slacks.NONE, 0.0, 0.0))
        if relaxed is None:
            return answer
        replicas = raise_replicas(held, kept.replicas, relaxed.values[: len(fleet.variants)])
        if not _carries(held, inaccurate, replicas):
            return answer
        kept = replace(kept, replicas=replicas, flows=lay_flows(held, eased, replicas, effort))
    is_dearer = not answer.flows.penalty and kept.flows.cost > (1.0 + effort.gap) * answer.flows.cost
    return answer if is_dearer else kept


def _carries(fleet: Fleet, demands: Sequence[Demand], replicas: IntArray) -> bool:
    return solve_linear(fix_replicas(make_program(fleet, demands, Slacks.NONE, 0.0, 0.0), replicas)) is not None


def _eased(demand: Demand, fuller: float) -> Demand:
    """Return the demand whose high rate fills replicas more; a reserve, which only stands by, is as declared."""
    if demand.rate_rps <= 0.0:
        return demand
    return replace(demand, high_load=np.maximum(demand.load, demand.high_load / fuller))


def _inaccurate(demand: Demand) -> Demand:
    """Return the demand whose high rate any variant may answer; a reserve, which only stands by, is as declared."""
    if demand.rate_rps <= 0.0:
        return demand
    return replace(demand, high_accuracy_rows=demand.high_accuracy_rows[:0])


def lay_flows(fleet: Fleet, demands: Sequence[Demand], replicas: IntArray, effort: Effort) -> Flows:
    """Return the cheapest flows over these replicas; with slacks only where they cannot carry everything."""
    program = fix_replicas(make_program(fleet, demands, Slacks.NONE, 0.0, 0.0), replicas)
    relaxed = solve_linear(program)
    if relaxed is not None:
        return Flows(program, relaxed, has_slacks=False)
    penalised = make_program(fleet, demands, Slacks.PENALISED, effort.overload_penalty, effort.accuracy_penalty)
    program = fix_replicas(penalised, replicas)
    relaxed = solve_linear(program, with_penalty=True)
    if relaxed is None:
        raise ArithmeticError("a linear program that is feasible by construction was not solved")
    return Flows(program, relaxed, has_slacks=True)


def clip_replicas(fleet: Fleet, replicas: IntArray) -> IntArray:
    """Return replicas within the bounds of today, taken away from the largest variants until every cap holds."""
    clipped = np.clip(replicas, fleet.lower, fleet.upper)
    while not fleet.fits(clipped):
        spare = np.flatnonzero(clipped > fleet.lower)
        if spare.size == 0:
            break
        sizes = [fleet.variants[v].accelerators for v in spare]
        clipped[spare[int(np.argmax(sizes))]] -= 1
    return clipped


def _search(fleet: Fleet, demands: Sequence[Demand], effort: Effort) -> tuple[IntArray, Solution] | None:
    """Return whole replicas of least cost, among candidate variants when there are many; `None` without any."""
    if not demands:
        return fleet.lower.copy(), Solution(None, 0.0, 0.0, is_complete=True)
    useful = find_useful(fleet, demands)
    smaller, fewer = restrict(fleet, demands, useful)
    groups, is_exact = group_demands(fewer)
    found = _search_candidates(smaller, groups, effort) if is_exact else _search_in_two(smaller, fewer, groups, effort)
    return None if found is None else (_spread(fleet, useful, found[0]), found[1])


def _search_in_two(
    fleet: Fleet, demands: Sequence[Demand], groups: Sequence[Demand], effort: Effort
) -> tuple[IntArray, Solution] | None:
    """Return the better of two: services grouped over many variants, and service by service over few.

    The few are those that the grouped plan and the relaxation use.
    """
    half = replace(effort, time_limit_seconds=0.4 * effort.time_limit_seconds)
    first = _search_candidates(fleet, groups, half)
    answers: list[tuple[tuple[float, float], IntArray]] = []
    searched = Solution(None, np.inf, -np.inf, is_complete=False)
    used = (fleet.lower > 0) | (fleet.current > 0)
    if first is not None:
        replicas = _repair(fleet, demands, first[0], effort)
        answers.append((_rank(fleet, demands, replicas, effort), replicas))
        used |= (replicas > 0) | (first[0] > 0)
    relaxed = solve_linear(make_program(fleet, demands, Slacks.NONE, 0.0, 0.0))
    if relaxed is not None:
        used |= relaxed.values[: len(fleet.variants)] > 1e-6
        keep = np.flatnonzero(used)
        second = _search_packed(*restrict(fleet, demands, keep), replace(half, gap=effort.gap))
        if second is not None:
            replicas = _spread(fleet, keep, second[0])
            answers.append((_rank(fleet, demands, replicas, effort), replicas))
            searched = second[1]
    if not answers:
        return None
    return min(answers, key=lambda entry: entry[0])[1], searched


def _rank(fleet: Fleet, demands: Sequence[Demand], replicas: IntArray, effort: Effort) -> tuple[float, float]:
    flows = lay_flows(fleet, demands, replicas, effort)
    return flows.penalty, flows.cost


def _search_candidates(fleet: Fleet, demands: Sequence[Demand], effort: Effort) -> tuple[IntArray, Solution] | None:
    """Solve among the candidate variants of a large component, then among all that may still be better by the gap."""
    relaxed = None
    if len(fleet.variants) > LARGE_VARIANTS:
        relaxed = solve_linear(make_program(fleet, demands, Slacks.NONE, 0.0, 0.0))
    if relaxed is None:
        return _search_packed(fleet, demands, effort)
    keep = choose_candidates(fleet, demands, relaxed)
    few = replace(effort, time_limit_seconds=FIRST_SHARE * effort.time_limit_seconds)
    first = _search_among(fleet, demands, keep, few)
    rest = replace(effort, time_limit_seconds=(1.0 - FIRST_SHARE) * effort.time_limit_seconds)
    most_cost = np.inf
    if first is not None and first[1].penalty <= 0.0:
        most_cost, rest = (1.0 - effort.gap) * first[1].cost, replace(rest, shortage_share=0.0)
    left, beyond = keep_within(fleet, relaxed, most_cost)
    if np.isin(left, keep).all():
        return first
    second = _search_among(fleet, demands, left, rest)
    if first is not None and second is None:  # nothing found in the time, so nothing is proven but the relaxation
        return first[0], replace(first[1], bound=relaxed.objective, is_complete=False)
    return _better(first, second, beyond)


def _search_among(
    fleet: Fleet, demands: Sequence[Demand], keep: IntArray, effort: Effort
) -> tuple[IntArray, Solution] | None:
    found = _search_packed(*restrict(fleet, demands, keep), effort)
    return None if found is None else (_spread(fleet, keep, found[0]), found[1])


def _better(
    first: tuple[IntArray, Solution] | None, second: tuple[IntArray, Solution] | None, beyond: float
) -> tuple[IntArray, Solution] | None:
    """Return the better of two answers, with the bound of the wider search: the second, and `beyond` outside it."""
    if first is None or second is None:
        return first or second
    best = min(first, second, key=lambda found: (found[1].penalty, found[1].cost))
    bound = min(beyond, second[1].bound) if second[1].penalty <= best[1].penalty else beyond
    return best[0], replace(best[1], bound=bound, is_complete=second[1].is_complete)


def _repair(fleet: Fleet, demands: Sequence[Demand], replicas: IntArray, effort: Effort) -> IntArray:
    """Return replicas that carry every service by itself where that is possible, without one that nobody needs."""
    if lay_flows(fleet, demands, replicas, effort).has_slacks:
        program = make_program(fleet.with_lower(replicas), demands, Slacks.NONE, 0.0, 0.0)
        relaxed = solve_linear(program)
        if relaxed is not None:
            replicas = raise_replicas(fleet, replicas, relaxed.values[: len(fleet.variants)])
    return improve_replicas(fleet, replicas, lambda counts: _rank(fleet, demands, counts, effort), MOST_REPAIRS)


def _search_packed(fleet: Fleet, demands: Sequence[Demand], effort: Effort) -> tuple[IntArray, Solution] | None:
    """Solve, and again with a count lowered while the replicas do not fit the nodes (sizes that do not divide)."""
    found = _solve_whole(fleet, demands, effort)
    for _ in range(MOST_REPACKS):
        if found is None:
            return None
        pool = fleet.unpackable_pool(found[0])
        if pool is None:
            return found
        tries = []
        for variant in np.flatnonzero((fleet.pool_index == pool) & (found[0] > fleet.lower)):
            upper = fleet.upper.copy()
            upper[variant] = found[0][variant] - 1
            lowered = fleet.with_upper(upper)
            attempt = _solve_whole(lowered, demands, effort)
            if attempt is not None:
                tries.append((attempt[1].penalty, attempt[1].cost, lowered, attempt))
        if not tries:
            return None
        _, _, fleet, found = min(tries, key=lambda entry: entry[:2])
    return None


def _solve_whole(fleet: Fleet, demands: Sequence[Demand], effort: Effort) -> tuple[IntArray, Solution] | None:
    """Solve the program without slacks, then if need be with the least of them."""
    count = len(fleet.variants)
    program = make_program(fleet, demands, Slacks.NONE, 0.0, 0.0)
    solution = solve_program(program, (1.0 - effort.shortage_share) * effort.time_limit_seconds, effort.gap)
    if solution.is_infeasible:
        spare_seconds = effort.shortage_share * effort.time_limit_seconds
        program = make_program(fleet, demands, Slacks.PENALISED, effort.overload_penalty, effort.accuracy_penalty)
        least = solve_program(program, 0.4 * spare_seconds, 1e-4, on_penalty=True)
        if least.values is None:
            return None
        bounded = bound_penalty(program, least.penalty * (1.0 + 1e-6) + 1e-9)
        solution = solve_program(bounded, 0.6 * spare_seconds, effort.gap)
        if solution.values is None:
            solution = replace(least, is_complete=False, bound=-np.inf)
    if solution.values is None:
        return None
    return _whole(solution.values[:count]), solution


def _spread(fleet: Fleet, keep: IntArray, replicas: IntArray) -> IntArray:
    """Return replicas of all variants from those of some (the others have their minimum)."""
    spread = fleet.lower.copy()
    spread[keep] = replicas
    return spread


def _whole(values: FloatArray) -> IntArray:
    return np.rint(values).astype(np.int64)
