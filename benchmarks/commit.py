"""Which commit a page of results, or a report, was made from."""

from __future__ import annotations

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
WRITTEN = "benchmarks/results"
"""What the benchmarks write themselves: changed by one run, it says nothing of the code that the next one runs."""


def read_commit() -> str:
    """Return the commit of the tree, with `+` when tracked files differ from it; `unknown` outside a repository."""
    head = _ask("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    changed = _ask("status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){WRITTEN}")
    return head + ("+" if changed else "")


def _ask(*arguments: str) -> str:
    """Return what Git answers; nothing where it cannot."""
    command = ["git", "-C", str(REPOSITORY), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
