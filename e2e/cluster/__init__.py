"""A real Kubernetes control plane for tests and the demo: built from pinned sources, run without root or containers."""

from __future__ import annotations

from e2e.cluster.cluster import Cluster, Options
from e2e.cluster.errors import ClusterError, CommandError, ComponentError

__all__ = ["Cluster", "ClusterError", "CommandError", "ComponentError", "Options"]
