"""How long a plan takes and how far it is from the best one: `benchmarks/results/plan.md`.

    python -m benchmarks.plan_time [--instances 50] [--out benchmarks/results/plan.md]

Every instance is planned cold and twice more with the plan running and the load moved. The gap is taken against the
bound that the solver proves for the whole program: all variants, all services one by one, nothing pruned.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy

from benchmarks.commit import read_commit
from benchmarks.plan_instances import Shape, make_instance, make_next
from benchmarks.plan_sharing import sharing_text
from wattzoo_policies.placement.instance import make_demand, make_fleet, tighten_upper
from wattzoo_policies.placement.milp import Slacks, make_program, solve_program
from wattzoo_policies.placement.problem import Plan, PlanProblem, PlanStatus
from wattzoo_policies.placement.solve import solve_plan

MOST_GAP = 0.04
AIM_GAP = 0.01


@dataclass(frozen=True, slots=True)
class Row:
    """One size: its bars in seconds, the solver's limit, instances relative to the others, gaps that are proven."""

    label: str
    shape: Shape
    bar_seconds: float
    aim_seconds: float
    limit_seconds: float
    share: float = 1.0
    gaps: int = 10
    proof_seconds: float = 20.0


ROWS = (
    Row("5 models x 4 pools, 1 service", Shape(5, 4, 1, 40.0), 1.0, 0.1, 0.9, gaps=20),
    Row("5 models x 4 pools, 5 services", Shape(5, 4, 5, 40.0), 1.0, 0.1, 0.9),
    Row("20 models x 8 pools, 3 services", Shape(20, 8, 3, 60.0), 5.0, 0.3, 4.0, share=0.6, gaps=3, proof_seconds=40.0),
    Row("20 models x 8 pools, 8 services", Shape(20, 8, 8, 60.0), 5.0, 0.3, 4.0, share=0.4, gaps=3, proof_seconds=40.0),
    Row(
        "20 models x 8 pools, 3 services, 6 requests/s",
        Shape(20, 8, 3, 6.0),
        5.0,
        0.3,
        4.0,
        share=0.4,
        gaps=6,
        proof_seconds=60.0,
    ),
    Row("100 services alike, 6 models x 4 pools", Shape(6, 4, 100, 30.0, alike=True), 60.0, 2.0, 20.0, 0.2, 2, 40.0),
    Row("100 services that differ, 6 models x 4 pools", Shape(6, 4, 100, 30.0), 60.0, 2.0, 20.0, 0.2, 2, 60.0),
)


@dataclass(slots=True)
class Measured:
    """What the instances of one row gave."""

    wall_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    short: int = 0
    limited: int = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=50, help="instances of the smallest size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/plan.md"))
    options = parser.parse_args(arguments)
    lines = _head(options.seed)
    for row in ROWS:
        measured = _measure(row, max(2, round(options.instances * row.share)), options.seed)
        lines.append(_row_text(row, measured))
        print(lines[-1], flush=True)
    lines += ["", *sharing_text(options.seed, max(1, options.instances // 25))]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _measure(row: Row, instances: int, seed: int) -> Measured:
    measured = Measured()
    for number in range(instances):
        rng = np.random.default_rng([seed, number])
        problem = make_instance(rng, row.shape)
        previous: Plan | None = None
        for step in range(3):
            if previous is not None:
                problem = make_next(rng, problem, previous)
            wall, cpu = time.perf_counter(), time.process_time()
            plan = solve_plan(problem, time_limit_seconds=row.limit_seconds, previous=previous)
            measured.wall_seconds.append(time.perf_counter() - wall)
            measured.cpu_seconds.append(time.process_time() - cpu)
            measured.limited += plan.status is not PlanStatus.OPTIMAL
            is_short = bool(plan.short_rps or plan.accuracy_missing)
            measured.short += is_short
            if not is_short and step == number % 2 and len(measured.gaps) < row.gaps:
                gap = _prove_gap(problem, plan, row.proof_seconds)
                measured.gaps += [] if gap is None else [gap]
            previous = plan
    return measured


def _prove_gap(problem: PlanProblem, plan: Plan, seconds: float) -> float | None:
    """Return how far the plan may be above the best one; `None` when the solver proves nothing in the time."""
    fleet = make_fleet(problem)
    demands = [demand for s in problem.services if (demand := make_demand(problem, fleet, s)) is not None]
    program = make_program(tighten_upper(fleet, demands), demands, Slacks.NONE, 0.0, 0.0)
    bound = solve_program(program, seconds, 0.001).bound
    return max(0.0, plan.objective / bound - 1.0) if np.isfinite(bound) and bound > 0.0 else None


def _row_text(row: Row, measured: Measured) -> str:
    wall, cpu = np.array(measured.wall_seconds), np.array(measured.cpu_seconds)
    worst = max(measured.gaps, default=float("nan"))
    p99 = float(np.quantile(wall, 0.99))
    verdict = "met" if p99 <= row.bar_seconds and worst <= MOST_GAP else "MISSED"
    verdict += ", aim met" if p99 <= row.aim_seconds and worst <= AIM_GAP else ""
    return (
        f"| {row.label} | {wall.size} | {np.median(wall):.3f} | {p99:.3f} | {np.median(cpu):.3f} | "
        f"{np.quantile(cpu, 0.99):.3f} | {row.bar_seconds:g} ({row.aim_seconds:g}) | "
        f"{100 * float(np.mean(measured.gaps)) if measured.gaps else float('nan'):.2f} / {100 * worst:.2f} % "
        f"({len(measured.gaps)}) | {measured.limited} | {measured.short} | {verdict} |"
    )


def _head(seed: int) -> list[str]:
    return [
        "# Plan time",
        "",
        f"Written by `make bench-plan`. Commit {read_commit()}, seed {seed}; zoos of `benchmarks/plan_instances.py`",
        f"on {platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start, "
        f"Python {platform.python_version()}, SciPy {scipy.__version__}. MIP gap asked for: 1 %.",
        "",
        "Gap: the plan's objective above the bound proven for the whole program (mean / largest, instances); it also",
        "holds what the proof left open. CPU seconds are printed beside wall seconds because other work on the machine",
        "stretches the latter. Limit: plans that the time limit ended; short: plans with a shortage (no gap taken).",
        "",
        "| size | plans | wall p50 s | wall p99 s | CPU p50 s | CPU p99 s | bar (aim) s | gap | limit | short | |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    main()
