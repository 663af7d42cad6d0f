"""Keeps a solver's own words out of what a process prints.

HiGHS, as scipy brings it, writes a line with C's `printf` when it mends an integer solution that its own tolerances
made infeasible ("...transformNewIntegerFeasibleSolution tmpSolver.run();"). No option of `milp` silences that one.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_native_output() -> Iterator[None]:
    """Send what native code writes to file descriptor 1 to nowhere; nothing else may print meanwhile."""
    sys.stdout.flush()
    try:
        saved = os.dup(1)
    except OSError:  # no standard output at all
        yield
        return
    try:
        _point_at_nowhere()
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # C keeps its words until later when they go into a pipe or a file
        os.dup2(saved, 1)
        os.close(saved)


def drop_native_output() -> None:
    """Send what native code writes to file descriptor 1 to nowhere, for good; Python's own output goes on as before.

    For a process whose threads solve while others write: to be called once, before there is any.
    """
    sys.stdout.flush()
    try:
        saved = os.dup(1)
    except OSError:  # no standard output at all
        return
    sys.stdout = os.fdopen(saved, "w", encoding=sys.stdout.encoding, buffering=1)
    _point_at_nowhere()


def _point_at_nowhere() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
