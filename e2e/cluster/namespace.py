"""One user, network, mount and PID namespace per run: made without root, joined by `nsenter`, ended as a whole."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from e2e.cluster import init
from e2e.cluster.errors import ClusterError, ComponentError, MissingRequirementError
from e2e.cluster.paths import REPOSITORY_DIR

REQUIRED_TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "mount": "mount", "ip": "iproute2"}
APPARMOR_SWITCH = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
# Join in the caller's folder; `nsenter --wdns` would do it, but older releases lack it.
CHANGE_FOLDER = 'cd "$0" && exec "$@"'


def tool(name: str) -> str | None:
    """The path of a system tool; an unprivileged user's PATH often lacks the sbin folders where `ip` is."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def require_tools() -> None:
    """Name every missing system package at once."""
    missing = sorted({package for name, package in REQUIRED_TOOLS.items() if tool(name) is None})
    if missing:
        raise MissingRequirementError(
            f"missing system packages: {' '.join(missing)} (on Debian and Ubuntu, as root: "
            f"`apt-get install {' '.join(missing)}`)"
        )


def unshare_command() -> list[str]:
    """The `unshare` call that works here: root needs no user namespace, everyone else gets one."""
    require_tools()
    common = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    rootless = [str(tool("unshare")), "--user", "--map-root-user", *common]
    candidates = [[str(tool("unshare")), *common], rootless] if os.geteuid() == 0 else [rootless]
    reasons = []
    for command in candidates:
        done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return command
        reasons.append(done.stderr.strip())
    raise MissingRequirementError(forbidden_message("; ".join(reasons)))


def forbidden_message(reason: str) -> str:
    """What to do on machines that forbid unprivileged user namespaces."""
    restricted = Path(APPARMOR_SWITCH)
    if restricted.exists() and restricted.read_text().strip() == "1":
        remedy = (
            "AppArmor forbids unprivileged user namespaces here (Ubuntu's default since 23.10). As root, until "
            "the next boot: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
        )
    else:
        remedy = (
            "this machine forbids unprivileged user namespaces. As root: `sysctl -w user.max_user_namespaces=10000`, "
            "on older Debian `sysctl -w kernel.unprivileged_userns_clone=1`; in a container allow the call unshare"
        )
    return f"cannot make namespaces ({reason}): {remedy}; or run the same command as root"


def namespace_id(kind: str) -> str:
    """The identity of this process's own namespace of a kind, e.g. `net:[4026531840]`."""
    return str(Path(f"/proc/self/ns/{kind}").readlink())


def open_socket(run_dir: Path) -> socket.socket:
    """Connect to process 1; raises OSError where no cluster runs. Goes through /proc because such paths are short."""
    folder = os.open(run_dir, os.O_PATH | os.O_DIRECTORY)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(20)
        connection.connect(f"/proc/self/fd/{folder}/{init.SOCKET_NAME}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(folder)
    return connection


class Namespace:
    """A running set of namespaces, reached through the socket of its process 1."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def request(self, **request: Any) -> dict[str, Any]:
        """Ask process 1; raises ClusterError with its message or when nothing runs."""
        try:
            with open_socket(self.run_dir) as connection, connection.makefile("rwb") as stream:
                stream.write(json.dumps(request).encode() + b"\n")
                stream.flush()
                line = stream.readline()
        except OSError as error:
            raise ClusterError(f"no cluster runs in {self.run_dir} ({error})") from error
        if not line:
            raise ClusterError(f"the cluster in {self.run_dir} ended while it was asked")
        reply = json.loads(line)
        if "error" in reply:
            raise ComponentError(reply["error"])
        answer: dict[str, Any] = reply["ok"]
        return answer

    def running(self) -> bool:
        """Whether process 1 accepts connections."""
        try:
            open_socket(self.run_dir).close()
        except OSError:
            return False
        return True

    def holder_pid(self) -> int:
        """The pid of process 1 as this process sees it, told by the kernel and so never stale."""
        with open_socket(self.run_dir) as connection:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])

    def inside(self) -> bool:
        """Whether this very process runs in the namespace already."""
        return bool(namespace_id("net") == self.request(do="namespace")["network"])

    def join_command(self, argv: list[str], cwd: Path) -> list[str]:
        """`argv` as a command that runs inside, in folder `cwd`, wherever the caller is."""
        if self.inside():
            return argv
        namespace = self.request(do="namespace")
        own_user = namespace_id("user") == namespace["user"]
        user = [] if own_user else ["--preserve-credentials", "-U"]
        enter = [str(tool("nsenter")), *user, "-n", "-m", "-p", "-t", str(self.holder_pid()), "--"]
        setpriv = tool("setpriv")  # else killing the caller would leave the command running
        mortal = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        return [*enter, *mortal, "/bin/sh", "-c", CHANGE_FOLDER, str(cwd), *argv]

    def end(self, timeout_seconds: float = 10.0) -> None:
        """End every process of the namespace; asks first, then kills process 1. Does nothing when nothing runs."""
        try:
            holder = self.holder_pid()
        except OSError:
            return
        handle = os.pidfd_open(holder) if holder > 0 else None
        with contextlib.suppress(ClusterError):
            self.request(do="end")
        deadline = time.monotonic() + timeout_seconds
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.02)
        if handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            wait_for_end(handle, timeout_seconds)


def wait_for_end(pidfd: int, timeout_seconds: float) -> None:
    """Wait until the process behind `pidfd` is gone (a pidfd becomes readable then), and close it."""
    try:
        readable, _, _ = select.select([pidfd], [], [], timeout_seconds)
    finally:
        os.close(pidfd)
    if not readable:
        raise ClusterError("the cluster's process 1 did not end after SIGKILL")


def make_namespace(run_dir: Path, lifeline: int | None, timeout_seconds: float = 10.0) -> Namespace:
    """Start process 1 in new namespaces, detached from the terminal.

    `lifeline` is the read end of a pipe whose write end the caller keeps: when the caller ends, however it ends, the
    kernel closes it and the cluster ends too. None makes a cluster that outlives its caller.
    """
    command = [*unshare_command(), sys.executable, "-I", "-S", str(Path(init.__file__)), str(run_dir)]
    search_path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    environment = os.environ | {"PATH": search_path}
    with (run_dir / "logs" / "init.log").open("ab") as log:
        process = subprocess.Popen(
            command if lifeline is None else [*command, str(lifeline)],
            cwd=REPOSITORY_DIR,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=() if lifeline is None else (lifeline,),
            start_new_session=True,
        )
    namespace = Namespace(run_dir)
    deadline = time.monotonic() + timeout_seconds
    while not namespace.running():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise ComponentError(f"the namespace did not start: {(run_dir / 'logs' / 'init.log').read_text()[-2000:]}")
        time.sleep(0.01)
    process.returncode = 0  # it lives on, and this object must not complain about that when it is collected
    return namespace
