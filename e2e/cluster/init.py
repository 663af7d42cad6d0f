"""Process 1 of the cluster's namespaces: sets up the network, starts and signals components, reaps what they leave.

It is the parent of every component, so it alone knows who is alive, and when it ends the kernel ends all the others:
that is what leaves nothing behind. It listens on a Unix socket in the run folder, which works across network
namespaces, so the same requests come from outside and inside. Only the standard library: it lives as long as the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST_IP = "10.96.255.1"
POD_CIDR = "10.244.0.0/16"
SOCKET_NAME = "init.sock"
RESET_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD)


@dataclass
class Process:
    """What was started under one name, and how it ended."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    pid: int
    exit_code: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {"pid": self.pid, "exit_code": self.exit_code, "alive": self.exit_code is None, "argv": self.argv}


@dataclass
class Init:
    """The table of processes and the requests on it."""

    run_dir: Path
    processes: dict[str, Process] = field(default_factory=dict)
    ending: bool = False

    def start(self, name: str, argv: list[str], env: dict[str, str], cwd: str) -> dict[str, Any]:
        """Start `argv` under `name`; its output is appended to `logs/<name>.log`."""
        running = self.processes.get(name)
        if running is not None and running.exit_code is None:
            raise ValueError(f"{name} is running already (pid {running.pid})")
        log = self.run_dir / "logs" / f"{name}.log"
        # posix_spawn cannot change the folder, so a shell does, and becomes the program.
        command = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', cwd, *argv]
        pid = os.posix_spawn(
            "/bin/sh",
            command,
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=RESET_SIGNALS,
        )
        self.processes[name] = Process(argv, env, cwd, pid)
        return self.processes[name].as_json()

    def restart(self, name: str) -> dict[str, Any]:
        """Start an ended process again exactly as it was started."""
        process = self.known(name)
        return self.start(name, process.argv, process.env, process.cwd)

    def send_signal(self, name: str, number: int) -> dict[str, Any]:
        """Signal one process; one that has ended already is left alone."""
        process = self.known(name)
        if process.exit_code is None:
            os.kill(process.pid, number)
        return process.as_json()

    def known(self, name: str) -> Process:
        if name not in self.processes:
            raise ValueError(f"nothing was started under the name {name}; known: {', '.join(sorted(self.processes))}")
        return self.processes[name]

    def reap(self) -> None:
        """Collect every ended child, our own components and orphans that the kernel gave to process 1."""
        by_pid = {process.pid: process for process in self.processes.values() if process.exit_code is None}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in by_pid:
                by_pid[pid].exit_code = os.waitstatus_to_exitcode(status)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request of the socket, as data in and data out."""
        match request:
            case {"do": "start", "name": name, "argv": argv, "env": env, "cwd": cwd}:
                return self.start(name, argv, env, cwd)
            case {"do": "restart", "name": name}:
                return self.restart(name)
            case {"do": "signal", "name": name, "number": number}:
                return self.send_signal(name, number)
            case {"do": "status"}:
                return {"processes": {name: process.as_json() for name, process in self.processes.items()}}
            case {"do": "namespace"}:
                return {
                    "network": str(Path("/proc/self/ns/net").readlink()),
                    "user": str(Path("/proc/self/ns/user").readlink()),
                }
            case {"do": "end"}:
                self.ending = True
                return {}
            case _:
                raise ValueError(f"unknown request {request}")


def set_up_network() -> None:
    """Loopback, the address that plays the host, and the pod network: every pod IP is answered locally."""
    for arguments in (
        ["link", "set", "lo", "up"],
        ["addr", "add", f"{HOST_IP}/32", "dev", "lo"],
        ["route", "add", "local", POD_CIDR, "dev", "lo"],
    ):
        subprocess.run(["ip", *arguments], check=True)


def set_up_mounts(run_dir: Path) -> None:
    """Memory for the data, which so ends with the namespace, and a private /dev/shm for Envoy."""
    for target in (run_dir / "data", Path("/dev/shm")):  # noqa: S108 (mounted here, private)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(target)], check=True)


def handle(connection: socket.socket, init: Init) -> None:
    """One JSON line in, one JSON line out; a client that goes away hurts nobody."""
    with connection, contextlib.suppress(OSError):
        connection.settimeout(5)
        with connection.makefile("rwb") as stream:
            try:
                reply: dict[str, Any] = {"ok": init.answer(json.loads(stream.readline()))}
            except (OSError, ValueError, TypeError) as error:
                reply = {"error": str(error)}
            stream.write(json.dumps(reply).encode() + b"\n")


def serve(init: Init, listener: socket.socket, lifeline: int | None) -> None:
    """Answer requests and reap children until told to end or until the launcher's end of the lifeline closes."""
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)

    def end(*_: object) -> None:
        init.ending = True

    signal.signal(signal.SIGTERM, end)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        if lifeline is not None:
            selector.register(lifeline, selectors.EVENT_READ)
        while not init.ending:
            for key, _ in selector.select():
                init.reap()
                if key.fileobj is listener:
                    handle(listener.accept()[0], init)
                elif key.fd == wake_read:
                    os.read(wake_read, 4096)
                else:
                    return


def main(run_dir: Path, lifeline: int | None) -> None:
    """Set up, listen, serve; returning ends the namespace and everything in it."""
    if lifeline is not None:
        os.set_inheritable(lifeline, False)  # noqa: FBT003 (its signature)
    set_up_network()
    set_up_mounts(run_dir)
    os.chdir(run_dir)  # a Unix socket's path may have 107 bytes only; the folder's may be longer
    Path(SOCKET_NAME).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(SOCKET_NAME)
        listener.listen(64)
        serve(Init(run_dir), listener, lifeline)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
