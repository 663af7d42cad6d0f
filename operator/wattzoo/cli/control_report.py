"""The comparison of control laws as a table, a plot of characters and JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from wattzoo_policies.sim.study import Replay

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDTH = 50


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One policy's replay and the 99th percentile of its decision time for one service."""

    name: str
    replay: Replay
    decision_seconds_p99: float


@dataclass(frozen=True, slots=True)
class ControlReport:
    """All rows, the blind optimum they are compared with, and the inputs."""

    rows: tuple[PolicyRow, ...]
    members: tuple[str, ...]
    blind_weights: NDArray[np.float64]
    blind_joules: float
    promise_from: int
    inputs: dict[str, Any]


def render_table(report: ControlReport) -> Table:
    """Return the table that the command prints."""
    inputs = report.inputs
    shares = zip(report.members, report.blind_weights, strict=True)
    split = ", ".join(f"{name} {share:.1%}" for name, share in shares if share > 0.0)
    table = Table(
        title=f"{inputs['requests']} requests, {inputs['seeds']} seeds, target {inputs['alpha']:g}, "
        f"feedback {inputs['feedback']:g}, joules from {inputs['energy_column']}",
        caption=f"blind optimum {report.blind_joules:.4g} J/request: {split}. Violated: below the target at "
        f"any request from N0 = {report.promise_from} on",
    )
    for head in (
        "policy",
        "joules / blind",
        "p5",
        "p95",
        "met",
        "violated",
        "worst deficit",
        "churn",
        "explored",
        "ms",
    ):
        table.add_column(head, justify="left" if head == "policy" else "right", no_wrap=head == "policy")
    for row in report.rows:
        body = _figures(row)
        ratio = body["joules_ratio"]
        table.add_row(
            row.name,
            *(_cell(ratio[key], "{:.3f}") for key in ("mean", "p5", "p95")),
            f"{body['met_share']:.1%}",
            _cell(body["violated_share"], "{:.1%}"),
            f"{body['worst_deficit']:.4f}",
            f"{body['churn']:.3f}",
            f"{body['exploration_share']:.2%}",
            f"{1e3 * row.decision_seconds_p99:.2f}",
        )
    return table


def render_plot(report: ControlReport) -> str:
    """Return each policy's mean weights over the run, one line per member: full height is all traffic."""
    lines = ["mean weight by member over the run (left: start)"]
    wide = max(len(name) for name in report.members)
    for row in report.rows:
        lines.append(row.name)
        for index, member in enumerate(report.members):
            lines.append(f"  {member:<{wide}} |{_strip(row.replay.mean_weights[:, index])}|")
    return "\n".join(lines)


def _strip(values: NDArray[np.float64]) -> str:
    parts = np.array_split(values, min(_WIDTH, len(values)))
    heights = [round(float(part.mean()) * (len(_BLOCKS) - 1)) for part in parts]
    return "".join(_BLOCKS[min(max(height, 0), len(_BLOCKS) - 1)] for height in heights)


def render_json(report: ControlReport) -> dict[str, Any]:
    """Return the body of `--json`."""
    return {
        "policies": [{"policy": row.name, **_figures(row)} for row in report.rows],
        "blind": {
            "weights": dict(zip(report.members, map(float, report.blind_weights), strict=True)),
            "joules_per_request": _number(report.blind_joules),
        },
        "inputs": report.inputs | {"promise_from_request": report.promise_from},
    }


def _figures(row: PolicyRow) -> dict[str, Any]:
    replay = row.replay
    ratios = replay.joules_ratio[np.isfinite(replay.joules_ratio)]
    some = bool(ratios.size)
    promised = bool(np.isfinite(replay.lowest_credit).any())
    return {
        "joules_ratio": {
            "mean": float(ratios.mean()) if some else None,
            "p5": float(np.quantile(ratios, 0.05)) if some else None,
            "p95": float(np.quantile(ratios, 0.95)) if some else None,
        },
        "met_share": float(replay.met.mean()),
        "violated_share": float(replay.violated.mean()) if promised else None,
        "worst_deficit": float(replay.worst_deficit.max()),
        "churn": float(replay.churn.mean()),
        "exploration_share": float(replay.exploration_share.mean()),
        "decision_seconds_p99": row.decision_seconds_p99,
    }


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
