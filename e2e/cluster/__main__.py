"""Command line of the harness: check, build, up, exec, run, kubeconfig, logs, status, down."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from e2e.cluster.build import build as build_programs
from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import ClusterError
from e2e.cluster.namespace import Namespace, unshare_command
from e2e.cluster.paths import cache_dir, default_run_dir

STALE_RUN_SECONDS = 3600.0

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A real control plane without root or containers.")
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="The run's folder, for several clusters at once.")]
Command = Annotated[list[str], typer.Argument(help="What to run inside; put -- before it.")]
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command()
def check() -> None:
    """Say whether this user can start a cluster on this machine: tools and rights. Nothing is built or started."""
    unshare_command()


@app.command()
def build() -> None:
    """Build every program that the cache lacks."""
    build_programs(Console(stderr=True))
    print(f"everything is built, in {cache_dir() / 'bin'}", file=sys.stderr)


@app.command()
def up(run_dir: RunDir = None) -> None:
    """Start a cluster that runs until `down`."""
    cluster = Cluster.up(run_dir)
    print(f"cluster in {cluster.run_dir}; `python -m e2e.cluster exec -- kubectl get nodes` looks at it")


@app.command("exec", context_settings=PASS_ON)
def exec_(command: Command, run_dir: RunDir = None) -> None:
    """Run a command inside the running cluster."""
    cluster = Cluster.attach(run_dir)
    argv = cluster.command(command)
    os.execvpe(argv[0], argv, cluster.caller_environment())  # noqa: S606 (no shell is meant)


@app.command(context_settings=PASS_ON)
def run(command: Command, run_dir: RunDir = None) -> None:
    """Start a cluster, run a command inside, end the cluster; exits as the command did."""
    sweep_stale_runs()
    folder = run_dir or new_run_dir()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    code = 1
    cluster: Cluster | None = None
    try:
        cluster = Cluster.up(folder, tied=True)
        with subprocess.Popen(cluster.command(command), env=cluster.caller_environment()) as process:
            code = wait_through_interrupts(process)
    finally:
        if cluster is not None:
            cluster.down(keep_logs=code != 0)
    if code != 0:
        print(f"the logs of this run are in {cluster.logs_dir}", file=sys.stderr)
    sys.exit(code if code >= 0 else 128 - code)


def wait_through_interrupts(process: subprocess.Popen[bytes]) -> int:
    """Control-C reaches the command too; give it time to end by itself."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            return process.wait(timeout=15)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            return 128 + signal.SIGINT
    except SystemExit:
        process.terminate()
        raise


def new_run_dir() -> Path:
    """A fresh folder for one `run`."""
    parent = cache_dir() / "run"
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent, prefix="run-"))


def sweep_stale_runs() -> None:
    """Remove the folders of earlier runs (failed or killed) once their logs are an hour old."""
    for folder in (cache_dir() / "run").glob("run-*"):
        with contextlib.suppress(FileNotFoundError):  # another process sweeps at the same time
            age_seconds = time.time() - folder.stat().st_mtime
            if age_seconds > STALE_RUN_SECONDS and not Namespace(folder).running():
                shutil.rmtree(folder, ignore_errors=True)


@app.command()
def kubeconfig(run_dir: RunDir = None) -> None:
    """Print the path of the administrator's kubeconfig (its server is reachable from inside only)."""
    print(Cluster.attach(run_dir).kubeconfig)


@app.command()
def status(run_dir: RunDir = None) -> None:
    """List the processes."""
    for name, process in Cluster.attach(run_dir).processes().items():
        state = "running" if process["alive"] else f"ended ({process['exit_code']})"
        print(f"{name:28} {process['pid']:>6} {state}")


@app.command()
def logs(name: str = "", run_dir: RunDir = None, lines: int = 50) -> None:
    """Print the end of one log, or list the logs; works after `down` too."""
    cluster = Cluster((run_dir or default_run_dir()).resolve())
    if name:
        print(cluster.tail(name, lines))
        return
    for path in sorted(cluster.logs_dir.glob("*.log")):
        print(f"{path.stem:28} {path.stat().st_size:>10} bytes  {path}")


@app.command()
def down(run_dir: RunDir = None) -> None:
    """End the cluster and everything in it; its logs stay until the next `up`."""
    Cluster((run_dir or default_run_dir()).resolve()).down()


def main() -> None:
    """Expected errors are one line, not a traceback."""
    try:
        app()
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
