"""The report's one picture: what came in, what was decided, what it cost, and whether the promise held.

`python -m e2e.demo.picture [REPORT_DIR] [PNG]` draws it again from a saved run; by default the README's picture.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from e2e.demo.recording import Moment, Recording

COLOURS = {"small": "#3b9c6f", "medium": "#e0a030", "large": "#b5443c"}
SERVICE_COLOURS = ("#3c6fb5", "#8a4fa3", "#4a4a4a", "#a35f4f")
README_PICTURE = Path("docs/images/demo.png")
BIN_SECONDS = 10.0


def draw_picture(recording: Recording, report: Mapping[str, Any], path: Path) -> None:
    """Write the picture as a PNG."""
    figure, axes = plt.subplots(3, 2, figsize=(13, 10), layout="constrained")
    moments = [moment for moment in recording.moments if moment.at_seconds >= 0]
    _draw_load(axes[0][0], recording)
    _draw_weights(axes[0][1], moments)
    _draw_replicas(axes[1][0], moments)
    _draw_power(axes[1][1], moments)
    _draw_satisfaction(axes[2][0], recording, report)
    _draw_energy(axes[2][1], report)
    for axis in axes.flat[:5]:
        axis.set_xlabel("seconds of load")
        axis.grid(alpha=0.25)
    figure.suptitle(_headline(report), fontsize=13)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, pil_kwargs={"optimize": True})
    plt.close(figure)


def _headline(report: Mapping[str, Any]) -> str:
    target = report["services"][0]["target"] if report["services"] else 0.0
    head = f"WattZoo, {report['minutes']:g} minutes: {target:.1%} of answers satisfied is promised"
    return head if report["valid"] else head + "   -   NOT A VALID RUN"


def _colour(variant: str) -> str:
    return next((colour for name, colour in COLOURS.items() if variant.startswith(name)), "#777777")


def _draw_load(axis: Axes, recording: Recording) -> None:
    axis.set_title("load (requests per second)")
    edges = [BIN_SECONDS * step for step in range(int(recording.load_seconds / BIN_SECONDS) + 2)]
    services = list(recording.facts["targets"])
    sent = [[reply.sent_at_seconds for reply in recording.replies if reply.service == name] for name in services]
    weights = [[1 / BIN_SECONDS] * len(times) for times in sent]
    colours = SERVICE_COLOURS[: len(services)]
    if any(sent):
        axis.hist(sent, bins=edges, weights=weights, stacked=True, label=services, color=colours, alpha=0.8)
        axis.legend(loc="upper left")


def _draw_weights(axis: Axes, moments: list[Moment]) -> None:
    services = sorted({service for moment in moments for service in moment.weights})
    styles = dict(zip(services, ("-", "--", ":", "-."), strict=False))
    names = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dash-dotted"}
    axis.set_title("traffic weights (" + ", ".join(f"{names[style]}: {name}" for name, style in styles.items()) + ")")
    for service, style in styles.items():
        for variant in sorted({name for moment in moments for name in moment.weights.get(service, {})}):
            points = [(m.at_seconds, m.weights[service].get(variant)) for m in moments if service in m.weights]
            known = [(at, share) for at, share in points if share is not None]
            label = variant if service == services[0] else None
            axis.step(*zip(*known, strict=True), where="post", ls=style, color=_colour(variant), label=label)
    axis.set_ylim(-0.02, 1.02)
    if services:
        axis.legend(loc="upper right", fontsize=8, framealpha=0.7)


def _draw_replicas(axis: Axes, moments: list[Moment]) -> None:
    axis.set_title("replicas (line: ready, shade: starting and terminating)")
    times = [moment.at_seconds for moment in moments]
    for variant in sorted({name for moment in moments for name in moment.replicas}):
        counts = [moment.replicas.get(variant) for moment in moments]
        ready = [0 if count is None else count.ready for count in counts]
        extra = [0 if count is None else count.ready + count.starting + count.terminating for count in counts]
        axis.step(times, ready, where="post", color=_colour(variant), label=variant)
        axis.fill_between(times, ready, extra, step="post", color=_colour(variant), alpha=0.2)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    if moments:
        axis.legend(loc="upper right")


def _draw_power(axis: Axes, moments: list[Moment]) -> None:
    axis.set_title("GPU power of the pool's pods (kW)")
    known = [(moment.at_seconds, moment.power_watts / 1000) for moment in moments if moment.power_watts is not None]
    if known:
        axis.plot(*zip(*known, strict=True), color="#444444")
    axis.set_ylim(bottom=0)


def _draw_satisfaction(axis: Axes, recording: Recording, report: Mapping[str, Any]) -> None:
    axis.set_title("satisfied share since the start (dashed: target; faint: before N0)")
    for row, colour in zip(report["services"], SERVICE_COLOURS, strict=False):
        known = [r for r in recording.replies if r.service == row["name"] and r.satisfied is not None]
        known.sort(key=lambda reply: reply.done_at_seconds)
        good, shares = 0, []
        for number, reply in enumerate(known, start=1):
            good += bool(reply.satisfied)
            shares.append((reply.done_at_seconds, good / number))
        for part, alpha, label in ((shares[30 : row["n0"]], 0.3, None), (shares[row["n0"] :], 1.0, row["name"])):
            if part:
                axis.plot(*zip(*part, strict=True), color=colour, alpha=alpha, label=label)
        axis.axhline(row["target"], ls="--", lw=1, color=colour)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="lower right")


def _draw_energy(axis: Axes, report: Mapping[str, Any]) -> None:
    axis.set_title("GPU energy of the same requests (kJ; below: bounds met, satisfied)")
    bars = [("WattZoo\nmeasured", report["energy_joules"]["measured"], report["slo"], _achieved(report), "#3b9c6f")]
    for key, name, colour in (
        ("replayed", "WattZoo\nreplayed", "#9fd3b8"),
        ("hpa_largest", "largest model\n+ HPA", "#b5443c"),
        ("fixed_mix_hpa", "fixed mixture\n+ HPA", "#e0a030"),
    ):
        if report["plant"] is not None:
            run = report["plant"][key]
            bars.append((name, run["energy_joules"], run["slo"], run["satisfied"], colour))
    for place, (_, joules, _, _, colour) in enumerate(bars):
        if joules is not None:
            axis.bar(place, joules / 1000, color=colour)
            axis.annotate(f"{joules / 1000:,.0f}", (place, joules / 1000), ha="center", va="bottom")
    axis.margins(y=0.12)
    axis.set_xticks(
        range(len(bars)), [f"{name}\n{_bounds(slo)}\n{_shares(shares)}" for name, _, slo, shares, _ in bars]
    )
    axis.tick_params(axis="x", labelsize=8)


def _achieved(report: Mapping[str, Any]) -> dict[str, float | None]:
    return {row["name"]: row["achieved"] for row in report["services"]}


def _bounds(slo: Mapping[str, Any]) -> str:
    known = [slo[name] for name in ("ttft_attainment", "tpot_attainment") if slo[name] is not None]
    return f"{min(known):.1%} in bounds" if known else "bounds unknown"


def _shares(shares: Mapping[str, float | None]) -> str:
    known = [share for share in shares.values() if share is not None]
    return f"{min(known):.1%} satisfied" if known else ""


def main(arguments: list[str]) -> int:
    """Draw a saved run again."""
    folder = Path(arguments[0]) if arguments else Path("demo-report")
    target = Path(arguments[1]) if len(arguments) > 1 else README_PICTURE
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    draw_picture(Recording.load(folder / "recording.json"), report, target)
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
