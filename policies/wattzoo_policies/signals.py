"""Plain frozen values that cross the border between the pure core and whoever observes and acts.

The operator fills them from Kubernetes and Prometheus, the closed-loop simulator from its plant; a policy cannot tell
which. Unknown is `None`, never zero. Units are in the names; shares and probabilities lie in [0, 1].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Why a weights decision came out as it did; shown to users as it is, so the names are a promise."""

    CHEAPEST_SUFFICES = "CheapestSuffices"
    REPAYING_DEBT = "RepayingDebt"
    HOLDING_TARGET = "HoldingTarget"
    TARGET_UNREACHABLE = "TargetUnreachable"
    ONLY_READY_MEMBER = "OnlyReadyMember"
    NO_READY_MEMBER = "NoReadyMember"
    NOTHING_KNOWN_YET = "NothingKnownYet"
    JOULES_UNKNOWN = "JoulesUnknown"
    FIXED_MIXTURE = "FixedMixture"


class Constraint(StrEnum):
    """What kept a decision from being cheaper, or from being what the law wished."""

    NONE = "None"
    ACCURACY = "Accuracy"
    READINESS = "Readiness"
    CAPACITY = "Capacity"
    KNOWLEDGE = "Knowledge"


@dataclass(frozen=True, slots=True)
class Member:
    """One model of the pool as a service declares it.

    `accuracy_prior` is a share that `prior_samples` imaginary outcomes back; without it nothing is assumed.
    """

    name: str
    accuracy_prior: float | None = None
    prior_samples: float = 0.0


@dataclass(frozen=True, slots=True)
class OutcomeCounter:
    """Last sample of one cumulative feedback series.

    `series` identifies the time series among those of the same member and outcome (its remaining labels, such as the
    pod that exposes it), so that resets are told apart from sums.
    """

    member: str
    series: str
    satisfied: bool
    count: float


@dataclass(frozen=True, slots=True)
class ServedCounter:
    """Last sample of one cumulative counter of requests that a member answered; `series` as in `OutcomeCounter`."""

    member: str
    series: str
    count: float


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one service at one moment.

    `outcomes` are cumulative counters as scraped; `None` says the source was unreachable or stale, an empty tuple says
    it answered and there is no series yet. `alpha` is the target in force for the outcomes that are new here. `served`
    are cumulative requests by member, judged or not; `None` where nobody counts them. `rebase` says that the outcomes
    come from another source than those before: they are a new base, and nothing of them is new.
    """

    at_seconds: float
    alpha: float
    outcomes: tuple[OutcomeCounter, ...] | None
    served: tuple[ServedCounter, ...] | None = None
    rebase: bool = False


@dataclass(frozen=True, slots=True)
class MemberCondition:
    """What a decision needs to know of one member: can it serve now, and what does a request on it cost.

    `joules_per_request` is an average or a marginal estimate; `None`, NaN or a value <= 0 counts as unknown.
    `max_share` is the share of the service's coming requests that the member's ready replicas can carry within the
    latency target (may exceed 1); `None` sets no bound.
    """

    name: str
    ready: bool
    joules_per_request: float | None
    max_share: float | None = None


@dataclass(frozen=True, slots=True)
class DecisionRequest:
    """Everything besides the state that the weights of the coming interval depend on.

    `expected_requests` is the number of requests expected before the next decision; `None` when unknown.
    `current_weights` are the shares now in force, by member; `None` when unknown.
    """

    members: tuple[MemberCondition, ...]
    alpha: float
    expected_requests: float | None
    at_seconds: float
    safest_member: str | None = None
    current_weights: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """The best member that did not get the largest share, and how far its objective was behind (joules)."""

    member: str
    excess_joules: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """Weights for the coming interval and the reason for them. A decision to do nothing is a value too.

    weights: over ready members only, sums to 1; empty when no member is ready (then whoever acts holds).
    wish: what the law would do if every member were ready; replicas are planned from it, else a member that is scaled
        to zero could never come back. Sums to 1; empty when nothing can be said.
    price_joules_per_satisfied: what the law would now pay for one more satisfied request.
    reachable: least and most satisfaction that weights over the ready members can reach, as estimated.
    surplus_requests: satisfied requests above what the law aims to hold, which it gives back; None from a law that
        gives nothing back, or does not know.
    floor: what of the weights keeps estimates alive, whoever fills replicas with what is left; empty from a law that
        gives nothing back.
    """

    weights: Mapping[str, float]
    wish: Mapping[str, float]
    reason: Reason
    message: str
    binding_constraint: Constraint = Constraint.NONE
    runner_up: RunnerUp | None = None
    price_joules_per_satisfied: float | None = None
    expected_satisfaction: float | None = None
    expected_joules_per_request: float | None = None
    reachable: tuple[float, float] | None = None
    surplus_requests: float | None = None
    floor: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemberOutcomes:
    """Counted outcomes of one member and the estimate that follows from them (`None` when nothing is known)."""

    name: str
    satisfied: float
    total: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """The service-level ledger in one row, for status and metrics.

    debt_requests: sum of alpha over counted outcomes minus satisfied ones; negative is credit.
    worst_deficit: largest alpha - achieved share after the first `grace_requests` outcomes, never below 0; `None`
        before that many.
    since_seconds: when counting began; `None` before the first observation that answered.
    """

    satisfied: float
    total: float
    debt_requests: float
    achieved: float | None
    worst_deficit: float | None
    grace_requests: int
    since_seconds: float | None
    members: tuple[MemberOutcomes, ...] = ()
    counter_resets: int = 0


@dataclass(frozen=True, slots=True)
class VariantDemand:
    """What the replica rule needs to know of one variant.

    demand_rps: requests per second it shall be able to carry (short-horizon peak over all services that share it,
        before the reserve); `None` when unknown: the rule then holds.
    capacity_rps: what one replica carries at the latency SLO; `None` when the SLO cannot be met or nothing is known.
    current_replicas: what is asked for now; ready_replicas: what can serve now, silenced ones included.
    accelerator_pool: cap group; `None` for a variant whose accelerators are not ours to count.
    terminating_replicas: gone from `current_replicas`, accelerators still held.
    start_joules, saved_watts: of one replica, what a start costs and what its absence saves; `None` when unknown.
    expected_gap_seconds: how long nothing will be wanted of it; `None`: as long again as nothing has been wanted.
    reachable_rps: all requests that could ever be sent to it; replicas beyond that repay no debt. `None`: no bound.
    observed_at_seconds: when the demand was observed; `None`: whoever fills this vouches that it is fresh.
    """

    variant: str
    demand_rps: float | None
    capacity_rps: float | None
    current_replicas: int
    ready_replicas: int
    min_replicas: int
    max_replicas: int
    accelerators_per_replica: int = 1
    accelerator_pool: str | None = None
    member: str = ""
    terminating_replicas: int = 0
    start_joules: float | None = None
    saved_watts: float | None = None
    expected_gap_seconds: float | None = None
    reachable_rps: float | None = None
    observed_at_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ServiceDemand:
    """The high-demand rate of one service and the members it may use; `None`: the rate is unknown."""

    name: str
    members: tuple[str, ...]
    high_rate_rps: float | None


@dataclass(frozen=True, slots=True)
class ReplicaRequest:
    """One planning moment: all variants of a pool or of pools that are planned together.

    max_accelerators: what each cap group may hold for them. free_accelerators: what nobody holds now, by cap group; a
    group that is missing has no such bound (a pool that is short of accelerators has 0). services: who is served;
    empty: anybody, by every variant.
    """

    at_seconds: float
    variants: tuple[VariantDemand, ...]
    max_accelerators: Mapping[str, int] = field(default_factory=dict)
    free_accelerators: Mapping[str, int] = field(default_factory=dict)
    services: tuple[ServiceDemand, ...] = ()


@dataclass(frozen=True, slots=True)
class VariantReplicas:
    """Decided replicas of one variant: what was wished for and what cut it."""

    variant: str
    replicas: int
    wished: int | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """Decided replicas of a pool."""

    variants: tuple[VariantReplicas, ...]

    def replicas(self) -> dict[str, int]:
        """Return replicas by variant name."""
        return {entry.variant: entry.replicas for entry in self.variants}


@dataclass(frozen=True, slots=True)
class ReplicaHistory:
    """All that a replica law remembers.

    wishes: recent wishes by variant as (at_seconds, replicas), oldest first. zero_since: since when nothing has been
    wished of a variant that still has replicas.
    """

    wishes: Mapping[str, tuple[tuple[float, int], ...]] = field(default_factory=dict)
    zero_since: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return compact JSON."""
        body: dict[str, object] = {"version": 1, "wishes": {k: [list(w) for w in v] for k, v in self.wishes.items()}}
        if self.zero_since:
            body["zeroSince"] = dict(self.zero_since)
        return json.dumps(body)

    @classmethod
    def from_json(cls, text: str) -> ReplicaHistory:
        """Return the history that `to_json` wrote; raises `ValueError` when the text is damaged."""
        try:
            body = json.loads(text)
            if body["version"] != 1:
                raise ValueError(f"it has version {body['version']}, this code reads 1")
            wishes = {str(k): tuple((float(t), int(n)) for t, n in v) for k, v in body["wishes"].items()}
            return cls(wishes, {str(k): float(t) for k, t in body.get("zeroSince", {}).items()})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"replica history cannot be read: {error}") from error
