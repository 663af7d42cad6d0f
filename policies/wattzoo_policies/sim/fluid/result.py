"""What a run in the fluid plant cost and how well it served: energy never without latency and accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wattzoo_policies.sim.fluid.scenario import FloatArray

JOULES_PER_WH = 3600.0


@dataclass(frozen=True, slots=True)
class ServiceResult:
    """One service. Attainments are shares of all arrived requests; lost ones and backlog are never within.

    outcomes, correct: answers judged, and satisfied ones. accuracy_worst_hour: least mean over any whole hour (over
    everything when shorter).
    """

    name: str
    alpha: float
    arrived: float
    served: float
    outcomes: float
    correct: float
    within_ttft: float
    within_tpot: float
    within_both: float
    accuracy_worst_hour: float | None

    @property
    def accuracy_end(self) -> float | None:
        """Return the satisfied share of all answers; `None` without any."""
        return self.correct / self.outcomes if self.outcomes else None


@dataclass(frozen=True, slots=True, eq=False)
class FluidResult:
    """Sums over the counted steps; joules are of all accelerators that replicas hold, others count as 0 W.

    arrived = served + lost + backlog (what is inside at the end, less what was inside at the beginning).
    accelerators: by pool, accelerators held in each step, starting and terminating replicas included.
    replicas, serving: (steps, variants), ready and serving ones. power_watts: mean of each step.
    plan_seconds: of every decision with a plan, decide_seconds: of all decisions; empty without a clock.
    """

    policy: str
    step_seconds: float
    variants: tuple[str, ...]
    services: tuple[ServiceResult, ...]
    active_joules: float
    idle_joules: float
    start_joules: float
    lost: float
    backlog: float
    starts: int
    accelerators: Mapping[str, FloatArray]
    replicas: FloatArray
    serving: FloatArray
    power_watts: FloatArray
    plan_seconds: FloatArray
    decide_seconds: float

    @property
    def joules(self) -> float:
        """Return all energy."""
        return self.active_joules + self.idle_joules + self.start_joules

    @property
    def arrived(self) -> float:
        """Return requests that arrived."""
        return sum(service.arrived for service in self.services)

    @property
    def hours(self) -> float:
        """Return the counted time."""
        return self.power_watts.size * self.step_seconds / 3600.0

    @property
    def wh_per_1000_requests(self) -> float:
        """Return energy per 1,000 arrived requests; NaN without any."""
        return self.joules / JOULES_PER_WH / self.arrived * 1000.0 if self.arrived else float("nan")

    @property
    def wh_by_kind(self) -> dict[str, float]:
        """Return Wh per 1,000 requests, split into active, idle and start."""
        unit = JOULES_PER_WH * self.arrived / 1000.0 if self.arrived else float("nan")
        return {
            "active": self.active_joules / unit,
            "idle": self.idle_joules / unit,
            "start": self.start_joules / unit,
        }

    @property
    def ttft_attainment(self) -> float:
        """Return the share of requests whose first token came in time."""
        return self._share("within_ttft")

    @property
    def tpot_attainment(self) -> float:
        """Return the share of requests whose tokens came in time."""
        return self._share("within_tpot")

    @property
    def attainment(self) -> float:
        """Return the share of requests within both bounds."""
        return self._share("within_both")

    @property
    def starts_per_hour(self) -> float:
        """Return replicas started per hour."""
        return self.starts / self.hours if self.hours else 0.0

    @property
    def accuracy_end(self) -> float:
        """Return the satisfied share over all services."""
        outcomes = sum(service.outcomes for service in self.services)
        return sum(service.correct for service in self.services) / outcomes if outcomes else float("nan")

    @property
    def worst_margin(self) -> float:
        """Return the least of accuracy at the end minus alpha, over services."""
        margins = [s.accuracy_end - s.alpha for s in self.services if s.accuracy_end is not None]
        return min(margins, default=float("nan"))

    @property
    def worst_hour_margin(self) -> float:
        """Return the least of a whole hour's accuracy minus alpha, over services."""
        margins = [s.accuracy_worst_hour - s.alpha for s in self.services if s.accuracy_worst_hour is not None]
        return min(margins, default=float("nan"))

    @property
    def plan_seconds_p99(self) -> float | None:
        """Return the 99th percentile of the seconds of a decision with a plan; `None` without a clock."""
        return float(np.quantile(self.plan_seconds, 0.99)) if self.plan_seconds.size else None

    def _share(self, name: str) -> float:
        arrived = self.arrived
        return sum(getattr(service, name) for service in self.services) / arrived if arrived else float("nan")


def worst_hour(correct: FloatArray, served: FloatArray, step_seconds: float) -> float | None:
    """Return the least satisfied share over any window of one hour; over everything where there is less."""
    length = min(served.size, max(1, round(3600.0 / step_seconds)))
    if served.size == 0:
        return None
    window = np.ones(length)
    good, total = np.convolve(correct, window, "valid"), np.convolve(served, window, "valid")
    return float(np.min(good[total > 0.0] / total[total > 0.0])) if np.any(total > 0.0) else None
