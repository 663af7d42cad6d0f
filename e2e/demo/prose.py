"""The report for people: the figures in a few lines and one paragraph that a platform engineer understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {
    "hpa_largest": "always the largest model, with an HPA",
    "fixed_mix_hpa": "the cheapest fixed mixture (by hindsight), with an HPA",
}


def percent(share: float | None) -> str:
    """Return a share as text; unknown stays unknown."""
    return "unknown" if share is None else f"{100 * share:.2f} %"


def kilojoules(joules: float | None) -> str:
    """Return joules as text in kilojoules."""
    return "unknown" if joules is None else f"{joules / 1000:,.0f} kJ"


def render_text(report: Mapping[str, Any]) -> str:
    """Return the whole report as text."""
    parts = [
        f"WattZoo demo, {report['minutes']:g} minutes of load, commit {report['commit']}",
        "",
        *_service_lines(report),
        "",
        *_run_lines(report),
        "",
        *_trust_lines(report),
        "",
        *(f"NOT VALID: {problem}" for problem in report["problems"]),
        *(f"note: {warning}" for warning in report["warnings"]),
        "",
        "What is emulated: " + report["emulated"],
        "What was squeezed: " + "; ".join(f"{what}: {how}" for what, how in report["squeezed"].items()),
        "",
        render_paragraph(report),
    ]
    return "\n".join(parts) + "\n"


def _service_lines(report: Mapping[str, Any]) -> list[str]:
    lines = [f"{'service':<10}{'target':>10}{'achieved':>11}{'feedbacks':>11}{'debt':>9}{'worst deficit after N0':>25}"]
    for row in report["services"]:
        worst = row["worst_deficit"]
        lines.append(
            f"{row['name']:<10}{percent(row['target']):>10}{percent(row['achieved']):>11}{row['feedback_count']:>11}"
            f"{row['debt_requests']:>9.1f}{'too few' if worst is None else f'{100 * worst:.2f} points':>25}"
        )
    n0 = ", ".join(f"{row['name']} {row['n0']}" for row in report["services"])
    return [
        *lines,
        f"N0 (feedbacks from which the promise is judged; stated by the service, at least 1000): {n0}",
        "debt = target x feedbacks - satisfied, negative is credit",
    ]


def _run_lines(report: Mapping[str, Any]) -> list[str]:
    head = f"{'same requests served by':<56}{'energy':>10}{'TTFT ok':>11}{'TPOT ok':>11}  satisfied"
    achieved = {row["name"]: row["achieved"] for row in report["services"]}
    energy, slo = report["energy_joules"], report["slo"]
    lines = [head, _run_line("WattZoo, measured by Prometheus", energy["measured"], slo, achieved)]
    if report["plant"] is None:
        return [*lines, "(no comparison was computed)"]
    replayed = report["plant"]["replayed"]
    lines.append(
        _run_line("WattZoo, its decisions replayed", energy["replayed"], replayed["slo"], replayed["satisfied"])
    )
    lines.append(f"    {replayed['setting']}")
    for key, name in NAMES.items():
        run = report["plant"][key]
        mark = "" if run["reached_goal"] else " (!)"
        lines.append(_run_line(name + mark, run["energy_joules"], run["slo"], run["satisfied"]))
        lines.append(f"    {run['setting']}")
    lines += _law_lines(report["plant"].get("laws", ()))
    deviation = report["plant"]["replay_deviation_percent"]
    return [*lines, f"replay against measurement: {'unknown' if deviation is None else f'{deviation:+.1f} %'}"]


def _law_lines(laws: Sequence[Mapping[str, Any]]) -> list[str]:
    if not laws:
        return []
    lines = ["the same requests under each law, simulated with WattZoo's replicas (energy over the fixed mixture's):"]
    for law in laws:
        setting = ", ".join(f"{name}={value}" for name, value in law["parameters"].items())
        worst = "too few" if law["worst_deficit"] is None else f"{100 * law['worst_deficit']:.2f} points"
        name = f"{law['policy']} {setting}".strip()
        lines.append(
            f"    {name:<40}{law['ratio_to_fixed_mix']:.3f}  {kilojoules(law['energy_joules'])}, satisfied "
            f"{percent(law['satisfied'])}, worst deficit after N0 {worst} (mean of {law['seeds']} seeds)"
        )
    return lines


def _run_line(name: str, joules: float | None, slo: Mapping[str, Any], satisfied: Mapping[str, float | None]) -> str:
    shares = ", ".join(f"{service} {percent(share)}" for service, share in satisfied.items())
    return (
        f"{name:<56}{kilojoules(joules):>10}{percent(slo['ttft_attainment']):>11}{percent(slo['tpot_attainment']):>11}"
        f"  {shares}"
    )


def _trust_lines(report: Mapping[str, Any]) -> list[str]:
    requests, steady, lag = report["requests"], report["steady"], report["emulator_lag_p99_ms"]
    return [
        f"requests sent {requests['sent']}, failed {requests['failed']}; mean {requests['mean_rps']:.1f} per second",
        f"writes when steady ({steady['seconds']:.0f} s): {report['writes_when_steady']} changes, "
        f"{steady['status']} status checkpoints, {steady['lease']} Lease renewals",
        f"emulator lag p99: {'unknown' if lag is None else f'{lag:.0f} ms'} (a run above 250 ms is not valid)",
    ]


def render_paragraph(report: Mapping[str, Any]) -> str:
    """Return the closing paragraph. It says where WattZoo is not better as plainly as where it is."""
    if not report["valid"]:
        return "This run is not valid (" + "; ".join(report["problems"]) + "): draw no conclusion from its figures."
    kept = [row for row in report["services"] if row["achieved"] is not None and row["achieved"] >= row["target"]]
    slo = report["slo"]
    sentences = [
        f"WattZoo served {report['requests']['sent']} requests without one failure and used "
        f"{kilojoules(report['energy_joules']['measured'])} of GPU energy, idle and starts included. "
        f"{len(kept)} of {len(report['services'])} services ended at or above their target; "
        f"{percent(slo['ttft_attainment'])} of requests met the first-token bound and "
        f"{percent(slo['tpot_attainment'])} the per-token bound."
    ]
    if report["plant"] is not None:
        sentences += [_against(report, key, name) for key, name in NAMES.items()]
    return " ".join(sentences)


def _against(report: Mapping[str, Any], key: str, name: str) -> str:
    run = report["plant"][key]
    change = run["measured_against_it_percent"]
    if change is None:
        return f"Against {name}: unknown."
    verdict = f"{-change:.0f} % less energy than" if change <= 0 else f"{change:.0f} % MORE energy than"
    slo = run["slo"]
    targets = {row["name"]: row["target"] for row in report["services"]}
    shares = " and ".join(
        percent(share) + (" (below the target)" if share is not None and share < targets[service] else "")
        for service, share in run["satisfied"].items()
    )
    caveat = "" if run["reached_goal"] else " (no setting of it reached 99 %, so this is not like for like)"
    return (
        f"That is {verdict} {name}, which on the same requests meets {percent(slo['ttft_attainment'])} and "
        f"{percent(slo['tpot_attainment'])} of the bounds and satisfies {shares}{caveat}."
    )
