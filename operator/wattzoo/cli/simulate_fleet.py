"""`wattzoo simulate`: what the operator would have done with a recorded trace, on the YAML that kubectl takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wattzoo.cli import simulate_control
from wattzoo.cli.fleet_baselines import PriceError, read_prices
from wattzoo.cli.fleet_model import DEFAULT_ACCELERATORS_PER_NODE, make_fleet
from wattzoo.cli.fleet_objective import ObjectiveOption
from wattzoo.cli.fleet_picture import check_picture, write_picture
from wattzoo.cli.fleet_report import FleetReport, render_json, render_plot, render_table
from wattzoo.cli.fleet_study import COMPARISONS, StudyError, StudyOptions, make_study, run_study
from wattzoo.cli.manifest_files import ManifestError, read_manifests
from wattzoo.cli.outcome_files import FileError
from wattzoo.cli.quiet import without_native_output
from wattzoo.cli.simulate_control import EXIT_USAGE, read_commit
from wattzoo.errors import InvalidSpec
from wattzoo_policies.placement.objective import Objective

_WIDTH = 150  # of a table that goes to a file or a pipe

app = typer.Typer()
app.command("control")(simulate_control.control)

ManifestsOption = Annotated[
    list[Path] | None, typer.Option("-f", "--manifests", help="YAML as for kubectl: a file or a folder; repeatable.")
]
TraceOption = Annotated[
    Path | None, typer.Option(help="Requests, CSV or Parquet: t_s, in_tokens, out_tokens (service).")
]
OutcomesOption = Annotated[
    Path | None,
    typer.Option(help="Outcomes as for `simulate control`; without them accuracyPriorPerMille of the LLMServices."),
]
ZooOption = Annotated[str | None, typer.Option(help="Zoo of the outcomes file, where it holds several.")]
CompareOption = Annotated[str, typer.Option(help=f"Baselines to run too, of {','.join(COMPARISONS)}.")]
BoundOption = Annotated[bool, typer.Option("--bound", help="Least energy with perfect foresight (a linear program).")]
SeedsOption = Annotated[int, typer.Option(help="Independent runs.")]
SeedOption = Annotated[int, typer.Option(help="Of the random numbers.")]
ScaleOption = Annotated[float, typer.Option(help="Times as many requests as the trace has, at its times.")]
ServiceOption = Annotated[str | None, typer.Option(help="LLMService that all requests of the trace go to.")]
NamespaceOption = Annotated[
    str | None, typer.Option("-n", "--namespace", help="Of objects that name none (default: the one the others name).")
]
PerNodeOption = Annotated[int, typer.Option(help="Accelerators of a node, where the files hold no Node objects.")]
PriceOption = Annotated[
    list[str] | None, typer.Option(help="POOL=PRICE of an accelerator per hour, for melange; repeatable.")
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")]
PlotOption = Annotated[Path | None, typer.Option(help="Write a picture of the runs (PNG, SVG or PDF).")]


@app.callback(invoke_without_command=True)
def simulate(  # noqa: PLR0913 - one parameter per option
    context: typer.Context,
    *,
    manifests: ManifestsOption = None,
    trace: TraceOption = None,
    outcomes: OutcomesOption = None,
    zoo: ZooOption = None,
    compare: CompareOption = "",
    bound: BoundOption = False,
    seeds: SeedsOption = 1,
    seed: SeedOption = 1,
    scale_load: ScaleOption = 1.0,
    service: ServiceOption = None,
    namespace: NamespaceOption = None,
    accelerators_per_node: PerNodeOption = DEFAULT_ACCELERATORS_PER_NODE,
    objective: ObjectiveOption = Objective.ENERGY,
    price: PriceOption = None,
    json_file: JsonOption = None,
    plot: PlotOption = None,
) -> None:
    """Run the operator's own plans over a recorded trace, and print energy, latency and accuracy.

    wattzoo simulate -f MANIFESTS --trace FILE. Recorded outcomes alone, without servers: wattzoo simulate control.
    """
    if context.invoked_subcommand is not None:
        return
    try:
        _check_targets(json_file, plot)
        found = read_manifests(_required(manifests, "-f"), namespace)
        options = StudyOptions(
            manifests=tuple(map(str, manifests or ())),
            trace=_required(trace, "--trace"),
            outcomes=outcomes,
            zoo=zoo,
            compare=_parse_compare(compare),
            bound=bound,
            seeds=_at_least_one("--seeds", seeds),
            seed=seed,
            scale_load=scale_load,
            service=service,
            objective=objective,
        )
        fleet = make_fleet(found, _at_least_one("--accelerators-per-node", accelerators_per_node), objective)
        study = make_study(found, fleet, options)
        prices = read_prices(found, price or [])
        with _progress() as bar, without_native_output():
            task = bar.add_task("", total=1.0)
            report = run_study(
                study, options, prices, lambda name, done: bar.update(task, description=name, completed=done)
            )
        _show(report, json_file, plot)
    except (ManifestError, InvalidSpec, FileError, StudyError, PriceError) as error:
        sys.stderr.write(f"wattzoo: {error}\n")
        raise typer.Exit(EXIT_USAGE) from error


def _check_targets(json_file: Path | None, plot: Path | None) -> None:
    """Refuse, before anything runs for minutes, files that could not be written after it."""
    for path in (json_file, plot):
        if path is not None and not path.parent.is_dir():
            raise FileError(path, None, "cannot be written (there is no such folder)")
    if plot is not None:
        check_picture(plot)


def _required(value: Any, option: str) -> Any:
    if not value:
        raise StudyError(f"{option} is required (wattzoo simulate -f MANIFESTS --trace FILE)")
    return value


def _at_least_one(option: str, value: int) -> int:
    if value < 1:
        raise StudyError(f"{option} must be at least 1, not {value}")
    return value


def _parse_compare(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in COMPARISONS:
            raise StudyError(f"--compare: unknown baseline {name!r}; known are {', '.join(COMPARISONS)}")
    return names


def _progress() -> Progress:
    """Return a bar on standard error, which shows itself only on a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def _show(report: FleetReport, json_file: Path | None, plot: Path | None) -> None:
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(render_table(report))
    console.print(render_plot(report), soft_wrap=True, highlight=False)
    for note in report.notes:
        sys.stderr.write(f"wattzoo: {note}\n")
    if json_file is not None:
        body = render_json(report) | {"commit": read_commit()}
        try:
            json_file.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise FileError(json_file, None, f"cannot be written ({error.strerror})") from error
    if plot is not None:
        write_picture(report, plot)
