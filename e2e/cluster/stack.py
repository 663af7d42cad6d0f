"""Bring the whole stack up, from inside the namespace: everything that does not wait for something else runs at once.

Run by `Cluster.up` as `python -m e2e.cluster.stack RUN_DIR`; prints one line per step with its time.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from e2e.cluster import components, gateway, kwok, prometheus
from e2e.cluster.api_client import ApiClient
from e2e.cluster.cluster import Cluster
from e2e.cluster.components import PROMETHEUS_PORT, Component
from e2e.cluster.errors import ClusterError, ComponentError
from e2e.cluster.manifests import load_manifests
from e2e.cluster.programs import KUBERNETES_VERSION

STEP_TIMEOUT_SECONDS = 90.0
POLL_SECONDS = 0.05


class Stack:
    """One bring-up: the cluster, a client of its API server, and the clock of the steps."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.layout = cluster.layout
        self.api = ApiClient(cluster.layout.certificates_dir)
        self._began = time.monotonic()
        self._failed = threading.Event()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)

    def start(self, component: Component) -> None:
        self.cluster.start(component.name, component.argv, component.env)

    def wait(self, what: str, ready: Callable[[], bool], *needs: str) -> None:
        """Poll `ready`; fails at once when one of the components it needs has died or another step failed."""
        deadline = time.monotonic() + STEP_TIMEOUT_SECONDS
        while not ready():
            dead = [name for name in needs if not self.cluster.alive(name)]
            if dead:
                raise ComponentError(f"{dead[0]} ended while waiting for: {what}\n{self.cluster.tail(dead[0])}")
            if self._failed.is_set():
                raise ComponentError(f"given up while waiting for: {what}")
            if time.monotonic() > deadline:
                tails = "\n".join(self.cluster.tail(name) for name in needs)
                raise ComponentError(f"not in {STEP_TIMEOUT_SECONDS:.0f} s: {what}\n{tails}")
            time.sleep(POLL_SECONDS)
        self.say(what)

    def run_program(self, name: str, argv: list[str], env: dict[str, str]) -> None:
        """Run a program to its end, its output in `logs/<name>.log`."""
        with (self.layout.logs_dir / f"{name}.log").open("ab") as log:
            done = subprocess.run(
                argv, env=self.cluster.environment | env, stdout=log, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode != 0:
            raise ComponentError(f"{' '.join(argv)} failed ({done.returncode})\n{self.cluster.tail(name)}")

    def guarded(self, step: Callable[[], None]) -> Callable[[], None]:
        """A step whose failure makes all others give up."""

        def run() -> None:
            try:
                step()
            except BaseException:
                self._failed.set()
                raise

        return run


def condition_is(answer: Any, kind: str, status: str = "True") -> bool:
    """Whether an object carries the condition `kind` with `status`."""
    conditions = (answer or {}).get("status", {}).get("conditions") or []
    return any(condition["type"] == kind and condition["status"] == status for condition in conditions)


def bring_up_control_plane(stack: Stack) -> None:
    """Wait for the API server, then start what depends on it."""
    stack.wait("API server ready", lambda: stack.api.get("/readyz") == "ok", "etcd", "kube-apiserver")
    stack.start(components.make_controller_manager(stack.layout))
    stack.start(components.make_scheduler(stack.layout))
    stack.start(components.make_kwok(stack.layout))
    stack.api.create_all(prometheus.render_access())
    stack.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": gateway.NAMESPACE}})


def bring_up_nodes(stack: Stack, counts: dict[str, int]) -> None:
    """Create the emulated nodes and wait until the scheduler may use them."""
    stack.api.create_all(kwok.render_nodes(counts, f"v{KUBERNETES_VERSION}"))

    def usable() -> bool:
        nodes = (stack.api.get("/api/v1/nodes") or {}).get("items", [])
        taints = [taint["key"] for node in nodes for taint in node["spec"].get("taints", [])]
        ready = [node for node in nodes if condition_is(node, "Ready")]
        return len(ready) == sum(counts.values()) and not any(key.startswith("node.kubernetes.io/") for key in taints)

    stack.wait(f"{sum(counts.values())} nodes ready", usable, "kwok", "kube-controller-manager", "kube-scheduler")


def served_resources(manifests: list[dict[str, Any]]) -> dict[str, set[str]]:
    """API version -> the resource names that discovery must show, from CustomResourceDefinitions."""
    wanted: dict[str, set[str]] = {}
    for manifest in manifests:
        if manifest["kind"] == "CustomResourceDefinition":
            spec = manifest["spec"]
            version = next(version["name"] for version in spec["versions"] if version["storage"])
            wanted.setdefault(f"{spec['group']}/{version}", set()).add(spec["names"]["plural"])
    return wanted


def bring_up_gateway(stack: Stack, certificates: list[Future[None]]) -> None:
    """Custom resources, Envoy Gateway, our GatewayClass, and the Gateway that keeps Envoy running."""
    manifests = load_manifests()
    stack.api.create_all(manifests)
    wanted = served_resources(manifests)

    def served() -> bool:
        # Discovery names a resource once it is established, in a few kilobytes; the definitions are megabytes.
        answers = [(stack.api.get(f"/apis/{version}") or {}).get("resources", []) for version in wanted]
        names = [{resource["name"] for resource in answer} for answer in answers]
        return all(have.issuperset(want) for have, want in zip(names, wanted.values(), strict=True))

    stack.wait(f"{sum(map(len, wanted.values()))} Gateway resources served", served)
    for certificate in certificates:
        certificate.result()
    stack.start(gateway.make_envoy_gateway(stack.layout))
    for manifest in [*gateway.render_class(), gateway.render_keeper()]:
        stack.api.create(manifest)
    path = f"/apis/{gateway.API_VERSION}/gatewayclasses/{gateway.GATEWAY_CLASS}"
    stack.wait("GatewayClass accepted", lambda: condition_is(stack.api.get(path), "Accepted"), "envoy-gateway")
    keeper = gateway.listener_name(gateway.NAMESPACE, gateway.KEEPER_NAME)
    stack.wait("Envoy listening", lambda: keeper in stack.cluster.envoy_listeners(), "envoy-gateway")


def prometheus_ready() -> bool:
    """Prometheus' own readiness."""
    connection = http.client.HTTPConnection("127.0.0.1", PROMETHEUS_PORT, timeout=2)
    try:
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def bring_up(cluster: Cluster) -> None:
    """Start everything and return when all of it is usable; raises the first failure."""
    stack = Stack(cluster)
    layout, options = cluster.layout, cluster.options
    stack.start(components.make_etcd(layout))
    stack.start(components.make_api_server(layout, options.api_server_flags))
    stack.start(components.make_prometheus(layout))

    def make_certificates(in_cluster: bool) -> None:
        name = "envoy-gateway-certgen" if in_cluster else "envoy-gateway-certgen-local"
        stack.run_program(name, gateway.make_certgen(layout, in_cluster=in_cluster), gateway.environment(layout))

    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(stack.guarded(lambda: make_certificates(in_cluster=False)))]
        stack.guarded(lambda: bring_up_control_plane(stack))()
        futures.append(pool.submit(stack.guarded(lambda: make_certificates(in_cluster=True))))
        certificates = list(futures)
        steps = [
            lambda: bring_up_gateway(stack, certificates),
            lambda: bring_up_nodes(stack, dict(options.nodes)),
            lambda: stack.wait("Prometheus ready", prometheus_ready, "prometheus"),
        ]
        futures += [pool.submit(stack.guarded(step)) for step in steps]
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    if errors:
        raise next((error for error in errors if "given up" not in str(error)), errors[0])
    stack.say("cluster up")


def main(run_dir: Path) -> int:
    """The command line of this module; the error goes to the terminal without a traceback."""
    try:
        bring_up(Cluster.attach(run_dir))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
