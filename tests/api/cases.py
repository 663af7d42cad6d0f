"""The shared samples: read by the unit tests for the models and by the end-to-end tests for the real API server."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SAMPLES = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class BadCase:
    """An object that must be refused, with the field and the rule that the refusal names."""

    name: str
    manifest: dict[str, Any]
    field: str
    rule: str


def good_samples() -> dict[str, dict[str, Any]]:
    """File stem -> object."""
    return {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted((SAMPLES / "good").glob("*.yaml"))
    }


def bad_cases() -> list[BadCase]:
    """Every case of every file under samples/bad, its change applied to the good sample that it names."""
    good = good_samples()
    cases = []
    for path in sorted((SAMPLES / "bad").glob("*.yaml")):
        for case in yaml.safe_load(path.read_text(encoding="utf-8")):
            manifest = copy.deepcopy(good[case["base"]])
            for target in case.get("unset", ()):
                parent, last = _resolve(manifest, target)
                del parent[last]
            for target, value in case.get("set", {}).items():
                _assign(manifest, target, value)
            cases.append(BadCase(f"{path.stem}: {case['name']}", manifest, case["field"], case["rule"]))
    return cases


def _steps(path: str) -> list[str | int]:
    return [int(index) if index else name for name, index in re.findall(r"([^.\[\]]+)(?=[.\[]|$)|\[(\d+)\]", path)]


def _resolve(manifest: dict[str, Any], path: str) -> tuple[Any, str | int]:
    """The container at the end of a path, and the last step into it; missing objects on the way are made."""
    *way, last = _steps(path)
    parent: Any = manifest
    for step in way:
        parent = parent.setdefault(step, {}) if isinstance(parent, dict) else parent[step]
    return parent, last


def _assign(manifest: dict[str, Any], path: str, value: Any) -> None:
    parent, last = _resolve(manifest, path)
    if isinstance(parent, list) and last == len(parent):
        parent.append(value)
    else:
        parent[last] = value
