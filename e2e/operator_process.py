"""The operator as the chart would run it, as a process beside the cluster: no image, no kubelet, the same rights.

kwok only pretends to run the chart's pods. So the arguments and the environment are read back from the Deployment that
Helm installed, and a process is started with exactly these, with a token of the chart's ServiceAccount. Only what the
harness must differ in is added: KUBECONFIG, and the two listening addresses of each replica.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from e2e.cluster import Cluster
from e2e.cluster.init import HOST_IP
from e2e.cluster.paths import REPOSITORY_DIR

NAMESPACE = "wattzoo-system"
RELEASE = "wattzoo"
CHART = REPOSITORY_DIR / "charts" / "wattzoo"
USERNAME = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 12.0
METRICS_PORTS = (8080, 8082)
HEALTH_PORTS = (8081, 8083)
FETCH = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=5)
    print(answer.status, answer.read().decode(), sep="\\n")
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode(), sep="\\n")
except OSError:
    print(0)
"""
SOURCE_PATH = os.pathsep.join(str(REPOSITORY_DIR / folder) for folder in ("operator", "policies"))


def install_chart(cluster: Cluster, values: Mapping[str, Any] | None = None, *arguments: str) -> None:
    """Install or upgrade the chart; `values` go on top of the harness's Prometheus URL."""
    merged = {"prometheus": {"url": cluster.prometheus_url}, **(values or {})}
    path = cluster.run_dir / "values.json"
    path.write_text(json.dumps(merged))
    command = ("upgrade", "--install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--create-namespace")
    cluster.helm(*command, "--values", str(path), *arguments)


def read_deployment(cluster: Cluster) -> dict[str, Any]:
    """The chart's Deployment as the API server holds it."""
    text = cluster.kubectl("get", "deployment", RELEASE, "--namespace", NAMESPACE, "--output", "json")
    deployment: dict[str, Any] = json.loads(text)
    return deployment


def render_command(deployment: Mapping[str, Any], pod: str, replica: int) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of a replica; the addresses are the only arguments that differ from the chart's."""
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    addresses = {
        "--health-address": f"{HOST_IP}:{HEALTH_PORTS[replica]}",
        "--metrics-address": f"{HOST_IP}:{METRICS_PORTS[replica]}",
    }
    arguments = []
    for argument in container["args"]:
        option = argument.partition("=")[0]
        arguments.append(f"{option}={addresses.pop(option)}" if option in addresses else argument)
    if addresses:
        raise ValueError(f"the chart does not set {', '.join(addresses)}")
    return arguments, {entry["name"]: _value(entry, pod) for entry in container.get("env") or ()}


def _value(entry: Mapping[str, Any], pod: str) -> str:
    if "value" in entry:
        return str(entry["value"])
    field = entry["valueFrom"]["fieldRef"]["fieldPath"]
    return {"metadata.name": pod, "metadata.namespace": NAMESPACE}[field]


class OperatorProcess:
    """One replica. `install_chart` comes first."""

    def __init__(self, cluster: Cluster, replica: int = 0) -> None:
        self.cluster = cluster
        self.replica = replica
        self.name = "operator" if replica == 0 else f"operator-{replica}"
        self.identity = f"{RELEASE}-{replica}"
        self.health_url = f"http://{HOST_IP}:{HEALTH_PORTS[replica]}"
        self.metrics_url = f"http://{HOST_IP}:{METRICS_PORTS[replica]}/metrics"

    def start(self, extra_arguments: Sequence[str] = (), *, wait_ready: bool = False) -> None:
        """Start with the chart's arguments (later ones win) and a fresh token; returns when the health port listens."""
        arguments, env = render_command(read_deployment(self.cluster), self.identity, self.replica)
        kubeconfig = self.cluster.token_kubeconfig(NAMESPACE, RELEASE)
        env |= {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": SOURCE_PATH, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "wattzoo", *arguments, *extra_arguments]
        self.cluster.start(self.name, command, env, cwd=Path("/"))
        self.cluster.wait_until(
            lambda: bool(self.fetch(f"{self.health_url}/livez")[0]) or not self.alive(),
            START_TIMEOUT_SECONDS,
            f"{self.name} listens",
        )
        if not self.alive():
            raise RuntimeError(f"{self.name} ended at its start\n{self.cluster.tail(self.name)}")
        if wait_ready:
            self.wait_leading()

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.cluster.alive(self.name)

    def stop(self) -> None:
        """SIGTERM and wait: it releases its Lease."""
        self.cluster.stop(self.name, STOP_TIMEOUT_SECONDS)

    def kill(self) -> None:
        """SIGKILL and wait: it releases nothing."""
        self.cluster.kill(self.name, signal.SIGKILL)
        self.cluster.wait_until(lambda: not self.alive(), STOP_TIMEOUT_SECONDS, f"{self.name} has ended")

    def pause(self) -> None:
        """SIGSTOP: alive and unaware."""
        self.cluster.kill(self.name, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.cluster.kill(self.name, signal.SIGCONT)

    def restart(self) -> None:
        """Stop it if it runs and start it anew, with what the chart says now."""
        if self.alive():
            self.stop()
        self.start()

    def fetch(self, url: str) -> tuple[int, str]:
        """Status and body of a GET from inside the cluster's network; status 0 when nobody answers."""
        done = self.cluster.exec([sys.executable, "-c", FETCH, url], capture_output=True, text=True, check=True)
        status, _, body = done.stdout.partition("\n")
        return int(status), body

    def lease_holder(self) -> str:
        """Who holds the Lease; empty when nobody does."""
        text = self.cluster.kubectl("get", "lease", RELEASE, "-n", NAMESPACE, "-o", "json", "--ignore-not-found")
        return str((json.loads(text)["spec"] if text.strip() else {}).get("holderIdentity") or "")

    def leading(self) -> bool:
        """Whether this replica holds the Lease."""
        return self.lease_holder() == self.identity

    def wait_leading(self, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Wait until this replica holds the Lease."""
        self.cluster.wait_until(self.leading, timeout_seconds, f"{self.identity} holds the Lease")


def read_audit(cluster: Cluster, username: str = USERNAME) -> list[dict[str, Any]]:
    """The audited requests of a user, oldest first; reads are not audited."""
    entries = [json.loads(line) for line in cluster.audit_log.read_text().splitlines() if username in line]
    return [entry for entry in entries if entry["user"]["username"] == username]
