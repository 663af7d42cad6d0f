"""Nothing is left when a cluster ends, however it ends: the namespaces alone, without the programs, so it is quick."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import Cluster, ClusterError, ComponentError
from e2e.cluster.cluster import MARKER
from e2e.cluster.namespace import make_namespace
from e2e.cluster.paths import REPOSITORY_DIR

LAUNCHER = """
import os, sys, time
from pathlib import Path
from e2e.cluster.namespace import make_namespace
read_end, write_end = os.pipe()
make_namespace(Path(sys.argv[1]), read_end)
os.close(read_end)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / ("long-name-" * 12)  # longer than the path of a Unix socket may be
    for name in ("logs", "data", "bin", "certificates"):
        (folder / name).mkdir(parents=True)
    (folder / MARKER).write_text("{}")
    return folder


@pytest.fixture
def detached(run_dir: Path) -> Iterator[Cluster]:
    make_namespace(run_dir, None)
    cluster = Cluster.attach(run_dir)
    yield cluster
    cluster.down()


def ends(pidfd: int, timeout_seconds: float = 10.0) -> bool:
    """A pidfd becomes readable when its process has ended."""
    return bool(select.select([pidfd], [], [], timeout_seconds)[0])


def outside_pid(command: str) -> int:
    """The pid, as seen from here, of the one process whose command line contains `command`."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if command in line and "sh -c" not in line:
                return int(entry.name)
    raise AssertionError(f"no process runs {command}")


def start_sleeper(cluster: Cluster, seconds: int) -> int:
    """Start a process inside that ignores polite signals; returns a pidfd from outside."""
    cluster.start("sleeper", ["/bin/sh", "-c", f"trap '' TERM INT HUP; exec sleep {seconds}"])
    deadline = time.monotonic() + 5
    while True:
        try:
            return os.pidfd_open(outside_pid(f"sleep {seconds}"))
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def test_killing_the_launcher_of_a_tied_cluster_ends_everything(run_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(run_dir)], cwd=REPOSITORY_DIR, stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
        sleeper = start_sleeper(Cluster.attach(run_dir), 86111)

        launcher.send_signal(signal.SIGKILL)

        assert ends(sleeper)
    with pytest.raises(ClusterError, match="no cluster runs"):
        Cluster.attach(run_dir)
    os.close(sleeper)


def test_killing_process_one_ends_everything(detached: Cluster) -> None:
    sleeper = start_sleeper(detached, 86222)

    os.kill(detached.namespace.holder_pid(), signal.SIGKILL)

    assert ends(sleeper)
    assert not detached.namespace.running()
    os.close(sleeper)


def test_down_ends_what_ignores_signals_and_keeps_only_the_logs(detached: Cluster) -> None:
    sleeper = start_sleeper(detached, 86333)

    detached.down()

    assert ends(sleeper)
    assert (detached.logs_dir / "sleeper.log").exists()
    assert not (detached.run_dir / "certificates").exists()
    detached.down(keep_logs=False)
    assert not detached.run_dir.exists()
    os.close(sleeper)


def test_data_is_in_memory_that_ends_with_the_cluster(detached: Cluster) -> None:
    data = detached.layout.data_dir / "file"
    detached.exec(["touch", str(data)], check=True)

    assert detached.exec(["test", "-e", str(data)]).returncode == 0
    assert detached.namespace.inside() or not data.exists()


def test_every_pod_address_is_answered_inside_and_nothing_leaves(detached: Cluster) -> None:
    def route(address: str) -> subprocess.CompletedProcess[str]:
        return detached.exec(["ip", "route", "get", address], capture_output=True, text=True)

    assert route("10.244.7.9").stdout.startswith("local 10.244.7.9 dev lo")
    assert route("192.0.2.1").returncode != 0


def test_commands_run_in_the_callers_folder_with_the_clusters_environment(detached: Cluster, tmp_path: Path) -> None:
    script = 'pwd; echo "$KUBECONFIG"; echo "$EXTRA"'
    done = detached.exec(["/bin/sh", "-c", script], cwd=tmp_path, env={"EXTRA": "more"}, capture_output=True, text=True)

    assert done.stdout.splitlines() == [str(tmp_path), str(detached.kubeconfig), "more"]


def test_started_processes_inherit_nothing_of_the_caller(detached: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONAL_SECRET", "x")
    detached.start("printer", ["/usr/bin/env"], {"GIVEN": "y"})
    detached.wait_until(lambda: not detached.alive("printer"), 5, "printer has ended")

    output = detached.tail("printer", lines=50)
    assert "GIVEN=y" in output
    assert "PERSONAL_SECRET" not in output


def test_processes_are_stopped_restarted_and_named_when_unknown(detached: Cluster) -> None:
    detached.start("worker", ["sleep", "86444"])
    with pytest.raises(ComponentError, match="worker is running already"):
        detached.start("worker", ["true"])
    first = detached.processes()["worker"]["pid"]

    detached.restart("worker")
    assert detached.alive("worker")
    assert detached.processes()["worker"]["pid"] != first

    detached.kill("worker")
    detached.wait_until(lambda: not detached.alive("worker"), 5, "worker has ended")
    assert detached.processes()["worker"]["exit_code"] == -signal.SIGKILL
    with pytest.raises(ComponentError, match="nothing was started under the name other"):
        detached.kill("other")
