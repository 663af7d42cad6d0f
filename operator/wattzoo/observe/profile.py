"""The metrics profile: exporters' names are data, because exporters rename them.

Read once at the start, from the file that ships with the operator or from one that replaces it; a name or label that
is not in Prometheus' grammar is refused then, so nothing in a profile can change the shape of a query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, field_validator

from wattzoo.model import Signal
from wattzoo.settings import SettingsError

METRIC_NAME_PATTERN = r"^[a-zA-Z_:][a-zA-Z0-9_:]*$"
LABEL_NAME_PATTERN = r"^[a-zA-Z_][a-zA-Z0-9_]*$"
FEEDBACK_GROUP = "feedback"
GROUPS = frozenset({"engine_gauges", "engine_counters", "engine_latency", "gpu_power", "gpu_energy", "gateway"})

MetricName = Annotated[str, StringConstraints(pattern=METRIC_NAME_PATTERN, max_length=200)]
LabelName = Annotated[str, StringConstraints(pattern=LABEL_NAME_PATTERN, max_length=100)]


class SignalSource(BaseModel):
    """Where one signal comes from: metric names in order of preference, and the factor to our unit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: tuple[MetricName, ...] = Field(min_length=1, max_length=8)
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class Group(BaseModel):
    """What one query reads. `matchers` are regular expressions that labels must match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    signals: Mapping[Signal, SignalSource] = Field(min_length=1, max_length=8)
    matchers: Mapping[LabelName, str] = Field(default_factory=dict)
    labels: Mapping[LabelName, tuple[LabelName, ...]] = Field(default_factory=dict)

    @field_validator("matchers")
    @classmethod
    def _regular(cls, matchers: Mapping[str, str]) -> Mapping[str, str]:
        for pattern in matchers.values():
            re.compile(pattern)
        return matchers


Profile = Mapping[str, Group]
_ADAPTER: TypeAdapter[dict[str, Group]] = TypeAdapter(dict[str, Group])


def load_profile(path: Path | None) -> Profile:
    """The profile in `path`, or the one that ships with the operator; raises SettingsError.

    A group that a file leaves out keeps its shipped definition.
    """
    shipped = (resources.files("wattzoo.observe") / "profiles" / "default.yaml").read_text(encoding="utf-8")
    profile = _parse(shipped, "default.yaml")
    if path is None:
        return profile
    try:
        own = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"--metrics-profile: {error}") from error
    return {**profile, **_parse(own, str(path))}


def _parse(text: str, origin: str) -> dict[str, Group]:
    try:
        profile = _ADAPTER.validate_python(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError, re.error) as error:
        raise SettingsError(f"--metrics-profile: {origin}: {error}") from error
    unknown = sorted(set(profile) - GROUPS)
    if unknown:
        raise SettingsError(f"--metrics-profile: {origin}: unknown groups {', '.join(unknown)}")
    return profile
