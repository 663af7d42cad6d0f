"""A bound that no controller gets below: perfect foresight, fractions of replicas that cost nothing to start or keep.

Per time bucket, min sum over flows of the least joules per request that a variant reaches below its knee, with the
pools' accelerators and, over the whole run, the expected accuracy of each service: one linear program.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from wattzoo_policies.capacity.model import ReplicaModel, RequestShape, knee_load, work_seconds
from wattzoo_policies.placement.signals import FleetService, FleetVariant
from wattzoo_policies.sim.fluid.scenario import FloatArray, FluidScenario, IntArray

JOULES_PER_WH = 3600.0


@dataclass(frozen=True, slots=True)
class Bound:
    """joules: of the whole run. requests: counted. served_share: 1 unless the accelerators do not carry everything."""

    joules: float
    requests: float
    served_share: float

    @property
    def wh_per_1000_requests(self) -> float:
        """Return the bound in Wh per 1,000 arrived requests."""
        return self.joules / JOULES_PER_WH / self.requests * 1000.0 if self.requests else float("nan")


def bound_energy(scenario: FluidScenario, *, bucket_steps: int = 40, accuracy_slack: float = 0.0) -> Bound:
    """Return the least joules with perfect foresight, fractional replicas and eta 1.

    bucket_steps: steps that share one set of flows; averaging over them only lowers the bound (the program is convex in
    the demand). accuracy_slack: how far below alpha a service may end.
    """
    columns = _Columns(scenario, bucket_steps)
    result = linprog(
        columns.cost,
        A_ub=columns.upper,
        b_ub=columns.limits(accuracy_slack),
        A_eq=columns.equal,
        b_eq=columns.requests,
        bounds=np.column_stack([np.zeros(columns.cost.size), columns.most]),
        method="highs",
    )
    if result.x is None or result.status != 0:
        raise ArithmeticError(f"the bound's program was not solved: {result.message}")
    short = float(result.x[columns.short].sum())
    joules = float(columns.joules @ result.x)
    total = float(columns.requests.sum())
    return Bound(joules, total, 1.0 - short / total if total else 1.0)


def least_joules(model: ReplicaModel, shape: RequestShape, knee: float) -> float:
    """Return the least joules per request of a replica at any load up to the knee (mostly at it)."""
    work = work_seconds(model, shape)
    loads = np.linspace(knee / 200.0, knee, 200)
    inside = loads / work * shape.output_tokens * model.t0_seconds / (1.0 - loads)
    busy = -np.expm1(-inside)
    watts = model.idle_watts + busy * (model.active_watts - model.idle_watts)
    watts = watts + (model.max_watts - model.active_watts) * loads
    return float(np.min(watts / loads) * work)


class _Columns:
    """Columns: flows by (bucket, service, variant), then requests short by (bucket, service)."""

    def __init__(self, scenario: FluidScenario, bucket_steps: int) -> None:
        demand = scenario.demand
        services, variants = scenario.services, scenario.variants
        edges = np.arange(0, demand.steps, bucket_steps)
        pairs = [
            (s, v)
            for s, service in enumerate(services)
            for v, variant in enumerate(variants)
            if variant.member in service.members
        ]
        pools = {pool.name: number for number, pool in enumerate(scenario.pools)}
        buckets = edges.size
        flows = buckets * len(pairs)
        self.requests = np.add.reduceat(demand.requests, edges, axis=0).reshape(-1)
        seconds = np.diff(np.append(edges, demand.steps)) * demand.step_seconds
        tokens = [
            _bucket_means(demand.requests, values, edges) for values in (demand.input_tokens, demand.output_tokens)
        ]
        count = len(services)
        self.joules = np.zeros(flows + buckets * count)
        self.short = np.arange(flows, flows + buckets * count)
        self.most = np.full(flows + buckets * count, np.inf)
        equal = _Entries()
        upper = _Entries()
        for bucket in range(buckets):
            for place, (s, v) in enumerate(pairs):
                column = bucket * len(pairs) + place
                shape = RequestShape(float(tokens[0][bucket, s]), float(tokens[1][bucket, s]))
                joules, work = _request_cost(variants[v], services[s], shape)
                if joules is None:
                    self.most[column] = 0.0
                    continue
                self.joules[column] = joules
                hold = work * variants[v].model.accelerators
                equal.add(bucket * count + s, column, 1.0)
                upper.add(s, column, services[s].alpha - scenario.accuracy[services[s].name][variants[v].member])
                upper.add(count + bucket * len(pools) + pools[variants[v].pool], column, hold / seconds[bucket])
            for s in range(count):
                equal.add(bucket * count + s, flows + bucket * count + s, 1.0)
        self.cost = self.joules.copy()
        self.cost[self.short] = 1e3 * max(1.0, float(self.joules.max(initial=0.0)))
        self.equal = equal.matrix(buckets * count, self.cost.size)
        self.upper = upper.matrix(count + buckets * len(pools), self.cost.size)
        self._caps = np.tile([float(pool.accelerators) for pool in scenario.pools], buckets)
        self._totals = demand.requests.sum(axis=0)

    def limits(self, accuracy_slack: float) -> FloatArray:
        """Return the right-hand sides: accuracy missing by service, then accelerators by bucket and pool."""
        return np.concatenate([self._totals * accuracy_slack, self._caps])


class _Entries:
    """Entries of a sparse matrix under construction."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._columns: list[int] = []
        self._values: list[float] = []

    def add(self, row: int, column: int, value: float) -> None:
        """Add one entry."""
        self._rows.append(row)
        self._columns.append(column)
        self._values.append(value)

    def matrix(self, rows: int, columns: int) -> csr_array:
        """Return the matrix."""
        return csr_array((self._values, (self._rows, self._columns)), shape=(rows, columns))


def _request_cost(variant: FleetVariant, service: FleetService, shape: RequestShape) -> tuple[float | None, float]:
    """Return least joules and seconds of a replica at its knee of one request; `None` where it cannot serve."""
    knee = knee_load(variant.model, shape, service.latency)
    if knee is None:
        return None, 0.0
    return least_joules(variant.model, shape, knee), work_seconds(variant.model, shape) / knee


def _bucket_means(requests: FloatArray, tokens: FloatArray, edges: IntArray) -> FloatArray:
    """Return request-weighted mean tokens by bucket and service, the service's mean where a bucket has none."""
    weighted = np.add.reduceat(np.where(requests > 0.0, np.nan_to_num(tokens) * requests, 0.0), edges, axis=0)
    counts = np.add.reduceat(requests, edges, axis=0)
    overall = weighted.sum(axis=0) / np.maximum(counts.sum(axis=0), 1e-12)
    overall = np.where(counts.sum(axis=0) > 0.0, overall, 1.0)
    return np.asarray(np.where(counts > 0.0, weighted / np.maximum(counts, 1e-12), overall))
