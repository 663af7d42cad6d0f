"""Modelled against tabulated power and step time, on rows left out; written to `benchmarks/results/capacity.md`.

    python -m benchmarks.capacity --data DIR [--out benchmarks/results/capacity.md]

DIR holds the public files (named in the result's last section).
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.commit import read_commit
from wattzoo_policies.capacity.coefficients import Coefficients, PoorFitError, TimedBatch, fit_coefficients
from wattzoo_policies.capacity.fit import ProfilePoint, ReplicaFacts, fit_replica_model
from wattzoo_policies.capacity.interpolation import OutOfRangeError, ProfileCurves
from wattzoo_policies.capacity.model import RequestShape

MEDIAN_BAR, P90_BAR = 0.10, 0.20
FACTS = ReplicaFacts(kv_tokens=10**9, idle_watts=0.0, startup_seconds=1.0, max_sequences=10**6)
SHAPE = RequestShape(1.0, 1.0)
A100_TDP_WATTS = 400.0
LARGEST_BATCH = 16


@dataclass(frozen=True, slots=True)
class Row:
    """A tabulated steady state of one replica."""

    batch: float
    step_seconds: float
    watts: float

    @property
    def point(self) -> ProfilePoint:
        """Return the row as a profile point (prompts are not part of the comparison)."""
        return ProfilePoint(
            self.batch, 1.0, self.batch / self.step_seconds, self.watts, self.step_seconds, self.step_seconds
        )


@dataclass(frozen=True, slots=True)
class Miss:
    """Relative errors at one left-out row, and whether power and step lay inside the band stated beforehand."""

    power: float
    step: float
    inside_power: bool | None
    inside_step: bool | None


Table = dict[str, list[Row]]
Predict = Callable[[Sequence[Row], Row], Miss | None]


def read_chat(data: Path, gpu: str) -> Table:
    """Return ML.ENERGY rows of one GPU type by task, model and parallelism."""
    table: Table = defaultdict(list)
    with (data / "energy_mlenergy.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["gpu_model"] == gpu:
                names = ("task", "model_id", "num_gpus", "tensor_parallel", "data_parallel", "expert_parallel")
                batch = float(row["avg_batch_size"])
                step = batch / float(row["output_throughput_tokens_per_sec"])
                table[" ".join(row[name] for name in names)].append(Row(batch, step, float(row["avg_power_watts"])))
    return table


def read_own(data: Path, gpu: str) -> Table:
    """Return our decode rows by model."""
    table: Table = defaultdict(list)
    with (data / f"energy_{gpu}_decode.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["phase"] == "decode":
                table[row["model"]].append(Row(float(row["batch"]), float(row["step_ms"]) / 1e3, float(row["watts"])))
    return table


def read_requests(data: Path, prompt: int | None) -> Table:
    """Return Splitwise's A100 rows with power by model and tensor parallelism, of one prompt length or of all."""
    table: Table = defaultdict(list)
    for row in read_splitwise(data):
        if row["avg_power_frac_tdp"] and (prompt is None or int(row["prompt_size"]) == prompt):
            count = int(row["tensor_parallel"])
            watts = float(row["avg_power_frac_tdp"]) * A100_TDP_WATTS * count
            rows = table[f"{row['model']} {count}"]
            rows.append(Row(float(row["batch_size"]), float(row["token_time_ms"]) / 1e3, watts))
    return table


def read_splitwise(data: Path) -> list[dict[str, str]]:
    """Return Splitwise's rows."""
    with (data / "energy_splitwise.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pooled(rows: Iterable[Row]) -> list[Row]:
    """Return one row per batch: the median of those that share it."""
    by_batch: dict[float, list[Row]] = defaultdict(list)
    for row in rows:
        by_batch[row.batch].append(row)
    return [
        Row(batch, float(np.median([r.step_seconds for r in same])), float(np.median([r.watts for r in same])))
        for batch, same in sorted(by_batch.items())
    ]


def predict_between(kept: Sequence[Row], row: Row) -> Miss | None:
    """Interpolate the kept rows; `None` where the left-out row is outside their batches."""
    if len({r.batch for r in kept}) < 2:
        return None
    try:
        seen = ProfileCurves([r.point for r in pooled(kept)], FACTS).estimate_at_batch(row.batch, SHAPE)
    except OutOfRangeError:
        return None
    power, step = seen.power_watts.value / row.watts - 1.0, seen.step_seconds.value / row.step_seconds - 1.0
    bands = []
    for estimate, true in ((seen.power_watts, row.watts), (seen.step_seconds, row.step_seconds)):
        known = estimate.low is not None and estimate.high is not None
        bands.append((estimate.low or 0.0) <= true <= (estimate.high or 0.0) if known else None)
    return Miss(abs(power), abs(step), bands[0], bands[1])


def predict_law(kept: Sequence[Row], row: Row) -> Miss | None:
    """Fit the straight-line law to the kept rows; `None` where the left-out row is outside their batches."""
    batches = {r.batch for r in kept}
    if len(batches) < 2 or not min(batches) <= row.batch <= max(batches):
        return None
    model = fit_replica_model([r.point for r in pooled(kept)], FACTS).model
    step = model.t0_seconds + model.t1_seconds * row.batch
    watts = model.active_watts + (model.max_watts - model.active_watts) * model.t1_seconds * row.batch / step
    return Miss(abs(watts / row.watts - 1.0), abs(step / row.step_seconds - 1.0), None, None)


def leave_one_out(table: Table, predict: Predict) -> Iterator[Miss]:
    """Yield the error at every row that the remaining rows of its configuration enclose."""
    for rows in table.values():
        for n, row in enumerate(rows):
            miss = predict([*rows[:n], *rows[n + 1 :]], row)
            if miss is not None:
                yield miss


def leave_half_out(table: Table, predict: Predict) -> Iterator[Miss]:
    """Yield the errors at every second batch, the profile made of the others (points four times apart, not two)."""
    for rows in table.values():
        batches = sorted({row.batch for row in rows})
        kept = [row for row in rows if row.batch in batches[::2]]
        for row in rows:
            miss = predict(kept, row) if row.batch in batches[1::2] else None
            if miss is not None:
                yield miss


def render_row(label: str, table: Table, misses: Sequence[Miss], *, barred: bool) -> str:
    """Return a Markdown row: errors in power and step, and the verdict."""
    power, step = np.array([m.power for m in misses]), np.array([m.step for m in misses])
    median, p90 = float(np.median(power)), float(np.quantile(power, 0.9))
    known = [m for m in misses if m.inside_power is not None and m.inside_step is not None]
    band = "" if not known else f"{np.mean([m.inside_power for m in known]):.0%}"
    verdict = ("ok" if median <= MEDIAN_BAR and p90 <= P90_BAR else "**MISSED**") if barred else ""
    rows = sum(map(len, table.values()))
    return (
        f"| {label} | {len(table)} | {rows} | {len(misses)} | {median:.1%} | {p90:.1%} | {power.max():.0%} "
        f"| {np.median(step):.1%} | {np.quantile(step, 0.9):.1%} | {band} | {verdict} |"
    )


def render_power(tables: dict[str, Table]) -> list[str]:
    """Return the section of the bar and its two stricter or weaker companions."""
    head = "| GPU, source | profiles | rows | left out | power, median | p90 | worst | step, median | p90 "
    head += "| in band | bar |"
    lines: list[str] = []
    ways: tuple[tuple[str, str, Callable[[Table, Predict], Iterator[Miss]], Predict, bool], ...] = (
        ("Interpolated profiles, each row left out in turn", BAR_NOTE, leave_one_out, predict_between, True),
        ("Interpolated profiles, every second batch left out", HALF_NOTE, leave_half_out, predict_between, True),
        ("The straight-line law fitted to the same rows, each left out", LAW_NOTE, leave_one_out, predict_law, True),
    )
    for title, note, split, predict, barred in ways:
        lines += ["", f"## {title}", "", note, "", head, "|" + "---|" * 11]
        for label, table in tables.items():
            lines.append(render_row(label, table, list(split(table, predict)), barred=barred))
    return lines


def render_coefficients(data: Path) -> list[str]:
    """Return the eight coefficients' errors on timed batches of a serving engine, left out one by one."""
    lines = ["", "## The eight coefficients on Splitwise's timings", "", COEFFICIENT_NOTE, ""]
    head = "| model, GPU, TP | rows | prefill: fit / left out | decode: fit / left out "
    lines += [head + "| throughput, left out: mean / worst | for planning |", "|" + "---|" * 6]
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    for row in read_splitwise(data):
        if int(row["batch_size"]) <= LARGEST_BATCH and ended_as_asked(row):
            groups[row["model"], row["hardware"], row["tensor_parallel"]].append(row)
    for (model, hardware, count), rows in sorted(groups.items()):
        prefill, decode = timed(rows)
        fit = fit_coefficients(prefill, decode, max_relative_error=np.inf)
        try:
            fit_coefficients(prefill, decode)
            verdict = "accepted"
        except PoorFitError as error:
            verdict = f"refused ({error.field})"
        throughput = throughput_errors(rows)
        lines.append(
            f"| {model}, {hardware}, {count} | {len(prefill)} + {len(decode)} "
            f"| {fit.prefill_error:.1%} / {fit.prefill_error_left_out:.1%} "
            f"| {fit.decode_error:.1%} / {fit.decode_error_left_out:.1%} "
            f"| {np.mean(throughput):.1%} / {max(throughput):.1%} | {verdict} |"
        )
    return lines


def ended_as_asked(row: dict[str, str]) -> bool:
    """Return whether the request gave as many tokens as its row says: its parts add up to its whole."""
    parts = float(row["prompt_time_ms"]) + float(row["token_size"]) * float(row["token_time_ms"])
    return abs(parts / float(row["e2e_time_ms"]) - 1.0) < 0.05


def timed(rows: Sequence[dict[str, str]]) -> tuple[list[TimedBatch], list[TimedBatch]]:
    """Return prefill and decode timings; the mean context of a request is its prompt and half its output."""
    prefill = batches(rows, "prompt_time_ms", 0.0)
    decode = batches(rows, "token_time_ms", 0.5)
    return (
        [TimedBatch(*key, seconds) for key, seconds in sorted(prefill.items())],
        [TimedBatch(*key, seconds) for key, seconds in sorted(decode.items())],
    )


def throughput_errors(rows: Sequence[dict[str, str]]) -> list[float]:
    """Return the relative error of tokens/s of each (batch, prompt), from a fit to the rows of all others."""
    errors = []
    for batch, prompt in {(row["batch_size"], row["prompt_size"]) for row in rows}:
        kept = [row for row in rows if (row["batch_size"], row["prompt_size"]) != (batch, prompt)]
        found = fit_coefficients(*timed(kept), max_relative_error=np.inf).coefficients
        for row in (row for row in rows if (row["batch_size"], row["prompt_size"]) == (batch, prompt)):
            shape = RequestShape(float(prompt), float(row["token_size"]))
            size = float(batch)
            true = size * (shape.input_tokens + shape.output_tokens) / (float(row["e2e_time_ms"]) / 1e3)
            errors.append(abs(found.tokens_per_second(size, shape) / true - 1.0))
    return errors


def batches(rows: Sequence[dict[str, str]], column: str, output_share: float) -> dict[tuple[float, float], float]:
    """Return mean seconds by (batch, prompt tokens + that share of the output)."""
    found: dict[tuple[float, float], list[float]] = defaultdict(list)
    for row in rows:
        length = float(row["prompt_size"]) + output_share * float(row["token_size"])
        found[float(row["batch_size"]), length].append(float(row[column]) / 1e3)
    return {key: float(np.mean(values)) for key, values in found.items()}


def render_recovery(seeds: int = 200) -> list[str]:
    """Return the error in throughput of coefficients fitted to timings with 2 % noise."""
    true = Coefficients((3e-5, 1e-3, 2e-6, 5e-3), (4e-8, 8e-5, 1e-7, 7e-3))
    shapes = [(b, RequestShape(i, o)) for b in (2, 8, 32, 48) for i in (256, 1024) for o in (64, 400)]
    means = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        rows = []
        for law in (true.prefill_seconds, true.decode_seconds):
            noise = iter(1.0 + 0.02 * rng.standard_normal(12))
            timed = [(b, n, law(b, n) * next(noise)) for b in (1, 4, 16, 64) for n in (128, 512, 2048)]
            rows.append([TimedBatch(*row) for row in timed])
        found = fit_coefficients(rows[0], rows[1]).coefficients
        means.append(np.mean([abs(found.tokens_per_second(*s) / true.tokens_per_second(*s) - 1.0) for s in shapes]))
    worst = float(np.max(means))
    verdict = "ok" if worst < 0.05 else "**MISSED**"
    return [
        "",
        "## Fit recovery",
        "",
        f"Known coefficients, 12 + 12 timings with 2 % noise, {seeds} seeds: mean relative error of the throughput on "
        f"16 held-out (batch, lengths): {np.mean(means):.2%} on average, {worst:.2%} at the worst seed "
        f"(bar: < 5 %): {verdict}.",
    ]


BAR_NOTE = (
    f"Bar: median error of power <= {MEDIAN_BAR:.0%} and 90th percentile <= {P90_BAR:.0%}, per GPU type. A row is left "
    "out when the other rows of its profile enclose its batch; the smallest and largest batch cannot be, for beyond "
    "them the model refuses. *in band*: share of left-out rows inside the band that the remaining profile states."
)
HALF_NOTE = "The same bar on a profile of half the points, as a user who measures few would have it."
LAW_NOTE = "The law is what plans are made with. It needs two batches of 8 or more; with fewer it takes what there is."
COEFFICIENT_NOTE = (
    "Mean relative errors. Prompts of 128 to 8,192 at batch 1, batches to 16 at prompt 512 (beyond, prompts queue for "
    "KV cache on two A100); rows whose requests ended before their output length are left aside. Prefill is flat for "
    "short prompts, to which the form cannot bend; a fit whose left-out error exceeds 20 % in a half is refused for "
    "planning. The throughput is what a plan uses: prompt and output tokens per second of a whole batch, every row of "
    "its (batch, prompt) left out of both halves."
)
SOURCES = [
    "",
    "## Data",
    "",
    "- ML.ENERGY (ml-energy/leaderboard @ 0cd52dab; data set Apache-2.0): `energy_mlenergy.csv`, all tasks; the mean",
    "  step is the mean batch divided by the tokens per second.",
    "- own measurements (free to redistribute): `energy_h100_decode.csv`, `energy_h200_decode.csv`.",
    "- Splitwise (Mutinifni/splitwise-sim @ 8f99e7dc, MIT): `energy_splitwise.csv`; mean power of whole requests as a",
    "  share of a TDP assumed to be 400 W. Rows that share a batch (other prompts) are pooled by their median. The",
    "  three rows of prompt 8,192 on Llama-2-70B say .17 to .18 of TDP, less than an idle A100 with a model loaded;",
    "  they stay in, and make the worst row and the low share in band.",
]
NEEDED = ("energy_mlenergy.csv", "energy_h100_decode.csv", "energy_h200_decode.csv", "energy_splitwise.csv")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public files")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/capacity.md"))
    options = parser.parse_args(arguments)
    missing = [name for name in NEEDED if not (options.data / name).is_file()]
    if missing:
        parser.error(f"{options.data} has no {', '.join(missing)}: what they are stands at the end of {options.out}")
    data: Path = options.data
    tables = {
        "H100, ML.ENERGY": read_chat(data, "H100"),
        "B200, ML.ENERGY": read_chat(data, "B200"),
        "H100, own": read_own(data, "h100"),
        "H200, own": read_own(data, "h200"),
        "A100, Splitwise, all rows": read_requests(data, None),
        "A100, Splitwise, prompt 512": read_requests(data, 512),
    }
    lines = [
        "# Capacity models against tabulated power",
        "",
        f"Written by `make bench-capacity`. Commit {read_commit()}.",
    ]
    lines += [*render_power(tables), *render_coefficients(data), *render_recovery(), *SOURCES]
    page = "\n".join(lines) + "\n"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
