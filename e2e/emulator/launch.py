"""Starts the emulator and the load generator inside a cluster of the harness, for the demo and the scenarios."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from e2e.cluster import Cluster

CONTROL_URL = "http://10.96.255.1:9401"
EMULATOR, LOAD = "emulator", "load"


def source_environment() -> dict[str, str]:
    """Return what lets a process of this checkout import it, installed or not."""
    root = Path(__file__).parents[2]
    return {"PYTHONPATH": os.pathsep.join(str(root / part) for part in ("operator", "policies", "."))}


def start_emulator(cluster: Cluster, arguments: Sequence[str] = ()) -> None:
    """Start the emulator as the process `emulator` and return when its control port listens."""
    argv = [sys.executable, "-m", "e2e.emulator", "--kubeconfig", str(cluster.kubeconfig), *arguments]
    cluster.start(EMULATOR, argv, source_environment())
    cluster.wait_until(lambda: cluster.fetch(f"{CONTROL_URL}/stats") is not None, 30, "the emulator listens")


def start_load(cluster: Cluster, arguments: Sequence[str]) -> None:
    """Start the load generator as the process `load`."""
    gateway = ["--gateway", cluster.gateway_url]
    cluster.start(LOAD, [sys.executable, "-m", "e2e.load", *gateway, *arguments], source_environment())


def read_stats() -> dict[str, Any]:
    """Return the emulator's statistics; works inside the namespace only."""
    answer = requests.get(f"{CONTROL_URL}/stats", timeout=10)
    answer.raise_for_status()
    stats: dict[str, Any] = answer.json()
    return stats


def set_faults(**faults: object) -> dict[str, Any]:
    """Switch faults of the emulator; works inside the namespace only."""
    answer = requests.post(f"{CONTROL_URL}/faults", json=faults, timeout=10)
    answer.raise_for_status()
    state: dict[str, Any] = answer.json()
    return state
