"""The command line: `wattzoo run` is the operator; every option is an environment variable too (WATTZOO_...)."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from wattzoo import __version__
from wattzoo.api.crd import render_crds
from wattzoo.cli import plan_command, simulate_fleet
from wattzoo.cli.quiet import drop_native_output
from wattzoo.logs import set_logging
from wattzoo.process import run_operator
from wattzoo.settings import (
    Address,
    LeaseSettings,
    PrometheusSettings,
    Settings,
    SettingsError,
    parse_objective,
    split_namespaces,
)

EXIT_USAGE = 2

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Serve LLM requests with the fewest joules.")
app.add_typer(simulate_fleet.app, name="simulate")
app.command("plan")(plan_command.plan)


def _option(name: str, text: str, *more_variables: str) -> Any:
    return typer.Option(envvar=[f"WATTZOO_{name}", *more_variables], help=text)


PrometheusUrl: TypeAlias = Annotated[str, _option("PROMETHEUS_URL", "Where to read measurements.")]
TokenFile: TypeAlias = Annotated[Path | None, _option("PROMETHEUS_TOKEN_FILE", "Bearer token, read for each query.")]
CaFile: TypeAlias = Annotated[Path | None, _option("PROMETHEUS_CA_FILE", "Authority of Prometheus' certificate.")]
ProfileFile: TypeAlias = Annotated[Path | None, _option("METRICS_PROFILE", "Names that exporters use (YAML).")]
Window: TypeAlias = Annotated[float, _option("TELEMETRY_WINDOW_SECONDS", "At least two scrape intervals.")]
Namespaces: TypeAlias = Annotated[str, _option("WATCH_NAMESPACES", "Comma-separated; empty means all.")]
LeaseNamespace: TypeAlias = Annotated[str, _option("LEASE_NAMESPACE", "Namespace of the Lease.")]
LeaseName: TypeAlias = Annotated[str, _option("LEASE_NAME", "Name of the Lease.")]
Identity: TypeAlias = Annotated[str, _option("IDENTITY", "This replica [default: the host's name].", "POD_NAME")]
Duration: TypeAlias = Annotated[float, _option("LEASE_DURATION_SECONDS", "A standby waits this long.")]
Deadline: TypeAlias = Annotated[float, _option("RENEW_DEADLINE_SECONDS", "A leader that cannot renew stops then.")]
Retry: TypeAlias = Annotated[float, _option("RETRY_PERIOD_SECONDS", "Between attempts to acquire or renew.")]
PoolInterval: TypeAlias = Annotated[float, _option("POOL_INTERVAL_SECONDS", "Between two passes over a ModelPool.")]
ObjectiveOption: TypeAlias = Annotated[str, _option("OBJECTIVE", "What joint plans minimise: Energy, Carbon or Cost.")]
HealthAddress: TypeAlias = Annotated[str, _option("HEALTH_ADDRESS", "HOST:PORT of /livez and /readyz.")]
MetricsAddress: TypeAlias = Annotated[str, _option("METRICS_ADDRESS", "HOST:PORT of /metrics.")]
LogFormat: TypeAlias = Annotated[str, _option("LOG_FORMAT", "json or text.")]
LogLevel: TypeAlias = Annotated[str, _option("LOG_LEVEL", "debug, info, warning or error.")]
Folder: TypeAlias = Annotated[Path | None, typer.Option(help="Folder to write one file per kind into.")]


@app.command()
def run(  # noqa: PLR0913 - one parameter per option
    *,
    prometheus_url: PrometheusUrl,
    lease_namespace: LeaseNamespace,
    prometheus_token_file: TokenFile = None,
    prometheus_ca_file: CaFile = None,
    metrics_profile: ProfileFile = None,
    telemetry_window_seconds: Window = 45.0,
    watch_namespaces: Namespaces = "",
    lease_name: LeaseName = "wattzoo",
    identity: Identity = "",
    lease_duration_seconds: Duration = 15.0,
    renew_deadline_seconds: Deadline = 10.0,
    retry_period_seconds: Retry = 2.0,
    pool_interval_seconds: PoolInterval = 15.0,
    objective: ObjectiveOption = "Energy",
    health_address: HealthAddress = "0.0.0.0:8081",
    metrics_address: MetricsAddress = "0.0.0.0:8080",
    log_format: LogFormat = "json",
    log_level: LogLevel = "info",
) -> None:
    """Run the operator until it is stopped."""
    try:
        lease = LeaseSettings(
            namespace=lease_namespace,
            name=lease_name,
            identity=identity or platform.node(),
            duration_seconds=lease_duration_seconds,
            renew_deadline_seconds=renew_deadline_seconds,
            retry_period_seconds=retry_period_seconds,
        )
        settings = Settings(
            prometheus=PrometheusSettings(
                url=prometheus_url,
                token_file=prometheus_token_file,
                ca_file=prometheus_ca_file,
                profile_file=metrics_profile,
                window_seconds=telemetry_window_seconds,
            ),
            lease=lease,
            watch_namespaces=split_namespaces(watch_namespaces),
            pool_interval_seconds=pool_interval_seconds,
            objective=parse_objective(objective),
            health_address=Address.parse("--health-address", health_address),
            metrics_address=Address.parse("--metrics-address", metrics_address),
            log_format=log_format,
            log_level=log_level,
        )
        drop_native_output()
        code = start(settings)
    except SettingsError as error:
        sys.stderr.write(f"wattzoo: {error}\n")
        raise typer.Exit(EXIT_USAGE) from error
    logging.shutdown()
    os._exit(code)  # at once: the interpreter would wait for threads that are still asking Prometheus


def start(settings: Settings) -> int:
    """Run the operator with these settings; the exit code."""
    set_logging(settings.log_format, settings.log_level)
    return asyncio.run(run_operator(settings))


@app.command()
def crds(output: Folder = None) -> None:
    """Print the custom resource definitions, or write them into a folder."""
    files = render_crds()
    if output is None:
        sys.stdout.write("---\n".join(files.values()))
        return
    output.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (output / name).write_text(text, encoding="utf-8")
        typer.echo(output / name)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
