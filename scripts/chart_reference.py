"""The reference page of the chart's values, from its schema and its defaults, so that it cannot drift from either."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "charts" / "wattzoo"


def chart_markdown(chart: Path = CHART) -> str:
    """The page, in Markdown."""
    schema = json.loads((chart / "values.schema.json").read_text())
    defaults = yaml.safe_load((chart / "values.yaml").read_text())
    lines = [
        "# Values of the chart",
        "",
        "Generated from `charts/wattzoo/values.schema.json` and `values.yaml`; change them there. A key that is not",
        "listed is refused.",
        "",
        "| Value | Type | Default | Meaning |",
        "|---|---|---|---|",
    ]
    for path, field in walk(schema, ""):
        default = json.dumps(look_up(defaults, path))
        lines.append(f"| `{path}` | {field['type']} | `{default}` | {describe(field)} |")
    return "\n".join(lines) + "\n"


def walk(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every leaf of the schema with its dotted path; an object that is open or empty is a leaf."""
    for name, field in schema["properties"].items():
        here = f"{path}.{name}".lstrip(".")
        if "properties" in field:
            yield from walk(field, here)
        else:
            yield here, field


def look_up(values: Any, path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    for step in path.split("."):
        values = values.get(step) if isinstance(values, dict) else None
    return values


def describe(field: Mapping[str, Any]) -> str:
    """The description with the bounds that the schema adds."""
    bounds = [f"at least {field['minimum']}"] if "minimum" in field else []
    bounds += [f"at most {field['maximum']}"] if "maximum" in field else []
    bounds += [" or ".join(f"`{value}`" for value in field["enum"])] if "enum" in field else []
    return str(field["description"]) + (f" ({', '.join(bounds)})" if bounds else "")
