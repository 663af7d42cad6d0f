"""Build what is missing, once, into the user's cache: `python -m e2e.cluster build`.

Every result is written beside its place and renamed into it, so an interrupted build never leaves a bad cache, and a
lock per result lets two processes wait for each other instead of building twice.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from e2e.cluster.errors import BuildError
from e2e.cluster.manifests import extract_manifests, manifests_file
from e2e.cluster.paths import cache_dir
from e2e.cluster.programs import ENVOY_VERSION, PROGRAMS, Program
from e2e.cluster.toolchain import Go, envoy_binary, fetch_envoy, find_go

PLAIN_INTERVAL_SECONDS = 15.0
PACKAGE_LINE = re.compile(r"\S+\n")  # what `go build -v` says of each package; errors and downloads have spaces


def binary(program: Program) -> Path:
    """Where the cached binary is (whether or not it is there yet)."""
    return cache_dir() / "bin" / f"{program.name}-{program.content_hash()}" / program.name


def binaries() -> dict[str, Path]:
    """Name -> cached path of every executable the harness runs."""
    return {program.name: binary(program) for program in PROGRAMS} | {"envoy": envoy_binary()}


class Progress:
    """One line that is rewritten on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        line = f"[{time.monotonic() - self._started:6.1f} s] {text}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[int], None]]:
        """Show `title`, the seconds it takes, and the count that the caller reports."""
        began = time.monotonic()
        count = 0
        done = threading.Event()

        def text() -> str:
            packages = f", {count} packages compiled" if count else ""
            return f"{title}: {time.monotonic() - began:.0f} s{packages}"

        def report(value: int) -> None:
            nonlocal count
            count = value

        def show() -> None:
            if not self._console.is_terminal:
                while not done.wait(PLAIN_INTERVAL_SECONDS):
                    self.say(text())
                return
            with self._console.status(title) as status:
                while not done.wait(0.2):
                    status.update(text())

        shower = threading.Thread(target=show, daemon=True)
        shower.start()
        try:
            yield report
        finally:
            done.set()
            shower.join()
        self.say(f"{text()}, done")


@contextmanager
def locked(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of one cached result; the kernel gives it back however the holder ends."""
    path = cache_dir() / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is making {name}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_program(program: Program, go: Go, report: Callable[[int], None]) -> None:
    """Run `go build` into a scratch folder of the cache and rename the folder into place."""
    target = binary(program).parent
    target.parent.mkdir(parents=True, exist_ok=True)
    for left_over in target.parent.glob(f".{program.name}-*"):  # ours alone: the caller holds the lock
        shutil.rmtree(left_over, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{program.name}-"))
    command = [str(go.path), "build", "-v", "-trimpath", "-ldflags", program.ldflags]
    command += ["-tags", program.tags, "-o", str(scratch / program.name), program.package]
    tail: list[str] = []
    try:
        with subprocess.Popen(
            command, cwd=program.module_dir, env=go.environment(), stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            compiled = 0
            for line in process.stderr:
                if PACKAGE_LINE.fullmatch(line):
                    compiled += 1
                    report(compiled)
                else:
                    tail = [*tail[-30:], line]
        if process.returncode != 0:
            raise BuildError(f"go build of {program.name} failed ({process.returncode}):\n{''.join(tail)}")
        scratch.chmod(0o755)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True)
class Step:
    """One cached result: its name, the path that shows it is there, and how to make it."""

    name: str
    title: str
    result: Path
    make: Callable[[Go, Callable[[int], None]], None]


def steps() -> list[Step]:
    """Everything that must be in the cache before a cluster can start."""
    programs = [
        Step(
            program.name,
            f"building {program.name} {program.version}",
            binary(program),
            lambda go, report, program=program: build_program(program, go, report),  # type: ignore[misc]
        )
        for program in PROGRAMS
    ]
    return [
        *programs,
        Step("envoy", f"fetching Envoy {ENVOY_VERSION}", envoy_binary(), lambda _go, _report: fetch_envoy()),
        Step("gateway-crds", "reading the Gateway CRDs", manifests_file(), lambda go, _report: extract_manifests(go)),
    ]


def build(console: Console) -> None:
    """Make what the cache lacks and say what is done; returns at once when nothing is missing."""
    wanted = steps()
    missing = [step for step in wanted if not step.result.exists()]
    if not missing:
        return
    progress = Progress(console)
    progress.say(f"{len(missing)} of {len(wanted)} programs are missing in {cache_dir()}: building them, once.")
    progress.say("All of them take a quarter of an hour on two cores, 9 GB in Go's caches and 1 GB here.")
    with locked("go", progress.say):
        go = find_go(progress.say)
    for number, step in enumerate(missing, start=1):
        with locked(step.name, progress.say):
            if step.result.exists():
                continue
            with progress.step(f"[{number}/{len(missing)}] {step.title}") as report:
                step.make(go, report)
