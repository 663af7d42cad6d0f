"""Settings that cannot work are refused with the option's name; metrics and probes say what they should."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from typer.testing import CliRunner

from wattzoo import __version__
from wattzoo.__main__ import app
from wattzoo.logs import JsonFormatter, TextFormatter
from wattzoo.model import Ref, VariantKey
from wattzoo.settings import (
    Address,
    LeaseSettings,
    PrometheusSettings,
    Settings,
    SettingsError,
    parse_objective,
    split_namespaces,
)
from wattzoo.telemetry import METRICS, ReplicaFigures, ServiceFigures, Telemetry, render_reference


def settings(**more: Any) -> Settings:
    return Settings(PrometheusSettings("http://p:9090"), LeaseSettings("ns", "me"), **more)


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda: PrometheusSettings("ftp://p"), "--prometheus-url"),
        (lambda: PrometheusSettings("http://user:secret@p"), "--prometheus-url"),
        (lambda: PrometheusSettings("http://p?x=1"), "--prometheus-url"),
        (lambda: PrometheusSettings("p:9090"), "--prometheus-url"),
        (lambda: PrometheusSettings("http://p", window_seconds=0), "--telemetry-window-seconds"),
        (lambda: LeaseSettings("", "me"), "--lease-namespace"),
        (lambda: LeaseSettings("ns", ""), "--identity"),
        (lambda: LeaseSettings("ns", "me", renew_deadline_seconds=15), "--renew-deadline-seconds"),
        (lambda: LeaseSettings("ns", "me", retry_period_seconds=10), "--retry-period-seconds"),
        (lambda: settings(watch_namespaces=("A",)), "--watch-namespaces"),
        (lambda: settings(pool_interval_seconds=0), "--pool-interval-seconds"),
        (lambda: settings(log_format="xml"), "--log-format"),
        (lambda: settings(log_level="loud"), "--log-level"),
        (lambda: parse_objective("energy"), "--objective"),
        (lambda: Address.parse("--health-address", "8081"), "--health-address"),
        (lambda: Address.parse("--health-address", "a:99999"), "--health-address"),
    ],
)
def test_what_cannot_work_is_refused_by_name(make: Any, option: str) -> None:
    with pytest.raises(SettingsError, match=option):
        make()


def test_addresses_and_lists() -> None:
    assert Address.parse("o", "127.0.0.1:80") == Address("127.0.0.1", 80)
    assert Address.parse("o", "[::1]:80") == Address("::1", 80)
    assert split_namespaces(" b, a,,b ") == ("b", "a")


def test_the_command_line_refuses_before_it_starts() -> None:
    result = CliRunner().invoke(app, ["run", "--prometheus-url=nonsense", "--lease-namespace=ns"])
    assert (result.exit_code, result.stderr) == (
        2,
        "wattzoo: --prometheus-url: expected http(s)://HOST[:PORT][/PATH], got 'nonsense'\n",
    )
    assert CliRunner().invoke(app, ["version"]).stdout == f"{__version__}\n"


def test_the_command_line_writes_the_definitions(tmp_path: Any) -> None:
    result = CliRunner().invoke(app, ["crds", "--output", str(tmp_path)])
    assert result.exit_code == 0
    assert len(list(tmp_path.glob("*.yaml"))) == 4


def test_an_unknown_figure_has_no_series() -> None:
    telemetry, labels = Telemetry("v"), {"namespace": "n", "service": "s"}
    telemetry.set_service(Ref("n", "s"), ServiceFigures({"target": 0.8}, weights={"small": 0.25}))
    telemetry.set_pool(Ref("n", "p"), {VariantKey("m", "v"): ReplicaFigures(None, 2)})
    text = telemetry.render().decode()
    assert 'wattzoo_sla_target_ratio{namespace="n",service="s"} 0.8' in text
    assert 'wattzoo_weight_ratio{member="small",namespace="n",service="s"} 0.25' in text
    assert 'wattzoo_ready_replicas{member="m",modelpool="p",namespace="n",variant="v"} 2.0' in text
    sample = telemetry.registry.get_sample_value
    assert sample("wattzoo_sla_achieved_ratio", labels) is None
    assert "wattzoo_desired_replicas{" not in text


def test_every_metric_is_exported_and_in_the_reference() -> None:
    exported = {family.name for family in Telemetry().registry.collect()}
    assert exported == {metric.name.removesuffix("_total") for metric in METRICS.values()}
    assert all(f"`{metric.name}`" in render_reference() for metric in METRICS.values())


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("wattzoo.x", logging.INFO, "f", 1, "says %s", (message,), None)


def test_nobody_can_forge_a_log_line() -> None:
    hostile = 'x"\n{"level": "error"}\r\x1b[31m'
    line = JsonFormatter().format(record(hostile))
    assert json.loads(line)["message"] == f"says {hostile}"
    text = TextFormatter().format(record(hostile))
    assert not set("\n\r\x1b") & set(line + text)


def test_the_objective_comes_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTZOO_OBJECTIVE", "Speed")
    result = CliRunner().invoke(app, ["run", "--prometheus-url=http://p:9090", "--lease-namespace=ns"])
    assert (result.exit_code, result.stderr) == (
        2,
        "wattzoo: --objective: expected one of Energy, Carbon, Cost, got 'Speed'\n",
    )
