"""From pydantic's JSON schema to the structural schema that the API server accepts.

pydantic writes references, titles, `anyOf` with null, `additionalProperties: false`, `const` and null defaults; a
structural schema forbids or dislikes all of them. A keyword that this module does not know is an error, so that a new
pydantic version cannot slip something into the CRDs unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

RULES_KEY = "x-kubernetes-validations"
_RULE_ORDER = ("rule", "message", "fieldPath")
_ORDER = (
    "description",
    "type",
    "format",
    "enum",
    "default",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "anyOf",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    RULES_KEY,
)
_DROPPED = frozenset({"title", "propertyNames"})


class SchemaError(ValueError):
    """The model cannot be written as a structural schema."""


def structural_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of a model, without references; raises SchemaError for what cannot be expressed."""
    raw = model.model_json_schema(by_alias=True)
    return _rewrite(raw, raw.get("$defs", {}), ())


def _rewrite(schema: Mapping[str, Any], definitions: Mapping[str, Schema], seen: tuple[str, ...]) -> Schema:
    """One node: references inlined, null and const rewritten, keywords checked and put in order."""
    node = {key: value for key, value in schema.items() if key not in _DROPPED and key != "$defs"}
    node, seen = _inline(node, definitions, seen)
    if "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
        return _rewrite(_without_null(node), definitions, seen)
    if node.get("additionalProperties") is False:
        del node["additionalProperties"]
    _rewrite_scalars(node)
    if RULES_KEY in node:
        node[RULES_KEY] = [{key: rule[key] for key in _RULE_ORDER if key in rule} for rule in node[RULES_KEY]]
    if "default" in node:
        _rewrite_default(node)
    if "properties" in node:
        node["properties"] = {name: _rewrite(part, definitions, seen) for name, part in node["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in node:
            node[key] = _rewrite(node[key], definitions, seen)
    if unknown := sorted(set(node) - set(_ORDER)):
        raise SchemaError(f"no structural form for {', '.join(unknown)} in {schema}")
    return {key: node[key] for key in _ORDER if key in node}


def _inline(node: Schema, definitions: Mapping[str, Schema], seen: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
    """Replace `$ref` by its target; what stands beside the reference wins."""
    if "$ref" not in node:
        return node, seen
    name = node.pop("$ref").removeprefix("#/$defs/")
    if name in seen:
        raise SchemaError(f"recursive model: {' > '.join((*seen, name))}")
    target = {key: value for key, value in definitions[name].items() if key not in _DROPPED}
    return target | node, (*seen, name)


def _without_null(node: Schema) -> Schema:
    """`anyOf [X, null]` as X: an optional field is one that may be absent."""
    branches = [branch for branch in node["anyOf"] if branch.get("type") != "null"]
    if len(branches) != 1:
        raise SchemaError(f"a union has no structural form: {node}")
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    branch: Schema = branches[0]
    return branch | rest


def _rewrite_scalars(node: Schema) -> None:
    """`const` as an enum of one, exclusive integer bounds as inclusive ones."""
    if "const" in node:
        node["enum"] = [node.pop("const")]
    for exclusive, inclusive, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        if exclusive in node:
            if node.get("type") != "integer":
                raise SchemaError(f"{exclusive} of a number has no structural form: {node}")
            node[inclusive] = node.pop(exclusive) + step


def _rewrite_default(node: Schema) -> None:
    """Drop a default that says no more than absence; an object's parts carry their own defaults."""
    default = node["default"]
    if default is None or default in ([], ""):
        del node["default"]
    elif isinstance(default, dict):
        if any(part.get("default") is not None for part in node.get("properties", {}).values()):
            node["default"] = {}
        else:
            del node["default"]
