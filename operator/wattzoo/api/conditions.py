"""Conditions: a closed set of types, and for each a closed set of reasons, shared by all four kinds.

`MEANINGS` is what a reader of `kubectl describe` may rely on; the reference is generated from it and the reporter may
use nothing outside it (`allows`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from wattzoo.api.base import Count, LongText, StatusModel, Timestamp


class ConditionType(StrEnum):
    """The closed set of condition types."""

    READY = "Ready"
    SLA_FEASIBLE = "SLAFeasible"
    SLA_MET = "SLAMet"
    METRICS_AVAILABLE = "MetricsAvailable"
    ENERGY_DATA_FRESH = "EnergyDataFresh"
    PLACED = "Placed"
    TRAFFIC_PROGRAMMED = "TrafficProgrammed"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    PAUSED = "Paused"


class Reason(StrEnum):
    """The closed set of reasons."""

    AVAILABLE = "Available"
    STARTING = "Starting"
    INVALID_SPEC = "InvalidSpec"
    UNKNOWN_POLICY = "UnknownPolicy"
    INTERNAL_ERROR = "InternalError"
    ACCELERATOR_POOL_NOT_FOUND = "AcceleratorPoolNotFound"
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
    MODEL_POOL_NOT_FOUND = "ModelPoolNotFound"
    MEMBER_NOT_FOUND = "MemberNotFound"
    PROFILE_NOT_FOUND = "ProfileNotFound"
    WORKLOAD_NOT_FOUND = "WorkloadNotFound"
    SERVICE_NOT_FOUND = "ServiceNotFound"
    ACCELERATOR_UNKNOWN = "AcceleratorUnknown"
    POINTS_CONTRADICT = "PointsContradict"
    FIT_POOR = "FitPoor"
    NO_MATCHING_NODES = "NoMatchingNodes"
    NO_READY_MEMBER = "NoReadyMember"
    ATTAINABLE = "Attainable"
    TARGET_ABOVE_BEST_MEMBER = "TargetAboveBestMember"
    LATENCY_UNATTAINABLE = "LatencyUnattainable"
    ON_TARGET = "OnTarget"
    BELOW_TARGET = "BelowTarget"
    LATENCY_ABOVE_TARGET = "LatencyAboveTarget"
    TOO_FEW_FEEDBACKS = "TooFewFeedbacks"
    SCRAPED = "Scraped"
    PROMETHEUS_UNREACHABLE = "PrometheusUnreachable"
    QUERY_REJECTED = "QueryRejected"
    OBSERVATION_FAILED = "ObservationFailed"
    CLUSTER_UNREADABLE = "ClusterUnreadable"
    NO_SAMPLES = "NoSamples"
    STALE_SAMPLES = "StaleSamples"
    NON_FINITE_SAMPLE = "NonFiniteSample"
    FRESH = "Fresh"
    PARTIAL_COVERAGE = "PartialCoverage"
    ALL_PLACED = "AllPlaced"
    UNSCHEDULABLE = "Unschedulable"
    ACCELERATORS_SHORT = "AcceleratorsShort"
    MAX_ACCELERATORS_REACHED = "MaxAcceleratorsReached"
    POWER_BUDGET_REACHED = "PowerBudgetReached"
    NOT_PLANNED = "NotPlanned"
    OBJECTIVE_FIGURE_MISSING = "ObjectiveFigureMissing"
    SHARES_AGREE = "SharesAgree"
    SHARES_DISAGREE = "SharesDisagree"
    ROUTE_PENDING = "RoutePending"
    ROUTE_NOT_ACCEPTED = "RouteNotAccepted"
    REFS_NOT_RESOLVED = "RefsNotResolved"
    NO_GATEWAY_COUNTERS = "NoGatewayCounters"
    TOO_FEW_REQUESTS = "TooFewRequests"
    STEADY = "Steady"
    SCALING_UP = "ScalingUp"
    SCALING_DOWN = "ScalingDown"
    AS_EXPECTED = "AsExpected"
    HOLDING = "Holding"
    STATE_LOST = "StateLost"
    OWNERSHIP_CONFLICT = "OwnershipConflict"
    CONFLICT = "Conflict"
    WRITE_DENIED = "WriteDenied"
    WRITE_REJECTED = "WriteRejected"
    API_SERVER_UNREACHABLE = "APIServerUnreachable"
    APPLY_FAILED = "ApplyFailed"
    ACTIVE = "Active"
    PAUSED_BY_ANNOTATION = "PausedByAnnotation"
    OBSERVE_MODE = "ObserveMode"


_BROKEN = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.UNKNOWN_POLICY,
        Reason.INTERNAL_ERROR,
        Reason.ACCELERATOR_POOL_NOT_FOUND,
        Reason.NAMESPACE_NOT_ALLOWED,
        Reason.MODEL_POOL_NOT_FOUND,
        Reason.MEMBER_NOT_FOUND,
        Reason.PROFILE_NOT_FOUND,
        Reason.WORKLOAD_NOT_FOUND,
        Reason.SERVICE_NOT_FOUND,
        Reason.ACCELERATOR_UNKNOWN,
    }
)
_UNREADABLE = frozenset(
    {
        Reason.PROMETHEUS_UNREACHABLE,
        Reason.QUERY_REJECTED,
        Reason.OBSERVATION_FAILED,
        Reason.CLUSTER_UNREADABLE,
        Reason.NO_SAMPLES,
        Reason.STALE_SAMPLES,
        Reason.NON_FINITE_SAMPLE,
    }
)
_ROUTE = frozenset(
    {
        Reason.NO_READY_MEMBER,
        Reason.ROUTE_PENDING,
        Reason.ROUTE_NOT_ACCEPTED,
        Reason.REFS_NOT_RESOLVED,
    }
)
_UNWRITTEN = frozenset(
    {
        Reason.OWNERSHIP_CONFLICT,
        Reason.CONFLICT,
        Reason.WRITE_DENIED,
        Reason.WRITE_REJECTED,
        Reason.API_SERVER_UNREACHABLE,
        Reason.APPLY_FAILED,
    }
)
_UNPLACED = frozenset(
    {
        Reason.UNSCHEDULABLE,
        Reason.ACCELERATORS_SHORT,
        Reason.MAX_ACCELERATORS_REACHED,
        Reason.POWER_BUDGET_REACHED,
        Reason.NO_MATCHING_NODES,
    }
)

MEANINGS: dict[ConditionType, tuple[str, frozenset[Reason]]] = {
    ConditionType.READY: (
        "The object is usable: what it refers to exists and at least one member can answer; of a profile, that its "
        "figures can be those of one replica.",
        frozenset({Reason.AVAILABLE, Reason.STARTING, Reason.NO_MATCHING_NODES, Reason.POINTS_CONTRADICT})
        | _BROKEN
        | _UNREADABLE
        | _ROUTE,
    ),
    ConditionType.SLA_FEASIBLE: (
        "Some mixture of the members can reach the accuracy target within the latency bounds.",
        frozenset({Reason.ATTAINABLE, Reason.TARGET_ABOVE_BEST_MEMBER, Reason.LATENCY_UNATTAINABLE})
        | {Reason.TOO_FEW_FEEDBACKS}
        | _BROKEN
        | _UNREADABLE,
    ),
    ConditionType.SLA_MET: (
        "The share of satisfied requests since `status.sla.since` and the latest latencies are within the promise.",
        frozenset({Reason.ON_TARGET, Reason.BELOW_TARGET, Reason.LATENCY_ABOVE_TARGET, Reason.TOO_FEW_FEEDBACKS})
        | _BROKEN
        | _UNREADABLE,
    ),
    ConditionType.METRICS_AVAILABLE: (
        "Prometheus answers, with finite and recent samples for everything that a decision needs.",
        frozenset({Reason.SCRAPED}) | _BROKEN | _UNREADABLE,
    ),
    ConditionType.ENERGY_DATA_FRESH: (
        "Power and energy are measured, recent, and cover the accelerators in use.",
        frozenset({Reason.FRESH, Reason.PARTIAL_COVERAGE}) | _BROKEN | _UNREADABLE,
    ),
    ConditionType.PLACED: (
        "Every replica that is wanted has its accelerators.",
        frozenset({Reason.ALL_PLACED, Reason.STARTING}) | _UNPLACED | _BROKEN | _UNREADABLE,
    ),
    ConditionType.TRAFFIC_PROGRAMMED: (
        "The gateway accepted the route and the shares seen at the data plane agree with the weights.",
        frozenset({Reason.SHARES_AGREE, Reason.SHARES_DISAGREE, Reason.NO_GATEWAY_COUNTERS, Reason.TOO_FEW_REQUESTS})
        | {Reason.OBSERVE_MODE}
        | _ROUTE
        | _BROKEN
        | _UNREADABLE
        | _UNWRITTEN,
    ),
    ConditionType.PROGRESSING: (
        "Something is being changed: replicas start or drain.",
        frozenset(
            {
                Reason.STEADY,
                Reason.STARTING,
                Reason.SCALING_UP,
                Reason.SCALING_DOWN,
                Reason.HOLDING,
            }
        )
        | _BROKEN,
    ),
    ConditionType.DEGRADED: (
        "It works, but not as well as asked: decisions on hold, a stored state that could not be used, replicas "
        "without accelerators, variants left out of the joint plan, a plan for another objective than asked for, "
        "writes that do not succeed, a profile that no law fits.",
        frozenset({Reason.AS_EXPECTED, Reason.HOLDING, Reason.STATE_LOST, Reason.LATENCY_UNATTAINABLE})
        | {Reason.POINTS_CONTRADICT, Reason.FIT_POOR, Reason.NOT_PLANNED, Reason.OBJECTIVE_FIGURE_MISSING}
        | _UNPLACED
        | _UNWRITTEN
        | _BROKEN
        | _UNREADABLE,
    ),
    ConditionType.PAUSED: (
        "Nothing but status is written for this object.",
        frozenset({Reason.ACTIVE, Reason.PAUSED_BY_ANNOTATION, Reason.OBSERVE_MODE}),
    ),
}


def allows(condition: ConditionType, reason: Reason) -> bool:
    """Whether this reason may appear on this condition."""
    return reason in MEANINGS[condition][1]


class Condition(StatusModel):
    """One aspect of the object's state."""

    type: Annotated[ConditionType, Field(description="Which aspect; one of a closed set.")]
    status: Annotated[
        Literal["True", "False", "Unknown"],
        Field(description="True, False, or Unknown when the data to judge it is missing."),
    ]
    observed_generation: Annotated[
        Count | None, Field(description="The metadata.generation that this condition was judged for.")
    ] = None
    last_transition_time: Annotated[Timestamp, Field(description="When `status` last changed.")]
    reason: Annotated[
        str,
        StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z]([A-Za-z0-9]*[A-Za-z0-9])?$"),
        Field(description="Why, as one CamelCase word of a closed set (see the reference)."),
    ]
    message: Annotated[LongText, Field(description="Why, as a sentence for people, with the figures it rests on.")] = ""
