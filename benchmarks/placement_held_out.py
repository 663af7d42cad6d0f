"""Worlds of the placement benchmark that nothing was tuned on: other days, curves, seeds, targets, zoos and loads."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.placement_bars import Bar, find_service_bars
from benchmarks.placement_runs import Row, World

PREFIX = "held out: "
POLICIES = ("mix + HPA, best GPUs", "mix + HPA, best GPUs, packed", "joint")
GRADE_SCHOOL = {"4b": 0.206, "8b": 0.396, "70b": 0.550}
"""Satisfied shares of another task (three solvers of gsm8k_6b_175b.parquet, worst to best): far apart and even."""
WORLDS = (
    World(f"{PREFIX}day 2, alpha at 75 %", 0.4697, seed=2, day=2, first_hour=6.0, hours=12.0),
    World(
        f"{PREFIX}day 5 of m-small, alpha at 90 %", 0.5636, seed=3, curve="m-small", day=5, first_hour=6.0, hours=12.0
    ),
    World(f"{PREFIX}day 12, alpha at 95 %", 0.5949, seed=4, day=12, first_hour=12.0, hours=12.0),
    World(f"{PREFIX}H100 and A100 alone", 0.519, seed=2, first_hour=12.0, hours=12.0, gpus=("h100", "a100")),
    World(
        f"{PREFIX}accuracies of another task",
        0.47,
        seed=5,
        day=6,
        first_hour=6.0,
        hours=6.0,
        accuracy=GRADE_SCHOOL,
    ),
    World(
        f"{PREFIX}two services with targets of their own",
        0.519,
        rate=20.0,
        seed=2,
        day=3,
        first_hour=8.0,
        hours=6.0,
        second_alpha=0.58,
    ),
    World(f"{PREFIX}one hour", 0.519, seed=4, day=3, first_hour=10.0, hours=1.0),
    World(
        f"{PREFIX}half a request per second",
        0.56,
        "arrivals_servegen_m-large.parquet",
        first_hour=30.0,
        hours=12.0,
    ),
)
SMALL_ACCELERATORS = 5.5
"""Holding no more than this on average, no policy comes near the bound: it may use hundredths of a replica."""


def is_held_out(name: str) -> bool:
    """Return whether a world belongs here."""
    return name.startswith(PREFIX)


def find_held_out_bars(name: str, rows: Mapping[str, Row], bound_wh: float) -> list[Bar]:
    """Return the bars of one of these worlds."""
    joint, packed, mix = rows["joint"], rows["mix + HPA, best GPUs, packed"], rows["mix + HPA, best GPUs"]
    more = (joint.starts_per_hour - mix.starts_per_hour) * joint.hours
    bars = [
        Bar(f"{name}: % energy against the best blind mix, packed as ours", 100.0 * (joint.wh / packed.wh - 1.0), 0),
        *find_service_bars(name, joint),
        Bar(f"{name}: starts in the whole run beyond the mix + HPA's", more, 1.0),
    ]
    if joint.accelerators > SMALL_ACCELERATORS:
        bars.append(Bar(f"{name}: against the bound", joint.wh / bound_wh, 2.0, 1.45))
    return bars
