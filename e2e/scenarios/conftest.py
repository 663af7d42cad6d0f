"""The stack of the operator's scenarios: one for the session, one zoo per test in a namespace of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster import Cluster
from e2e.scenarios.zoo import Zoo, accelerator_pools, write_table
from e2e.stack import Stack


@pytest.fixture(scope="session")
def running_stack(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    table = tmp_path_factory.mktemp("stack") / "table.csv"
    write_table(table)
    stack = Stack(cluster, table)
    try:
        stack.start(accelerator_pools())
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def stack(running_stack: Stack) -> Iterator[Stack]:
    """The stack with one leading replica and no load, before and after."""
    running_stack.settle()
    yield running_stack
    running_stack.settle()


@pytest.fixture
def zoo(stack: Stack, namespace: str) -> Zoo:  # noqa: ARG001 (the stack is settled after the namespace is gone)
    return Zoo(namespace)
