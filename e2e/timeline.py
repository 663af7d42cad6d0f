"""Watches one service and the servers of its namespace while a scenario does something to them.

Replicas are read before weights, so a look that shows a server gone shows weights that are at least as new.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from e2e.stack import Stack, eventually, shift

LOOK_EVERY_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Look:
    """One look: spec.replicas by Deployment, weights by backend, uids of the pods that are to stay."""

    at_seconds: float
    replicas: Mapping[str, int]
    weights: Mapping[str, int]
    pods: Mapping[str, str]


class Timeline:
    """A thread that looks twice a second between `with` and its end."""

    def __init__(self, stack: Stack, namespace: str, service: str) -> None:
        self.stack = stack
        self.namespace = namespace
        self.service = service
        self.looks: list[Look] = []
        self.error: Exception | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        eventually(lambda: self.looks, 20.0, "a first look")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        if self.error is not None and kind is None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._ending.wait(LOOK_EVERY_SECONDS):
                replicas = self.stack.replicas(self.namespace)
                weights = self.stack.weights(self.namespace, self.service)
                pods = self.stack.gpu_pods(self.namespace)
                if replicas and weights:
                    self.looks.append(Look(time.monotonic(), replicas, weights, pods))
        except Exception as error:  # noqa: BLE001 (raised where the block ends)
            self.error = error

    @property
    def first(self) -> Look:
        """The first look."""
        return self.looks[0]

    @property
    def last(self) -> Look:
        """The newest look."""
        return self.looks[-1]

    def observe(self, seconds: float) -> None:
        """Return when this much more has been watched."""
        until = time.monotonic() + seconds
        eventually(lambda: self.last.at_seconds >= until, seconds + 30.0, f"{seconds:.0f} s watched")

    def largest_shift(self) -> float:
        """The largest share of traffic by which any look's weights differ from the first's."""
        return max(shift(self.first.weights, look.weights) for look in self.looks)

    def lowest(self, deployment: str) -> int:
        """The fewest replicas that were ever asked for."""
        return min(look.replicas[deployment] for look in self.looks)
