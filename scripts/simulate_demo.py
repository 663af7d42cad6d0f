"""The demo without a cluster: the same requests, replicas, laws and baselines in the plant alone, in seconds.

It answers, before anybody waits ten minutes, whether a setting makes a sound demo: energy is printed only beside the
attainment and the satisfaction of the same run.

    python scripts/simulate_demo.py --minutes 10 --mean-rps 11.5 --seeds 3
    python scripts/simulate_demo.py --laws --seeds 6

The second form sets the laws beside each other as the demo's report does (same pool, same replica rule, several seeds
of the routing), but over several draws of the requests: one draw is a matter of luck by some per cent.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e2e.demo.compare import make_variants, simulate_laws
from wattzoo_policies.baselines.hpa import HpaParameters
from wattzoo_policies.capacity.model import START_POWER_RATIO, LatencyTarget, ReplicaModel
from wattzoo_policies.registry import Parameter, make_policy
from wattzoo_policies.sim.closed_loop import run_closed_loop
from wattzoo_policies.sim.comparison import mean_shape, run_largest_hpa, run_mixture_hpa
from wattzoo_policies.sim.controllers import DemandReplicas, PolicyWeights
from wattzoo_policies.sim.fleet import Variant
from wattzoo_policies.sim.scenario import LoopRequest, LoopResult, Scenario, ServiceTarget

DATA = Path(__file__).resolve().parents[1] / "examples" / "data"
MEMBERS = ("small", "medium", "large")
SQUEEZE = 0.1
"""Model loading and every window that waits for it, as in the demo."""


LATENCY = LatencyTarget(ttft_seconds=2.0, tpot_seconds=0.06)


@dataclass(frozen=True)
class Setting:
    """What may be varied. Seconds are those of the squeezed demo."""

    duration_seconds: float = 600.0
    mean_rps: float = 11.5
    day: tuple[str, int] = ("m-small", 6)
    alpha: float = 0.519
    latency: LatencyTarget = LATENCY
    interval_seconds: float = 5.0
    reserve: float = 0.3
    down_stabilization_seconds: float = 30.0
    rate_seconds: float = 15.0
    horizon_seconds: float = 30.0


def read_requests() -> dict[str, list[dict[str, str]]]:
    """Return the rows of the request table by service."""
    with gzip.open(DATA / "requests.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {name: [row for row in rows if row["service"] == name] for name in dict.fromkeys(r["service"] for r in rows)}


def read_curve(service: str, day: int) -> NDArray[np.float64]:
    """Return the day's relative rates at equal distances."""
    with (DATA / "day_shape.csv").open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["service"] == service]
    return np.array([float(row["rate_norm"]) for row in rows if float(row["t_s"]) // 86_400 == day])


def read_model(law: str) -> ReplicaModel:
    """Return a replica model of the table of figures, its start squeezed."""
    figures = json.loads((DATA / "replica_models.json").read_text(encoding="utf-8"))
    row, memory = figures["laws"][law], figures["memory"]
    gpu, shape, count = (
        figures["accelerators"][row["accelerator"]],
        figures["models"][row["model"]],
        row["accelerators"],
    )
    usable_gb = count * (gpu["memory_gb"] * memory["used_share"] - memory["reserve_gb_per_accelerator"])
    idle, seconds = gpu["resident_watts"] * count, shape["startup_seconds"]
    model = ReplicaModel(
        t0_seconds=row["t0_ms"] / 1e3,
        t1_seconds=row["t1_ms"] / 1e3,
        prefill_seconds_per_token=row["prefill_us_per_token"] / 1e6,
        kv_tokens=int((usable_gb - shape["weights_gb"]) * 1e9 / shape["kv_bytes_per_token"]),
        max_sequences=64 if count == 1 else 128,
        off_watts=gpu["off_watts"] * count,
        idle_watts=idle,
        active_watts=row["active_watts"],
        max_watts=row["max_watts"],
        startup_seconds=seconds,
        startup_joules=START_POWER_RATIO * idle * seconds,
        accelerators=count,
    )
    return model.with_startup(SQUEEZE * seconds)


def make_scenario(setting: Setting, seed: int) -> Scenario:
    """Draw arrivals of the squeezed day (Poisson, half for each service) and the requests behind them."""
    rng = np.random.default_rng(seed)
    curve = read_curve(*setting.day)
    edges = np.linspace(0.0, setting.duration_seconds, len(curve) + 1)
    expected = np.concatenate(([0.0], np.cumsum(curve * np.diff(edges)) * setting.mean_rps / curve.mean()))
    count = int(rng.poisson(expected[-1]))
    times = np.interp(np.sort(rng.random(count)) * expected[-1], expected, edges)
    tables = read_requests()
    orders = {name: rng.permutation(len(rows)) for name, rows in tables.items()}
    used = dict.fromkeys(tables, 0)
    requests = []
    for at in times:
        name = str(rng.choice(list(tables)))
        row = tables[name][orders[name][used[name] % len(orders[name])]]
        used[name] += 1
        tokens = {member: int(row[f"{member}_out_tokens"]) for member in MEMBERS}
        correct = {member: row[f"{member}_correct"] == "1" for member in MEMBERS}
        requests.append(LoopRequest(float(at), name, row["request_id"], int(row["prompt_tokens"]), tokens, correct))
    variants = (
        Variant("small-l4", "small", read_model("small-l4"), 0, 16, 2, "l4"),
        Variant("medium-a100", "medium", read_model("medium-a100"), 0, 8, 1, "a100"),
        Variant("large-h100", "large", read_model("large-h100x4"), 1, 8, 2, "h100"),
    )
    targets = {name: ServiceTarget(setting.alpha, setting.latency, "large") for name in tables}
    caps = {"l4": 16, "a100": 8, "h100": 32}
    return Scenario(tuple(requests), variants, targets, setting.duration_seconds, caps, linger_seconds=3.0)


def run_wattzoo(
    scenario: Scenario, setting: Setting, policy: str, params: dict[str, Parameter] | None = None, seed: int = 0
) -> LoopResult:
    """Run a policy with the operator's replica rule."""
    shape = mean_shape(scenario.requests, "small")
    weights = PolicyWeights(make_policy(policy, params), scenario, shape, setting.interval_seconds, seed)
    replicas = DemandReplicas(
        scenario,
        weights,
        shape,
        setting.interval_seconds,
        setting.reserve,
        setting.down_stabilization_seconds,
        setting.rate_seconds,
        setting.horizon_seconds,
    )
    return run_closed_loop(scenario, weights, replicas, np.random.default_rng(seed))


def print_row(name: str, result: LoopResult, note: str = "") -> None:
    """Print one run: energy, attainments, satisfaction, starts."""
    kinds = " ".join(f"{kind} {joules / 1e6:.2f}" for kind, joules in result.joules_by_kind.items())
    served = " ".join(
        f"{service} {outcome.achieved or 0.0:.4f} (worst deficit {outcome.worst_deficit or 0.0:.4f})"
        for service, outcome in result.services.items()
    )
    print(
        f"{name:14s} {result.joules / 1e6:6.3f} MJ ({kinds})  TTFT {result.ttft_attainment or 0.0:.4f} "
        f"TPOT {result.tpot_attainment or 0.0:.4f}  failed {result.failed}  starts {result.starts}  {served}  {note}",
        flush=True,
    )


def print_laws(setting: Setting, seeds: int) -> None:
    """Print each law's joules over those of the hindsight mixture with an HPA, and how it kept the promise."""
    hpa = HpaParameters(target_average=1.0).scaled(SQUEEZE)
    draws = []
    for seed in range(1, seeds + 1):
        scenario = replace(make_scenario(setting, seed), variants=make_variants(), max_accelerators={})
        by_member = {variant.member: variant.name for variant in scenario.variants}
        draws.append(simulate_laws(scenario, run_mixture_hpa(scenario, by_member, hpa).result.joules))
    print(f"{seeds} draws of the requests, {draws[0][0].seeds} seeds of the routing each")
    for runs in zip(*draws, strict=True):
        ratios = np.array([run.ratio_to_fixed_mix for run in runs])
        error = ratios.std() / max(1, len(ratios) - 1) ** 0.5
        name = " ".join([runs[0].policy, *(f"{key}={value}" for key, value in runs[0].parameters.items())])
        print(
            f"{name:32s} joules / fixed mixture {ratios.mean():.3f} +- {error:.3f} "
            f"({' '.join(f'{ratio:.3f}' for ratio in ratios)})  satisfied {np.mean([r.satisfied for r in runs]):.4f}  "
            f"below the target after N0 in {np.mean([run.violated_share or 0.0 for run in runs]):.0%} of runs",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print WattZoo and both baselines for each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--mean-rps", type=float, default=11.5)
    parser.add_argument("--alpha", type=float, default=0.519)
    parser.add_argument("--reserve", type=float, default=0.3)
    parser.add_argument("--interval-seconds", type=float, default=5.0)
    parser.add_argument("--policy", default="MESSPlusAnytime")
    parser.add_argument("--laws", action="store_true", help="compare the laws of the demo's report")
    parser.add_argument("--params", type=json.loads, default={}, help='parameters as JSON: {"v_per_joule": 0.001}')
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args(arguments)
    setting = Setting(
        duration_seconds=60.0 * options.minutes,
        mean_rps=options.mean_rps,
        alpha=options.alpha,
        reserve=options.reserve,
        interval_seconds=options.interval_seconds,
    )
    if options.laws:
        print_laws(setting, options.seeds)
        return
    hpa = HpaParameters(target_average=1.0).scaled(SQUEEZE)
    for seed in range(1, options.seeds + 1):
        scenario = make_scenario(setting, seed)
        print(f"seed {seed}: {len(scenario.requests)} requests in {setting.duration_seconds:.0f} s")
        print_row(options.policy, run_wattzoo(scenario, setting, options.policy, options.params, seed))
        largest = run_largest_hpa(scenario, "large-h100", hpa)
        print_row("largest + HPA", largest.result, f"target {largest.target_share:.0%}, 99 %: {largest.reached_goal}")
        by_member = {variant.member: variant.name for variant in scenario.variants}
        mixture = run_mixture_hpa(scenario, by_member, hpa)
        print_row("mixture + HPA", mixture.result, f"target {mixture.target_share:.0%}, 99 %: {mixture.reached_goal}")


if __name__ == "__main__":
    main()
