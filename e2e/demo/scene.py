"""Sets the scene inside the cluster's namespace: chart, emulated GPUs, manifests, load. Each step says what it did."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from e2e.cluster import Cluster, ClusterError, CommandError
from e2e.cluster.gateway import GATEWAY_NAME, listener_name
from e2e.demo import settings
from e2e.emulator import launch
from e2e.load.schedule import LoadShape
from e2e.operator_process import OperatorProcess, install_chart

READY_TIMEOUT_SECONDS = 180.0


class Scene:
    """The parts that the demo starts, in the order in which a user would."""

    def __init__(self, cluster: Cluster, run: settings.Run, work_dir: Path, console: Console) -> None:
        self.cluster = cluster
        self.run = run
        self.work_dir = work_dir
        self.console = console
        self.began = time.monotonic()

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Say what is done and, when it is done, how long it took."""
        begin = time.monotonic()
        yield
        now = time.monotonic()
        self.console.print(
            f"[{now - self.began:6.1f} s] {text} ({now - begin:.1f} s)", highlight=False, markup=False, soft_wrap=True
        )

    def install_operator(self) -> None:
        """Install the chart with Helm and start the operator with exactly what the chart renders."""
        prometheus = {"url": self.cluster.prometheus_url, "windowSeconds": settings.RATE_WINDOW_SECONDS}
        interval = settings.POOL_INTERVAL_SECONDS
        install_chart(self.cluster, {"replicas": 1, "poolIntervalSeconds": interval, "prometheus": prometheus})
        OperatorProcess(self.cluster).start(wait_ready=True)

    def start_emulator(self) -> None:
        """Start the process that plays GPUs and model servers."""
        log = self.work_dir / "plant.jsonl"
        launch.start_emulator(self.cluster, ["--table", str(settings.TABLE), "--request-log", str(log)])

    def apply_pools_and_profiles(self) -> None:
        """Apply namespace, accelerator pools and the profiles, their start-up shortened as the report says."""
        self.cluster.kubectl("apply", "--server-side", "-f", str(settings.MANIFESTS / "10-namespace.yaml"))
        self.cluster.kubectl("apply", "--server-side", "-f", str(settings.MANIFESTS / "20-accelerator-pools.yaml"))
        items = {"apiVersion": "v1", "kind": "List", "items": shorten_startups(read_profiles())}
        self.cluster.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(items))

    def apply_existing(self) -> None:
        """Apply the Deployment that was there before, and wait until it serves."""
        self.cluster.kubectl("apply", "--server-side", "-f", str(settings.MANIFESTS / "30-existing-deployment.yaml"))
        timeout = f"--timeout={READY_TIMEOUT_SECONDS:.0f}s"
        self.cluster.kubectl("rollout", "status", "-n", settings.NAMESPACE, "deployment/vllm-8b", timeout)

    def apply_services(self) -> None:
        """Apply gateway, model pool and services: from here on WattZoo works."""
        for name in ("40-gateway.yaml", "50-model-pool.yaml", "60-llm-services.yaml"):
            self.cluster.kubectl("apply", "--server-side", "-f", str(settings.MANIFESTS / name))

    def wait_ready(self) -> None:
        """Wait until both services are Ready, all replicas that are wanted are there, and the gateway listens."""
        timeout = f"--timeout={READY_TIMEOUT_SECONDS:.0f}s"
        names = [f"llmservice/{name}" for name in settings.SERVICES]
        settled = ("--for=condition=Progressing=False", f"modelpool/{settings.POOL}", *names)
        try:
            self.cluster.kubectl("wait", "-n", settings.NAMESPACE, "--for=condition=Ready", timeout, *names)
            self.cluster.kubectl("wait", "-n", settings.NAMESPACE, timeout, *settled)
        except CommandError as error:
            raise ClusterError(f"{error}\n{self.explain_waiting()}") from error
        listener = listener_name(settings.NAMESPACE, GATEWAY_NAME)
        self.cluster.wait_until(lambda: listener in self.cluster.envoy_listeners(), 60.0, f"Envoy listens: {listener}")

    def explain_waiting(self) -> str:
        """Return what the objects and the operator say of themselves, for whom a wait was in vain."""
        columns = "KIND:.kind,NAME:.metadata.name,READY:.status.conditions[?(@.type=='Ready')].message"
        kinds = "modelpool,llmservice"
        said = self.cluster.kubectl(
            "get", kinds, "-n", settings.NAMESPACE, "-o", f"custom-columns={columns}", check=False
        )
        return f"{said}{self.cluster.tail('operator', 5)}"

    def start_load(self, shape: LoadShape) -> None:
        """Start the load generator; its records go to `load.jsonl`."""
        argv = ["--table", str(settings.TABLE), "--rates", str(settings.RATES)]
        argv += ["--rates-service", settings.RATES_SERVICE, "--rates-day", str(settings.RATES_DAY)]
        argv += ["--minutes", str(self.run.minutes), "--peak-rps", repr(shape.peak_rps), "--seed", str(self.run.seed)]
        argv += ["--model", settings.POOL, "--output", str(self.work_dir / "load.jsonl")]
        for load in settings.service_loads():
            argv += ["--service", f"{load.namespace}/{load.name}={load.hostname}:{load.share}"]
        launch.start_load(self.cluster, argv)


def read_pool() -> dict[str, Any]:
    """Return the demo's ModelPool."""
    pool: dict[str, Any] = yaml.safe_load((settings.MANIFESTS / "50-model-pool.yaml").read_text(encoding="utf-8"))
    return pool


def read_profiles() -> list[dict[str, Any]]:
    """Return the ModelProfiles that the pool names, put into the demo's namespace."""
    names = {variant["profile"] for member in read_pool()["spec"]["members"] for variant in member["variants"]}
    found = []
    for name in sorted(names):
        item = yaml.safe_load((settings.PROFILES / f"{name}.yaml").read_text(encoding="utf-8"))
        found.append(item | {"metadata": item["metadata"] | {"namespace": settings.NAMESPACE}})
    return found


def shorten_startups(profiles: list[dict[str, Any]], scale: float = settings.LOADING_SCALE) -> list[dict[str, Any]]:
    """Return the profiles with starts that take `scale` of the time at the same power."""
    shortened = []
    for profile in profiles:
        startup = profile["spec"]["startup"]
        seconds = max(1, round(scale * startup["seconds"]))
        joules = round(startup["joules"] * seconds / startup["seconds"])
        spec = profile["spec"] | {"startup": {"seconds": seconds, "joules": joules}}
        shortened.append(profile | {"spec": spec})
    return shortened
