"""The API reference as Markdown, from the same schema as the CRDs.

`python -m wattzoo.api.reference --write FILE | --check FILE`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattzoo.api.base import GROUP, VERSION
from wattzoo.api.conditions import MEANINGS
from wattzoo.api.crd import KINDS, KindInfo, render_schema
from wattzoo.api.structural import RULES_KEY

_SCOPES = {"Cluster": "Cluster-scoped", "Namespaced": "Namespaced"}

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One row of a table."""

    path: str
    schema: Schema
    required: bool


def walk_fields(schema: Schema, path: str) -> Iterator[Field]:
    """Every field below a schema, depth first; `[]` marks the items of a list."""
    for name, part in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield Field(here, part, name in schema.get("required", ()))
        yield from walk_fields(part.get("items", part), here + "[]" if "items" in part else here)


def walk_rules(schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    """Every cross-field rule below a schema: the path that it holds at, and its message."""
    for rule in schema.get(RULES_KEY, ()):
        yield path, rule["message"]
    for name, part in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield from walk_rules(part.get("items", part), here + "[]" if "items" in part else here)


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if schema.get("format") == "date-time":
        return "time"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        keys = schema.get("x-kubernetes-list-map-keys")
        return f"list of {_type(schema['items'])}" + (f" by {', '.join(keys)}" if keys else "")
    if "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    return str(schema["type"])


def _bounds(schema: Schema) -> str:
    """Bounds of a value, its length or its number of items, as a reader would write them."""
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " entries"),
    ):
        if low in schema and high in schema:
            return f"{schema[low]:,} to {schema[high]:,}{unit}"
        if high in schema and "anyOf" not in schema:
            return f"at most {schema[high]:,}{unit}"
        if low in schema:
            return f"at least {schema[low]:,}{unit}"
    return ""


def _default(field: Field) -> str:
    if field.required:
        return "required"
    default = field.schema.get("default")
    return f"`{default}`" if default not in (None, {}) else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]


def _fields(schema: Schema, path: str) -> list[str]:
    rows = [
        (f"`{field.path}`", _type(field.schema), _bounds(field.schema), _default(field), field.schema["description"])
        for field in walk_fields(schema, path)
    ]
    return _table(("Field", "Type", "Bounds", "Default", "Meaning"), rows)


def _render_kind(info: KindInfo) -> list[str]:
    schema = render_schema(info)
    spec, status = schema["properties"]["spec"], schema["properties"]["status"]
    columns = [(column.name, column.description, "`-o wide`" if column.wide else "") for column in info.columns]
    rules = [f"- `{path}`: {message}" for path, message in walk_rules(spec, "spec")]
    return [
        f"## {info.kind}",
        "",
        str(info.model.__doc__),
        "",
        f"{_SCOPES[info.scope]}; `kubectl get {info.short_name}`.",
        "",
        "### Spec",
        "",
        *_fields(spec, "spec"),
        "",
        "Rules across fields:",
        "",
        *rules,
        "",
        "### Status",
        "",
        *_fields(status, "status"),
        "",
        "### Columns",
        "",
        *_table(("Column", "Meaning", "Shown"), columns),
        "",
    ]


def _render_conditions() -> list[str]:
    rows = [
        (f"`{condition}`", meaning, ", ".join(f"`{reason}`" for reason in sorted(reasons)))
        for condition, (meaning, reasons) in MEANINGS.items()
    ]
    return ["## Conditions", "", *_table(("Type", "True means", "Reasons"), rows), ""]


def reference_markdown() -> str:
    """The whole reference page."""
    lines = [
        "<!-- Generated from the models of wattzoo.api by `make generate`; do not edit. -->",
        f"# API reference: `{GROUP}/{VERSION}`",
        "",
        "Four kinds, all in the category `wattzoo`. **AcceleratorPool** says what hardware there is and how much of it",
        "may be used, **ModelPool** holds the zoo and its servers, **ModelProfile** what one replica can do and burns,",
        "**LLMService** a promise, its route and its ledger. Names are DNS labels of at most 63 characters. Integers",
        "carry their unit in the name; what is unknown is absent, never zero.",
        "",
    ]
    for info in KINDS:
        lines += _render_kind(info)
    return "\n".join(lines + _render_conditions())


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the page; 1 when a check finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m wattzoo.api.reference", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="FILE", help="write the page to this file")
    action.add_argument("--check", type=Path, metavar="FILE", help="fail when the file differs from the models")
    arguments = parser.parse_args(argv)
    text = reference_markdown()
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        arguments.write.write_text(text, encoding="utf-8")
        return 0
    same = arguments.check.is_file() and arguments.check.read_text(encoding="utf-8") == text
    if not same:
        sys.stderr.write(f"{arguments.check} differs from the models, run `make generate`\n")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
