"""The run itself, inside the cluster's namespace: set the scene, send the day, watch it, record it.

Started by `python -m e2e.demo`, which made the cluster and will take it down whatever happens here.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import requests
from rich.console import Console

from e2e.cluster import Cluster, ClusterError
from e2e.cluster.api_client import ApiClient
from e2e.demo import settings
from e2e.demo.collect import collect
from e2e.demo.observer import Prometheus, RunObserver
from e2e.demo.recording import Moment
from e2e.demo.scene import Scene
from e2e.demo.table import Display
from e2e.demo.views import scalar

LOOK_EVERY_SECONDS = 1.0
FIGURES_EVERY = 3
LOAD_STATUS_URL = "http://10.96.255.1:9500/summary"
SCRAPE_TIMEOUT_SECONDS = 30.0


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


def set_scene(scene: Scene) -> None:
    """Do what a user would, step by step, until both services are Ready."""
    with scene.step("wattzoo installed with Helm, its process runs with the chart's arguments and rights"):
        scene.install_operator()
    with scene.step("emulated GPUs and model servers play the pods"):
        scene.start_emulator()
    with scene.step("accelerator pools and model profiles applied"):
        scene.apply_pools_and_profiles()
    with scene.step("the Deployment that was there before serves on an A100"):
        scene.apply_existing()
    with scene.step("gateway, model pool and two services applied with kubectl"):
        scene.apply_services()
    with scene.step("both services Ready, all replicas there"):
        scene.wait_ready()


def stay_steady(seconds: float) -> tuple[float, float]:
    """Let time pass in which nobody wants anything; returns the window in Unix seconds."""
    begin = time.time()
    time.sleep(seconds)
    return begin, time.time()


def wait_for_load(cluster: Cluster) -> float:
    """Return the Unix time of the load's second 0."""
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        if not cluster.alive("load"):
            raise DemoError(f"the load generator ended at once\n{cluster.tail('load')}")
        try:
            started = requests.get(LOAD_STATUS_URL, timeout=5).json()["started_unix_seconds"]
        except requests.RequestException:
            started = None
        if started is not None:
            return float(started)
        time.sleep(0.1)
    raise DemoError(f"the load generator did not start\n{cluster.tail('load')}")


def watch(cluster: Cluster, observer: RunObserver, display: Display) -> tuple[Moment, ...]:
    """Look once a second until the load has ended."""
    moments: list[Moment] = []
    looks = 0
    while cluster.alive("load"):
        due = time.monotonic() + LOOK_EVERY_SECONDS
        for needed in ("emulator", "operator"):
            if not cluster.alive(needed):
                raise DemoError(f"{needed} ended during the load\n{cluster.tail(needed)}")
        moment = observer.look(time.time(), figures=looks % FIGURES_EVERY == 0)
        looks += 1
        if moment is not None:
            moments.append(moment)
            display.show(moment)
        time.sleep(max(0.0, due - time.monotonic()))
    return tuple(moments)


def read_since(prometheus: Prometheus, unix_seconds: float) -> bool:
    """Whether Prometheus has read every GPU exporter and model server since."""
    oldest = scalar(prometheus.query('min(timestamp(up{job=~"dcgm|pods"}))'))
    return oldest is not None and oldest > unix_seconds


def drive(cluster: Cluster, run: settings.Run, work_dir: Path, console: Console) -> None:
    """Run the demo and save its recording."""
    scene = Scene(cluster, run, work_dir, console)
    set_scene(scene)
    with scene.step("what nobody asks for has been scaled down"):
        time.sleep(settings.SETTLE_SECONDS)
    with scene.step(f"nothing asked of anybody for {run.steady_seconds:.0f} s, to count what a steady service writes"):
        steady_window = stay_steady(run.steady_seconds)
    shape = settings.make_load_shape(run)
    scene.start_load(shape)
    origin = wait_for_load(cluster)
    api = ApiClient(cluster.layout.certificates_dir)
    observer = RunObserver(api, Prometheus(cluster.prometheus_url), settings.NAMESPACE, settings.POOL, origin)
    console.print(
        f"a day of requests in {run.minutes:g} minutes, up to {shape.peak_rps:.0f} a second:", highlight=False
    )
    targets = dict.fromkeys(settings.SERVICES, settings.TARGET)
    with Display(console, targets, run.load_seconds) as display:
        moments = watch(cluster, observer, display)
    ended = time.time()
    last_counts = "Prometheus has read what GPUs and model servers counted last"
    cluster.wait_until(lambda: read_since(observer.prometheus, ended), SCRAPE_TIMEOUT_SECONDS, last_counts)
    with scene.step("recording collected from clients, Prometheus and the audit log"):
        collect(cluster, observer, moments, steady_window, run, work_dir).save(work_dir / "recording.json")


def main(arguments: list[str]) -> int:
    """Attach to the cluster this process runs in."""
    parser = argparse.ArgumentParser(prog="python -m e2e.demo.drive", description=__doc__)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steady-seconds", type=float, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--work-dir", type=Path, required=True)
    args = parser.parse_args(arguments)
    try:
        run = settings.Run(args.minutes, args.seed, args.steady_seconds)
        drive(Cluster.attach(args.run_dir), run, args.work_dir, Console())
    except (DemoError, ClusterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
