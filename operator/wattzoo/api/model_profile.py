"""ModelProfile: what a variant can do and what it burns."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from wattzoo.api.base import (
    LIST_ATOMIC,
    LIST_MAP_BY_TYPE,
    ApiModel,
    Count,
    Integer,
    ObjectMeta,
    Rule,
    StatusModel,
    Timestamp,
)
from wattzoo.api.conditions import Condition

Microseconds = Annotated[Integer, Field(ge=1, le=3_600_000_000)]
Tokens = Annotated[Integer, Field(ge=1, le=100_000_000)]
ReplicaWatts = Annotated[Integer, Field(ge=1, le=1_000_000)]


class Percentiles(ApiModel):
    """Median and 95th percentile of a duration, in microseconds."""

    p50: Annotated[Microseconds, Field(description="Median, in microseconds.")]
    p95: Annotated[Microseconds, Field(description="95th percentile, in microseconds.")]

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.p50 <= self.p95",
            message="p50 must be at most p95",
            holds=lambda self: self.p50 <= self.p95,
            field=".p50",
        ),
    )


class ProfilePoint(ApiModel):
    """One replica, held at one concurrency."""

    running_requests: Annotated[
        Integer, Field(ge=1, le=10_000, description="Requests that run at the same time on the replica.")
    ]
    context_tokens: Annotated[Tokens, Field(description="Mean context of a running request, in tokens.")]
    input_tokens: Annotated[Tokens, Field(description="Mean prompt of a request, in tokens.")]
    output_tokens_per_second: Annotated[
        Tokens, Field(description="Tokens generated per second by the replica, over all running requests.")
    ]
    power_watts: Annotated[ReplicaWatts, Field(description="Power of the replica (all its accelerators), in watts.")]
    time_to_first_token_microseconds: Annotated[
        Percentiles, Field(description="Time from arrival at the server to the first token, in microseconds.")
    ]
    time_per_output_token_microseconds: Annotated[
        Percentiles, Field(description="Time per further output token of a request, in microseconds.")
    ]


class ProfileStartup(ApiModel):
    """What one start of a replica costs."""

    seconds: Annotated[Integer, Field(ge=1, le=7200, description="Seconds from the pod's start until it answers.")]
    joules: Annotated[
        Integer, Field(ge=0, le=1_000_000_000, description="Energy of the start (all accelerators), in joules.")
    ]


class Provenance(ApiModel):
    """Where the figures come from."""

    kind: Annotated[
        Literal["Measured", "Published", "Derived"],
        Field(description="Measured on this setup, Published by others, or Derived from other figures by a model."),
    ]
    source: Annotated[
        str,
        StringConstraints(min_length=1, max_length=512),
        Field(description="Who or what the figures come from: a tool and its version, a paper, a table, a formula."),
    ]
    time: Annotated[Timestamp | None, Field(description="When they were taken.")] = None
    sample_count: Annotated[
        Annotated[Integer, Field(ge=1, le=1_000_000_000)] | None,
        Field(description="How many requests were measured; required when Measured."),
    ] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.kind != 'Measured' || has(self.sampleCount)",
            message="sampleCount is required when kind is Measured",
            holds=lambda self: self.kind != "Measured" or self.sample_count is not None,
            field=".sampleCount",
        ),
    )


class ModelProfileSpec(ApiModel):
    """Speed, power and start-up of one replica of a variant."""

    points: Annotated[
        tuple[ProfilePoint, ...],
        Field(
            min_length=2,
            max_length=64,
            description="Measurements by rising concurrency; between them is interpolated.",
            json_schema_extra=LIST_ATOMIC,
        ),
    ]
    kv_cache_tokens: Annotated[Tokens, Field(description="Tokens that the key-value cache of one replica holds.")]
    startup: Annotated[ProfileStartup, Field(description="What one start of a replica costs.")]
    idle_watts: Annotated[
        ReplicaWatts | None,
        Field(
            description="Power of a replica's accelerators with nothing loaded, in watts. Unset: the AcceleratorPool's "
            "figure times the accelerators."
        ),
    ] = None
    resident_watts: Annotated[
        ReplicaWatts | None,
        Field(
            description="Power of a replica with its model loaded and nothing running, in watts. Unset: the "
            "AcceleratorPool's figure times the accelerators."
        ),
    ] = None
    provenance: Annotated[Provenance, Field(description="Where the figures come from.")]

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.points.map(p, p.runningRequests).isSorted() && "
            "self.points.all(p, self.points.exists_one(q, q.runningRequests == p.runningRequests))",
            message="points must rise strictly in runningRequests",
            holds=lambda self: all(a.running_requests < b.running_requests for a, b in pairwise(self.points)),
            field=".points",
        ),
        Rule(
            cel="!has(self.idleWatts) || !has(self.residentWatts) || self.idleWatts <= self.residentWatts",
            message="idleWatts must be at most residentWatts",
            holds=lambda s: s.idle_watts is None or s.resident_watts is None or s.idle_watts <= s.resident_watts,
            field=".idleWatts",
        ),
        Rule(
            cel="!has(self.residentWatts) || self.points.all(p, self.residentWatts <= p.powerWatts)",
            message="residentWatts must be at most powerWatts of every point",
            holds=lambda s: s.resident_watts is None or all(s.resident_watts <= p.power_watts for p in s.points),
            field=".residentWatts",
        ),
    )


class ModelProfileStatus(StatusModel):
    """Whether the profile can be used."""

    observed_generation: Annotated[Count | None, Field(description="The generation that this status describes.")] = None
    conditions: Annotated[
        tuple[Condition, ...],
        Field(max_length=16, description="Aspects of the profile's state.", json_schema_extra=LIST_MAP_BY_TYPE),
    ] = ()


class ModelProfile(ApiModel):
    """What one replica of a variant can do and what it burns, by concurrency."""

    api_version: Literal["wattzoo.dev/v1alpha1"] = "wattzoo.dev/v1alpha1"
    kind: Literal["ModelProfile"] = "ModelProfile"
    metadata: ObjectMeta
    spec: ModelProfileSpec
    status: ModelProfileStatus = ModelProfileStatus()
