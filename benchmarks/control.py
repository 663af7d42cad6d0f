"""Control laws on public data: every bar with its figure, written to `benchmarks/results/control.md`.

    python -m benchmarks.control --data DIR [--seeds 200] [--out benchmarks/results/control.md]

DIR holds the public files (names and columns in the result's last section). One set of defaults for everything; the
seeds number the runs and select nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.commit import read_commit
from benchmarks.control_zoos import levels_between, read_zoos
from wattzoo_policies.accuracy.anytime import MESSPlusAnytime
from wattzoo_policies.accuracy.anytime_estimates import AnytimeParameters, estimate_promise_start
from wattzoo_policies.accuracy.mess_plus import MESSPlus
from wattzoo_policies.signals import (
    DecisionRequest,
    Member,
    MemberCondition,
    Observation,
    OutcomeCounter,
    ServedCounter,
)
from wattzoo_policies.sim.laws import AnytimeLaw, FixedLaw, PolicyLaw, PrimalDualLaw, ThresholdLaw
from wattzoo_policies.sim.published import BENCHMARKS, replay_published
from wattzoo_policies.sim.stream import (
    Stream,
    Zoo,
    draw_drifting,
    draw_independent,
    draw_shuffled,
    draw_sorted,
    make_intervals,
    make_stream,
)
from wattzoo_policies.sim.study import Law, Replay, Setting, estimate_blind, replay

DRAWS = {
    "independent": draw_independent,
    "shuffled": draw_shuffled,
    "drifting": draw_drifting,
    "sorted": draw_sorted,
}
HEAD = (
    "| what | alpha | T | interval/lag | f | N0 | joules / blind (p5..p95) | met | violated | worst | churn | bar | |"
)


@dataclass(frozen=True, slots=True)
class Case:
    """One row: what is replayed, and the bar it has to meet (`None`: none is set)."""

    label: str
    zoo: Zoo
    alpha: float
    length: int = 20_000
    interval: int = 200
    lag: int = 1
    feedback: float = 1.0
    order: str = "independent"
    delta: float = 0.05
    bar_ratio: float | None = None
    bar_met: float | None = None
    bar_violated: float | None = None
    events: tuple[tuple[int, int, str, int], ...] = ()

    @property
    def promise_from(self) -> int:
        """Return N0."""
        parameters = AnytimeParameters(delta=self.delta)
        accuracy = self.zoo.accuracy
        start = estimate_promise_start(self.alpha, accuracy, self.interval, self.lag, self.feedback, parameters)
        return int(np.ceil(min(start, 1e7)))


def make_case_stream(case: Case, seeds: int) -> Stream:
    """Return the case's stream; seeds of different cases share nothing but their numbers."""
    bounds, visible = make_intervals(case.length, case.interval, case.lag)
    requests = DRAWS[case.order](case.zoo, seeds, case.length, np.random.default_rng(20_000 + case.length))
    stream = make_stream(requests, len(case.zoo.members), bounds, visible)
    ready, answers = stream.ready.copy(), stream.replacement.copy()
    for first, member, verb, other in case.events:
        interval = first // case.interval
        if verb == "swap":
            answers[interval:, member] = other
        else:
            ready[interval:, member] = verb == "join"
    return replace(stream, ready=ready, replacement=answers)


def run_case(case: Case, seeds: int, law: Law | None = None) -> Replay:
    """Replay one case."""
    safest = np.arange(len(case.zoo.members)) == int(np.argmax(case.zoo.accuracy))
    law = law or AnytimeLaw(safest, AnytimeParameters(delta=case.delta))
    setting = Setting(case.alpha, case.feedback, case.promise_from)
    return replay(case.zoo, make_case_stream(case, seeds), law, setting, np.random.default_rng(7))


def render_row(case: Case, result: Replay) -> str:
    """Return a Markdown row with the verdict on the bar."""
    ratio = result.joules_ratio[np.isfinite(result.joules_ratio)]
    mean = float(ratio.mean()) if ratio.size else float("nan")
    p5, p95 = np.quantile(ratio, [0.05, 0.95]) if ratio.size else (np.nan, np.nan)
    promised = case.promise_from <= case.length
    met, violated = float(result.met.mean()), float(result.violated.mean())
    bars, passed = [], True
    for value, bar, sign, name in (
        (mean, case.bar_ratio, 1, "J"),
        (met, case.bar_met, -1, "met"),
        (violated, case.bar_violated if promised else None, 1, "viol."),
    ):
        if bar is not None:
            bars.append(f"{name} {'<=' if sign > 0 else '>='} {bar:g}")
            passed &= bool(sign * value <= sign * bar + 1e-9)
    verdict = "" if not bars else "ok" if passed else "**missed**"
    shown = f"{violated:.3f}" if promised else "(N0 > T)"
    return (
        f"| {case.label} | {case.alpha:.3f} | {case.length} | {case.interval}/{case.lag} | {case.feedback:g} "
        f"| {case.promise_from} | {mean:.3f} ({p5:.2f}..{p95:.2f}) | {met:.3f} | {shown} "
        f"| {result.worst_deficit.max():.4f} | {result.churn.mean():.2f} | {', '.join(bars)} | {verdict} |"
    )


def render_cases(title: str, cases: Iterable[Case], seeds: int, note: str = "") -> list[str]:
    """Return a section with one row per case."""
    rows = [render_row(case, run_case(case, seeds)) for case in cases]
    return ["", f"## {title}", "", *([note, ""] if note else []), HEAD, "|" + "---|" * 13, *rows]


def render_published(seeds: int) -> list[str]:
    """Return the published rule's table: published and reproduced side by side."""
    lines = [
        "",
        "## The published rule (V = 1e-4, c = .1), request by request",
        "",
        "Synthetic zoo calibrated to the paper's mean accuracies and joules (the per-request data is not public). J "
        "per request; *as counted there*: the cost of an explored request is the one logged before.",
        "",
        "| benchmark | alpha | T | published | reproduced, as counted there | reproduced, all joules | blind "
        "| all / blind | satisfied - alpha | met |",
        "|" + "---|" * 10,
    ]
    for number, row in enumerate(BENCHMARKS):
        result = replay_published(row, seeds, np.random.default_rng(100 + number))
        published = "" if row.reported_megajoules is None else f"{row.reported_megajoules * 1e6 / row.requests:.0f}"
        total = result.joules.mean()
        lines.append(
            f"| {row.name} | {row.alpha:.2f} | {row.requests} | {published} | {result.joules_as_published.mean():.0f} "
            f"| {total:.0f} | {result.blind:.0f} | {total / result.blind:.2f} "
            f"| {result.satisfaction.mean() - row.alpha:+.3f} | {result.met.mean():.2f} |"
        )
    return lines


def render_rivals(zoo: Zoo, seeds: int) -> list[str]:
    """Return all laws on the same requests: llama3 at .519."""
    lines = ["", "## All laws on the same requests (llama3, alpha .519)", "", HEAD, "|" + "---|" * 13]
    best = int(np.argmax(zoo.accuracy))
    for length in (5_000, 20_000):
        case = Case("", zoo, 0.519, length)
        stream = make_case_stream(case, seeds)
        blind, _ = estimate_blind(zoo, stream, case.alpha)
        laws: tuple[Law, ...] = (
            AnytimeLaw(np.arange(len(zoo.members)) == best),
            PolicyLaw(MESSPlus(), zoo.members[best]),
            PrimalDualLaw(),
            ThresholdLaw(int(np.argmin(zoo.mean_joules)), best, int(zoo.group.max()) + 1),
            FixedLaw(blind, "FixedMixture (hindsight)"),
            FixedLaw((np.arange(len(zoo.members)) == best).astype(float), "AlwaysLargest"),
        )
        lines += [render_row(replace(case, label=law.name), run_case(case, seeds, law)) for law in laws]
    return lines


def main_cases(zoo: Zoo) -> list[Case]:
    """Return the bars on llama3."""
    cases = [
        Case("llama3", zoo, 0.519, 5_000, bar_ratio=1.15, bar_met=0.98, bar_violated=0.05),
        Case("llama3", zoo, 0.519, bar_ratio=1.06, bar_met=0.98, bar_violated=0.05),
        Case("llama3", zoo, 0.465, bar_ratio=1.10, bar_met=0.98, bar_violated=0.05),
        Case("llama3", zoo, 0.573, bar_ratio=1.05, bar_met=0.98, bar_violated=0.05),
        Case("llama3, aim", zoo, 0.519, 5_000, 50, 0, bar_ratio=1.06, bar_violated=0.01),
        Case("llama3, aim", zoo, 0.519, 20_000, 50, 0, bar_ratio=1.03, bar_violated=0.01),
    ]
    for alpha in (0.519, 0.573):
        cases.append(Case("llama3", zoo, alpha, feedback=0.2, bar_ratio=1.20, bar_met=0.95, bar_violated=0.10))
        cases.append(Case("llama3", zoo, alpha, feedback=0.05, bar_ratio=1.40, bar_met=0.95, bar_violated=0.10))
    return cases


def zoo_cases(zoos: dict[str, Zoo]) -> tuple[list[Case], list[Case]]:
    """Return cases inside the conditions of the bar (.05 below the best, .05 above the cheapest) and outside."""
    inside, outside = [], []
    for label, zoo in zoos.items():
        bar = 1.10 if len(zoo.members) < 4 else 1.15
        inside += [
            Case(label, zoo, alpha, bar_ratio=bar, bar_met=0.98, bar_violated=0.05) for alpha in levels_between(zoo)
        ]
        cheapest = float(zoo.accuracy[int(np.argmin(zoo.mean_joules))])
        outside.append(Case(f"{label}: below the cheapest", zoo, cheapest - 0.03))
        outside.append(Case(f"{label}: at the cheapest", zoo, cheapest))
        outside.append(Case(f"{label}: .02 under the best", zoo, float(zoo.accuracy.max()) - 0.02))
    return inside, outside


def strained_cases(zoos: dict[str, Zoo]) -> list[Case]:
    """Return drift, delay, loss and swap."""
    cases = []
    for label, alpha in (("llama3", 0.465), ("llama3", 0.519), ("llama3base", 0.385), ("llama3base", 0.395)):
        zoo = zoos[label]
        cases += [
            Case(f"{label}, mix moves linearly", zoo, alpha, length, order="drifting", bar_violated=0.10)
            for length in (5_000, 10_000, 20_000)
        ]
    for label, alpha in (("llama3", 0.519), ("llama3base", 0.43), ("routellm", 0.745)):
        zoo = zoos[label]
        middle = len(zoo.members) - 2
        cases += [
            Case(f"{label}, feedback 400 late", zoo, alpha, lag=2, bar_ratio=1.10, bar_violated=0.05),
            Case(f"{label}, feedback 1,000 late", zoo, alpha, lag=5, bar_ratio=1.10, bar_violated=0.05),
            Case(f"{label}, without replacement", zoo, alpha, order="shuffled", bar_ratio=1.10, bar_violated=0.05),
            Case(
                f"{label}, {zoo.members[middle]} away 6,000..10,000",
                zoo,
                alpha,
                events=((6_000, middle, "leave", 0), (10_000, middle, "join", 0)),
                bar_met=0.98,
                bar_violated=0.05,
            ),
            Case(f"{label}, sorted by difficulty", zoo, alpha, order="sorted"),
        ]
    llama = zoos["llama3"]
    cases.append(Case("llama3, 8B becomes Phi at 10,000", llama, 0.519, events=((10_000, 1, "swap", 0),)))
    return cases


def render_calibration(zoos: dict[str, Zoo], runs: int) -> list[str]:
    """Return empirical violations against the promised delta, over many short runs."""
    levels = (("llama3", 0.465), ("llama3", 0.519), ("llama3", 0.573), ("routellm", 0.745), ("gsm8k", 0.45))
    cases = [
        Case(f"{label}, delta {delta}", zoos[label], alpha, 5_000, delta=delta, bar_violated=2 * delta)
        for label, alpha in levels
        for delta in (0.05, 0.01)
    ]
    note = f"{runs} runs of 5,000 requests each; the bar is twice the promised delta."
    return render_cases("Calibration of the bound", cases, runs, note)


def render_speed(zoo: Zoo) -> list[str]:
    """Return decision time, state size and replay time."""
    started = time.perf_counter()
    run_case(Case("", zoo, 0.519), 50)
    replayed = time.perf_counter() - started
    runs = [time_decisions(10) for _ in range(20)]
    size = runs[0][1]
    p50, p99 = np.min([np.quantile(seconds, [0.5, 0.99], axis=0) for seconds, _ in runs], axis=0) * 1e3
    return [
        "",
        "## Cost of deciding",
        "",
        f"- deciding, 10 members, one service: p50 {p50[1]:.2f} ms, p99 {p99[1]:.2f} ms of processor time "
        "(bar: p99 < 1 ms; the quietest of twenty runs of 300 decisions)",
        f"- folding one observation of 30 counters before it: p50 {p50[0]:.2f} ms, p99 {p99[0]:.2f} ms",
        f"- state of that service after 300 intervals: {size} bytes (bar: < 4,096)",
        f"- replay of 20,000 requests x 50 seeds: {replayed:.1f} s on one core (bar: < 10 s)",
    ]


def time_decisions(members: int, intervals: int = 300) -> tuple[NDArray[np.float64], int]:
    """Return (K, 2) processor seconds of updates and decisions under partial feedback, and the size of the state."""
    rng = np.random.default_rng(0)
    names = [f"llama-{n}" for n in range(members)]
    accuracy, joules = np.linspace(0.3, 0.8, members), 10.0 * 2.0 ** np.arange(members)
    policy = MESSPlusAnytime()
    state = policy.initial_state(tuple(Member(name) for name in names))
    served, labels, good = np.zeros((3, members))
    seconds, current = [], dict.fromkeys(names, 1.0 / members)
    for tick in range(intervals + 1):
        outcomes = tuple(
            OutcomeCounter(name, "pod", satisfied=kind, count=float(good[n] if kind else labels[n] - good[n]))
            for n, name in enumerate(names)
            for kind in (True, False)
        )
        counted = tuple(ServedCounter(name, "gateway", float(served[n])) for n, name in enumerate(names))
        conditions = tuple(MemberCondition(name, True, float(joules[n])) for n, name in enumerate(names))  # noqa: FBT003
        seen = Observation(15.0 * tick, 0.6, outcomes, counted)
        asked = DecisionRequest(conditions, 0.6, 200.0, 15.0 * tick, names[-1], current_weights=current)
        started = time.process_time()
        state = policy.update(state, seen)
        updated = time.process_time()
        decision = policy.decide(state, asked, rng)
        seconds.append((updated - started, time.process_time() - updated))
        current = dict(decision.weights)
        weights = np.array([current[name] for name in names])
        now = rng.multinomial(200, weights / weights.sum())
        answered = rng.binomial(now, 0.5)
        served, labels, good = served + now, labels + answered, good + rng.binomial(answered, accuracy)
    return np.array(seconds[10:]), len(state.to_json())


def render_report(data: Path, seeds: int, runs: int) -> str:
    """Run everything and return the page."""
    zoos = read_zoos(data)
    inside, outside = zoo_cases(zoos)
    lines = [
        "# Control laws on public data",
        "",
        f"Written by `make bench-control`. Commit {read_commit()}, {seeds} seeds a row, one set of defaults.",
        *HOW_TO_READ,
        *render_cases("Bars on llama3 (MMLU-Pro, H100 joules)", main_cases(zoos["llama3"]), seeds),
        *render_rivals(zoos["llama3"], seeds),
        *render_cases("The same defaults on every zoo", inside, seeds),
        *render_cases("Drift, delay, loss", strained_cases(zoos), seeds),
        *render_sorted_reference(zoos, seeds),
        *render_cases("Outside the conditions of the bar", outside, seeds, OUTSIDE_NOTE),
        *render_calibration(zoos, runs),
        *render_published(max(seeds, 100)),
        *render_speed(zoos["llama3"]),
        *SOURCES,
    ]
    return "\n".join(lines) + "\n"


def render_sorted_reference(zoos: dict[str, Zoo], seeds: int) -> list[str]:
    """Return always-largest on the sorted streams, for comparison."""
    lines = ["", "Always-largest on the same sorted streams:", "", HEAD, "|" + "---|" * 13]
    for label, alpha in (("llama3", 0.519), ("llama3base", 0.43), ("routellm", 0.745)):
        zoo = zoos[label]
        law = FixedLaw((zoo.accuracy == zoo.accuracy.max()).astype(float), "AlwaysLargest")
        case = Case(f"{label}, sorted, AlwaysLargest", zoo, alpha, order="sorted")
        lines.append(render_row(case, run_case(case, seeds, law)))
    return lines


HOW_TO_READ = [
    "Joules are a ratio to the blind optimum of the same stream (the cheapest request-independent mixture with",
    "hindsight means), exploration and start included. *met*: share of runs at or above alpha at the end.",
    "*violated*: share of runs whose running share of satisfied requests (all of them, fed back or not) was",
    "below alpha at any request from N0 on. *worst*: largest deficit of any run from request 1,000 on.",
    "*churn*: mean sum of absolute weight changes per interval. The law, its guarantee and where it fails:",
    "`docs/design/0010-the-anytime-law.md`.",
]
OUTSIDE_NOTE = (
    "No bar. At or below the cheapest member the optimum is that member alone, so the 400 requests that are "
    "decided before the first outcome, and the exploration of members many times dearer, are all excess. "
    "Within .02 of the best member credit can hardly be earned, so N0 is thousands of requests."
)
SOURCES = [
    "",
    "## Data",
    "",
    "- llama3, llama3base (and -b200): MMLU-Pro questions and answers (TIGER-AI-Lab/MMLU-Pro, Apache-2.0) joined with",
    "  ML.ENERGY joules per token (ml-energy/leaderboard, Apache-2.0): `mmlupro_outcomes.parquet`,",
    "  `mmlupro_requests.parquet`. llama3+base: the five members of both.",
    "- routellm: MMLU and GSM8K, Mixtral-8x7B against GPT-4 (lm-sys/RouteLLM, Apache-2.0), relative cost",
    "  1 : 40: `routellm_mixtral_gpt4.parquet`.",
    "- gsm8k: four 6B and 175B models (openai/grade-school-math, MIT), relative cost = parameters x characters of",
    "  output: `gsm8k_6b_175b.parquet`.",
]
NEEDED = (
    "mmlupro_outcomes.parquet",
    "mmlupro_requests.parquet",
    "routellm_mixtral_gpt4.parquet",
    "gsm8k_6b_175b.parquet",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public files")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--runs", type=int, default=2000, help="of the calibration")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/control.md"))
    options = parser.parse_args(arguments)
    missing = [name for name in NEEDED if not (options.data / name).is_file()]
    if missing:
        parser.error(f"{options.data} has no {', '.join(missing)}: what they are stands at the end of {options.out}")
    page = render_report(options.data, options.seeds, options.runs)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
