"""LLMService: a promise, its route and its ledger."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from wattzoo.api.base import (
    LIST_ATOMIC,
    LIST_MAP_BY_NAME,
    LIST_SET,
    UNIQUE_ITEMS,
    UNIQUE_NAMES,
    ApiModel,
    DnsLabel,
    DnsName,
    Integer,
    Mode,
    ObjectMeta,
    PerMille,
    Rule,
)
from wattzoo.api.controller import FIXED_MIXTURE, Controller
from wattzoo.api.llm_service_status import LLMServiceStatus

LABEL_NAME_PATTERN = r"^[a-zA-Z_][a-zA-Z0-9_]*$"
LabelName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=LABEL_NAME_PATTERN)]
MatchValue = Annotated[str, StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9._:/@ -]*$")]


class ModelPoolRef(ApiModel):
    """A ModelPool of the same namespace."""

    name: Annotated[DnsLabel, Field(description="Name of the ModelPool, in the same namespace.")]


class ServiceMember(ApiModel):
    """A member that this service uses, and what is known of its accuracy on this service's task."""

    name: Annotated[DnsLabel, Field(description="Name of a member of the ModelPool.")]
    accuracy_prior_per_mille: Annotated[
        PerMille | None,
        Field(description="Share of satisfied requests expected of it, in thousandths, before there is feedback."),
    ] = None
    prior_samples: Annotated[
        Annotated[Integer, Field(ge=1, le=100_000)] | None,
        Field(description="How many feedbacks that expectation is worth."),
    ] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.accuracyPriorPerMille) == has(self.priorSamples)",
            message="accuracyPriorPerMille and priorSamples must be set together",
            holds=lambda self: (self.accuracy_prior_per_mille is None) == (self.prior_samples is None),
            field=".accuracyPriorPerMille",
        ),
    )


class AccuracyTarget(ApiModel):
    """The share of requests that must be satisfied."""

    target_per_mille: Annotated[
        Integer,
        Field(
            ge=1,
            le=999,
            description="The running share of satisfied requests must not fall below this, in thousandths (800: 80 %).",
        ),
    ]


class LatencyBound(ApiModel):
    """An upper bound on a latency."""

    p95_milliseconds: Annotated[
        Integer, Field(ge=1, le=600_000, description="95 of 100 requests must be at least this fast, in milliseconds.")
    ]


class LatencyTarget(ApiModel):
    """Latencies that must hold; on a variant that services share, the strictest counts."""

    time_to_first_token: Annotated[
        LatencyBound | None, Field(description="From the request's arrival to the first token of the answer.")
    ] = None
    time_per_output_token: Annotated[LatencyBound | None, Field(description="Per further token of the answer.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.timeToFirstToken) || has(self.timePerOutputToken)",
            message="at least one of timeToFirstToken and timePerOutputToken must be set",
            holds=lambda self: self.time_to_first_token is not None or self.time_per_output_token is not None,
        ),
    )


class ServiceLevel(ApiModel):
    """What is promised."""

    accuracy: Annotated[AccuracyTarget, Field(description="How good the answers must be.")]
    latency: Annotated[
        LatencyTarget | None, Field(description="How fast they must be; unset: no bound beyond a server's capacity.")
    ] = None


class ParentRef(ApiModel):
    """A Gateway that the route attaches to."""

    name: Annotated[DnsName, Field(description="Name of the Gateway.")]
    namespace: Annotated[
        DnsLabel | None, Field(description="Its namespace, which must allow routes from here; unset: this one.")
    ] = None
    section_name: Annotated[
        DnsName | None, Field(description="One listener of the Gateway; unset: all that accept the route.")
    ] = None


def overlap(a: ParentRef, b: ParentRef) -> bool:
    """Whether two references mean the same listener, or may: the Gateway API refuses such a route."""
    same_gateway = (a.name, a.namespace) == (b.name, b.namespace)
    return same_gateway and (a.section_name is None or b.section_name is None or a.section_name == b.section_name)


class Traffic(ApiModel):
    """Where requests come in."""

    parent_refs: Annotated[
        tuple[ParentRef, ...],
        Field(
            min_length=1,
            max_length=4,
            description="Gateways that the route attaches to.",
            json_schema_extra=LIST_ATOMIC,
        ),
    ]
    hostnames: Annotated[
        tuple[
            Annotated[
                str,
                StringConstraints(
                    min_length=1,
                    max_length=253,
                    pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
                ),
            ],
            ...,
        ],
        Field(
            max_length=16,
            description="Host names of the requests; unset: every host of the listener.",
            json_schema_extra=LIST_SET,
        ),
        UNIQUE_ITEMS,
    ] = ()

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.parentRefs.all(a, self.parentRefs.exists_one(b, a.name == b.name && "
            "(has(a.__namespace__) ? a.__namespace__ : '') == (has(b.__namespace__) ? b.__namespace__ : '') && "
            "(!has(a.sectionName) || !has(b.sectionName) || a.sectionName == b.sectionName)))",
            message="parentRefs to the same Gateway must each have a sectionName of their own",
            holds=lambda self: not any(overlap(a, b) for a, b in combinations(self.parent_refs, 2)),
            field=".parentRefs",
        ),
    )


class PrometheusFeedback(ApiModel):
    """A counter of judged requests: names and labels, never PromQL. The object's namespace is always matched."""

    metric: Annotated[
        str,
        StringConstraints(min_length=1, max_length=128, pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$"),
        Field(description="Name of the counter."),
    ] = "wattzoo_feedback_total"
    member_label: Annotated[LabelName, Field(description="The label that holds the member's name.")] = "member"
    outcome_label: Annotated[LabelName, Field(description="The label that holds the outcome.")] = "outcome"
    satisfied_value: Annotated[
        MatchValue, Field(min_length=1, description="The outcome that counts as satisfied; every other is not.")
    ] = "satisfied"
    match_labels: Annotated[
        dict[str, MatchValue],
        Field(
            max_length=8,
            description="Labels that the series must carry, so that services do not count each other's feedback.",
        ),
    ] = Field(default_factory=dict)

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.memberLabel != self.outcomeLabel",
            message="memberLabel and outcomeLabel must differ",
            holds=lambda self: self.member_label != self.outcome_label,
            field=".memberLabel",
        ),
        Rule(
            cel=f"!has(self.matchLabels) || self.matchLabels.all(k, k.matches('{LABEL_NAME_PATTERN}'))",
            message="matchLabels must have label names: letters, digits and underscores, no digit first",
            holds=lambda self: all(re.fullmatch(LABEL_NAME_PATTERN, name) for name in self.match_labels),
            field=".matchLabels",
        ),
        Rule(
            cel="!has(self.matchLabels) || !('namespace' in self.matchLabels)",
            message="matchLabels must not contain namespace: it is always the object's own",
            holds=lambda self: "namespace" not in self.match_labels,
            field=".matchLabels",
        ),
        Rule(
            cel="!has(self.matchLabels) || "
            "(!(self.memberLabel in self.matchLabels) && !(self.outcomeLabel in self.matchLabels))",
            message="matchLabels must not contain memberLabel or outcomeLabel",
            holds=lambda s: s.member_label not in s.match_labels and s.outcome_label not in s.match_labels,
            field=".matchLabels",
        ),
    )


class Feedback(ApiModel):
    """Where satisfaction comes from."""

    prometheus: Annotated[PrometheusFeedback, Field(description="A counter in Prometheus.")]


class LLMServiceSpec(ApiModel):
    """The contract: how good and how fast answers must be, from which models, through which gateway."""

    model_pool_ref: Annotated[ModelPoolRef, Field(description="The zoo that answers.")]
    members: Annotated[
        tuple[ServiceMember, ...] | None,
        Field(
            min_length=1,
            max_length=16,
            description="The members to use, with what is known of them; unset: all members of the pool.",
            json_schema_extra=LIST_MAP_BY_NAME,
        ),
        UNIQUE_NAMES,
    ] = None
    safest_member: Annotated[
        DnsLabel, Field(description="The member that traffic starts at, and goes to when nothing is known.")
    ]
    sla: Annotated[
        ServiceLevel,
        Field(
            description="What is promised: the share of requests that must be satisfied, and how fast answers must be. "
            "Within it, the fewest joules win."
        ),
    ]
    controller: Annotated[Controller, Field(description="The policy that chooses the weights.")] = Controller()
    traffic: Annotated[Traffic, Field(description="Where requests come in.")]
    feedback: Annotated[
        Feedback,
        Field(description="Where satisfaction comes from: the application judges its answers and counts the outcomes."),
    ]
    mode: Annotated[
        Mode,
        Field(description="Act: the route is written. Observe: decisions are made and reported, nothing else."),
    ] = "Act"

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.members) || self.members.exists(m, m.name == self.safestMember)",
            message="safestMember must be one of members",
            holds=lambda s: s.members is None or any(member.name == s.safest_member for member in s.members),
            field=".safestMember",
        ),
        Rule(
            cel=f"!has(self.controller) || self.controller.policy != '{FIXED_MIXTURE}' || "
            "(has(self.members) && self.members.all(m, has(m.accuracyPriorPerMille)))",
            message=f"policy {FIXED_MIXTURE} needs members, each with accuracyPriorPerMille: it knows nothing else",
            holds=lambda s: (
                s.controller.policy != FIXED_MIXTURE
                or (s.members is not None and all(m.accuracy_prior_per_mille is not None for m in s.members))
            ),
            field=".members",
        ),
    )


class LLMService(ApiModel):
    """A promise on answers from a ModelPool, kept with the fewest joules: its service level, its route, its ledger."""

    api_version: Literal["wattzoo.dev/v1alpha1"] = "wattzoo.dev/v1alpha1"
    kind: Literal["LLMService"] = "LLMService"
    metadata: ObjectMeta
    spec: LLMServiceSpec
    status: LLMServiceStatus = LLMServiceStatus()
