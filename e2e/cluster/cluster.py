"""The small interface behind which everything cluster-specific stands.

A `Cluster` is one run folder and the namespaces whose process 1 listens in it. It works from outside (commands join
through `nsenter`) and from inside (commands run directly), so tests and the command line share it.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import shutil
import signal as signals
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from e2e.cluster import build, gateway, kwok, prometheus
from e2e.cluster.certificates import render_kubeconfig, write_certificates
from e2e.cluster.components import AUDIT_POLICY, PROMETHEUS_PORT, Layout
from e2e.cluster.errors import ClusterError, CommandError, ComponentError
from e2e.cluster.init import HOST_IP
from e2e.cluster.namespace import Namespace, make_namespace
from e2e.cluster.paths import REPOSITORY_DIR, RUN_DIR_VARIABLE, default_run_dir

MARKER = ".wattzoo-cluster"
TRANSIENT_FOLDERS = ("bin", "certificates", "config", "data", "envoy-gateway", "prometheus", "kube-cache", "helm")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FETCH_TIMEOUT_SECONDS = 5.0
FETCH_SCRIPT = f"""
import sys, urllib.request
sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout={FETCH_TIMEOUT_SECONDS}).read().decode())
"""


@dataclass(frozen=True)
class Options:
    """What may differ between runs: node counts by kind (`kwok.GPUS` and "cpu"), and more flags for the API server."""

    nodes: Mapping[str, int] = field(default_factory=lambda: dict(kwok.DEFAULT_NODES))
    api_server_flags: tuple[str, ...] = ()


class Cluster:
    """A running cluster; `up` makes one, `attach` finds one."""

    def __init__(self, run_dir: Path, lifeline: int | None = None) -> None:
        self.run_dir = run_dir
        self.layout = Layout(run_dir)
        self.namespace = Namespace(run_dir)
        self.prometheus_url = f"http://{HOST_IP}:{PROMETHEUS_PORT}"
        self.gateway_url = f"http://{HOST_IP}:{gateway.LISTENER_PORT}"
        self._lifeline = lifeline  # the write end of the pipe whose end is the cluster's end

    # Making, finding, ending

    @classmethod
    def up(
        cls,
        run_dir: Path | None = None,
        options: Options | None = None,
        *,
        tied: bool = False,
        console: Console | None = None,
    ) -> Cluster:
        """Build what is missing and start everything; a cluster that runs in `run_dir` already is returned as it is.

        A `tied` cluster ends with this process, however that ends; others run until `down`.
        """
        run_dir = (run_dir or default_run_dir()).resolve()
        console = console or Console(stderr=True)
        build.build(console)
        run_dir.mkdir(parents=True, exist_ok=True)
        with exclusive(run_dir):
            if Namespace(run_dir).running():
                return cls.attach(run_dir)
            prepare_run_dir(run_dir, options or Options())
            read_end, write_end = os.pipe() if tied else (None, None)
            try:
                make_namespace(run_dir, read_end)
            finally:
                if read_end is not None:
                    os.close(read_end)
            cluster = cls(run_dir, write_end)
            command = [sys.executable, "-m", "e2e.cluster.stack", str(run_dir)]
            try:
                done = cluster.exec(command, cwd=REPOSITORY_DIR, stdout=sys.stderr)
            except BaseException:
                cluster.down()
                raise
            if done.returncode != 0:
                cluster.down()
                raise ComponentError(f"the cluster did not come up; its logs are in {cluster.logs_dir}")
        return cluster

    @classmethod
    def attach(cls, run_dir: Path | None = None) -> Cluster:
        """The cluster that runs in `run_dir`; raises ClusterError where none does."""
        run_dir = (run_dir or default_run_dir()).resolve()
        cluster = cls(run_dir)
        if not run_dir.is_dir() or not cluster.namespace.running():
            raise ClusterError(f"no cluster runs in {run_dir}; `python -m e2e.cluster up` starts one")
        return cluster

    def down(self, *, keep_logs: bool = True) -> None:
        """End every process and remove the run's files, all but the logs when `keep_logs`."""
        self.namespace.end()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        if not (self.run_dir / MARKER).exists():
            return
        if not keep_logs:
            shutil.rmtree(self.run_dir, ignore_errors=True)
            return
        for name in TRANSIENT_FOLDERS:
            shutil.rmtree(self.run_dir / name, ignore_errors=True)

    # Places

    @property
    def options(self) -> Options:
        document = json.loads((self.run_dir / MARKER).read_text())
        return Options(document["nodes"], tuple(document["api_server_flags"]))

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.layout.certificates_dir / "admin.kubeconfig"

    @property
    def ca_file(self) -> Path:
        """The certificate authority of the API server."""
        return self.layout.certificates_dir / "ca.crt"

    @property
    def bin_dir(self) -> Path:
        return self.layout.bin_dir

    @property
    def logs_dir(self) -> Path:
        return self.layout.logs_dir

    @property
    def audit_log(self) -> Path:
        return self.layout.audit_log

    @property
    def environment(self) -> dict[str, str]:
        """What processes inside get: the harness's own programs first, caches in the run folder, nothing personal."""
        helm = self.run_dir / "helm"
        return {
            "PATH": f"{self.bin_dir}:{SYSTEM_PATH}",
            "HOME": str(self.run_dir),
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.run_dir / "kube-cache"),
            "HELM_CACHE_HOME": str(helm / "cache"),
            "HELM_CONFIG_HOME": str(helm / "config"),
            "HELM_DATA_HOME": str(helm / "data"),
            RUN_DIR_VARIABLE: str(self.run_dir),
        }

    # Commands inside

    def command(self, argv: Sequence[str], cwd: Path | None = None) -> list[str]:
        """`argv` as a command that runs inside the namespace, wherever this process is."""
        return self.namespace.join_command([str(part) for part in argv], cwd or Path.cwd())

    def caller_environment(self) -> dict[str, str]:
        """The environment of this process with the cluster's on top, but with the caller's own HOME and PATH kept."""
        path = f"{self.bin_dir}:{os.environ.get('PATH', os.defpath)}"
        own = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
        return own | self.environment | {"PATH": path, "HOME": os.environ.get("HOME", str(self.run_dir))}

    def exec(
        self, argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command inside and wait for it; `options` are those of `subprocess.run`."""
        environment = self.caller_environment() | dict(env or {})
        check = bool(options.pop("check", False))
        return subprocess.run(self.command(argv, cwd), env=environment, check=check, **options)

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002
        """Kubectl as the administrator; returns its standard output, raises CommandError when `check`."""
        return self._call("kubectl", arguments, input, check=check)

    def helm(self, *arguments: str, check: bool = True) -> str:
        """Helm as the administrator."""
        return self._call("helm", arguments, None, check=check)

    def _call(self, program: str, arguments: Sequence[str], text: str | None, *, check: bool) -> str:
        done = self.exec([str(self.bin_dir / program), *arguments], input=text, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise CommandError(f"{program} {' '.join(arguments)}", done.returncode, done.stderr)
        return str(done.stdout)

    # Processes inside

    def start(
        self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> int:
        """Start a process that outlives this one, logging to `logs/<name>.log`; returns its pid inside.

        It gets `environment` and `env` on top, nothing of the caller's.
        """
        environment = self.environment | dict(env or {})
        arguments = [str(part) for part in argv]
        folder = str(cwd or REPOSITORY_DIR)
        answer = self.namespace.request(do="start", name=name, argv=arguments, env=environment, cwd=folder)
        return int(answer["pid"])

    def processes(self) -> dict[str, dict[str, Any]]:
        """Name -> {pid, alive, exit_code, argv} of everything that was started."""
        answer: dict[str, dict[str, Any]] = self.namespace.request(do="status")["processes"]
        return answer

    def alive(self, name: str) -> bool:
        """Whether the process runs; False for names that were never started."""
        return bool(self.processes().get(name, {}).get("alive"))

    def kill(self, name: str, signal: int = signals.SIGKILL) -> None:
        """Send a signal (SIGKILL, SIGSTOP, SIGCONT, ...) and return at once."""
        self.namespace.request(do="signal", name=name, number=int(signal))

    def stop(self, name: str, grace_seconds: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after the grace period; returns when the process has ended."""
        self.kill(name, signals.SIGTERM)
        try:
            self.wait_until(lambda: not self.alive(name), grace_seconds, f"{name} has ended")
        except ComponentError:
            self.kill(name, signals.SIGKILL)
            self.wait_until(lambda: not self.alive(name), grace_seconds, f"{name} has ended")

    def restart(self, name: str) -> None:
        """Stop the process if it runs and start it again with the same arguments and environment."""
        self.stop(name)
        self.namespace.request(do="restart", name=name)

    def wait_until(self, condition: Callable[[], bool], timeout_seconds: float, what: str) -> None:
        """Poll until `condition` holds; raises ComponentError naming `what` when it does not in time."""
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            if time.monotonic() > deadline:
                raise ComponentError(f"not within {timeout_seconds:.0f} s: {what}")
            time.sleep(0.05)

    def tail(self, name: str, lines: int = 25) -> str:
        """The last lines of a log, headed by its path."""
        path = self.logs_dir / f"{name}.log"
        if not path.exists():
            return f"--- {path}: no such log"
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            text = file.read().decode(errors="replace").splitlines()
        return "\n".join([f"--- {path}", *text[-lines:]])

    def fetch(self, url: str) -> str | None:
        """GET a URL inside the namespace; None when nothing answers or the answer is an error."""
        argv = [sys.executable, "-I", "-c", FETCH_SCRIPT, url]
        if not self.namespace.inside():
            done = self.exec(argv, capture_output=True, text=True)
            return done.stdout if done.returncode == 0 else None
        try:
            with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_SECONDS) as response:  # noqa: S310 (our own URLs)
                return str(response.read().decode())
        except OSError:
            return None

    # Gateway and tokens

    @staticmethod
    def gateway_manifests(
        namespace: str, name: str = gateway.GATEWAY_NAME, port: int = gateway.LISTENER_PORT
    ) -> list[dict[str, Any]]:
        """A Gateway of our class in `namespace`. Two Gateways at a time need two ports."""
        return [gateway.render_gateway(namespace, name, port)]

    def apply_gateway(
        self,
        namespace: str,
        name: str = gateway.GATEWAY_NAME,
        port: int = gateway.LISTENER_PORT,
        timeout_seconds: float = 60.0,
    ) -> str:
        """Apply the Gateway, wait until Envoy listens, return the URL."""
        manifests = {"apiVersion": "v1", "kind": "List", "items": self.gateway_manifests(namespace, name, port)}
        self.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(manifests))
        listener = gateway.listener_name(namespace, name)
        self.wait_until(lambda: listener in self.envoy_listeners(), timeout_seconds, f"Envoy listens for {listener}")
        return f"http://{HOST_IP}:{port}"

    def envoy_listeners(self) -> dict[str, str]:
        """Name -> address of Envoy's listeners, empty while Envoy does not answer."""
        lines = (self.fetch(f"http://{HOST_IP}:{prometheus.ENVOY_ADMIN_PORT}/listeners") or "").splitlines()
        return dict(line.split("::", 1) for line in lines if "::" in line)

    def token_kubeconfig(self, namespace: str, service_account: str, duration: str = "2h") -> Path:
        """A kubeconfig whose only credential is a fresh token of the service account."""
        token = self.kubectl("create", "token", service_account, "--namespace", namespace, "--duration", duration)
        path = self.layout.certificates_dir / f"{namespace}-{service_account}.kubeconfig"
        credentials = {"token": token.strip()}
        path.touch(mode=0o600)
        path.write_text(render_kubeconfig(self.ca_file.read_bytes(), f"{namespace}:{service_account}", credentials))
        return path


@contextmanager
def exclusive(run_dir: Path) -> Iterator[None]:
    """One `up` at a time per run folder."""
    descriptor = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def prepare_run_dir(run_dir: Path, options: Options) -> None:
    """Empty the folder (only if it is ours) and write everything the components read."""
    marker = run_dir / MARKER
    if any(run_dir.iterdir()) and not marker.exists():
        raise ClusterError(f"{run_dir} is neither empty nor a run folder of this harness")
    for entry in run_dir.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    marker.write_text(json.dumps(asdict(options)))
    layout = Layout(run_dir)
    targets = layout.prometheus_dir / "targets.d"
    for folder in (layout.bin_dir, layout.logs_dir, layout.data_dir, layout.config_dir, targets):
        folder.mkdir(parents=True)
    for name, path in build.binaries().items():
        (layout.bin_dir / name).symlink_to(path)
    write_certificates(layout.certificates_dir, dt.datetime.now(dt.UTC))
    (layout.config_dir / "audit-policy.yaml").write_text(AUDIT_POLICY)
    (layout.config_dir / "kwok-stages.yaml").write_text(kwok.render_stages_file())
    (layout.prometheus_dir / "prometheus.yaml").write_text(prometheus.render_config(layout))
    gateway.prepare(layout, build.binaries()["envoy"])
