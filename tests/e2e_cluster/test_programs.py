from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from e2e.cluster import paths, programs
from e2e.cluster.programs import GO_TOOLCHAIN, MINIMUM_GO, PROGRAMS, Program

# What each program's main module is called in its go.mod, and how its release is numbered there.
MODULES = {
    "etcd": ("go.etcd.io/etcd/server/v3", "v{0}"),
    "kubectl": ("k8s.io/kubernetes", "v{0}"),
    "control-plane": ("k8s.io/kubernetes", "v{0}"),
    "kwok": ("sigs.k8s.io/kwok", "v{0}"),
    "envoy-gateway": ("github.com/envoyproxy/gateway", "v{0}"),
    "helm": ("helm.sh/helm/v4", "v{0}"),
}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_stated_version_is_the_pinned_one(program: Program) -> None:
    text = (program.module_dir / "go.mod").read_text()
    if program.name == "prometheus":  # release 3.14.0 is module version 0.314.0
        major, minor, patch = program.version.split(".")
        wanted = f"github.com/prometheus/prometheus v0.{major}{int(minor):02d}.{patch}"
    else:
        module, version = MODULES[program.name]
        wanted = f"{module} {version.format(program.version)}"
    assert re.search(rf"{re.escape(wanted)}\b", text), f"{wanted} is not in go.mod"


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_accepted_toolchains_are_new_enough(program: Program) -> None:
    found = re.search(r"^go (\S+)$", (program.module_dir / "go.mod").read_text(), re.MULTILINE)
    assert found
    wanted, accepted, fetched = (tuple(map(int, v.split("."))) for v in (found[1], MINIMUM_GO, GO_TOOLCHAIN))
    assert wanted <= accepted <= fetched


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setattr(programs, "MODULES_DIR", tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "go.mod").write_text("module tiny\n")
    (tmp_path / "tiny" / "main.go").write_text("package main\n")
    return Program("tiny", "tiny", ".", "1")


def test_hash_follows_the_content_of_the_module(program: Program) -> None:
    before = program.content_hash()

    (program.module_dir / "notes.txt").write_text("not compiled")
    assert program.content_hash() == before

    (program.module_dir / "main.go").write_text("package main // changed\n")
    assert program.content_hash() != before


@pytest.mark.parametrize("change", [{"tags": "x"}, {"stamps": ("a.B=c",)}, {"package": "./cmd"}])
def test_hash_follows_the_flags(program: Program, change: dict[str, object]) -> None:
    assert dataclasses.replace(program, **change).content_hash() != program.content_hash()  # type: ignore[arg-type]


def test_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert paths.cache_dir() == tmp_path / "wattzoo"

    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification says to ignore such values
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert paths.cache_dir() == tmp_path / "home" / ".cache" / "wattzoo"
