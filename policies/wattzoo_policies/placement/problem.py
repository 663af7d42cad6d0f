"""The planning problem as plain numbers, and the plan that answers it.

Rates are requests per second, work is seconds of a replica per request (`capacity.model.work_seconds`), loads are
shares of a replica's time. Objective coefficients are watts times the pool's weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from wattzoo_policies.placement.signals import FleetPool

HIGH_SHARE = 0.1
"""The high rate is exceeded in one of ten windows, and is near in about as many."""
KEPT_ETA = 1.0
"""A busy minute's accuracy may fill what is there to the knee; the room that latency has is not touched by it."""


@dataclass(frozen=True, slots=True)
class PlanPool:
    """Accelerators that may be held (caps applied), those of each node (empty: unchecked), and a bound in watts."""

    name: str
    accelerators: int
    node_accelerators: tuple[int, ...] = ()
    power_budget_watts: float | None = None
    objective_weight: float = 1.0
    price_per_accelerator_second: float = 0.0


def make_plan_pool(pool: FleetPool) -> PlanPool:
    """Return the pool of a fleet as the problem states it; whether it is short is said by its variants' bounds."""
    return PlanPool(
        pool.name,
        pool.accelerators,
        pool.node_accelerators,
        pool.power_budget_watts,
        pool.objective_weight,
        pool.price_per_accelerator_second,
    )


@dataclass(frozen=True, slots=True)
class PlanVariant:
    """One variant on one pool; watts and joules are of one replica.

    knee_load: the load at which the strictest latency target of its services still holds; `None`: it cannot serve.
    max_replicas: what may be asked for at most (a short pool's variant: what it has).
    """

    name: str
    member: str
    pool: str
    accelerators: int
    idle_watts: float
    active_watts: float
    max_watts: float
    start_joules: float
    knee_load: float | None
    current_replicas: int = 0
    min_replicas: int = 0
    max_replicas: int = 1000


@dataclass(frozen=True, slots=True)
class PlanService:
    """One service: expected and high rate, the accuracy that must be reached, and by variant its work and accuracy.

    Variants that are missing in `work_seconds` cannot serve it.
    """

    name: str
    rate_rps: float
    high_rate_rps: float
    alpha: float
    work_seconds: Mapping[str, float]
    accuracy: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PlanProblem:
    """A connected or unconnected set of pools, variants and services; `eta` is the share of the knee that is filled.

    tau_seconds: a start's joules are spread over this time. high_share: of the time in which the high rate is there:
    what stands by for it shall cost little when it is used, too. kept_eta: share of the knee to which the high rate
    may fill what is there before accuracy alone starts anything (`eta` where that is more). overload_penalty,
    accuracy_penalty: watts per request/s not carried and per satisfied request/s missing. They weigh shortages against
    one another alone: the least shortage is found first, then the least cost at that shortage, so that no service is
    too small to be served.
    """

    pools: tuple[PlanPool, ...]
    variants: tuple[PlanVariant, ...]
    services: tuple[PlanService, ...]
    eta: float = 0.9
    tau_seconds: float = 120.0
    high_share: float = HIGH_SHARE
    kept_eta: float = KEPT_ETA
    overload_penalty: float = 1e6
    accuracy_penalty: float = 2e5


class PlanStatus(StrEnum):
    """How a plan came about."""

    OPTIMAL = "Optimal"
    TIME_LIMIT = "TimeLimit"
    GREEDY = "Greedy"
    KEPT = "Kept"


@dataclass(frozen=True, slots=True)
class Plan:
    """Replicas and flows, and what may be said of them.

    active: replicas that carry the expected rate (fractional). flows: by service and variant requests/s of the
    expected rate. watts: modelled power without starts; objective: what was minimised; gap: relative distance to the
    proven bound of the integers that were searched (`None` for a greedy or kept plan). short_rps: by service requests/s
    that could not be carried (of the expected or the high rate, whichever is more); accuracy_missing: by service how
    far the mean accuracy stays below alpha. Both leave out services without shortage. price_joules_per_satisfied: dual
    of the accuracy row with the replicas held. accelerator_value_watts: by pool, what one more accelerator would save.
    binding: the constraint that holds the objective up, and minima that a cap cut. runner_up: the cheapest plan
    without the variant that carries most, and its objective (only when asked for).
    """

    replicas: Mapping[str, int]
    active: Mapping[str, float]
    flows: Mapping[str, Mapping[str, float]]
    watts: float
    objective: float
    status: PlanStatus
    gap: float | None = None
    short_rps: Mapping[str, float] = field(default_factory=dict)
    accuracy_missing: Mapping[str, float] = field(default_factory=dict)
    price_joules_per_satisfied: Mapping[str, float] = field(default_factory=dict)
    accelerator_value_watts: Mapping[str, float] = field(default_factory=dict)
    binding: str = ""
    runner_up: str = ""
    runner_up_objective: float | None = None
