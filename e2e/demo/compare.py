"""The same requests in the plant: WattZoo's recorded decisions once more, and two ways to do without WattZoo.

The plant, the requests, the replicas' figures and the shortened starts are those of the run: the deciders differ.
The baselines get what WattZoo has not: an HPA target swept to the cheapest that keeps the latency bounds, and for the
mixture the shares that only hindsight knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from e2e.demo import settings
from e2e.demo.measures import Slo
from e2e.demo.recording import Recording
from e2e.demo.report import ATTAINMENT_GOAL, Comparison, LawRun, PlantRun, load_end_seconds
from e2e.demo.scene import read_pool, read_profiles, shorten_startups
from e2e.emulator.profiles import make_replica_model, max_sequences_of
from e2e.emulator.table import read_table
from wattzoo_policies.baselines.hpa import HpaParameters
from wattzoo_policies.capacity.model import LatencyTarget
from wattzoo_policies.registry import Parameter, make_policy
from wattzoo_policies.sim.closed_loop import replay_closed_loop, run_closed_loop
from wattzoo_policies.sim.comparison import BaselineRun, mean_shape, run_largest_hpa, run_mixture_hpa
from wattzoo_policies.sim.controllers import DemandReplicas, PolicyWeights
from wattzoo_policies.sim.fleet import Variant
from wattzoo_policies.sim.scenario import LoopRequest, LoopResult, PodLife, Scenario, ServiceTarget, Weights

REPLAY_SEED = 0
LINGER_SECONDS = 3.0
"""How long a leaving replica stays when nothing runs on it: the emulator's own figure."""
PRODUCT_LABEL = "nvidia.com/gpu.product"
MAX_REPLICAS = 64
LAWS: tuple[tuple[str, Mapping[str, Parameter]], ...] = (
    ("MESSPlusAnytime", {}),
    ("MESSPlus", {}),
    ("MESSPlus", {"horizon_requests": 400}),
)
"""The default law, the published rule, and that rule steadied."""
LAW_SEEDS = 4
START_REPLICAS = 2
PEAK_SECONDS = 30.0
"""Replicas are for the largest rate of this time, as the operator has it."""


def compare(recording: Recording, table_path: Path = settings.TABLE) -> Comparison:
    """Replay the run and both baselines; takes some seconds per minute of load."""
    scenario = make_scenario(recording, table_path)
    largest = next(v.name for v in scenario.variants if v.member == settings.LARGEST_MEMBER)
    hpa = HpaParameters(target_average=1.0).scaled(settings.LOADING_SCALE)
    replayed = replay_closed_loop(
        scenario, recorded_pods(recording), recorded_weights(recording), np.random.default_rng(REPLAY_SEED)
    )
    by_member = {variant.member: variant.name for variant in scenario.variants}
    mixture = run_mixture_hpa(scenario, by_member, hpa, goal=ATTAINMENT_GOAL)
    return Comparison(
        replayed=plant_run(replayed, replay_setting(recording), reached_goal=True),
        hpa_largest=baseline_run(run_largest_hpa(scenario, largest, hpa, goal=ATTAINMENT_GOAL)),
        fixed_mix_hpa=baseline_run(mixture),
        laws=simulate_laws(scenario, mixture.result.joules),
    )


def simulate_laws(scenario: Scenario, fixed_mix_joules: float) -> tuple[LawRun, ...]:
    """Each law on the same requests in the plant with WattZoo's own replica rule; means over seeds of the routing.

    One run's replicas are a matter of luck by some per cent, so neither law is judged by one.
    """
    initial = {variant.name: START_REPLICAS for variant in scenario.variants}
    services = {
        name: replace(target, safest_member=settings.LARGEST_MEMBER) for name, target in scenario.services.items()
    }
    variants = tuple(replace(variant, initial_replicas=initial[variant.name]) for variant in scenario.variants)
    started = replace(scenario, variants=variants, services=services)
    shape = mean_shape(scenario.requests, settings.LARGEST_MEMBER)
    found = []
    for policy, parameters in LAWS:
        runs = []
        for seed in range(LAW_SEEDS):
            weights = PolicyWeights(make_policy(policy, parameters), started, shape, settings.INTERVAL_SECONDS, seed)
            replicas = DemandReplicas(
                started,
                weights,
                shape,
                float(settings.POOL_INTERVAL_SECONDS),
                down_stabilization_seconds=300.0 * settings.LOADING_SCALE,
                rate_seconds=float(settings.RATE_WINDOW_SECONDS),
                horizon_seconds=PEAK_SECONDS,
            )
            runs.append(run_closed_loop(started, weights, replicas, np.random.default_rng(seed)))
        joules = float(np.mean([run.joules for run in runs]))
        outcomes = [outcome for run in runs for outcome in run.services.values()]
        deficits = [outcome.worst_deficit for outcome in outcomes if outcome.worst_deficit is not None]
        found.append(
            LawRun(
                policy=policy,
                parameters=dict(parameters),
                seeds=LAW_SEEDS,
                energy_joules=joules,
                ratio_to_fixed_mix=joules / fixed_mix_joules,
                satisfied=float(np.mean([outcome.achieved or 0.0 for outcome in outcomes])),
                worst_deficit=max(deficits, default=None),
                violated_share=float(np.mean([d > 0.0 for d in deficits])) if deficits else None,
            )
        )
    return tuple(found)


def make_scenario(recording: Recording, table_path: Path) -> Scenario:
    """Return the run's requests at the times they were sent, and the pool's variants."""
    table = read_table(table_path)
    bounds = recording.facts["latency_bounds_seconds"]
    latency = LatencyTarget(bounds["ttft"], bounds["tpot"])
    requests = [
        LoopRequest(
            at_seconds=reply.sent_at_seconds,
            service=reply.service,
            request_id=reply.request_id,
            input_tokens=table.prompts[reply.request_id],
            output_tokens={member: table.outcomes[member][reply.request_id][0] for member in table.members},
            correct={member: table.outcomes[member][reply.request_id][1] for member in table.members},
        )
        for reply in recording.replies
    ]
    return Scenario(
        requests=tuple(sorted(requests, key=lambda request: request.at_seconds)),
        variants=make_variants(),
        services={name: ServiceTarget(alpha, latency) for name, alpha in recording.facts["targets"].items()},
        end_seconds=load_end_seconds(recording),
        linger_seconds=LINGER_SECONDS,
    )


def make_variants() -> tuple[Variant, ...]:
    """Return the pool's variants as the emulator plays them: same figures, same shortened starts."""
    profiles = {item["metadata"]["name"]: item["spec"] for item in shorten_startups(read_profiles())}
    products = {
        item["metadata"]["name"]: item["spec"]["nodeSelector"][PRODUCT_LABEL]
        for item in _read_all("20-accelerator-pools.yaml")
    }
    adopted = {item["metadata"]["name"]: item for item in _read_all("30-existing-deployment.yaml")}
    variants = []
    for member in read_pool()["spec"]["members"]:
        for variant in member["variants"]:
            model = make_replica_model(
                profiles[variant["profile"]],
                products[variant["acceleratorPool"]],
                variant.get("acceleratorsPerReplica", 1),
                max_sequences_of(_arguments(variant, adopted)),
            )
            least, most = variant.get("minReplicas", 0), variant.get("maxReplicas", MAX_REPLICAS)
            pool = variant["acceleratorPool"]
            variants.append(Variant(f"{member['name']}-{variant['name']}", member["name"], model, least, most, 0, pool))
    return tuple(variants)


def _arguments(variant: dict[str, Any], adopted: dict[str, Any]) -> list[str]:
    if "server" in variant:
        return list(variant["server"].get("args", []))
    containers = adopted[variant["workloadRef"]["name"]]["spec"]["template"]["spec"]["containers"]
    return [argument for container in containers for argument in container.get("args", [])]


def _read_all(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((settings.MANIFESTS / name).read_text(encoding="utf-8")))


def recorded_pods(recording: Recording) -> tuple[PodLife, ...]:
    """Return the pods' lives as the plant takes them; what the first look found holds from the beginning."""
    first = recording.moments[0].at_seconds if recording.moments else None

    def since(at_seconds: float) -> float:
        return 0.0 if at_seconds == first else at_seconds

    return tuple(
        PodLife(
            life.variant,
            since(life.started_at_seconds),
            None if life.ready_at_seconds is None else since(life.ready_at_seconds),
            life.terminating_at_seconds,
            life.gone_at_seconds,
            tuple((since(at_seconds), serving) for at_seconds, serving in life.serving_steps or ()),
        )
        for life in recording.pods
    )


def replay_setting(recording: Recording) -> str:
    """Return what of the run was replayed, in words: older recordings do not say which pods were silent."""
    steps = [life.serving_steps for life in recording.pods]
    known = [row for row in steps if row is not None]
    if len(known) < len(steps):
        return "the weights and pods that were recorded; which pods were silent is unknown, so all ready ones serve"
    times = sum(not serving for row in known for _, serving in row)
    return (
        "the weights and pods that were recorded, silence included: a silent pod finishes what is inside, takes "
        "nothing and draws the power of a resident one (pods that were silent: "
        f"{sum(map(_was_silent, known))} of {len(known)}; silences: {times})"
    )


def _was_silent(steps: tuple[tuple[float, bool], ...]) -> bool:
    return not all(serving for _, serving in steps)


def recorded_weights(recording: Recording) -> tuple[tuple[float, Weights], ...]:
    """Return the routes' weights whenever they changed; the first that were seen hold from the beginning."""
    steps: list[tuple[float, Weights]] = []
    for moment in recording.moments:
        if moment.weights and (not steps or moment.weights != steps[-1][1]):
            steps.append((moment.at_seconds if steps else 0.0, moment.weights))
    return tuple(steps)


def baseline_run(run: BaselineRun) -> PlantRun:
    """Return a baseline's chosen run with the setting in words."""
    mixture = ""
    if run.mixture is not None:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in run.mixture.weights.items())
        mixture = f"shares {shares}; "
    setting = f"{mixture}HPA on running and waiting requests per pod, target {run.target_share:.0%} of the knee"
    tried = tuple(
        {"target_share": share, "energy_joules": joules, "ttft_attainment": ttft, "tpot_attainment": tpot}
        for share, joules, ttft, tpot in run.tried
    )
    return plant_run(run.result, setting, reached_goal=run.reached_goal, tried=tried)


def plant_run(
    result: LoopResult, setting: str, *, reached_goal: bool, tried: tuple[dict[str, Any], ...] = ()
) -> PlantRun:
    """Return a run of the plant as the report shows it."""
    return PlantRun(
        energy_joules=result.joules,
        slo=Slo(result.ttft_attainment, result.tpot_attainment, result.requests),
        satisfied={name: outcome.achieved for name, outcome in result.services.items()},
        setting=setting,
        reached_goal=reached_goal,
        starts=result.starts,
        tried=tried,
    )
