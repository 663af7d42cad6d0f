"""`python -m e2e.demo --minutes 10 [--out demo-report]`: the main job on a real control plane, and what it cost.

Makes a cluster, runs the demo inside it, takes everything down again whatever happened, then judges the recording.
The exit code is 0 only for a report that may be believed.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from e2e.cluster import Cluster, ClusterError, Options
from e2e.cluster.__main__ import new_run_dir, sweep_stale_runs, wait_through_interrupts
from e2e.demo import settings
from e2e.demo.compare import compare
from e2e.demo.picture import draw_picture
from e2e.demo.prose import render_text
from e2e.demo.recording import Recording
from e2e.demo.report import make_report
from e2e.emulator.launch import source_environment


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m e2e.demo", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=10.0, help="length of the load, into which a day is squeezed")
    add("--out", type=Path, default=Path("demo-report"), help="folder of report.json, report.txt and demo.png")
    add("--seed", type=int, default=settings.SEED, help="seed of the load")
    add("--steady-seconds", type=float, default=settings.STEADY_SECONDS, help="how long a steady state is watched")
    add("--judge-only", action="store_true", help="no run: judge the recording in --out again")
    args = parser.parse_args(arguments)
    if args.minutes <= 0:
        parser.error("--minutes must be positive")
    return args


def run_demo(args: argparse.Namespace, console: Console) -> int:
    """Make the cluster, run the demo inside, take it down; returns the run's exit code."""
    sweep_stale_runs()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    cluster: Cluster | None = None
    code = 1
    began = time.monotonic()
    try:
        console.print("starting a Kubernetes control plane, Envoy Gateway and Prometheus ...", highlight=False)
        cluster = Cluster.up(new_run_dir(), Options(nodes=settings.NODES), tied=True)
        console.print(f"cluster up after {time.monotonic() - began:.1f} s", highlight=False)
        command = [sys.executable, "-m", "e2e.demo.drive", "--run-dir", str(cluster.run_dir)]
        command += ["--work-dir", str(args.out), "--minutes", str(args.minutes), "--seed", str(args.seed)]
        command += ["--steady-seconds", str(args.steady_seconds)]
        joined = cluster.command(command, settings.REPOSITORY)
        with subprocess.Popen(joined, env=cluster.caller_environment() | source_environment()) as process:
            code = wait_through_interrupts(process)
    finally:
        if cluster is not None:
            cluster.down(keep_logs=code != 0)
            console.print("everything taken down", highlight=False)
            if code != 0:
                console.print(f"the logs of this run are in {cluster.logs_dir}", highlight=False)
    return code if code >= 0 else 128 - code


def judge(folder: Path, console: Console) -> int:
    """Compute the comparison and the report of a recording; returns 0 when the report is valid."""
    recording = Recording.load(folder / "recording.json")
    say = "replaying the same requests in the plant: our decisions, and two ways without WattZoo ..."
    console.print(say, soft_wrap=True)
    report = make_report(recording, compare(recording, settings.TABLE))
    text = render_text(report)
    (folder / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "report.txt").write_text(text, encoding="utf-8")
    draw_picture(recording, report, folder / "demo.png")
    console.print()
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    console.print(f"The report is in {folder}: report.txt, report.json, demo.png", highlight=False, soft_wrap=True)
    return 0 if report["valid"] else 1


def main(arguments: list[str] | None = None) -> int:
    """Run and judge."""
    args = parse_arguments(arguments)
    console = Console()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        code = 0 if args.judge_only else run_demo(args, console)
        return code or judge(args.out, console)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
