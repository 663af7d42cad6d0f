"""`wattzoo simulate control`: what a law would have done with recorded outcomes, before anything is applied."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from wattzoo.cli.control_report import ControlReport, render_json, render_plot, render_table
from wattzoo.cli.control_study import ORDERS, POLICIES, ControlOptions, StudyError, run_study
from wattzoo.cli.outcome_files import FileError, read_outcomes, read_stream
from wattzoo_policies.sim.stream import StreamError

EXIT_USAGE = 2
_WIDTH = 140  # of a table that goes to a file or a pipe

app = typer.Typer(no_args_is_help=True, help="Replay recorded requests before applying anything.")


@app.callback()
def simulate() -> None:
    """Replay recorded requests before applying anything."""


OutcomesOption = Annotated[
    Path, typer.Option(help="Outcomes, Parquet or CSV: request_id, model, correct, joules (zoo).")
]
AlphaOption = Annotated[float, typer.Option(help="Target share of satisfied requests.")]
RequestsOption = Annotated[Path | None, typer.Option(help="Requests: request_id, category (for orders, Threshold).")]
StreamOption = Annotated[Path | None, typer.Option(help="Arrivals: t_s, request_id (pool_event).")]
ZooOption = Annotated[str | None, typer.Option(help="Zoo of the outcomes file, where it holds several.")]
EnergyColumnOption = Annotated[
    str | None, typer.Option(help="Column of joules (default: the first that starts with energy, joules or cost).")
]
JoulesOption = Annotated[list[str] | None, typer.Option(help="MEMBER=JOULES instead of a column; repeatable.")]
PolicyOption = Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(POLICIES)}; repeatable (default: all).")]
SafestOption = Annotated[str | None, typer.Option(help="Where traffic starts (default: the most accurate).")]
RequestsCountOption = Annotated[int | None, typer.Option(help="Requests per seed (default: 20000, or the stream's).")]
OrderOption = Annotated[str, typer.Option(help=f"How requests are drawn without --stream: {', '.join(ORDERS)}.")]
IntervalRequestsOption = Annotated[int, typer.Option(help="Requests between two decisions.")]
IntervalSecondsOption = Annotated[
    float | None, typer.Option(help="Seconds between two decisions, with --stream; instead of requests.")
]
LagIntervalsOption = Annotated[int, typer.Option(help="Intervals until the outcomes of one are counted.")]
FeedbackOption = Annotated[float, typer.Option(help="Share of requests that give feedback.")]
FeedbackDelaySecondsOption = Annotated[float, typer.Option(help="How late feedback comes, with --stream.")]
DeltaOption = Annotated[float, typer.Option(help="Promised probability of a violation.")]
SeedsOption = Annotated[int, typer.Option(help="Independent runs.")]
SeedOption = Annotated[int, typer.Option(help="Of the random numbers.")]
JsonFileOption = Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")]


@app.command()
def control(  # noqa: PLR0913 - one parameter per option
    *,
    outcomes: OutcomesOption,
    alpha: AlphaOption,
    requests: RequestsOption = None,
    stream: StreamOption = None,
    zoo: ZooOption = None,
    energy_column: EnergyColumnOption = None,
    joules: JoulesOption = None,
    policy: PolicyOption = None,
    safest: SafestOption = None,
    requests_count: RequestsCountOption = None,
    order: OrderOption = "independent",
    interval_requests: IntervalRequestsOption = 200,
    interval_seconds: IntervalSecondsOption = None,
    lag_intervals: LagIntervalsOption = 1,
    feedback: FeedbackOption = 1.0,
    feedback_delay_seconds: FeedbackDelaySecondsOption = 0.0,
    delta: DeltaOption = 0.05,
    seeds: SeedsOption = 50,
    seed: SeedOption = 1,
    json_file: JsonFileOption = None,
) -> None:
    """Replay request outcomes against control laws and compare joules with the blind optimum of the same stream."""
    try:
        recorded = read_outcomes(outcomes, zoo, energy_column, _parse_joules(joules or []), requests)
        arrivals = None if stream is None else read_stream(stream, recorded)
        report = run_study(
            recorded,
            arrivals,
            ControlOptions(
                alpha=alpha,
                policies=tuple(policy or POLICIES),
                safest=safest,
                requests_count=requests_count,
                order=order,
                interval_requests=interval_requests,
                interval_seconds=interval_seconds,
                lag_intervals=lag_intervals,
                feedback=feedback,
                feedback_delay_seconds=feedback_delay_seconds,
                delta=delta,
                seeds=seeds,
                seed=seed,
                outcomes_file=str(outcomes),
            ),
        )
        _show(report, json_file)
    except (FileError, StudyError, StreamError) as error:
        sys.stderr.write(f"wattzoo: {error}\n")
        raise typer.Exit(EXIT_USAGE) from error


def _show(report: ControlReport, json_file: Path | None) -> None:
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(render_table(report))
    console.print(render_plot(report), soft_wrap=True, highlight=False)
    if json_file is not None:
        body = render_json(report) | {"commit": read_commit()}
        try:
            json_file.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise FileError(json_file, None, f"cannot be written ({error.strerror})") from error


def _parse_joules(entries: list[str]) -> dict[str, float]:
    found = {}
    for entry in entries:
        name, _, text = entry.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not name or not np.isfinite(value) or value <= 0.0:
            raise StudyError(f"--joules must be MEMBER=NUMBER with a positive number, not {entry!r}")
        found[name] = value
    return found


def read_commit() -> str | None:
    """Return the commit of the source tree that this code runs from; `None` for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        result: Any = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
