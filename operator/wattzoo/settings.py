"""How this process runs, as one frozen value: what the command line and the chart say, checked once at the start.

Nothing here describes a service level: that is in our custom resources. A setting that cannot work is refused with the
option's name, so that a mistake in a values file is read in the first log line and not guessed from behaviour.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from wattzoo_policies.placement.objective import Objective

DEFAULT_HEALTH_PORT = 8081
DEFAULT_METRICS_PORT = 8080
NAMESPACE_PATTERN = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LOG_FORMATS = ("json", "text")
LOG_LEVELS = ("debug", "info", "warning", "error")


class SettingsError(ValueError):
    """An option's value cannot work; the message starts with the option's name."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an endpoint listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, option: str, text: str) -> Address:
        """Read `HOST:PORT` (IPv6 in brackets); raises SettingsError naming `option`."""
        host, separator, port = text.rpartition(":")
        if not separator or not port.isdigit() or not 0 <= int(port) <= 65535:
            raise SettingsError(f"{option}: expected HOST:PORT, got {text!r}")
        return cls(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104 - a pod's endpoint listens on all addresses


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Leader election with client-go's meaning of the three times.

    A standby may take over `duration_seconds` after the last renewal it saw; a leader that could not renew for
    `renew_deadline_seconds` stops; both try every `retry_period_seconds`.
    """

    namespace: str
    identity: str
    name: str = "wattzoo"
    duration_seconds: float = 15.0
    renew_deadline_seconds: float = 10.0
    retry_period_seconds: float = 2.0

    def __post_init__(self) -> None:
        for option, value in (("--lease-namespace", self.namespace), ("--lease-name", self.name)):
            if not NAMESPACE_PATTERN.fullmatch(value):
                raise SettingsError(f"{option}: not a Kubernetes name: {value!r}")
        if not self.identity:
            raise SettingsError("--identity: must not be empty")
        if not 0 < self.retry_period_seconds * 1.2 < self.renew_deadline_seconds < self.duration_seconds:
            raise SettingsError(
                "--lease-duration-seconds, --renew-deadline-seconds, --retry-period-seconds: each must be smaller than"
                f" the one before, got {self.duration_seconds}, {self.renew_deadline_seconds},"
                f" {self.retry_period_seconds}"
            )


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """Where the measurements come from, and what one question may cost."""

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None
    profile_file: Path | None = None
    timeout_seconds: float = 5.0
    max_body_bytes: int = 64 * 1024 * 1024
    window_seconds: float = 45.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            raise SettingsError(f"--prometheus-url: expected http(s)://HOST[:PORT][/PATH], got {self.url!r}")
        if self.window_seconds <= 0 or self.timeout_seconds <= 0:
            raise SettingsError("--telemetry-window-seconds: must be positive")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `wattzoo run` needs to know."""

    prometheus: PrometheusSettings
    lease: LeaseSettings
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces to serve; empty means all."""
    pool_interval_seconds: float = 15.0
    objective: Objective = Objective.ENERGY
    """What the joint plan minimises; one for the operator, since one plan spans services."""
    health_address: Address = field(default=Address("0.0.0.0", DEFAULT_HEALTH_PORT))  # noqa: S104
    metrics_address: Address = field(default=Address("0.0.0.0", DEFAULT_METRICS_PORT))  # noqa: S104
    log_format: str = "json"
    log_level: str = "info"

    def __post_init__(self) -> None:
        for namespace in self.watch_namespaces:
            if not NAMESPACE_PATTERN.fullmatch(namespace):
                raise SettingsError(f"--watch-namespaces: not a namespace: {namespace!r}")
        if self.pool_interval_seconds < 1:
            raise SettingsError(f"--pool-interval-seconds: must be at least 1, got {self.pool_interval_seconds}")
        if self.log_format not in LOG_FORMATS:
            raise SettingsError(f"--log-format: expected one of {', '.join(LOG_FORMATS)}, got {self.log_format!r}")
        if self.log_level not in LOG_LEVELS:
            raise SettingsError(f"--log-level: expected one of {', '.join(LOG_LEVELS)}, got {self.log_level!r}")


def split_namespaces(text: str) -> tuple[str, ...]:
    """Read a comma-separated list; blanks and repetitions are dropped, the order stays."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def parse_objective(text: str) -> Objective:
    """Read what plans minimise; raises SettingsError for what is none of the objectives."""
    try:
        return Objective(text)
    except ValueError:
        raise SettingsError(f"--objective: expected one of {', '.join(Objective)}, got {text!r}") from None
