"""ModelPool: the zoo and its servers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from wattzoo.api.base import (
    LIST_MAP_BY_NAME,
    LIST_MAP_BY_TYPE,
    UNIQUE_NAMES,
    ApiModel,
    Count,
    DnsLabel,
    DnsName,
    Integer,
    LongText,
    Mode,
    ObjectMeta,
    Rule,
    ShortText,
    StatusModel,
    Timestamp,
    exactly_one,
)
from wattzoo.api.conditions import Condition
from wattzoo.api.server import Server

MAX_MEMBERS = 16
MAX_VARIANTS_PER_MEMBER = 8
MAX_VARIANTS = 16
MAX_REPLICAS = 1000

Replicas = Annotated[Integer, Field(ge=0, le=MAX_REPLICAS)]
StateText = Annotated[str, StringConstraints(max_length=4096)]


class WorkloadRef(ApiModel):
    """A workload that runs already and is adopted: WattZoo writes its scale and its traffic share, nothing else."""

    kind: Annotated[Literal["Deployment"], Field(description="Kind of the workload.")]
    name: Annotated[DnsName, Field(description="Name of the workload, in the same namespace.")]


class ServiceRef(ApiModel):
    """A Service that answers already: WattZoo routes to it and leaves its replicas alone."""

    name: Annotated[DnsLabel, Field(description="Name of the Service, in the same namespace.")]
    port: Annotated[Integer, Field(ge=1, le=65535, description="Port of the Service.")]


class Variant(ApiModel):
    """One way to serve a member: a server to render, a workload to adopt, or a Service to route to."""

    name: Annotated[DnsLabel, Field(description="Name of the variant, unique in its member.")]
    profile: Annotated[
        DnsLabel, Field(description="The ModelProfile of the same namespace with its speed, power and start-up.")
    ]
    accelerator_pool: Annotated[
        DnsLabel | None,
        Field(description="The AcceleratorPool that its replicas run on; required with server and workloadRef."),
    ] = None
    accelerators_per_replica: Annotated[
        Annotated[Integer, Field(ge=1, le=64)] | None,
        Field(
            description="Accelerators that one replica holds (the tensor parallel degree of a server; what pods of an "
            "adopted workload request). Unset: 1."
        ),
    ] = None
    min_replicas: Annotated[
        Replicas | None, Field(description="Replicas that always run, with server and workloadRef. Unset: 0.")
    ] = None
    max_replicas: Annotated[
        Replicas | None,
        Field(
            description="Replicas at most, with server and workloadRef. Unset: as many as the AcceleratorPool allows."
        ),
    ] = None
    server: Annotated[Server | None, Field(description="A server to render as a Deployment and a Service.")] = None
    workload_ref: Annotated[WorkloadRef | None, Field(description="A running workload to adopt.")] = None
    service_ref: Annotated[ServiceRef | None, Field(description="A running Service to route to.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="[has(self.server), has(self.workloadRef), has(self.serviceRef)].filter(x, x).size() == 1",
            message="exactly one of server, workloadRef and serviceRef must be set",
            holds=lambda self: exactly_one(self.server, self.workload_ref, self.service_ref),
        ),
        Rule(
            cel="has(self.serviceRef) || has(self.acceleratorPool)",
            message="acceleratorPool is required with server and workloadRef",
            holds=lambda self: self.service_ref is not None or self.accelerator_pool is not None,
            field=".acceleratorPool",
        ),
        Rule(
            cel="!has(self.serviceRef) || !has(self.acceleratorPool)",
            message="acceleratorPool has no effect with serviceRef: remove it",
            holds=lambda self: self.service_ref is None or self.accelerator_pool is None,
            field=".acceleratorPool",
        ),
        Rule(
            cel="!has(self.serviceRef) || !has(self.acceleratorsPerReplica)",
            message="acceleratorsPerReplica has no effect with serviceRef: remove it",
            holds=lambda self: self.service_ref is None or self.accelerators_per_replica is None,
            field=".acceleratorsPerReplica",
        ),
        Rule(
            cel="!has(self.serviceRef) || !has(self.minReplicas)",
            message="minReplicas has no effect with serviceRef: remove it",
            holds=lambda self: self.service_ref is None or self.min_replicas is None,
            field=".minReplicas",
        ),
        Rule(
            cel="!has(self.serviceRef) || !has(self.maxReplicas)",
            message="maxReplicas has no effect with serviceRef: remove it",
            holds=lambda self: self.service_ref is None or self.max_replicas is None,
            field=".maxReplicas",
        ),
        Rule(
            cel="!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            message="minReplicas must be at most maxReplicas",
            holds=lambda s: s.min_replicas is None or s.max_replicas is None or s.min_replicas <= s.max_replicas,
            field=".minReplicas",
        ),
    )

    @property
    def accelerators(self) -> int:
        """Accelerators that one replica holds."""
        return self.accelerators_per_replica or 1

    @property
    def replica_bounds(self) -> tuple[int, int]:
        """Least and most replicas of a variant that can be scaled; what is unset is 0 and `MAX_REPLICAS`."""
        return self.min_replicas or 0, MAX_REPLICAS if self.max_replicas is None else self.max_replicas

    @property
    def scalable(self) -> bool:
        """Whether its replicas are WattZoo's to change (server or workloadRef)."""
        return self.service_ref is None


class Member(ApiModel):
    """One model of the zoo: what traffic can be sent to."""

    name: Annotated[DnsLabel, Field(description="Name of the member, unique in the pool.")]
    model: Annotated[
        str,
        StringConstraints(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9/._:@-]+$"),
        Field(description="The model's name or path, as its server is told to load it."),
    ]
    variants: Annotated[
        tuple[Variant, ...],
        Field(
            min_length=1,
            max_length=MAX_VARIANTS_PER_MEMBER,
            description="The ways in which it is served.",
            json_schema_extra=LIST_MAP_BY_NAME,
        ),
        UNIQUE_NAMES,
    ]


PER_VARIANT_RESERVE_PERCENT = 30
"""Reserve where none is declared and nothing is forecast."""


class Scaling(ApiModel):
    """How replicas follow the load."""

    mode: Annotated[
        Literal["Act", "KEDAMetrics"],
        Field(
            description="Act: WattZoo writes replicas. KEDAMetrics: it only exports what it wants as the metric "
            "wattzoo_desired_replicas, for KEDA or an HPA to act on; after a Deployment is made its replicas are "
            "theirs, and packing has no effect."
        ),
    ] = "Act"
    planner: Annotated[
        Literal["Joint", "PerVariant"],
        Field(
            description="Joint: one plan for all pools and services that share accelerators, of least power at the "
            "accuracy and latency that were promised; while something that it needs is unknown, PerVariant. "
            "PerVariant: replicas of each variant follow the load of its member."
        ),
    ] = "Joint"
    down_stabilization_seconds: Annotated[
        Integer,
        Field(ge=0, le=3600, description="Shrink only to the largest number wanted during the last so many seconds."),
    ] = 300
    reserve_percent: Annotated[
        Annotated[Integer, Field(ge=0, le=500)] | None,
        Field(
            description="Capacity kept ready besides, for what arrives while replicas start. Joint adds it to the load "
            "that may come within that time, which it forecasts; PerVariant to the measured load. Unset: 0 with Joint, "
            "30 with PerVariant."
        ),
    ] = None
    stale_after_seconds: Annotated[
        Integer, Field(ge=10, le=3600, description="Measurements older than this hold the replicas as they are.")
    ] = 120
    drain_timeout_seconds: Annotated[
        Integer,
        Field(
            ge=0, le=3600, description="How long a replica without traffic may finish what it has begun before it goes."
        ),
    ] = 300
    placement_timeout_seconds: Annotated[
        Integer,
        Field(
            ge=5,
            le=3600,
            description="A variant whose pods have had no node for so long is short of accelerators: its waiting pods "
            "are taken back, others are planned for its load, and one replica asks again ever more rarely.",
        ),
    ] = 120
    packing: Annotated[
        Literal["Enabled", "Disabled"],
        Field(
            description="Enabled: only as many replicas of a rendered server take traffic as the load fills; the "
            "others stay resident, silent and ready, and wake at once. Disabled: all ready replicas take traffic."
        ),
    ] = "Enabled"

    @property
    def measured_reserve(self) -> float:
        """Share of the measured load that PerVariant keeps ready besides."""
        percent = PER_VARIANT_RESERVE_PERCENT if self.reserve_percent is None else self.reserve_percent
        return percent / 100.0


class ModelPoolSpec(ApiModel):
    """The zoo: models, the ways in which each is served, and how their replicas follow the load."""

    served_model_name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/:-]*[A-Za-z0-9])?$"),
        Field(
            description="The one model name that every member answers to and clients ask for. Immutable: "
            "during a change some replicas would refuse the other name."
        ),
    ]
    members: Annotated[
        tuple[Member, ...],
        Field(
            min_length=1,
            max_length=MAX_MEMBERS,
            description="The models of the zoo.",
            json_schema_extra=LIST_MAP_BY_NAME,
        ),
        UNIQUE_NAMES,
    ]
    mode: Annotated[
        Mode,
        Field(
            description="Act: replicas and servers are written. Observe: nothing but status is written; only what "
            "runs already (adopted and routed variants) can be seen."
        ),
    ] = "Act"
    scaling: Annotated[Scaling, Field(description="How replicas follow the load.")] = Scaling()

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.members.map(m, m.variants.size()).sum() <= {MAX_VARIANTS}",
            message=f"members must have at most {MAX_VARIANTS} variants in total (a route holds no more backends)",
            holds=lambda self: sum(len(member.variants) for member in self.members) <= MAX_VARIANTS,
            field=".members",
        ),
        Rule(
            cel="self.servedModelName == oldSelf.servedModelName",
            message="servedModelName is immutable: make a new ModelPool and move the LLMServices to it",
            holds=None,
            field=".servedModelName",
        ),
    )


class Plan(StatusModel):
    """The latest plan for the pool's replicas."""

    id: Annotated[ShortText | None, Field(description="Changes whenever the wanted replicas change.")] = None
    time: Annotated[Timestamp | None, Field(description="When it was made.")] = None
    watts: Annotated[Count | None, Field(description="Modelled power in watts of the pool under this plan.")] = None
    reason: Annotated[ShortText | None, Field(description="Why, as one CamelCase word.")] = None
    message: Annotated[LongText | None, Field(description="Why, as a sentence with figures.")] = None
    binding_constraint: Annotated[
        ShortText | None, Field(description="What cut the wish short; unset when nothing did.")
    ] = None
    runner_up: Annotated[LongText | None, Field(description="The next best plan.")] = None
    planner: Annotated[ShortText | None, Field(description="Who planned: Joint or PerVariant.")] = None
    objective: Annotated[
        ShortText | None, Field(description="What the joint plan minimises: Energy, Carbon or Cost.")
    ] = None
    price: Annotated[
        ShortText | None,
        Field(
            description="Joules that one more satisfied request costs under the plan, by service; unset under another "
            "objective than Energy."
        ),
    ] = None


class VariantStatus(StatusModel):
    """The replicas of one variant."""

    member: Annotated[ShortText, Field(description="The member that it serves.")]
    name: Annotated[ShortText, Field(description="The variant.")]
    pool: Annotated[ShortText | None, Field(description="The AcceleratorPool that it runs on.")] = None
    desired: Annotated[Count | None, Field(description="Replicas wanted; unset for a serviceRef.")] = None
    ready: Annotated[Count | None, Field(description="Replicas that are ready.")] = None
    serving: Annotated[Count | None, Field(description="Ready replicas that traffic is sent to.")] = None
    silent: Annotated[Count | None, Field(description="Ready replicas that take no traffic until load needs them.")] = (
        None
    )
    starting: Annotated[Count | None, Field(description="Replicas that exist and are not ready yet.")] = None
    utilisation_per_mille: Annotated[
        Count | None, Field(description="Measured load over the capacity of the serving replicas, in thousandths.")
    ] = None


class ScalingState(StatusModel):
    """What a restarted operator needs to go on without a jump."""

    state: Annotated[StateText, Field(description="Recent plans, opaque to readers.")]
    forecast: Annotated[StateText | None, Field(description="What was learned of the load, opaque to readers.")] = None
    observed_at: Annotated[Timestamp, Field(description="When it was written.")]


class ModelPoolStatus(StatusModel):
    """What runs, and what is planned."""

    observed_generation: Annotated[Count | None, Field(description="The generation that this status describes.")] = None
    desired_replicas: Annotated[Count | None, Field(description="Replicas wanted, over all variants.")] = None
    ready_replicas: Annotated[Count | None, Field(description="Replicas ready, over all variants.")] = None
    accelerators: Annotated[Count | None, Field(description="Accelerators that the pool's replicas hold.")] = None
    power_watts: Annotated[Count | None, Field(description="Measured power in watts of those accelerators.")] = None
    plan: Annotated[Plan | None, Field(description="The latest plan.")] = None
    variants: Annotated[
        tuple[VariantStatus, ...],
        Field(
            max_length=MAX_VARIANTS,
            description="Replicas by variant.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["member", "name"]},
        ),
    ] = ()
    scaling: Annotated[ScalingState | None, Field(description="What a restarted operator goes on from.")] = None
    conditions: Annotated[
        tuple[Condition, ...],
        Field(max_length=16, description="Aspects of the pool's state.", json_schema_extra=LIST_MAP_BY_TYPE),
    ] = ()


class ModelPool(ApiModel):
    """A zoo of models and its servers: replicas and where they run. Shared by every LLMService that references it."""

    api_version: Literal["wattzoo.dev/v1alpha1"] = "wattzoo.dev/v1alpha1"
    kind: Literal["ModelPool"] = "ModelPool"
    metadata: ObjectMeta
    spec: ModelPoolSpec
    status: ModelPoolStatus = ModelPoolStatus()
