"""Make the small extracts under examples/data from the project's public evaluation data.

The repository works without that data: what the demo and the tests need is committed. This script exists so that
everybody can see, and repeat, how the extracts came about. It checks the sources' SHA256 sums first and writes the same
bytes each time.

    python scripts/extract_demo_data.py ../shared/data
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

SEED = 20_250_601
TARGET = Path(__file__).resolve().parents[1] / "examples" / "data"
MEMBERS = {
    "small": "Phi-3-mini-4k-instruct",
    "medium": "Meta-Llama-3_1-8B-Instruct",
    "large": "Meta-Llama-3_1-70B-Instruct",
}
SERVICES = {"chat": "conv", "search": "conv"}
MAX_INPUT_TOKENS = 3200  # the small member's context is 4,096 tokens
MAX_OUTPUT_TOKENS = 800
DAYS = {"m-small": 6, "m-large": 9}
DAY_SECONDS = 86_400

SOURCES = (
    "mmlupro_requests.parquet",
    "mmlupro_outcomes.parquet",
    "arrivals_azure2023.parquet",
    "arrivals_servegen_rates_14d.csv",
    "energy_h100_decode.csv",
    "energy_h200_decode.csv",
)


def main() -> None:
    """Check the sources, write the extracts and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path, help="folder with the public evaluation data and its SHA256SUMS")
    source = parser.parse_args().source
    check_sums(source)
    TARGET.mkdir(parents=True, exist_ok=True)
    write_requests(source)
    write_days(source)
    write_measurements(source)


def check_sums(source: Path) -> None:
    """Compare every source with its line in SHA256SUMS; a source without a line is named, a wrong one ends the run."""
    lines = (source / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines if line.strip())}
    for name in SOURCES:
        digest = hashlib.sha256((source / name).read_bytes()).hexdigest()
        if name not in sums:
            print(f"{name}: no checksum published; read as {digest[:12]}...")
        elif sums[name] != digest:
            raise SystemExit(f"{name}: SHA256 is {digest}, SHA256SUMS says {sums[name]}")
        else:
            print(f"{name}: SHA256 as published")


def write_requests(source: Path) -> None:
    """Join correctness by (question, model) with the token counts of a real trace, for two services.

    Every question of the half appears once per service, in a shuffled order of its own and with lengths drawn (with
    replacement) from that service's trace; an answer's length does not depend on the model.
    """
    questions = pq.read_table(source / "mmlupro_requests.parquet", columns=["request_id", "category"]).to_pylist()
    outcomes = pq.read_table(
        source / "mmlupro_outcomes.parquet", columns=["request_id", "zoo", "model", "correct"]
    ).to_pylist()
    correct = {(row["model"], row["request_id"]): int(row["correct"]) for row in outcomes if row["zoo"] == "llama3"}
    trace = pq.read_table(source / "arrivals_azure2023.parquet").to_pylist()
    rng = np.random.default_rng(SEED)
    columns = ["request_id", "service", "category", "prompt_tokens"]
    columns += [f"{member}_{what}" for member in MEMBERS for what in ("out_tokens", "correct")]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for service, trace_service in SERVICES.items():
        lengths = [(r["in_tokens"], r["out_tokens"]) for r in trace if trace_service in str(r["service"])]
        drawn = rng.integers(0, len(lengths), len(questions))
        tokens_in = 0
        for position, index in enumerate(rng.permutation(len(questions))):
            question = questions[index]
            prompt, output = lengths[drawn[position]]
            prompt, output = min(max(1, prompt), MAX_INPUT_TOKENS), min(max(1, output), MAX_OUTPUT_TOKENS)
            tokens_in += prompt
            row: list[Any] = [f"{service}-{question['request_id']}", service, question["category"], prompt]
            for model in MEMBERS.values():
                row += [output, correct[model, question["request_id"]]]
            table.writerow(row)
        print(f"{service}: {len(questions)} requests, mean prompt {tokens_in / len(questions):.0f} tokens")
    write_gzip(TARGET / "requests.csv.gz", text.getvalue())


def write_days(source: Path) -> None:
    """Keep one day of request rate per trace, normalised to mean 1 (144 points of 10 minutes)."""
    with (source / "arrivals_servegen_rates_14d.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    path = TARGET / "day_shape.csv"
    with path.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["t_s", "service", "rate_norm"])
        for service, day in DAYS.items():
            low, high = day * DAY_SECONDS, (day + 1) * DAY_SECONDS
            chosen = [row for row in rows if row["service"] == service and low <= float(row["t_s"]) < high]
            mean = sum(float(row["rate_rps"]) for row in chosen) / len(chosen)
            for row in chosen:
                table.writerow([row["t_s"], service, f"{float(row['rate_rps']) / mean:.4f}"])
            peak = max(float(row["rate_rps"]) for row in chosen) / mean
            print(f"{service} day {day}: {len(chosen)} points, peak {peak:.2f}")
    print(f"wrote {path.name}, {path.stat().st_size} bytes")


def write_measurements(source: Path) -> None:
    """Keep the measured decode, prefill and idle rows of one H100 and one H200 that the profiles are made from."""
    rows = []
    for gpu in ("h100", "h200"):
        with (source / f"energy_{gpu}_decode.csv").open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                kept = {key: round(float(row[key]), 4) for key in ("batch", "context", "step_ms", "watts")}
                rows.append({"gpu": gpu, "model": row["model"], "phase": row["phase"], **kept})
    path = TARGET / "gpu_measurements.json"
    body = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f"[\n{body}\n]\n", encoding="utf-8")
    print(f"wrote {path.name}, {len(rows)} rows")


def write_gzip(path: Path, text: str) -> None:
    """Write compressed text without a time stamp, so that the same content gives the same bytes."""
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(f"wrote {path.name}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
