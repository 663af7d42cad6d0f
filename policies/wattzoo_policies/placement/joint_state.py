"""What the joint controller remembers, and how it survives as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wattzoo_policies.placement.forecast import BINS, ErrorHistogram, Expectation, LoadMemory
from wattzoo_policies.placement.target import Debt
from wattzoo_policies.signals import ReplicaHistory

VERSION = 4


@dataclass(frozen=True, slots=True)
class ServiceMemory:
    """One service: its rate's slow and quick average (`None`: never observed), mean tokens, and its debt."""

    rate_rps: float | None = None
    next_rps: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    debt: Debt = field(default_factory=Debt)


@dataclass(frozen=True, slots=True)
class KeptPlan:
    """What is needed of the last plan: replicas, what each variant is to carry at high load, and what it was for.

    high_rps: by variant. high_load: by group of services, the load in `forecast` units it was made for.
    """

    at_seconds: float
    replicas: Mapping[str, int]
    high_rps: Mapping[str, float]
    high_load: Mapping[str, float]
    watts: float | None = None
    binding: str = ""


@dataclass(frozen=True, slots=True)
class JointState:
    """Everything; loads and care (see `joint_demand.learn_care`) by the first service of a group.

    groups: all services of those groups, so that a load is found again when others join or leave.
    """

    services: Mapping[str, ServiceMemory] = field(default_factory=dict)
    loads: Mapping[str, LoadMemory] = field(default_factory=dict)
    care: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    plan: KeptPlan | None = None
    history: ReplicaHistory = field(default_factory=ReplicaHistory)

    def to_json(self) -> str:
        """Return compact JSON."""
        body: dict[str, Any] = {
            "version": VERSION,
            "services": {name: _service_body(memory) for name, memory in self.services.items()},
            "loads": {name: _load_body(memory) for name, memory in self.loads.items()},
            "care": {name: _short(care) for name, care in self.care.items()},
            "groups": {name: list(names) for name, names in self.groups.items()},
            "history": json.loads(self.history.to_json()),
        }
        if self.plan is not None:
            plan = self.plan
            body["plan"] = {
                "at": plan.at_seconds,
                "replicas": dict(plan.replicas),
                "highRps": {name: _short(rate) for name, rate in plan.high_rps.items()},
                "highLoad": {name: _short(load) for name, load in plan.high_load.items()},
                "watts": plan.watts,
                "binding": plan.binding,
            }
        return json.dumps(body, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> JointState:
        """Return the state that `to_json` wrote; raises `ValueError` when the text is damaged or of another version."""
        try:
            body = json.loads(text)
            if body["version"] != VERSION:
                raise ValueError(f"it has version {body['version']}, this code reads {VERSION}")
            return cls(
                {str(name): _read_service(entry) for name, entry in body["services"].items()},
                {str(name): _read_load(entry) for name, entry in body["loads"].items()},
                {str(name): float(care) for name, care in body["care"].items()},
                {str(name): tuple(map(str, names)) for name, names in body["groups"].items()},
                _read_plan(body["plan"]) if "plan" in body else None,
                ReplicaHistory.from_json(json.dumps(body["history"])),
            )
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise ValueError(f"the joint controller's state cannot be read: {error}") from error


def _service_body(memory: ServiceMemory) -> list[Any]:
    numbers = (memory.rate_rps, memory.next_rps, memory.input_tokens, memory.output_tokens)
    return [*numbers, memory.debt.queue, memory.debt.satisfied, memory.debt.total]


def _read_service(entry: list[Any]) -> ServiceMemory:
    rate, following, inputs, outputs = (None if number is None else float(number) for number in entry[:4])
    return ServiceMemory(rate, following, inputs, outputs, Debt(float(entry[4]), float(entry[5]), float(entry[6])))


def _load_body(memory: LoadMemory) -> dict[str, Any]:
    return {
        "level": memory.level,
        "next": memory.next_level,
        "loads": [_short(load) for load in memory.loads],
        "levels": [_short(level) for level in memory.levels],
        "lead": [_expectation_body(expectation) for expectation in memory.lead],
        "following": [_expectation_body(expectation) for expectation in memory.following],
        "rises": _histogram_body(memory.rises),
        "largest": _short(memory.largest),
        "mean": [_short(memory.mean), memory.steps],
        "window": memory.window,
    }


def _read_load(body: dict[str, Any]) -> LoadMemory:
    return LoadMemory(
        None if body["level"] is None else float(body["level"]),
        None if body["next"] is None else float(body["next"]),
        tuple(map(float, body["loads"])),
        tuple(map(float, body["levels"])),
        (_read_expectation(body["lead"][0]), _read_expectation(body["lead"][1])),
        (_read_expectation(body["following"][0]), _read_expectation(body["following"][1])),
        _read_histogram(body["rises"]),
        float(body["largest"]),
        float(body["mean"][0]),
        int(body["mean"][1]),
        int(body["window"]),
    )


def _expectation_body(expectation: Expectation) -> dict[str, Any]:
    return {
        "values": [_short(value) for value in expectation.values],
        "errors": _histogram_body(expectation.errors),
        "bound": [expectation.mean_bound, expectation.bounds],
    }


def _read_expectation(body: dict[str, Any]) -> Expectation:
    bound, bounds = body["bound"]
    return Expectation(
        tuple(map(float, body["values"])),
        _read_histogram(body["errors"]),
        None if bound is None else float(bound),
        int(bounds),
    )


def _histogram_body(histogram: ErrorHistogram) -> dict[str, Any]:
    """Return the filled bins alone."""
    bins = {str(place): _short(count) for place, count in enumerate(histogram.counts) if count > 0.0}
    return {"samples": histogram.samples, "size": len(histogram.counts), "bins": bins}


def _read_histogram(body: dict[str, Any]) -> ErrorHistogram:
    if body["size"] not in {0, BINS}:
        raise ValueError(f"a histogram has {body['size']} bins, this code reads {BINS}")
    counts = [0.0] * int(body["size"])
    for place, count in body["bins"].items():
        counts[int(place)] = float(count)
    return ErrorHistogram(tuple(counts), int(body["samples"]))


def _read_plan(body: dict[str, Any]) -> KeptPlan:
    return KeptPlan(
        float(body["at"]),
        {str(name): int(number) for name, number in body["replicas"].items()},
        {str(name): float(rate) for name, rate in body["highRps"].items()},
        {str(name): float(load) for name, load in body["highLoad"].items()},
        None if body["watts"] is None else float(body["watts"]),
        str(body["binding"]),
    )


def _short(number: float) -> float:
    return float(f"{number:.6g}")
