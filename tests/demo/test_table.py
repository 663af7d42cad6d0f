from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from e2e.demo.recording import Moment, Replicas
from e2e.demo.table import Display, joules_per_request, plain_line, render_table

MOMENT = Moment(
    at_seconds=12.0,
    weights={"chat": {"small-l4": 0.6, "large-h100": 0.4}},
    replicas={"small-l4": Replicas(2, 1, 1), "large-h100": Replicas(1, 1, 0)},
    power_watts=2400.0,
    achieved={"chat": 0.53},
    joules_per_request={"chat": 180.0},
    request_rps=12.0,
    decisions={"chat": "HoldingTarget: 40 % to large keeps 52 %"},
)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_request_costs_watts_over_rate_and_unknown_stays_unknown() -> None:
    assert joules_per_request(MOMENT) == 200.0
    assert joules_per_request(replace(MOMENT, power_watts=None)) is None
    assert joules_per_request(replace(MOMENT, request_rps=0.0)) is None


def test_the_plain_line_says_everything_in_one_line() -> None:
    line = plain_line(MOMENT)
    for part in ("12.0 requests/s", "2,400 W", "200 J/request", "small 60/large 40", "small-l4 1/2", "chat 53.0 %"):
        assert part in line


def test_the_table_shows_services_replicas_and_decisions() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(render_table(MOMENT, {"chat": 0.519}, [(3.0, "chat", "HoldingTarget: why")], 180.0))
    for part in ("51.9 %", "53.0 %", "60.0 %", "large-h100", "3 s  chat: HoldingTarget: why", "12 of 180 s"):
        assert part in shown(console)


def test_without_a_terminal_a_line_comes_every_ten_seconds_and_decisions_once() -> None:
    console = Console(file=io.StringIO(), width=300)
    with Display(console, {"chat": 0.519}, 180.0) as display:
        for at_seconds in (0.0, 2.0, 4.0, 9.9, 10.0, 12.0):
            display.show(replace(MOMENT, at_seconds=at_seconds))
    assert shown(console).count("requests/s") == 2
    assert len(display.seen) == 1
