"""What a closed loop is made of: requests, promises, what controllers see, and what a run is said to have cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from wattzoo_policies.capacity.model import LatencyTarget
from wattzoo_policies.sim.fleet import Variant, VariantCounts, VariantEnergy

Weights = Mapping[str, Mapping[str, float]]
"""Shares of variants by service."""

GRACE_REQUESTS = 1000
"""Outcomes of a service before its running deficit counts."""


@dataclass(frozen=True, slots=True)
class LoopRequest:
    """One request of a scenario with what every member would answer: how many tokens, and whether it satisfies."""

    at_seconds: float
    service: str
    request_id: str
    input_tokens: int
    output_tokens: Mapping[str, int]
    correct: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """What a service promises."""

    alpha: float
    latency: LatencyTarget
    safest_member: str | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """Requests in order of time, the variants that may serve them, and the promises.

    end_seconds: energy counts from 0 until then; requests still inside are completed afterwards.
    """

    requests: tuple[LoopRequest, ...]
    variants: tuple[Variant, ...]
    services: Mapping[str, ServiceTarget]
    end_seconds: float
    max_accelerators: Mapping[str, int] = field(default_factory=dict)
    linger_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class VariantView:
    """What is seen of one variant at a tick. Requests, tokens and joules are cumulative."""

    variant: Variant
    counts: VariantCounts
    routed: int
    completed: int
    input_tokens: int
    output_tokens: int
    joules: float


@dataclass(frozen=True, slots=True)
class LoopView:
    """What a controller sees at a tick. Arrivals, served requests and outcomes are cumulative.

    outcomes: by service and member (satisfied, total). served: requests sent, by service and member, answered or not.
    """

    at_seconds: float
    variants: Mapping[str, VariantView]
    arrivals: Mapping[str, int]
    outcomes: Mapping[tuple[str, str], tuple[int, int]]
    served: Mapping[tuple[str, str], int] = field(default_factory=dict)


class WeightsController(Protocol):
    """Decides routes; called at 0 and every `interval_seconds`. An empty answer for a service keeps its weights."""

    interval_seconds: float

    def decide(self, view: LoopView) -> Weights:
        """Return weights by service and variant."""
        ...


class ReplicasController(Protocol):
    """Decides replicas; called at 0 and every `interval_seconds`. Variants that it does not name stay."""

    interval_seconds: float

    def decide(self, view: LoopView) -> Mapping[str, int]:
        """Return wished replicas by variant."""
        ...


@dataclass(frozen=True, slots=True)
class PodLife:
    """One replica of a recorded run; `None` for what never happened. Times may lie before 0.

    serving: when requests began to be sent to it (True) or it fell silent (False); before the first step they are.
    """

    variant: str
    started_seconds: float
    ready_seconds: float | None = None
    terminating_seconds: float | None = None
    gone_seconds: float | None = None
    serving: tuple[tuple[float, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceOutcome:
    """Satisfaction of one service over the whole run; the worst deficit after the first 1,000 outcomes."""

    satisfied: int
    total: int
    achieved: float | None
    worst_deficit: float | None


@dataclass(frozen=True, slots=True)
class LoopMoment:
    """State of the loop at one moment, for tables and plots."""

    at_seconds: float
    power_watts: float
    replicas: Mapping[str, tuple[int, int]]
    weights: Weights


@dataclass(frozen=True, slots=True)
class LoopResult:
    """What a run cost and how well it served. Attainments are shares of all requests, failed ones never within."""

    energy: Mapping[str, VariantEnergy]
    requests: int
    failed: int
    ttft_attainment: float | None
    tpot_attainment: float | None
    ttft_p95_seconds: float | None
    tpot_p95_seconds: float | None
    services: Mapping[str, ServiceOutcome]
    timeline: tuple[LoopMoment, ...]

    @property
    def joules(self) -> float:
        """Return all energy until the scenario's end."""
        return sum(energy.joules for energy in self.energy.values())

    @property
    def joules_by_kind(self) -> dict[str, float]:
        """Return energy split into active, idle and start."""
        return {
            kind: sum(getattr(energy, f"{kind}_joules") for energy in self.energy.values())
            for kind in ("active", "idle", "start")
        }

    @property
    def starts(self) -> int:
        """Return replicas started during the run."""
        return sum(energy.starts for energy in self.energy.values())
