"""Make examples/simulate/: one hour of a public trace for the demo's two services, and which member was right.

The repository works without the sources: what is made here is committed, and the same bytes come out each time.

    python scripts/extract_simulate_data.py ../shared/data
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

TARGET = Path(__file__).resolve().parents[1] / "examples" / "simulate"
MEMBERS = {
    "Phi-3-mini-4k-instruct": "small",
    "Meta-Llama-3_1-8B-Instruct": "medium",
    "Meta-Llama-3_1-70B-Instruct": "large",
}
SERVICES = ("chat", "search")
MAX_INPUT_TOKENS = 3200  # the small member's context is 4,096 tokens
MAX_OUTPUT_TOKENS = 800
SOURCES = ("arrivals_azure2023.parquet", "mmlupro_outcomes.parquet")


def main() -> None:
    """Check the sources and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path, help="folder with the public evaluation data and its SHA256SUMS")
    source = parser.parse_args().source
    lines = (source / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines if line.strip())}
    for name in SOURCES:
        digest = hashlib.sha256((source / name).read_bytes()).hexdigest()
        if sums.get(name, digest) != digest:
            raise SystemExit(f"{name}: SHA256 is {digest}, SHA256SUMS says {sums[name]}")
    TARGET.mkdir(parents=True, exist_ok=True)
    write_trace(source)
    write_outcomes(source)


def write_trace(source: Path) -> None:
    """Write the trace's conversations as two services: requests go to them in turn, lengths are clipped."""
    rows = pq.read_table(source / "arrivals_azure2023.parquet").to_pylist()
    rows = sorted((row for row in rows if "conv" in str(row["service"])), key=lambda row: float(row["t_s"]))
    first = float(rows[0]["t_s"])
    table: list[list[Any]] = [
        [
            f"{float(row['t_s']) - first:.2f}",
            min(max(1, row["in_tokens"]), MAX_INPUT_TOKENS),
            min(max(1, row["out_tokens"]), MAX_OUTPUT_TOKENS),
            SERVICES[number % len(SERVICES)],
        ]
        for number, row in enumerate(rows)
    ]
    write_gzip(TARGET / "trace.csv.gz", ["t_s", "in_tokens", "out_tokens", "service"], table)


def write_outcomes(source: Path) -> None:
    """Write one row per question with the outcome of each member."""
    columns = ["request_id", "zoo", "model", "correct"]
    outcomes = pq.read_table(source / "mmlupro_outcomes.parquet", columns=columns).to_pylist()
    table: dict[str, dict[str, int]] = {}
    for row in outcomes:
        if row["zoo"] == "llama3":
            table.setdefault(str(row["request_id"]), {})[MEMBERS[row["model"]]] = int(row["correct"])
    header = ["request_id", *(f"correct_{member}" for member in MEMBERS.values())]
    rows = [[name, *(by_member[member] for member in MEMBERS.values())] for name, by_member in table.items()]
    write_gzip(TARGET / "outcomes.csv.gz", header, rows)


def write_gzip(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    """Write a table as gzip without a time stamp, so that the bytes are the same each time."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    path.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))
    print(f"{path.name}: {len(rows)} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
