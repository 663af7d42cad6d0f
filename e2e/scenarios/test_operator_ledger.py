"""The ledger of MESSPlusAnytime through ten kills: as if the operator had never stopped, by the callers' own records.

The load generator writes down every answer and its judgement. At any moment the credit in the status must be what those
records say up to one scrape interval; the operator reads nothing but Prometheus and what it left in its own status.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from e2e.scenarios.zoo import Zoo, large, medium, small
from e2e.stack import Stack, eventually
from e2e.timeline import Look, Timeline

RPS = 12.0
TARGET = 700
INTERVAL_SECONDS = 5
KILLS = 10
SEED = 4
SCRAPE_SECONDS = 2.0
SLACK_SECONDS = 1.0
"""A status shows whole seconds, and a counter is read a moment after it was counted."""
UNDISTURBED_SECONDS = 35.0
CHURN = 0.35
"""Absolute weight per interval that the law may move on average; below that no move is a jump."""

pytestmark = pytest.mark.timeout(600)  # three minutes when all goes well; its waits have deadlines of their own


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a status said, and of which time."""

    at_seconds: float
    judged: int
    satisfied: int
    debt: int


def read_checkpoint(stack: Stack, namespace: str) -> Checkpoint | None:
    """The ledger in the service's status; None before there is one."""
    status = (stack.get("llmservice", namespace, "chat") or {}).get("status", {})
    if "sla" not in status or "controller" not in status:
        return None
    observed = datetime.fromisoformat(status["controller"]["observedAt"]).timestamp()
    sla = status["sla"]
    return Checkpoint(observed, sla["feedbackCount"], sla["satisfiedCount"], sla["debtRequests"])


def kill_and_restart(stack: Stack, namespace: str) -> Checkpoint:
    """SIGKILL, start anew, and the first ledger that the new process writes."""
    before = read_checkpoint(stack, namespace)
    killed_at = time.time()
    stack.operator.kill()
    stack.operator.start()

    def newer() -> Checkpoint | None:
        now = read_checkpoint(stack, namespace)
        return now if now is not None and now != before and now.at_seconds >= killed_at - SLACK_SECONDS else None

    return eventually(newer, 45.0, "a status from the restarted operator")


def judgements(path: Path, began: float) -> list[tuple[float, bool]]:
    """(Unix seconds, satisfied) of every judged answer in the load generator's records, oldest first."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    judged = [row for row in rows if row["satisfied"] is not None and row["member"] is not None]
    return sorted((began + row["t_sent"] + row["latency_seconds"], row["satisfied"]) for row in judged)


def check_against_records(seen: Checkpoint, records: Sequence[tuple[float, bool]]) -> None:
    """The counts lie between the records of a scrape ago and those of now, and the debt is theirs."""
    early = [good for at, good in records if at <= seen.at_seconds - SCRAPE_SECONDS - SLACK_SECONDS]
    late = [good for at, good in records if at <= seen.at_seconds + SLACK_SECONDS]
    assert len(early) <= seen.judged <= len(late), (seen, len(early), len(late))
    assert sum(early) <= seen.satisfied <= sum(late), (seen, sum(early), sum(late))
    assert abs(seen.debt - (TARGET * seen.judged - 1000 * seen.satisfied) / 1000) <= 0.5  # whole requests


def moves(looks: Sequence[Look]) -> list[tuple[float, float]]:
    """(Time, sum of absolute changes of shares) of every change of the weights."""
    changed = []
    for before, after in itertools.pairwise(looks):
        moved = l1(before.weights, after.weights)
        if moved > 0.0:
            changed.append((after.at_seconds, moved))
    return changed


def l1(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Sum of absolute changes of shares."""
    return sum(abs(before.get(name, 0) - after.get(name, 0)) for name in before.keys() | after.keys()) / 1e6


def test_ten_kills_change_neither_the_ledger_nor_the_weights(stack: Stack, zoo: Zoo, tmp_path: Path) -> None:
    service = zoo.service("chat", TARGET)
    service["spec"]["controller"] = {"policy": "MESSPlusAnytime", "intervalSeconds": INTERVAL_SECONDS}
    pool = zoo.pool(small(least=3, most=6), medium(least=2), large())
    stack.apply(*zoo.all(service, pool=pool))
    stack.wait_condition("llmservice", zoo.namespace, "chat", "Ready", "True", timeout=90.0)
    stack.wait_answer(zoo.hostname("chat"))
    output, rng = tmp_path / "load.jsonl", random.Random(SEED)
    seen, kills = [], []
    with stack.load(zoo.target("chat"), RPS, arguments=("--output", str(output))) as load:
        load.wait_more(200)
        with Timeline(stack, zoo.namespace, "chat") as timeline:
            timeline.observe(UNDISTURBED_SECONDS)
            for _ in range(KILLS):
                timeline.observe(rng.uniform(0.5, 1.5 * INTERVAL_SECONDS))
                kills.append(time.monotonic())
                seen.append(kill_and_restart(stack, zoo.namespace))
            timeline.observe(2.0 * INTERVAL_SECONDS)
        summary = load.finish()
    assert summary["failed"] == 0, summary["errors"]
    records = judgements(output, summary["started_unix_seconds"])
    for checkpoint in seen:
        check_against_records(checkpoint, records)
    good = sum(satisfied for _, satisfied in records)
    assert good / len(records) >= TARGET / 1e3
    assert seen[-1].debt <= 0
    check_moves(timeline, kills)
    print(f"{len(records)} judged, {good / len(records):.4f} satisfied of {TARGET / 1e3}; {seen}")


def check_moves(timeline: Timeline, kills: Sequence[float]) -> None:
    """No change of the weights after a kill is larger than the law makes by itself."""
    changed = moves(timeline.looks)
    after = [moved for at, moved in changed if any(0.0 <= at - kill <= 3.0 * INTERVAL_SECONDS for kill in kills)]
    free = [moved for at, moved in changed if at < kills[0]]
    print(f"moves undisturbed {[round(x, 3) for x in free]}, around kills {[round(x, 3) for x in after]}")
    assert max(after, default=0.0) <= max(CHURN, *free), (free, after)
