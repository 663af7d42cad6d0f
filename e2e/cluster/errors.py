"""What can go wrong in the harness, so that the command line can say it in one line instead of a traceback."""

from __future__ import annotations


class ClusterError(Exception):
    """Root of the harness's errors; the text is meant for the person at the terminal."""


class MissingRequirementError(ClusterError):
    """The machine lacks something that only its owner can provide; the text says what and how."""


class BuildError(ClusterError):
    """A program could not be built or fetched."""


class ComponentError(ClusterError):
    """A component did not start, died, or did not reach the awaited state in time."""


class CommandError(ClusterError):
    """kubectl or helm answered with a failure; the text holds its standard error."""

    def __init__(self, command: str, returncode: int, stderr: str) -> None:
        super().__init__(f"{command} failed ({returncode}): {stderr.strip()}")
        self.returncode = returncode
        self.stderr = stderr
