"""The comparison of fleet controllers as a table, a plot of characters or a picture, and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from wattzoo_policies.placement.objective import Objective

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDTH = 60
ATTAINED = 0.99
"""Share of requests within the latency bounds below which a row's energy is no saving."""


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One policy, the mean over all seeds.

    active_wh, idle_wh, start_wh: per 1,000 requests. ttft, tpot: share of requests within the bound; both: within
    both. accuracy_end, accuracy_worst_hour: satisfied share of the service that is furthest below (or least above)
    its target; margin: that share at the end minus its target. accelerators: by pool over time, mean of each step.
    """

    policy: str
    active_wh: float
    idle_wh: float
    start_wh: float
    ttft: float
    tpot: float
    both: float
    accuracy_end: float
    accuracy_worst_hour: float
    margin: float
    starts_per_hour: float
    accelerators: Mapping[str, NDArray[np.float64]]
    run_seconds: float
    solve_seconds: float
    plan_seconds_p99: float | None
    remark: str = ""

    @property
    def wh(self) -> float:
        """Return Wh per 1,000 requests."""
        return self.active_wh + self.idle_wh + self.start_wh


@dataclass(frozen=True, slots=True)
class FleetReport:
    """All rows, the bound in Wh per 1,000 requests (`None`: not asked for), and what went in."""

    rows: tuple[PolicyRow, ...]
    bound_wh: float | None
    step_seconds: float
    inputs: dict[str, Any]
    notes: tuple[str, ...] = field(default=())

    def ratio_to_bound(self, row: PolicyRow) -> float | None:
        """Return the row's energy over the bound's."""
        return row.wh / self.bound_wh if self.bound_wh else None


def render_table(report: FleetReport) -> Table:
    """Return the table that the command prints."""
    inputs = report.inputs
    bound = "" if report.bound_wh is None else f" Bound with perfect foresight: {report.bound_wh:.2f} Wh."
    minimised = "" if inputs["objective"] == Objective.ENERGY else f"; wattzoo's plans minimise {inputs['objective']}"
    table = Table(
        title=f"{inputs['requests']:,} requests in {inputs['hours']:.2f} h, {inputs['seeds']} seed"
        f"{'s' if inputs['seeds'] > 1 else ''}; Wh per 1,000 requests{minimised}",
        caption="Accuracy: of the service furthest from its target, at the end and in its worst hour. "
        f"*: below {ATTAINED:.0%} within the latency bounds, its energy is no saving.{bound}",
    )
    table.add_column("policy", no_wrap=True)
    for head in (
        "Wh",
        "active",
        "idle",
        "start",
        "TTFT",
        "TPOT",
        "accuracy",
        "- target",
        "worst h",
        "starts/h",
        "x bound",
    ):
        table.add_column(head, justify="right")
    for head in ("run s", "solve s"):
        table.add_column(head, justify="right")
    for row in report.rows:
        ratio = report.ratio_to_bound(row)
        table.add_row(
            row.policy + ("*" if row.both < ATTAINED else ""),
            f"{row.wh:.2f}",
            *(f"{part:.2f}" for part in (row.active_wh, row.idle_wh, row.start_wh)),
            _share(row.ttft),
            _share(row.tpot),
            _plain(row.accuracy_end, ".4f"),
            _plain(row.margin, "+.4f"),
            _plain(row.accuracy_worst_hour, ".4f"),
            f"{row.starts_per_hour:.1f}",
            "-" if ratio is None else f"{ratio:.2f}",
            f"{row.run_seconds:.1f}",
            f"{row.solve_seconds:.1f}",
        )
    return table


def render_plot(report: FleetReport) -> str:
    """Return accelerators held over the run, one line per policy and pool; full height is the pool's largest row."""
    lines = ["accelerators by type over the run (left: start), and the most at once"]
    wide = max((len(name) for row in report.rows for name in row.accelerators), default=0)
    for row in report.rows:
        lines.append(row.policy)
        for name, values in row.accelerators.items():
            top = max(float(other.accelerators[name].max()) for other in report.rows)
            lines.append(f"  {name:<{wide}} |{_strip(values, top)}| {float(values.max()):.0f}")
    return "\n".join(lines)


def _strip(values: NDArray[np.float64], top: float) -> str:
    if top <= 0.0:
        return " " * min(_WIDTH, len(values))
    parts = np.array_split(values, min(_WIDTH, len(values)))
    heights = [math.ceil(float(part.mean()) / top * (len(_BLOCKS) - 1) - 1e-9) for part in parts]
    return "".join(_BLOCKS[min(max(height, 0), len(_BLOCKS) - 1)] for height in heights)


def render_json(report: FleetReport) -> dict[str, Any]:
    """Return the body of `--json`; energies are Wh per 1,000 requests, what is unknown is null."""
    return {
        "policies": [
            {
                "policy": row.policy,
                "wh_per_1000_requests": _number(row.wh),
                "wh": {"active": _number(row.active_wh), "idle": _number(row.idle_wh), "start": _number(row.start_wh)},
                "slo": {"ttft": _number(row.ttft), "tpot": _number(row.tpot)},
                "accuracy": {"end": _number(row.accuracy_end), "worst_hour": _number(row.accuracy_worst_hour)},
                "starts_per_hour": _number(row.starts_per_hour),
                "ratio_to_bound": _number(report.ratio_to_bound(row)),
            }
            for row in report.rows
        ],
        "bound": _number(report.bound_wh),
        "inputs": report.inputs,
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _share(value: float) -> str:
    return _plain(value, ".2%")


def _plain(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"
