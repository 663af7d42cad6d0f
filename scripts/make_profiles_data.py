"""Make examples/data/published_measurements.csv: the public tables' rows that become shipped profiles.

Everything needed to write the profiles is committed; this script shows how the extract came about and repeats it byte
for byte. It checks the sources' SHA256 sums first.

    python scripts/make_profiles_data.py ../shared/data
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "examples" / "data" / "published_measurements.csv"
CHAT_MODELS = {
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "meta-llama/Llama-3.1-70B-Instruct": "llama-3.1-70b",
    "meta-llama/Llama-3.3-70B-Instruct": "llama-3.3-70b",
    "meta-llama/Llama-3.1-405B-Instruct-FP8": "llama-3.1-405b-fp8",
    "Qwen/Qwen3-8B": "qwen3-8b",
    "Qwen/Qwen3-14B": "qwen3-14b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "Qwen/Qwen3-30B-A3B-Instruct-2507": "qwen3-30b-a3b",
    "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8": "qwen3-235b-a22b-fp8",
}
CHAT_TASK = "lm-arena-chat"
CHAT_PROMPT_TOKENS = 400  # not published; the batch at which the KV cache is full implies 340 to 480
A100_TDP_WATTS = 400
BATCH_PROMPT_TOKENS = 512  # the prompt length at which the batch was varied
COLUMNS = (
    "source",
    "model",
    "accelerator",
    "accelerators",
    "batch",
    "step_ms",
    "p95_step_ms",
    "watts",
    "input_tokens",
    "output_tokens",
    "prefill_ms",
)
Row = dict[str, str | int | float]


def main() -> None:
    """Check the sources and write the extract."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path, help="folder with the public evaluation data and its SHA256SUMS")
    source: Path = parser.parse_args().source
    rows = [*read_chat_rows(source), *read_batch_rows(source)]
    order = ("source", "model", "accelerator", "accelerators", "batch")
    rows.sort(key=lambda row: tuple(str(row[name]) if name != "batch" else float(row[name]) for name in order))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    TARGET.write_text(text.getvalue(), encoding="utf-8")
    print(f"wrote {TARGET.name}: {len(rows)} rows")


def read_table(source: Path, name: str) -> list[dict[str, str]]:
    """Return a table's rows after comparing the file with its line in SHA256SUMS."""
    lines = (source / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = {file: digest for digest, file in (line.split() for line in lines if line.strip())}
    content = (source / name).read_bytes()
    if sums.get(name) != hashlib.sha256(content).hexdigest():
        raise SystemExit(f"{name}: its SHA256 is not what SHA256SUMS says")
    return list(csv.DictReader(io.StringIO(content.decode())))


def read_chat_rows(source: Path) -> Iterator[Row]:
    """Yield ML.ENERGY chat rows; the mean step is the mean batch divided by the tokens per second."""
    for row in read_table(source, "energy_mlenergy.csv"):
        if row["task"] != CHAT_TASK or row["model_id"] not in CHAT_MODELS:
            continue
        batch = float(row["avg_batch_size"])
        yield {
            "source": "mlenergy",
            "model": CHAT_MODELS[row["model_id"]],
            "accelerator": row["gpu_model"].lower(),
            "accelerators": int(row["num_gpus"]),
            "batch": batch,
            "step_ms": round(1e3 * batch / float(row["output_throughput_tokens_per_sec"]), 4),
            "p95_step_ms": float(row["p95_itl_ms"]),
            "watts": float(row["avg_power_watts"]),
            "input_tokens": CHAT_PROMPT_TOKENS,
            "output_tokens": round(float(row["avg_output_len"])),
            "prefill_ms": "",
        }


def read_batch_rows(source: Path) -> Iterator[Row]:
    """Yield Splitwise rows with power (A100) at the prompt length at which the batch was varied."""
    table = [row for row in read_table(source, "energy_splitwise.csv") if row["avg_power_frac_tdp"]]
    table = [row for row in table if int(row["prompt_size"]) == BATCH_PROMPT_TOKENS]
    alone = {(r["model"], r["tensor_parallel"]): r["prompt_time_ms"] for r in table if r["batch_size"] == "1"}
    for row in table:
        count = int(row["tensor_parallel"])
        yield {
            "source": "splitwise",
            "model": {"llama2-70b": "llama-2-70b"}.get(row["model"], row["model"]),
            "accelerator": "a100",
            "accelerators": count,
            "batch": float(row["batch_size"]),
            "step_ms": float(row["token_time_ms"]),
            "p95_step_ms": float(row["token_time_ms"]),
            "watts": round(float(row["avg_power_frac_tdp"]) * A100_TDP_WATTS * count, 1),
            "input_tokens": BATCH_PROMPT_TOKENS,
            "output_tokens": int(row["token_size"]),
            "prefill_ms": float(alone[row["model"], row["tensor_parallel"]]),
        }


if __name__ == "__main__":
    main()
