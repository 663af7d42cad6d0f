"""The command line: `wattzoo run` is the operator; every option is an environment variable too (WATTZOO_...)."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

from wattzoo import __version__
from wattzoo.api.crd import render_crds
from wattzoo.logs import set_logging
from wattzoo.process import run_operator
from wattzoo.settings import (
    Address,
    LeaseSettings,
    PrometheusSettings,
    Settings,
    SettingsError,
    split_namespaces,
)

EXIT_USAGE = 2

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Serve LLM requests with the fewest joules.")


@app.command()
def run(  # noqa: PLR0913 - one parameter per option
    *,
    prometheus_url: Annotated[str, typer.Option(envvar="WATTZOO_PROMETHEUS_URL", help="Where to read measurements.")],
    lease_namespace: Annotated[str, typer.Option(envvar="WATTZOO_LEASE_NAMESPACE", help="Namespace of the Lease.")],
    prometheus_token_file: Annotated[
        Path | None, typer.Option(envvar="WATTZOO_PROMETHEUS_TOKEN_FILE", help="Bearer token, read for each query.")
    ] = None,
    prometheus_ca_file: Annotated[
        Path | None, typer.Option(envvar="WATTZOO_PROMETHEUS_CA_FILE", help="Authority of Prometheus' certificate.")
    ] = None,
    metrics_profile: Annotated[
        Path | None, typer.Option(envvar="WATTZOO_METRICS_PROFILE", help="Names that exporters use (YAML).")
    ] = None,
    telemetry_window_seconds: Annotated[
        float, typer.Option(envvar="WATTZOO_TELEMETRY_WINDOW_SECONDS", help="At least two scrape intervals.")
    ] = 45.0,
    watch_namespaces: Annotated[
        str, typer.Option(envvar="WATTZOO_WATCH_NAMESPACES", help="Comma-separated; empty means all.")
    ] = "",
    lease_name: Annotated[str, typer.Option(envvar="WATTZOO_LEASE_NAME", help="Name of the Lease.")] = "wattzoo",
    identity: Annotated[
        str, typer.Option(envvar=["WATTZOO_IDENTITY", "POD_NAME"], help="This replica [default: the host's name].")
    ] = "",
    lease_duration_seconds: Annotated[
        float, typer.Option(envvar="WATTZOO_LEASE_DURATION_SECONDS", help="A standby waits this long.")
    ] = 15.0,
    renew_deadline_seconds: Annotated[
        float, typer.Option(envvar="WATTZOO_RENEW_DEADLINE_SECONDS", help="A leader that cannot renew stops then.")
    ] = 10.0,
    retry_period_seconds: Annotated[
        float, typer.Option(envvar="WATTZOO_RETRY_PERIOD_SECONDS", help="Between attempts to acquire or renew.")
    ] = 2.0,
    pool_interval_seconds: Annotated[
        float, typer.Option(envvar="WATTZOO_POOL_INTERVAL_SECONDS", help="Between two passes over a ModelPool.")
    ] = 15.0,
    health_address: Annotated[
        str, typer.Option(envvar="WATTZOO_HEALTH_ADDRESS", help="HOST:PORT of /livez and /readyz.")
    ] = "0.0.0.0:8081",
    metrics_address: Annotated[
        str, typer.Option(envvar="WATTZOO_METRICS_ADDRESS", help="HOST:PORT of /metrics.")
    ] = "0.0.0.0:8080",
    log_format: Annotated[str, typer.Option(envvar="WATTZOO_LOG_FORMAT", help="json or text.")] = "json",
    log_level: Annotated[str, typer.Option(envvar="WATTZOO_LOG_LEVEL", help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the operator until it is stopped."""
    try:
        settings = Settings(
            prometheus=PrometheusSettings(
                url=prometheus_url,
                token_file=prometheus_token_file,
                ca_file=prometheus_ca_file,
                profile_file=metrics_profile,
                window_seconds=telemetry_window_seconds,
            ),
            lease=LeaseSettings(
                namespace=lease_namespace,
                name=lease_name,
                identity=identity or platform.node(),
                duration_seconds=lease_duration_seconds,
                renew_deadline_seconds=renew_deadline_seconds,
                retry_period_seconds=retry_period_seconds,
            ),
            watch_namespaces=split_namespaces(watch_namespaces),
            pool_interval_seconds=pool_interval_seconds,
            health_address=Address.parse("--health-address", health_address),
            metrics_address=Address.parse("--metrics-address", metrics_address),
            log_format=log_format,
            log_level=log_level,
        )
    except SettingsError as error:
        sys.stderr.write(f"wattzoo: {error}\n")
        raise typer.Exit(EXIT_USAGE) from error
    set_logging(settings.log_format, settings.log_level)
    try:
        code = asyncio.run(run_operator(settings))
    except SettingsError as error:
        sys.stderr.write(f"wattzoo: {error}\n")
        code = EXIT_USAGE
    logging.shutdown()
    os._exit(code)  # at once: the interpreter would wait for threads that are still asking Prometheus


@app.command()
def crds(
    output: Annotated[Path | None, typer.Option(help="Folder to write one file per kind into.")] = None,
) -> None:
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
