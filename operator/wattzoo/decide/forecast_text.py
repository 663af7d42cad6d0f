"""Carries what forecasts have learned over a restart: as a short text in the pool's status, or not at all.

Errors are learned in ten minutes and remembered for hours, so numbers are cut to three digits: they tell how wrong a
forecast usually is, not what comes. Whatever does not fit, cannot be read, is old or is of other services is dropped;
learning then begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from wattzoo.decide.memory import ForecastMemory
from wattzoo.model import Ref
from wattzoo_policies.accuracy.state_text import read_state, write_state
from wattzoo_policies.placement.joint_state import JointState

NAME = "forecast"
MOST_LENGTH = 2048
MOST_AGE_SECONDS = 900.0
"""Load that is older says little of the next minutes; errors could be kept longer, but not apart from it."""
DIGITS = 3


def render_forecasts(memory: ForecastMemory) -> str:
    """What the forecasts of one pool have learned, as text; empty while that is nothing, or when it is too long."""
    if memory.at_seconds is None or not memory.state.loads:
        return ""
    learned = json.loads(memory.state.to_json())
    text = write_state(NAME, {"at": round(memory.at_seconds), "step": memory.step_seconds, "learned": _cut(learned)})
    return text if len(text) <= MOST_LENGTH else ""


def restore_forecasts(
    text: object, services: Collection[Ref], at_seconds: float, step_seconds: float
) -> ForecastMemory:
    """The memory to go on from for these services and this step; an empty one where the text does not serve for it."""
    fresh = ForecastMemory(step_seconds=step_seconds)
    try:
        body = read_state(NAME, text) if isinstance(text, str) and text else {}
        written, step = float(body["at"]), float(body["step"])
        state = JointState.from_json(json.dumps(body["learned"], allow_nan=False))
    except (ValueError, KeyError, TypeError, OverflowError):
        return fresh
    is_recent = 0.0 <= at_seconds - written <= MOST_AGE_SECONDS
    is_same = set(state.services) == {str(ref) for ref in services} and step == step_seconds
    return replace(fresh, at_seconds=written, state=state) if is_recent and is_same else fresh


def _cut(value: Any) -> Any:
    """The same body with every number that is not whole at `DIGITS` digits."""
    if isinstance(value, dict):
        return {key: _cut(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_cut(own) for own in value]
    if not isinstance(value, float):
        return value
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() else short
