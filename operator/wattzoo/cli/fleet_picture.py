"""The comparison of fleet controllers as a picture; needs matplotlib, which only this command uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wattzoo.cli.fleet_report import FleetReport
from wattzoo.cli.outcome_files import FileError

_SUFFIXES = (".png", ".svg", ".pdf")
_COLOURS = ("#1b6ca8", "#e08e0b", "#2e8b57", "#b03a48", "#7d5ba6", "#5f6b73")


def check_picture(path: Path) -> None:
    """Raise `FileError` for a kind of picture that cannot be written."""
    if path.suffix not in _SUFFIXES:
        raise FileError(path, None, f"a picture must end in {', '.join(_SUFFIXES)}")


def write_picture(report: FleetReport, path: Path) -> None:
    """Write energy by part beside accelerators by type over time, one row per policy; raises `FileError`."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise FileError(path, None, "a picture needs matplotlib: install wattzoo[plot]") from error
    rows = report.rows
    figure = Figure(figsize=(11.0, 1.2 + 1.5 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows), 2, width_ratios=(1.0, 2.0))
    bars = figure.add_subplot(grid[:, 0])
    names = [row.policy for row in rows]
    parts = {
        "active": np.array([row.active_wh for row in rows]),
        "idle": np.array([row.idle_wh for row in rows]),
        "start": np.array([row.start_wh for row in rows]),
    }
    below = np.zeros(len(rows))
    for colour, (label, values) in zip(_COLOURS, parts.items(), strict=False):
        bars.barh(names, values, left=below, color=colour, label=label)
        below = below + values
    if report.bound_wh is not None:
        bars.axvline(report.bound_wh, color="black", linestyle="--", linewidth=1.0, label="bound")
    bars.invert_yaxis()
    bars.set_xlabel("Wh per 1,000 requests")
    bars.legend(loc="lower right", fontsize=8)
    top = max((float(values.max()) for row in rows for values in row.accelerators.values()), default=1.0)
    for place, row in enumerate(rows):
        axes = figure.add_subplot(grid[place, 1])
        for number, (name, values) in enumerate(row.accelerators.items()):
            hours = np.arange(len(values)) * report.step_seconds / 3600.0
            axes.step(hours, values, where="post", color=_COLOURS[number % len(_COLOURS)], label=name, linewidth=1.0)
        axes.set_ylim(0.0, 1.05 * max(top, 1.0))
        axes.set_title(
            f"{row.policy}: within latency {row.both:.2%}, accuracy {row.accuracy_end:.4f} ({row.margin:+.4f})",
            fontsize=9,
        )
        axes.set_ylabel("accelerators", fontsize=8)
        if place == 0:
            axes.legend(loc="upper right", fontsize=8, ncols=len(row.accelerators))
        if place == len(rows) - 1:
            axes.set_xlabel("hours")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise FileError(path, None, f"cannot be written ({error.strerror})") from error
