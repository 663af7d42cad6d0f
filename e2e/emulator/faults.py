"""Faults that a test switches on in the emulated servers and exporters; a small set, each with a visible effect."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


class FaultError(ValueError):
    """The body of a fault request is not understood."""


@dataclass(slots=True)
class Faults:
    """What is broken now.

    freeze_loading: variants whose starting pods never finish loading. fail_metrics: variants whose /metrics answers
    500. fail_requests: variants that answer every API request with 500. stall_requests: variants that take requests
    and never answer. report_nan_power: the GPU exporter says NaN for power. hide_power: it leaves power and energy out.
    """

    freeze_loading: set[str] = field(default_factory=set)
    fail_metrics: set[str] = field(default_factory=set)
    fail_requests: set[str] = field(default_factory=set)
    stall_requests: set[str] = field(default_factory=set)
    report_nan_power: bool = False
    hide_power: bool = False

    def apply(self, wishes: dict[str, Any]) -> dict[str, Any]:
        """Set the named faults: a variant, a list of variants or null; true or false. Returns what is broken now."""
        for name, wish in wishes.items():
            current = getattr(self, name, None) if name in self.names() else None
            if isinstance(current, set):
                setattr(self, name, _variants(name, wish))
            elif isinstance(current, bool) and isinstance(wish, bool):
                setattr(self, name, wish)
            else:
                raise FaultError(f"{name}={wish!r} is no fault; there are {', '.join(self.names())}")
        return self.to_dict()

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all faults."""
        return [entry.name for entry in fields(cls)]

    def to_dict(self) -> dict[str, Any]:
        """Return what is broken, as JSON."""
        values = {name: getattr(self, name) for name in self.names()}
        return {name: sorted(value) if isinstance(value, set) else value for name, value in values.items()}


def _variants(name: str, wish: object) -> set[str]:
    if wish is None:
        return set()
    if isinstance(wish, str):
        return {wish}
    if isinstance(wish, list) and all(isinstance(entry, str) for entry in wish):
        return set(wish)
    raise FaultError(f"{name} takes the name of a variant, a list of them or null, not {wish!r}")
