"""AcceleratorPool: what hardware there is and how much of it WattZoo may use."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from wattzoo.api.accelerators import KNOWN_ACCELERATORS, PRODUCT_LABEL, AcceleratorFigures, known_accelerator
from wattzoo.api.base import (
    LIST_ATOMIC,
    LIST_MAP_BY_TYPE,
    LIST_SET,
    UNIQUE_ITEMS,
    ApiModel,
    Boolean,
    Count,
    DnsLabel,
    Integer,
    ObjectMeta,
    Rule,
    StatusModel,
    Timestamp,
    exactly_one,
)
from wattzoo.api.conditions import Condition

LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
KNOWN_PRODUCTS = sorted(KNOWN_ACCELERATORS)
LABEL_KEY_PATTERN = r"^([a-z0-9][-a-z0-9.]{0,252}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
RESOURCE_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
PowerWatts = Annotated[Integer, Field(ge=1, le=100_000)]


class Toleration(ApiModel):
    """A taint of the pool's nodes that rendered pods tolerate."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=253), Field(description="The taint's key.")]
    operator: Annotated[
        Literal["Exists", "Equal"], Field(description="Exists matches any value of the key, Equal only `value`.")
    ] = "Equal"
    value: Annotated[LabelValue | None, Field(description="The taint's value, with operator Equal.")] = None
    effect: Annotated[
        Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None,
        Field(description="The taint's effect; unset matches every effect."),
    ] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.operator == 'Equal' || !has(self.value)",
            message="value has no effect with operator Exists: remove it or use operator Equal",
            holds=lambda self: self.operator == "Equal" or self.value is None,
            field=".value",
        ),
    )


class AllowedNamespaces(ApiModel):
    """The namespaces whose ModelPools may place servers here: `names` or `all`."""

    names: Annotated[
        tuple[DnsLabel, ...] | None,
        Field(min_length=1, max_length=64, description="Namespaces by name.", json_schema_extra=LIST_SET),
        UNIQUE_ITEMS,
    ] = None
    all: Annotated[Boolean | None, Field(description="True opens the pool to every namespace.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.names) != has(self.all)",
            message="exactly one of names and all must be set",
            holds=lambda self: exactly_one(self.names, self.all),
        ),
        Rule(
            cel="!has(self.all) || self.all",
            message="all must be true when it is set; list namespaces in names to restrict the pool",
            holds=lambda self: self.all is not False,
            field=".all",
        ),
    )


class Accelerator(ApiModel):
    """What one accelerator of this pool draws; a field left out comes from the built-in table."""

    idle_watts: Annotated[PowerWatts | None, Field(description="Watts of one accelerator with nothing loaded.")] = None
    resident_watts: Annotated[
        PowerWatts | None, Field(description="Watts of one accelerator with a model loaded and nothing running.")
    ] = None
    max_watts: Annotated[PowerWatts | None, Field(description="Power limit of one accelerator in watts.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.idleWatts) || !has(self.residentWatts) || self.idleWatts <= self.residentWatts",
            message="idleWatts must be at most residentWatts",
            holds=lambda s: s.idle_watts is None or s.resident_watts is None or s.idle_watts <= s.resident_watts,
            field=".idleWatts",
        ),
        Rule(
            cel="!has(self.residentWatts) || !has(self.maxWatts) || self.residentWatts <= self.maxWatts",
            message="residentWatts must be at most maxWatts",
            holds=lambda s: s.resident_watts is None or s.max_watts is None or s.resident_watts <= s.max_watts,
            field=".residentWatts",
        ),
        Rule(
            cel="!has(self.idleWatts) || !has(self.maxWatts) || self.idleWatts <= self.maxWatts",
            message="idleWatts must be at most maxWatts",
            holds=lambda s: s.idle_watts is None or s.max_watts is None or s.idle_watts <= s.max_watts,
            field=".idleWatts",
        ),
    )


class AcceleratorPoolSpec(ApiModel):
    """One labelled pool of accelerator nodes and how much of it WattZoo may use."""

    node_selector: Annotated[
        dict[str, LabelValue],
        Field(
            min_length=1,
            max_length=16,
            description="Labels of the pool's nodes; every rendered pod selects them. A `nvidia.com/gpu.product` label "
            "also picks the built-in power figures.",
        ),
    ]
    resource_name: Annotated[
        str,
        StringConstraints(max_length=253, pattern=RESOURCE_NAME_PATTERN),
        Field(description="The extended resource that pods request for one accelerator."),
    ] = "nvidia.com/gpu"
    tolerations: Annotated[
        tuple[Toleration, ...],
        Field(max_length=16, description="Taints that rendered pods tolerate.", json_schema_extra=LIST_ATOMIC),
    ] = ()
    allowed_namespaces: Annotated[
        AllowedNamespaces, Field(description="The namespaces whose ModelPools may place servers here.")
    ]
    max_accelerators: Annotated[
        Annotated[Integer, Field(ge=0, le=100_000)] | None,
        Field(
            description="At most this many accelerators for all that WattZoo manages here, terminating pods included; "
            "lowering it below what is in use only forbids increases. Unset: what the nodes offer."
        ),
    ] = None
    power_budget_watts: Annotated[
        Annotated[Integer, Field(ge=1, le=1_000_000_000)] | None,
        Field(
            description="At most this modelled power in watts for what WattZoo manages here (replicas at full load); "
            "replicas that would exceed it are not added. Unset: no budget."
        ),
    ] = None
    carbon_grams_per_kilowatt_hour: Annotated[
        Annotated[Integer, Field(ge=0, le=10_000)] | None,
        Field(
            description="Grams of CO2 equivalent per kWh of the electricity here (your grid's or contract's), for the "
            "operator's objective Carbon. Unset: unknown, what is planned together with this pool minimises Energy."
        ),
    ] = None
    price_per_accelerator_hour_milli: Annotated[
        Annotated[Integer, Field(ge=0, le=1_000_000_000)] | None,
        Field(
            description="Price of one accelerator for one hour, in thousandths of a currency that all pools share "
            "(1890 is 1.89), for the operator's objective Cost. Unset: unknown, what is planned together with this "
            "pool minimises Energy."
        ),
    ] = None
    accelerator: Annotated[
        Accelerator,
        Field(description="Power of one accelerator, where the built-in table lacks it."),
    ] = Accelerator()

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.nodeSelector.all(k, k.size() <= 317 && k.matches('{LABEL_KEY_PATTERN}'))",
            message="nodeSelector must have label keys: an optional DNS prefix and a slash, then up to 63 characters",
            holds=lambda self: all(len(k) <= 317 and re.fullmatch(LABEL_KEY_PATTERN, k) for k in self.node_selector),
            field=".nodeSelector",
        ),
        Rule(
            cel="!has(self.powerBudgetWatts) || "
            f"('{PRODUCT_LABEL}' in self.nodeSelector && self.nodeSelector['{PRODUCT_LABEL}'] in {KNOWN_PRODUCTS}) || "
            "(has(self.accelerator) && has(self.accelerator.idleWatts) && has(self.accelerator.residentWatts) && "
            "has(self.accelerator.maxWatts))",
            message="powerBudgetWatts has no effect on an unknown product: give accelerator idleWatts, residentWatts "
            "and maxWatts",
            holds=lambda self: self.power_budget_watts is None or self.figures() is not None,
            field=".powerBudgetWatts",
        ),
    )

    def figures(self) -> AcceleratorFigures | None:
        """Figures of one accelerator: the spec's, else the built-in table's; None while any is unknown."""
        own, known = self.accelerator, known_accelerator(self.node_selector)
        idle = own.idle_watts or (known.idle_watts if known else None)
        resident = own.resident_watts or (known.resident_watts if known else None)
        maximum = own.max_watts or (known.max_watts if known else None)
        if idle is None or resident is None or maximum is None:
            return None
        return AcceleratorFigures(idle_watts=idle, resident_watts=resident, max_watts=maximum)

    def admits(self, namespace: str) -> bool:
        """Whether ModelPools of this namespace may place servers here."""
        return bool(self.allowed_namespaces.all) or namespace in (self.allowed_namespaces.names or ())


class AcceleratorPoolStatus(StatusModel):
    """What the pool holds and what is used of it."""

    observed_generation: Annotated[Count | None, Field(description="The generation that this status describes.")] = None
    nodes: Annotated[Count | None, Field(description="Nodes that match the selector.")] = None
    accelerators: Annotated[Count | None, Field(description="Accelerators those nodes have.")] = None
    allocatable: Annotated[
        Count | None, Field(description="Accelerators on ready, schedulable nodes that pods may request.")
    ] = None
    allocated_by_watt_zoo: Annotated[
        Count | None, Field(description="Accelerators held by pods that WattZoo manages, terminating ones included.")
    ] = None
    short_since: Annotated[
        Timestamp | None,
        Field(description="Since when more accelerators are wanted than exist; unset: not short."),
    ] = None
    power_watts: Annotated[
        Count | None, Field(description="Measured power in watts of the accelerators that WattZoo manages here.")
    ] = None
    conditions: Annotated[
        tuple[Condition, ...],
        Field(max_length=16, description="Aspects of the pool's state.", json_schema_extra=LIST_MAP_BY_TYPE),
    ] = ()


class AcceleratorPool(ApiModel):
    """One labelled pool of accelerator nodes (cluster-scoped): what there is and how much of it may be used."""

    api_version: Literal["wattzoo.dev/v1alpha1"] = "wattzoo.dev/v1alpha1"
    kind: Literal["AcceleratorPool"] = "AcceleratorPool"
    metadata: ObjectMeta
    spec: AcceleratorPoolSpec
    status: AcceleratorPoolStatus = AcceleratorPoolStatus()
