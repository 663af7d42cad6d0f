"""The mixed-integer program of one connected component, as sparse matrices, and its solution.

Columns: replicas r (integer) and starts u by variant, expected shares x and high-demand shares z by service and
variant, and where asked for the slacks: share not carried (expected, high) and accuracy missing (expected, high).
Without slacks the matrix holds no penalties and is well conditioned; slacks come in only when there is no such plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array, vstack

from wattzoo_policies.placement.instance import Demand, Fleet, FloatArray, IntArray

SPLIT_LOAD = 1.0
"""A service that fits one replica gets rows share <= replicas: without them the relaxation buys a fraction of one."""

TINY_LOAD = 1e-4
"""With many services only those get such rows whose load would pass for the solver's tolerance."""

FEW_SERVICES = 8


class Slacks(Enum):
    """Which slack columns a program has."""

    NONE = "none"
    PENALISED = "penalised"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the columns of each kind begin."""

    replicas: int
    starts: int
    flows: int
    high_flows: int
    slacks: int
    columns: int
    pairs: tuple[int, ...]
    with_starts: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """min cost @ y + penalty @ y with upper rows (<=), equal rows and bounds; the first columns are the replicas."""

    layout: Layout
    cost: FloatArray
    penalty: FloatArray
    upper_rows: csr_array
    upper_limits: FloatArray
    equal_rows: csr_array
    equal_limits: FloatArray
    low: FloatArray
    high: FloatArray
    row_labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Column values, the cost, its proven bound, the penalties, and whether the search ended by itself."""

    values: FloatArray | None
    cost: float
    bound: float
    is_complete: bool
    is_infeasible: bool = False
    penalty: float = 0.0


class _Rows:
    """Sparse rows under construction, all of the form row <= limit."""

    def __init__(self) -> None:
        self._rows: list[IntArray] = []
        self._columns: list[IntArray] = []
        self._values: list[FloatArray] = []
        self.limits: list[float] = []
        self.labels: list[tuple[str, str]] = []

    def add(self, label: str, owner: str, columns: npt.ArrayLike, values: npt.ArrayLike, limit: float) -> None:
        """Add one row."""
        places = np.asarray(columns, dtype=np.int64)
        self._rows.append(np.full(places.size, len(self.limits), dtype=np.int64))
        self._columns.append(places)
        self._values.append(np.broadcast_to(np.asarray(values, dtype=np.float64), places.shape))
        self.limits.append(limit)
        self.labels.append((label, owner))

    def matrix(self, columns: int) -> csr_array:
        """Return the rows as a sparse matrix."""
        if not self._rows:
            return csr_array((0, columns))
        entries = np.concatenate(self._values)
        places = (np.concatenate(self._rows), np.concatenate(self._columns))
        return csr_array((entries, places), shape=(len(self.limits), columns))


def make_program(
    fleet: Fleet, demands: Sequence[Demand], slacks: Slacks, overload_penalty: float, accuracy_penalty: float
) -> Program:
    """Return the program of placement.md 3 for a fleet and its demands."""
    layout = _make_layout(fleet, demands, slacks)
    cost, penalty = _costs(fleet, demands, layout, slacks, overload_penalty, accuracy_penalty)
    equal, upper = _Rows(), _Rows()
    for index, demand in enumerate(demands):
        _demand_rows(layout, index, demand, equal, upper, has_slacks=slacks is not Slacks.NONE)
    _capacity_rows(fleet, demands, layout, upper)
    for row in fleet.rows:
        places = np.flatnonzero(row.coefficients)
        upper.add(row.label, row.pool, places, row.coefficients[places], row.limit)
    for position, variant in enumerate(layout.with_starts):
        columns = [int(variant), layout.starts + position]
        upper.add("starts", fleet.variants[variant].name, columns, [1.0, -1.0], float(fleet.current[variant]))
    _power_rows(fleet, demands, layout, upper)
    low, high = np.zeros(layout.columns), np.ones(layout.columns)
    count = len(fleet.variants)
    low[:count], high[:count] = fleet.lower, fleet.upper
    high[layout.starts : layout.flows] = np.inf
    high[layout.slacks + 2 * len(demands) :] = np.inf
    return Program(
        layout,
        cost,
        penalty,
        upper.matrix(layout.columns),
        np.array(upper.limits),
        equal.matrix(layout.columns),
        np.array(equal.limits),
        low,
        high,
        tuple(upper.labels),
    )


def solve_program(program: Program, time_limit_seconds: float, gap: float, *, on_penalty: bool = False) -> Solution:
    """Solve; `on_penalty` minimises the penalties instead of the cost."""
    if program.cost.size == 0:
        return Solution(None, np.inf, -np.inf, is_complete=True, is_infeasible=True)
    cost = program.penalty if on_penalty else program.cost
    integrality = np.zeros(cost.size)
    integrality[: program.layout.starts] = 1
    constraints = []
    if program.upper_limits.size:
        constraints.append(LinearConstraint(program.upper_rows, -np.inf, program.upper_limits))
    if program.equal_limits.size:
        constraints.append(LinearConstraint(program.equal_rows, program.equal_limits, program.equal_limits))
    result = milp(
        cost,
        integrality=integrality,
        bounds=Bounds(program.low, program.high),
        constraints=constraints,
        options={"time_limit": max(0.01, time_limit_seconds), "mip_rel_gap": gap},
    )
    if result.x is None:
        return Solution(None, np.inf, -np.inf, is_complete=result.status == 2, is_infeasible=result.status == 2)
    bound = result.mip_dual_bound if result.mip_dual_bound is not None else float(result.fun)
    penalty = float(program.penalty @ result.x)
    return Solution(result.x, float(program.cost @ result.x), float(bound), result.status == 0, penalty=penalty)


@dataclass(frozen=True, slots=True, eq=False)
class Relaxation:
    """The linear program with fractional or fixed replicas; duals are per row, of the sign that a bound earns.

    reduced_costs: by column what the objective rises by at least for each unit above the column's lower bound.
    """

    values: FloatArray
    objective: float
    reduced_costs: FloatArray
    upper_duals: FloatArray
    equal_duals: FloatArray


def solve_linear(program: Program, *, with_penalty: bool = False) -> Relaxation | None:
    """Solve without integrality; `None` when there is no solution."""
    if program.cost.size == 0 and program.equal_limits.size:
        return None
    cost = program.cost + program.penalty if with_penalty else program.cost
    result = linprog(
        cost,
        A_ub=program.upper_rows if program.upper_limits.size else None,
        b_ub=program.upper_limits if program.upper_limits.size else None,
        A_eq=program.equal_rows if program.equal_limits.size else None,
        b_eq=program.equal_limits if program.equal_limits.size else None,
        bounds=np.column_stack([program.low, program.high]),
        method="highs",
    )
    if result.x is None or result.status != 0:
        return None
    upper = -np.asarray(result.ineqlin.marginals) if program.upper_limits.size else np.zeros(0)
    equal = np.asarray(result.eqlin.marginals) if program.equal_limits.size else np.zeros(0)
    reduced = np.asarray(result.lower.marginals)
    return Relaxation(np.asarray(result.x), float(result.fun), reduced, upper, equal)


def fix_replicas(program: Program, replicas: npt.ArrayLike) -> Program:
    """Return the program with the replicas held."""
    low, high = program.low.copy(), program.high.copy()
    count = program.layout.starts
    low[:count] = high[:count] = np.asarray(replicas, dtype=np.float64)
    return replace(program, low=low, high=high)


def bound_penalty(program: Program, most: float) -> Program:
    """Return the program with the sum of penalties bounded (scaled to a row of order one)."""
    scale = max(1.0, float(np.max(program.penalty)))
    row = csr_array((program.penalty / scale).reshape(1, -1))
    matrix = vstack([program.upper_rows, row], format="csr")
    limits = np.append(program.upper_limits, most / scale)
    return replace(program, upper_rows=matrix, upper_limits=limits, row_labels=(*program.row_labels, ("shortage", "")))


def _make_layout(fleet: Fleet, demands: Sequence[Demand], slacks: Slacks) -> Layout:
    count = len(fleet.variants)
    with_starts = np.flatnonzero((fleet.start_cost > 0.0) & (fleet.current > 0) & (fleet.upper > fleet.current))
    pairs = tuple(int(place) for place in np.cumsum([0, *(demand.variants.size for demand in demands)]))
    flows = count + with_starts.size
    slack_start = flows + 2 * pairs[-1]
    columns = slack_start + (4 * len(demands) if slacks is not Slacks.NONE else 0)
    return Layout(0, count, flows, flows + pairs[-1], slack_start, columns, pairs, with_starts)


def _costs(
    fleet: Fleet,
    demands: Sequence[Demand],
    layout: Layout,
    slacks: Slacks,
    overload_penalty: float,
    accuracy_penalty: float,
) -> tuple[FloatArray, FloatArray]:
    cost, penalty = np.zeros(layout.columns), np.zeros(layout.columns)
    # a variant without a replica pays for every one; where some run, the column u counts the additional ones
    new = fleet.current == 0
    cost[: layout.starts] = fleet.replica_cost + np.where(new, fleet.start_cost, 0.0)
    cost[layout.starts : layout.flows] = fleet.start_cost[layout.with_starts]
    for index, demand in enumerate(demands):
        for begin, watts in ((layout.flows, demand.cost), (layout.high_flows, demand.high_cost)):
            first = begin + layout.pairs[index]
            cost[first : first + demand.variants.size] = fleet.weight[demand.variants] * watts
    if slacks is not Slacks.NONE:
        rates = np.array([demand.rate_rps for demand in demands])
        high_rates = np.array([demand.high_rate_rps for demand in demands])
        both = np.concatenate([rates, high_rates])
        penalty[layout.slacks :] = np.concatenate([overload_penalty * both, accuracy_penalty * both])
    return cost, penalty


def _demand_rows(layout: Layout, index: int, demand: Demand, equal: _Rows, upper: _Rows, *, has_slacks: bool) -> None:
    """Add: shares sum to one, accuracy, and share <= replicas where a service fits one replica."""
    size = demand.variants.size
    count = len(layout.pairs) - 1
    split_load = SPLIT_LOAD if count <= FEW_SERVICES else TINY_LOAD
    kinds = (
        (layout.flows, demand.accuracy_rows, demand.load, 0, "expected", demand.rate_rps > 0.0),
        (layout.high_flows, demand.high_accuracy_rows, demand.high_load, 1, "high", True),
    )
    for begin, rows, load, kind, label, is_used in kinds:
        if not is_used:
            continue
        columns = np.arange(size) + begin + layout.pairs[index]
        short = [layout.slacks + kind * count + index] if has_slacks else []
        missing = [layout.slacks + (2 + kind) * count + index] if has_slacks else []
        equal.add("demand", demand.name, [*columns, *short], 1.0, 1.0)
        for row in rows:
            upper.add(f"accuracy {label}", demand.name, [*columns, *missing], [*-row, *(-1.0 for _ in missing)], 0.0)
        for column, variant, share in zip(columns, demand.variants, load, strict=True):
            if share <= split_load:
                upper.add("some replica", demand.name, [column, variant], [1.0, -1.0], 0.0)


def _capacity_rows(fleet: Fleet, demands: Sequence[Demand], layout: Layout, upper: _Rows) -> None:
    for begin, label in ((layout.flows, "capacity"), (layout.high_flows, "high capacity")):
        columns: list[list[int]] = [[] for _ in fleet.variants]
        values: list[list[float]] = [[] for _ in fleet.variants]
        for index, demand in enumerate(demands):
            load = demand.load if begin == layout.flows else demand.high_load
            first = begin + layout.pairs[index]
            for offset, variant in enumerate(demand.variants):
                columns[variant].append(first + offset)
                values[variant].append(float(load[offset]))
        for variant, (places, loads) in enumerate(zip(columns, values, strict=True)):
            if places:
                upper.add(label, fleet.variants[variant].name, [*places, variant], [*loads, -1.0], 0.0)


def _power_rows(fleet: Fleet, demands: Sequence[Demand], layout: Layout, upper: _Rows) -> None:
    """Add the bounds in watts: of the expected flows, and of the high ones (a peak must not break a power cap)."""
    for index, pool in enumerate(fleet.pools):
        if pool.power_budget_watts is None:
            continue
        inside = np.flatnonzero(fleet.pool_index == index)
        idle = np.array([fleet.variants[v].idle_watts for v in inside])
        scale = max(1.0, pool.power_budget_watts)
        for begin in (layout.flows, layout.high_flows):
            columns, values = [*inside], [*idle]
            for number, demand in enumerate(demands):
                watts = demand.watts if begin == layout.flows else demand.high_watts
                own = np.flatnonzero(fleet.pool_index[demand.variants] == index)
                columns += [*(begin + layout.pairs[number] + own)]
                values += [*watts[own]]
            upper.add("power budget", pool.name, columns, np.array(values) / scale, pool.power_budget_watts / scale)
