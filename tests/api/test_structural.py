"""The transformer on models made for it: each construct of pydantic's schema that a CRD cannot hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from wattzoo.api.base import ApiModel, Rule
from wattzoo.api.structural import SchemaError, structural_schema


class Leaf(ApiModel):
    """A leaf."""

    RULES = (Rule(cel="self.a < 9", message="a must be below 9", holds=lambda self: self.a < 9, field=".a"),)

    a: Annotated[int, Field(gt=0, lt=10, description="Exclusive bounds.")] = 5


class Tree(ApiModel):
    """A tree."""

    leaf: Annotated[Leaf, Field(description="The field's words, not the class's.")] = Leaf()
    maybe: Annotated[Leaf | None, Field(description="Optional.")] = None
    one: Annotated[Literal["x"], Field(description="One word.")]
    labels: Annotated[dict[str, str], Field(description="A map.", max_length=3)] = Field(default_factory=dict)
    many: Annotated[tuple[Leaf, ...], Field(max_length=2, description="A list.")] = ()


def test_references_nulls_consts_bounds_and_empty_defaults() -> None:
    leaf: dict[str, Any] = {
        "type": "object",
        "properties": {
            "a": {"description": "Exclusive bounds.", "type": "integer", "default": 5, "minimum": 1, "maximum": 9}
        },
        "x-kubernetes-validations": [{"rule": "self.a < 9", "message": "a must be below 9", "fieldPath": ".a"}],
    }
    assert structural_schema(Tree) == {
        "description": "A tree.",
        "type": "object",
        "required": ["one"],
        "properties": {
            "leaf": {"description": "The field's words, not the class's.", "default": {}, **leaf},
            "maybe": {"description": "Optional.", **leaf},
            "one": {"description": "One word.", "type": "string", "enum": ["x"]},
            "labels": {
                "description": "A map.",
                "type": "object",
                "maxProperties": 3,
                "additionalProperties": {"type": "string"},
            },
            "many": {
                "description": "A list.",
                "type": "array",
                "maxItems": 2,
                "items": {"description": "A leaf.", **leaf},
            },
        },
    }


class Node(BaseModel):
    """Holds itself."""

    child: Optional[Node] = None  # noqa: UP045 (a string cannot stand beside |)


class EitherOr(BaseModel):
    """A union of two."""

    value: int | str


class Fraction(BaseModel):
    """An exclusive bound that no inclusive one can say."""

    value: Annotated[float, Field(gt=0)]


class Pair(BaseModel):
    """A tuple of fixed length, which pydantic writes as prefixItems."""

    value: tuple[int, str]


@pytest.mark.parametrize(
    ("model", "why"),
    [(Node, "recursive"), (EitherOr, "union"), (Fraction, "exclusiveMinimum"), (Pair, "prefixItems")],
)
def test_what_a_structural_schema_cannot_say_is_an_error(model: type[BaseModel], why: str) -> None:
    with pytest.raises(SchemaError, match=why):
        structural_schema(model)
