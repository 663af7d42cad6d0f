from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from rich.console import Console

from e2e.cluster import build, programs
from e2e.cluster.errors import BuildError
from e2e.cluster.programs import Program
from e2e.cluster.toolchain import Go

FAKE_GO = """#!/bin/sh
echo compiled >> "$LOG"
echo some/package >&2
echo linker: killed >&2
while [ "$1" != -o ]; do shift; done
echo binary > "$2"
exit $STATUS
"""


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """A Go that writes its output even when it fails, like a killed linker."""
    path = tmp_path / "go"
    path.write_text(FAKE_GO)
    path.chmod(0o755)
    monkeypatch.setenv("LOG", str(tmp_path / "calls"))
    monkeypatch.setenv("STATUS", "0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Go(path, "local")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setattr(programs, "MODULES_DIR", tmp_path / "modules")
    (tmp_path / "modules" / "tiny").mkdir(parents=True)
    (tmp_path / "modules" / "tiny" / "go.mod").write_text("module tiny\n")
    return Program("tiny", "tiny", ".", "1")


def test_successful_build_appears_in_its_place_and_leaves_nothing_else(go: Go, program: Program) -> None:
    counts: list[int] = []
    build.build_program(program, go, counts.append)

    target = build.binary(program)
    assert target.read_text() == "binary\n"
    assert [path.name for path in target.parent.parent.iterdir()] == [target.parent.name]
    assert counts == [1]


def test_failed_build_leaves_nothing_and_shows_what_go_said(
    go: Go, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATUS", "1")

    with pytest.raises(BuildError, match="linker: killed"):
        build.build_program(program, go, lambda _: None)
    assert list(build.binary(program).parent.parent.iterdir()) == []


def test_leftovers_of_a_killed_build_are_removed_by_the_next(go: Go, program: Program) -> None:
    left_over = build.binary(program).parent.parent / ".tiny-killed"
    left_over.mkdir(parents=True)
    (left_over / "tiny").write_text("half a binary")

    build.build_program(program, go, lambda _: None)

    assert not left_over.exists()


def test_build_makes_only_what_is_missing(go: Go, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    step = build.Step(
        "tiny", "building tiny", build.binary(program), lambda go, report: build.build_program(program, go, report)
    )
    monkeypatch.setattr(build, "steps", lambda: [step])
    monkeypatch.setattr(build, "find_go", lambda _say: go)
    calls = go.path.parent / "calls"

    build.build(Console(quiet=True))
    build.build(Console(quiet=True))

    assert calls.read_text() == "compiled\n"


def test_second_process_is_told_that_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls: list[int] = []

    def busy_then_free(_file: object, operation: int) -> None:
        calls.append(operation)
        if operation & fcntl.LOCK_NB:
            raise BlockingIOError

    monkeypatch.setattr(fcntl, "flock", busy_then_free)
    said: list[str] = []
    with build.locked("etcd", said.append):
        pass

    assert said == ["another process is making etcd: waiting for it"]
    assert calls == [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]
