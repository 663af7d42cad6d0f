"""What the pure stages hand each other: findings, estimates and decisions, as plain frozen values.

They stand below the stages because estimate, plan and report may not import one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wattzoo.api.conditions import Reason
from wattzoo.model import Ref, VariantKey
from wattzoo_policies.accuracy.regret import Regret
from wattzoo_policies.capacity.model import ReplicaModel, RequestShape, power_watts
from wattzoo_policies.placement.objective import Objective
from wattzoo_policies.protocols import Promise
from wattzoo_policies.signals import Decision, LedgerSummary


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that keeps an object from being what its spec asks for: a reason of the closed set and a sentence."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class VariantSignals:
    """What telemetry says of one variant; None is unknown.

    running, waiting: requests over all ready pods. served_rps: requests finished per second. arrived_rps: requests that
    came per second over the same window: those finished, and by how many more are inside than were. input_tokens and
    output_tokens: means per finished request. watts: power of all its pods, starting and terminating ones included,
    from their energy counters where those are known. serving_watts: the same of pods that are ready and warm, whose
    number is `warm`, `silent` of them silent. observed_at_seconds: oldest of the newest samples behind them. covered:
    warm pods whose power is known. late_share: of the requests that finished, those that broke a bound.
    """

    running: float | None = None
    waiting: float | None = None
    served_rps: float | None = None
    arrived_rps: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    watts: float | None = None
    serving_watts: float | None = None
    warm: int = 0
    silent: int = 0
    observed_at_seconds: float | None = None
    energy_at_seconds: float | None = None
    covered: int = 0
    late_share: float | None = None
    problems: tuple[Finding, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether it is known that nothing runs or waits; unknown is not idle."""
        return self.running == 0.0 and self.waiting == 0.0


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """Requests per second that the gateway sent for one service, in all and by variant; None is unknown."""

    total_rps: float | None = None
    recent_rps: float | None = None
    by_variant_rps: Mapping[VariantKey, float] = field(default_factory=dict)
    counted: Mapping[VariantKey, float] = field(default_factory=dict)
    """Requests by variant within the window, to compare shares with weights."""
    observed_at_seconds: float | None = None
    problem: str = ""

    @property
    def latest_rps(self) -> float | None:
        """The rate of the last seconds where it is known, else that of the whole window."""
        return self.total_rps if self.recent_rps is None else self.recent_rps


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica of a variant carries at the strictest latency target, and its energy there.

    rps is None when the target cannot be kept or the profile is missing (`problem` says which; with a rate it says why
    there is no model). model and shape: the law fitted to the profile and the requests that it was asked about.
    """

    rps: float | None = None
    joules_per_request: float | None = None
    idle_watts: float | None = None
    max_watts: float | None = None
    problem: Finding | None = None
    model: ReplicaModel | None = None
    shape: RequestShape | None = None

    def modelled_watts(self, rate_rps: float, active: int, silent: int = 0) -> float | None:
        """Power of ready replicas of which the active ones share a rate; None without a model."""
        if self.model is None or self.shape is None:
            return None
        idle = silent * power_watts(self.model, self.shape, 0.0) if silent else 0.0
        return idle + (active * power_watts(self.model, self.shape, rate_rps / active) if active else 0.0)


@dataclass(frozen=True, slots=True)
class MemberEnergy:
    """Joules of one request at a member.

    average: measured joules over requests, idle and start-up included. marginal: of one request on a replica that is
    filled to its knee, from the profile and corrected by what was measured; policies compare members by it, since an
    average makes a member with little traffic look dear because it has little traffic. measured: False when both come
    from the profile alone.
    """

    average_joules: float | None = None
    marginal_joules: float | None = None
    watts: float | None = None
    measured: bool = False
    shared: bool = False
    observed_at_seconds: float | None = None
    coverage_percent: int | None = None


@dataclass(frozen=True, slots=True)
class Latencies:
    """95th percentiles from the engines' histograms over a window, in seconds; None is unknown."""

    time_to_first_token_seconds: float | None = None
    time_per_output_token_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class DecisionInput:
    """One thing a decision rested on, as a reader sees it."""

    name: str
    value: str
    at_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ServiceDecision:
    """Weights of one service's route, by variant in stable order, and why.

    weights sum to 1,000,000, or are empty when there is nothing to write. `held` says that the live weights stay
    because something is not known. wish: shares by member to plan replicas for, as if every member were ready, averaged
    over some intervals, and at least what a route had that does not follow; empty when unknown. asked: the law's shares
    by variant, before replicas are filled.
    """

    at_seconds: float
    weights: Mapping[VariantKey, int]
    reason: str
    message: str
    held: bool = False
    policy: Decision | None = None
    inputs: tuple[DecisionInput, ...] = ()
    wish: Mapping[str, float] = field(default_factory=dict)
    asked: Mapping[VariantKey, float] = field(default_factory=dict)

    @property
    def surplus_requests(self) -> float | None:
        """Credit that the law holds beyond what it needs, in requests; None is a law that gives nothing back."""
        return None if self.policy is None else self.policy.surplus_requests


@dataclass(frozen=True, slots=True)
class VariantPlan:
    """Replicas of one variant: what is asked for now, what was wished for, and what cut the wish."""

    key: VariantKey
    replicas: int | None
    wished: int | None
    reason: str
    message: str
    retiring: bool = False
    limited_by: Finding | None = None
    utilisation: float | None = None


@dataclass(frozen=True, slots=True)
class VariantPacking:
    """Which pods of a variant take traffic: how many shall, and the pods to flip, by name, to come there.

    serving: None where every pod serves and none is flipped by us.
    """

    key: VariantKey
    serving: int | None
    wake: tuple[str, ...] = ()
    silence: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What the joint plan wishes for one ModelPool, and what may be said of it.

    expected_rps, high_rps: by variant what it carries and what it shall be able to carry. rates: by service the high
    rate that was planned for. reserves: by service what stands by besides, where a reserve is declared. price: by
    service the joules that one more satisfied request costs under the plan, known with objective Energy alone.
    """

    at_seconds: float
    replicas: Mapping[VariantKey, int]
    expected_rps: Mapping[VariantKey, float]
    high_rps: Mapping[VariantKey, float]
    rates: Mapping[Ref, float]
    status: str
    watts: float
    binding: str = ""
    runner_up: str = ""
    objective: Objective = Objective.ENERGY
    price: Mapping[Ref, float] = field(default_factory=dict)
    reserves: Mapping[Ref, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PoolDecision:
    """Replicas of all variants of a pool, in the order of its spec."""

    at_seconds: float
    variants: tuple[VariantPlan, ...]
    reason: str
    message: str
    held: bool = False
    watts: float | None = None
    binding_constraint: str | None = None
    plan: PoolPlan | None = None
    findings: tuple[Finding, ...] = ()

    def replicas(self) -> dict[VariantKey, int]:
        """Replicas by variant, of those that can be scaled."""
        return {plan.key: plan.replicas for plan in self.variants if plan.replicas is not None}


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """What a service's status reports besides its decision.

    watts: its part of the servers' power. requests: counted at the gateway since counting began. promise: what its law
    can promise at the present target; None from a law without a bound.
    """

    ledger: LedgerSummary | None = None
    load: ServiceLoad = field(default_factory=ServiceLoad)
    energy: Mapping[str, MemberEnergy] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)
    watts: float | None = None
    requests: float = 0.0
    promise: Promise | None = None
    regret: Regret | None = None

    @property
    def joules_per_satisfied(self) -> float | None:
        """Joules per satisfied request, at the share satisfied so far; None while one is unknown."""
        achieved = None if self.ledger is None else self.ledger.achieved
        return None if self.joules_per_request is None or not achieved else self.joules_per_request / achieved

    @property
    def joules_per_request(self) -> float | None:
        """Power of the service over its requests, idle and start-up included; None while one is unknown."""
        rate = self.load.total_rps
        return None if self.watts is None or not rate else self.watts / rate
