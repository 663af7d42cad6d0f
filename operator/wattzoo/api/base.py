"""What all four kinds are built from: the model base, rules that Python and the API server share, and bounded types.

A rule is written once, as a `Rule` in a model's `RULES`: the CEL text goes into the CRD, the Python predicate runs when
the model is built, and both show the same message. Bounds are not decoration: the API server estimates a rule's cost
from them and refuses a CRD whose rules could be too dear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    Strict,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

GROUP = "wattzoo.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"

LIST_MAP_BY_NAME: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
LIST_MAP_BY_TYPE: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
LIST_SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
LIST_ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}

RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}")

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Rule:
    """One cross-field rule in both languages.

    `cel` sees the model as `self`; `holds` sees the parsed model and is None for a rule about a change (`oldSelf`),
    which only the API server can judge. `field` is the path below the model that an error is pinned to.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool] | None
    field: str | None = None

    def as_validation(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        entry = {"rule": self.cel, "message": self.message}
        if self.field is not None:
            entry["fieldPath"] = self.field
        return entry


class ApiModel(BaseModel):
    """A frozen model with snake_case attributes and camelCase wire names; unknown fields are errors."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_alias=True, validate_by_name=True, extra="forbid", frozen=True
    )
    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        for rule in type(self).RULES:
            if rule.holds is not None and not rule.holds(self):
                raise PydanticCustomError("rule", "{rule}", {"rule": rule.message, "field": rule.field or ""})
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Carry the rules into the JSON schema."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        if cls.RULES:
            schema["x-kubernetes-validations"] = [rule.as_validation() for rule in cls.RULES]
        return schema

    def to_manifest(self) -> dict[str, Any]:
        """Plain JSON data with wire names; what is unknown (None) is absent, never zero."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusModel(ApiModel):
    """Part of a status: fields that another version wrote are dropped, not refused."""

    model_config = ConfigDict(extra="ignore")


class ObjectMeta(StatusModel):
    """The part of Kubernetes' metadata that the operator reads."""

    name: str
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: AwareDatetime | None = None
    deletion_timestamp: AwareDatetime | None = None


def exactly_one(*values: object) -> bool:
    """True when exactly one of the values is set (not None)."""
    return sum(value is not None for value in values) == 1


def _unique(key: Callable[[Any], Any], what: str) -> Callable[[tuple[Item, ...]], tuple[Item, ...]]:
    def check(items: tuple[Item, ...]) -> tuple[Item, ...]:
        seen: set[Any] = set()
        for index, item in enumerate(items):
            if key(item) in seen:
                rule = f"Duplicate value: {what} {key(item)!r} is listed twice"
                raise PydanticCustomError("rule", "{rule}", {"rule": rule, "field": f"[{index}]"})
            seen.add(key(item))
        return items

    return check


UNIQUE_NAMES = AfterValidator(_unique(lambda item: item.name, "name"))
UNIQUE_ITEMS = AfterValidator(_unique(lambda item: item, "entry"))


def _shorten(limit: int) -> BeforeValidator:
    def shorten(text: object) -> object:
        return text[: limit - 1] + "…" if isinstance(text, str) and len(text) > limit else text

    return BeforeValidator(shorten)


def _integer_to_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _only_rfc3339(value: object) -> object:
    """Refuse numbers, which pydantic would take for Unix seconds and the API server does not take at all."""
    if isinstance(value, datetime) or (isinstance(value, str) and RFC3339.match(value)):
        return value
    raise PydanticCustomError("datetime_type", "must be of type date-time")


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp(at_seconds: float) -> datetime:
    """Unix seconds as the aware, whole-second moment that a status shows."""
    return datetime.fromtimestamp(int(at_seconds), UTC)


def bounded_items(items: Iterable[Item], limit: int) -> tuple[Item, ...]:
    """The first `limit` items: a status list never outgrows its `maxItems`."""
    return tuple(items)[:limit]


Mode = Literal["Observe", "Act"]
Integer = Annotated[int, Strict()]
Boolean = Annotated[bool, Strict()]
PerMille = Annotated[int, Strict(), Field(ge=0, le=1000)]
Watts = Annotated[int, Strict(), Field(ge=0, le=1_000_000)]
DnsLabel = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=DNS_LABEL_PATTERN)]
DnsName = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=DNS_NAME_PATTERN)]
Quantity = Annotated[
    str,
    BeforeValidator(_integer_to_text),
    StringConstraints(max_length=20, pattern=QUANTITY_PATTERN),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": QUANTITY_PATTERN,
            "maxLength": 20,
        }
    ),
]
Timestamp = Annotated[
    AwareDatetime, BeforeValidator(_only_rfc3339), PlainSerializer(_rfc3339, return_type=str, when_used="json")
]
Count = Annotated[int, Field(ge=0)]
Decimal = Annotated[str, StringConstraints(max_length=24, pattern=r"^-?[0-9]+(\.[0-9]+)?$")]
ShortText = Annotated[str, _shorten(256), StringConstraints(max_length=256)]
LongText = Annotated[str, _shorten(1024), StringConstraints(max_length=1024)]


def get_path(raw: Mapping[str, Any], path: Iterable[str | int]) -> Any:
    """The value at a path of plain JSON data, or None where the path ends early."""
    value: Any = raw
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value
