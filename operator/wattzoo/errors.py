"""Everything that can go wrong, as one drawn tree, so that a border converts an error into a condition in one place.

    WattZooError
    |-- InvalidSpec          the object says something that cannot be: fields, values, rules
    |-- UnknownPolicy        the registry has no such controller policy
    |-- ObservationError     what we wanted to know could not be read: hold, never guess
    |   |-- MetricsUnreachable    Prometheus does not answer
    |   |-- QueryRejected         Prometheus answers that the query is wrong or too large
    |   `-- ClusterUnreadable     the API server does not answer, or not with what we asked for
    `-- ApplyError           a write did not happen
        |-- Conflict              the object changed since it was observed: observe again
        |-- OwnershipConflict     another manager owns the field: report, do not fight
        |-- Denied                authorisation or an admission policy said no
        |-- Rejected              the body is wrong: our bug or an older schema, a retry cannot help
        `-- Unreachable           no answer, it may or may not have happened: observe again

Each leaf carries `reason`, the CamelCase word that a condition shows (`wattzoo.api.conditions.Reason`).
"""

# The names are words of the trade and read as reasons: Conflict, Denied.
# ruff: noqa: N818

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

MAX_PROBLEMS = 5


class WattZooError(Exception):
    """Root of the tree; never raised itself."""

    reason: ClassVar[str] = "InternalError"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an object: the field's path, the value found there (shortened) and the rule it breaks."""

    field: str
    value: str
    rule: str

    def __str__(self) -> str:
        """As a condition shows it: `spec.x: rule (got value)`."""
        return f"{self.field}: {self.rule} (got {self.value})"


class InvalidSpec(WattZooError):
    """An object breaks the API's rules. `problems` holds the first few, at least one."""

    reason: ClassVar[str] = "InvalidSpec"

    def __init__(self, obj: str, problems: tuple[Problem, ...]) -> None:
        """`obj` is KIND/NAMESPACE/NAME; `problems` must not be empty."""
        if not problems:
            raise ValueError("InvalidSpec needs at least one problem")
        self.obj = obj
        self.problems = problems[:MAX_PROBLEMS]
        more = len(problems) - len(self.problems)
        text = "; ".join(str(problem) for problem in self.problems)
        super().__init__(f"{obj}: {text}" + (f"; and {more} more" if more else ""))

    @property
    def field(self) -> str:
        """Path of the first field that is wrong."""
        return self.problems[0].field

    @property
    def value(self) -> str:
        """What was found there, shortened."""
        return self.problems[0].value

    @property
    def rule(self) -> str:
        """The rule it breaks."""
        return self.problems[0].rule


class UnknownPolicy(WattZooError):
    """A controller policy that this build does not have."""

    reason: ClassVar[str] = "UnknownPolicy"


class ObservationError(WattZooError):
    """Something could not be read."""

    reason: ClassVar[str] = "ObservationFailed"


class MetricsUnreachable(ObservationError):
    """Prometheus does not answer (connection, timeout, 5xx)."""

    reason: ClassVar[str] = "PrometheusUnreachable"


class QueryRejected(ObservationError):
    """Prometheus answers that the query is wrong, or the answer is larger than the cap."""

    reason: ClassVar[str] = "QueryRejected"


class ClusterUnreadable(ObservationError):
    """The API server does not answer a read, or refuses it."""

    reason: ClassVar[str] = "ClusterUnreadable"


class ApplyError(WattZooError):
    """A write did not happen."""

    reason: ClassVar[str] = "ApplyFailed"


class Conflict(ApplyError):
    """409 with a stale resourceVersion or uid: the object moved on. Observe again, then decide again."""

    reason: ClassVar[str] = "Conflict"


class OwnershipConflict(ApplyError):
    """409 with FieldManagerConflict: somebody else owns the field. Reported, not fought."""

    reason: ClassVar[str] = "OwnershipConflict"


class Denied(ApplyError):
    """403: RBAC or an admission policy refuses the write."""

    reason: ClassVar[str] = "WriteDenied"


class Rejected(ApplyError):
    """400, 422, or 500 for an unknown field: the body is wrong and a retry cannot help."""

    reason: ClassVar[str] = "WriteRejected"


class Unreachable(ApplyError):
    """No answer, or one that says nothing about the write (429, 5xx, timeout): it may or may not have happened."""

    reason: ClassVar[str] = "APIServerUnreachable"
    retry_after_seconds: float = 0.0
    """What the server asked for (429), zero when it asked for nothing."""
