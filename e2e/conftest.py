"""Fixtures of the end-to-end tests: one cluster per session, one namespace per test.

Tests open sockets to pod IPs, so pytest itself must run inside the cluster's namespaces: when collected tests need the
cluster and this process is outside, it becomes `python -m e2e.cluster run -- pytest ...`, or runs inside the cluster
that WATTZOO_CLUSTER_RUN_DIR names, which saves the start while one works on a test.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator

import pytest

from e2e.cluster import Cluster
from e2e.cluster.paths import REPOSITORY_DIR, RUN_DIR_VARIABLE
from e2e.stack import fresh_namespace

LOGS_SHOWN = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "envoy-gateway", "prometheus")


def inside() -> bool:
    """Whether this process runs in the namespaces of the cluster that the environment names."""
    if RUN_DIR_VARIABLE not in os.environ:
        return False
    return Cluster.attach().namespace.inside()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Become the same pytest inside a cluster when a test needs one; the outer exit code is the inner one's."""
    needing = [item for item in session.items if "cluster" in getattr(item, "fixturenames", ())]
    if not needing or session.config.option.collectonly or inside():
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    how = ["exec"] if RUN_DIR_VARIABLE in os.environ else ["run"]
    parameters = session.config.invocation_params
    command = [sys.executable, "-m", "e2e.cluster", *how, "--", sys.executable, "-m", "pytest", *parameters.args]
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(parameters.dir)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(REPOSITORY_DIR), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    )
    os.execvp(command[0], command)  # noqa: S606 (no shell is meant)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The running cluster; the process that started it ends it."""
    return Cluster.attach()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace, gone (with its pods and Gateways) when the test ends."""
    with fresh_namespace(cluster) as name:
        yield name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the ends of the components' logs to a failed test that used the cluster."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(cluster, Cluster):
        others = sorted(set(cluster.processes()) - set(LOGS_SHOWN) - {"etcd"})
        for name in [*LOGS_SHOWN, *others]:
            report.sections.append((f"log of {name}", cluster.tail(name, lines=12)))
    return report
