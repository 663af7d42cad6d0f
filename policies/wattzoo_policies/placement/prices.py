"""What a plan says about itself: prices of accuracy, worth of accelerators, what binds, and the runner-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wattzoo_policies.placement.component import Answer, Effort, Flows, plan_component
from wattzoo_policies.placement.decompose import accuracy_prices, restrict
from wattzoo_policies.placement.group import group_demands
from wattzoo_policies.placement.instance import Demand, Fleet, tighten_upper
from wattzoo_policies.placement.milp import Program, Relaxation, Slacks, make_program, solve_linear

LEAST_DUAL = 1e-7


def price_accuracy(flows: Flows, demands: Sequence[Demand]) -> dict[str, float]:
    """Return by service the objective units (joules when weights are 1) that one more satisfied request costs.

    The replicas are held: it is the price of shifting requests over what is there.
    """
    duals = accuracy_prices(flows.program, flows.relaxed, "accuracy expected")
    rates = {demand.name: demand.rate_rps * _expected_share(demand) for demand in demands}
    return {name: max(0.0, float(np.sum(values))) / rates[name] for name, values in duals.items()}


def _expected_share(demand: Demand) -> float:
    """Return the share of the time that the expected flows are counted with."""
    watts = float(np.sum(demand.watts))
    return float(np.sum(demand.cost)) / watts if watts > 0.0 else 1.0


def value_accelerators(fleet: Fleet, demands: Sequence[Demand], effort: Effort) -> tuple[dict[str, float], str]:
    """Return by pool what one more accelerator would save, and the constraint that costs most, by the relaxation.

    Fractional replicas make it a slope and not a promise: a single accelerator may be too few for a replica.
    """
    values = {pool.name: 0.0 for pool in fleet.pools}
    if not demands:
        return values, ""
    fleet = tighten_upper(fleet, demands)
    demands = group_demands(demands)[0]
    program, relaxed = _relax(fleet, demands, effort)
    if relaxed is None:
        return values, ""
    for place, row in enumerate(fleet.rows):
        dual = float(relaxed.upper_duals[_replica_row(program, place)])
        values[row.pool] += max(0.0, dual) / row.accelerators_each
    return values, describe_binding(program, relaxed)


def describe_binding(program: Program, relaxed: Relaxation) -> str:
    """Return the row whose bound costs most (dual times limit; demand rows count by their dual)."""
    cost: dict[tuple[str, str], float] = {}
    for place, label in enumerate(program.row_labels):
        dual = float(relaxed.upper_duals[place])
        if label[0] in {"accelerators", "power budget", "shortage"} or label[0].startswith("nodes"):
            dual *= max(1.0, abs(float(program.upper_limits[place])))
        elif not label[0].startswith("accuracy"):
            continue
        cost[label] = cost.get(label, 0.0) + dual
    label, most = max(cost.items(), key=lambda entry: (entry[1], entry[0]), default=(("", ""), 0.0))
    if most <= LEAST_DUAL:
        return "demand"
    kind, owner = label
    if kind.startswith("accuracy"):
        return f"accuracy of {owner}"
    return f"{kind} of {owner}" if owner else kind


def find_runner_up(
    fleet: Fleet, demands: Sequence[Demand], answer: Answer, effort: Effort
) -> tuple[str, float | None, Answer | None]:
    """Return the variant that carries most, and the best plan without it with its cost (`None`: it would be short).

    The plan's replicas are of the whole fleet.
    """
    carried = np.zeros(len(fleet.variants))
    layout = answer.flows.program.layout
    for index, demand in enumerate(demands):
        first = layout.flows + layout.pairs[index]
        shares = answer.flows.relaxed.values[first : first + demand.variants.size]
        np.add.at(carried, demand.variants, shares * demand.rate_rps)
    if not carried.size or float(np.max(carried)) <= 0.0:
        return "", None, None
    leader = int(np.argmax(carried))
    upper = fleet.upper.copy()
    upper[leader] = 0
    without = fleet.with_upper(upper)
    keep = np.flatnonzero((without.upper > 0) | (without.lower > 0))
    if fleet.lower[leader] > 0 or not keep.size:
        return fleet.variants[leader].name, None, None
    smaller, fewer = restrict(without, demands, keep)
    other = plan_component(smaller, fewer, effort, None)
    replicas = np.zeros_like(answer.replicas)
    replicas[keep] = other.replicas
    other = replace(other, replicas=replicas)
    return fleet.variants[leader].name, other.flows.cost if other.flows.penalty <= 0.0 else None, other


def describe_replicas(fleet: Fleet, answer: Answer) -> str:
    """Return "2 x a + 1 x b"."""
    parts = [f"{int(n)} x {fleet.variants[v].name}" for v, n in enumerate(answer.replicas) if n > 0]
    return " + ".join(parts) or "nothing"


def _relax(fleet: Fleet, demands: Sequence[Demand], effort: Effort) -> tuple[Program, Relaxation | None]:
    program = make_program(fleet, demands, Slacks.NONE, 0.0, 0.0)
    relaxed = solve_linear(program)
    if relaxed is None:
        program = make_program(fleet, demands, Slacks.PENALISED, effort.overload_penalty, effort.accuracy_penalty)
        relaxed = solve_linear(program, with_penalty=True)
    return program, relaxed


def _replica_row(program: Program, place: int) -> int:
    return next(index for index, (kind, _) in enumerate(program.row_labels) if kind == "accelerators") + place
