"""The live table: a picture that refreshes on a terminal, and a plain line now and then where there is none."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from e2e.demo.recording import Moment

PLAIN_EVERY_SECONDS = 10.0
DECISIONS_SHOWN = 6


def percent(share: float | None) -> str:
    """Return a share for a narrow column."""
    return "-" if share is None else f"{100 * share:.1f} %"


def joules_per_request(moment: Moment) -> float | None:
    """Return what a request costs the whole pool now; None without requests or without a measurement."""
    if moment.power_watts is None or not moment.request_rps:
        return None
    return moment.power_watts / moment.request_rps


def headline(moment: Moment) -> str:
    """Return load, power and joules in one line."""
    rps = "-" if moment.request_rps is None else f"{moment.request_rps:.1f}"
    watts = "-" if moment.power_watts is None else f"{moment.power_watts:,.0f}"
    joules = joules_per_request(moment)
    return f"{rps} requests/s   {watts} W   {'-' if joules is None else f'{joules:,.0f}'} J/request"


def plain_line(moment: Moment) -> str:
    """Return the moment as one line of text."""
    weights = "  ".join(
        f"{service} " + "/".join(f"{name.split('-')[0]} {100 * share:.0f}" for name, share in shares.items())
        for service, shares in moment.weights.items()
    )
    replicas = " ".join(f"{name} {count.ready}/{count.desired}" for name, count in moment.replicas.items())
    satisfied = " ".join(f"{name} {percent(share)}" for name, share in moment.achieved.items())
    clock = f"{moment.at_seconds:6.0f} s"
    return f"{clock}  {headline(moment)}  | weights {weights}  | replicas {replicas}  | satisfied {satisfied}"


def decision_lines(seen: list[tuple[float, str, str]]) -> list[str]:
    """Return the last decisions, newest first."""
    return [f"{at:6.0f} s  {service}: {text}" for at, service, text in reversed(seen[-DECISIONS_SHOWN:])]


def render_table(
    moment: Moment, targets: dict[str, float], seen: list[tuple[float, str, str]], load_seconds: float
) -> Group:
    """Return the picture: services and their weights above, replicas in the middle, decisions below."""
    services = Table(expand=True)
    for column in ("service", "target", "satisfied", "J/request", *moment.replicas):
        services.add_column(column, justify="left" if column == "service" else "right")
    for name, target in targets.items():
        achieved = moment.achieved.get(name)
        style = "" if achieved is None else ("green" if achieved >= target else "yellow")
        joules = moment.joules_per_request.get(name)
        shares = moment.weights.get(name, {})
        services.add_row(
            name,
            percent(target),
            Text(percent(achieved), style=style),
            "-" if joules is None else f"{joules:,.0f}",
            *(percent(shares.get(variant)) for variant in moment.replicas),
        )
    replicas = Table(expand=True)
    for column in ("replicas", "wanted", "ready", "starting", "leaving"):
        replicas.add_column(column, justify="left" if column == "replicas" else "right")
    for name, count in moment.replicas.items():
        replicas.add_row(name, *(str(n) for n in (count.desired, count.ready, count.starting, count.terminating)))
    clock = f"{max(0.0, moment.at_seconds):.0f} of {load_seconds:.0f} s   {headline(moment)}"
    decisions = Panel("\n".join(decision_lines(seen)) or "none yet", title="last decisions", title_align="left")
    return Group(Panel(clock, title="WattZoo", title_align="left"), services, replicas, decisions)


class Display:
    """Shows moments; on a terminal in place, elsewhere a line every `PLAIN_EVERY_SECONDS` and every new decision."""

    def __init__(self, console: Console, targets: dict[str, float], load_seconds: float) -> None:
        self.console = console
        self.targets = targets
        self.load_seconds = load_seconds
        self.seen: list[tuple[float, str, str]] = []
        self.latest: dict[str, str] = {}
        self.next_line = float("-inf")
        self.live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def show(self, moment: Moment) -> None:
        """Show one moment."""
        for service, text in moment.decisions.items():
            if text and text != self.latest.get(service):
                self.latest[service] = text
                self.seen.append((moment.at_seconds, service, text))
        if self.live is not None:
            self.live.update(render_table(moment, self.targets, self.seen, self.load_seconds), refresh=True)
        elif moment.at_seconds >= self.next_line:
            self.next_line = moment.at_seconds + PLAIN_EVERY_SECONDS
            self.console.print(plain_line(moment), highlight=False, soft_wrap=True, markup=False)
            for service, text in self.latest.items():
                self.console.print(f"          {service}: {text}", highlight=False, soft_wrap=True, markup=False)
