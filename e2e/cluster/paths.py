"""Where the harness keeps things: caches that are shared between runs, and one folder per run. Never in the tree."""

from __future__ import annotations

import os
from pathlib import Path

MODULES_DIR = Path(__file__).parent / "modules"
REPOSITORY_DIR = Path(__file__).parents[2]
RUN_DIR_VARIABLE = "WATTZOO_CLUSTER_RUN_DIR"


def cache_dir() -> Path:
    """The harness's own folder in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache)."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".cache"
    return base / "wattzoo"


def default_run_dir() -> Path:
    """$WATTZOO_CLUSTER_RUN_DIR where set, else the one default run of this user."""
    named = os.environ.get(RUN_DIR_VARIABLE)
    return Path(named).resolve() if named else cache_dir() / "run" / "default"
