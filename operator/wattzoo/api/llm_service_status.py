"""Status of an LLMService: whether the promise is kept, at how many joules, and why the weights are what they are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from wattzoo.api.base import (
    LIST_MAP_BY_NAME,
    LIST_MAP_BY_TYPE,
    Count,
    Decimal,
    LongText,
    ShortText,
    StatusModel,
    Timestamp,
)
from wattzoo.api.conditions import Condition

MAX_INPUTS = 16
MAX_STATE_LENGTH = 8192
"""Most are below 4 kB; 16 members with long names and 192 feedback series with broken values come to 7."""


class LedgerStatus(StatusModel):
    """The promise and what has been delivered of it."""

    target: Annotated[
        ShortText | None, Field(description="Promised share of satisfied requests, for people: 80.0%.")
    ] = None
    achieved: Annotated[
        ShortText | None,
        Field(description="Share delivered since `since`, for people: 81.2%; unset until there is feedback."),
    ] = None
    feedback_count: Annotated[Count | None, Field(description="Judged requests since `since`.")] = None
    satisfied_count: Annotated[
        Count | None, Field(description="Judged requests that were satisfied, since `since`.")
    ] = None
    unknown_member_feedback_count: Annotated[
        Count | None,
        Field(description="Judged requests among them whose member the pool does not have, or has no more."),
    ] = None
    request_count: Annotated[
        Count | None, Field(description="Requests that the gateway counted since then, judged or not.")
    ] = None
    debt_requests: Annotated[
        int | None,
        Field(
            description="Satisfied requests missing from the promise (target times feedback, less satisfied); "
            "negative: a surplus."
        ),
    ] = None
    credit_requests: Annotated[
        int | None,
        Field(
            description="Satisfied requests ahead of the target (negative: owed) over all requests, judged or not, as "
            "the policy estimates; unset where it does not."
        ),
    ] = None
    reachable: Annotated[
        ShortText | None,
        Field(description="Least and most share that the members can reach, as estimated, for people: 46.1% to 62.3%."),
    ] = None
    promised_from_request: Annotated[
        Count | None,
        Field(
            description="Number of the request from which the promise holds at the present target; unset from a policy "
            "that states no bound, and while the target is out of reach."
        ),
    ] = None
    confidence_per_mille: Annotated[
        Count | None, Field(description="Probability with which it then holds for good, in thousandths.")
    ] = None
    feedback_share_per_mille: Annotated[
        Count | None, Field(description="Share of requests that are judged, in thousandths, as estimated.")
    ] = None
    since: Annotated[Timestamp | None, Field(description="When counting began.")] = None
    time_to_first_token_p95_milliseconds: Annotated[
        Count | None,
        Field(
            alias="timeToFirstTokenP95Milliseconds",
            description="Latest 95th percentile of the time to first token, in milliseconds; an estimate "
            "where servers are shared.",
        ),
    ] = None
    time_per_output_token_p95_milliseconds: Annotated[
        Count | None,
        Field(
            alias="timePerOutputTokenP95Milliseconds",
            description="Latest 95th percentile of the time per output token, in milliseconds; an estimate "
            "where servers are shared.",
        ),
    ] = None
    latency: Annotated[
        ShortText | None, Field(description="Both latencies for people: 640ms/41ms (first token / per output token).")
    ] = None


class EnergyStatus(StatusModel):
    """What the answers cost, and how far that figure can be trusted."""

    joules_per_request: Annotated[
        Decimal | None,
        Field(description="Joules per request of this service, idle and start-up included, as a decimal number."),
    ] = None
    power_watts: Annotated[Count | None, Field(description="This service's part of the servers' power, in watts.")] = (
        None
    )
    provenance: Annotated[
        Literal["Measured", "Proportional", "Derived"] | None,
        Field(
            description="Measured: servers of its own. Proportional: a shared server's joules, split by tokens "
            "or requests. Derived: from profiles, not measured."
        ),
    ] = None
    observed_at: Annotated[Timestamp | None, Field(description="Time of the latest sample behind it.")] = None
    coverage_percent: Annotated[
        Count | None, Field(description="Share of the accelerators in use whose power was measured, in percent.")
    ] = None
    joules_per_satisfied_request: Annotated[
        Decimal | None, Field(description="Joules per request over the share satisfied so far.")
    ] = None
    blind_joules_per_request: Annotated[
        Decimal | None,
        Field(
            description="Joules per request of the cheapest fixed mixture that would have reached the target, in "
            "hindsight, at the joules by which members are compared; unset while none is known."
        ),
    ] = None
    ratio_to_blind: Annotated[
        Decimal | None, Field(description="The joules of all requests so far over those of that mixture.")
    ] = None
    regret_joules: Annotated[
        int | None, Field(description="The joules by which they differ: what learning and holding credit have cost.")
    ] = None


class MemberStatus(StatusModel):
    """One member, as this service sees it."""

    name: Annotated[ShortText, Field(description="The member.")]
    weight: Annotated[Count | None, Field(description="Its weight in the route, over all its variants.")] = None
    share_per_mille: Annotated[
        Count | None, Field(description="Its share of the requests that the gateway counted lately, in thousandths.")
    ] = None
    accuracy_per_mille: Annotated[
        Count | None, Field(description="Share of its judged requests that were satisfied, in thousandths.")
    ] = None
    feedback_count: Annotated[Count | None, Field(description="Judged requests behind that share.")] = None
    joules_per_request: Annotated[Decimal | None, Field(description="Joules per request at this member.")] = None


class DecisionInput(StatusModel):
    """One thing that a decision rested on."""

    name: Annotated[ShortText, Field(description="What was read.")]
    value: Annotated[ShortText, Field(description="What it was, with its unit.")]
    observed_at: Annotated[Timestamp | None, Field(description="When it was true; unset: never read.")] = None


class Decision(StatusModel):
    """The latest choice of weights, and why."""

    time: Annotated[Timestamp | None, Field(description="When it was made.")] = None
    reason: Annotated[ShortText | None, Field(description="Why, as one CamelCase word.")] = None
    message: Annotated[LongText | None, Field(description="Why, as a sentence with figures.")] = None
    binding_constraint: Annotated[
        ShortText | None, Field(description="What cut the wish short; unset when nothing did.")
    ] = None
    runner_up: Annotated[ShortText | None, Field(description="The next best choice and what it would have cost.")] = (
        None
    )
    price_joules_per_satisfied_request: Annotated[
        Decimal | None, Field(description="Joules that one more satisfied request costs at these weights.")
    ] = None
    inputs: Annotated[
        tuple[DecisionInput, ...],
        Field(max_length=MAX_INPUTS, description="What it rested on.", json_schema_extra=LIST_MAP_BY_NAME),
    ] = ()


class ControllerState(StatusModel):
    """What a restarted operator needs to go on without a jump."""

    policy: Annotated[
        ShortText, Field(description="The policy that wrote the state; another one takes over its ledger.")
    ]
    state: Annotated[
        str,
        StringConstraints(max_length=MAX_STATE_LENGTH),
        Field(description="The policy's state (queue, credit, counters) as JSON, opaque to readers."),
    ]
    counters: Annotated[
        str | None,
        StringConstraints(max_length=MAX_STATE_LENGTH),
        Field(description="The gateway's requests as counted so far, as JSON, opaque to readers."),
    ] = None
    observed_at: Annotated[Timestamp, Field(description="Time of the samples that the state includes.")]


class LLMServiceStatus(StatusModel):
    """Whether the promise is kept, at how many joules, and why."""

    observed_generation: Annotated[Count | None, Field(description="The generation that this status describes.")] = None
    sla: Annotated[LedgerStatus | None, Field(description="The promise and what has been delivered of it.")] = None
    energy: Annotated[EnergyStatus | None, Field(description="What the answers cost.")] = None
    members: Annotated[
        tuple[MemberStatus, ...],
        Field(max_length=16, description="The members, as this service sees them.", json_schema_extra=LIST_MAP_BY_NAME),
    ] = ()
    decision: Annotated[Decision | None, Field(description="The latest choice of weights, and why.")] = None
    controller: Annotated[ControllerState | None, Field(description="What a restarted operator goes on from.")] = None
    conditions: Annotated[
        tuple[Condition, ...],
        Field(max_length=16, description="Aspects of the service's state.", json_schema_extra=LIST_MAP_BY_TYPE),
    ] = ()
