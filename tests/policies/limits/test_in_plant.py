"""What the limits are worth in the fluid plant: an hour of steady load under plans that change their mind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.policies.baselines.observations import LARGE, LARGE_B200, LATENCY, POOLS, SERVICE, SHAPE, VARIANTS
from wattzoo_policies.capacity.model import capacity_rps
from wattzoo_policies.limits.carrying import with_variant_change
from wattzoo_policies.limits.plans import make_plan_law
from wattzoo_policies.limits.replicas import with_accelerator_cap, with_all_limits
from wattzoo_policies.limits.waiting import with_down_stabilization
from wattzoo_policies.placement.signals import FleetDecision, FleetObservation, FleetVariant
from wattzoo_policies.protocols import ReplicaLaw
from wattzoo_policies.signals import ReplicaHistory, ReplicaRequest, VariantDemand
from wattzoo_policies.sim.fluid.result import FluidResult
from wattzoo_policies.sim.fluid.run import run_fluid
from wattzoo_policies.sim.fluid.scenario import FluidDemand, FluidScenario

RATE_RPS = 150.0
Wrap = Callable[[ReplicaLaw], ReplicaLaw]


def count(variant: FleetVariant) -> int:
    """Replicas of one variant that carry the load alone."""
    capacity = capacity_rps(variant.model, SHAPE, LATENCY)
    assert capacity is not None
    return math.ceil(1.1 * RATE_RPS / capacity)


@dataclass(frozen=True, slots=True)
class ChangingPlans:
    """Everything on H100 for some steps, then everything on B200, and so on."""

    wrap: Wrap
    steps: int
    name: str = "changing-plans"

    def initial_state(self) -> ReplicaHistory:
        return ReplicaHistory()

    def decide(
        self, state: ReplicaHistory, observation: FleetObservation, rng: np.random.Generator
    ) -> tuple[ReplicaHistory, FleetDecision]:
        wanted = ("70b-h100", "70b-b200")[int(observation.at_seconds // (15.0 * self.steps)) % 2]
        plan = {v.name: count(v) if v.name == wanted else 0 for v in observation.variants}
        variants = tuple(
            VariantDemand(
                variant=v.name,
                demand_rps=RATE_RPS if v.name == wanted else 0.0,
                capacity_rps=capacity_rps(v.model, SHAPE, LATENCY),
                current_replicas=v.replicas,
                ready_replicas=v.ready,
                min_replicas=0,
                max_replicas=100,
                accelerators_per_replica=v.model.accelerators,
                accelerator_pool=v.pool,
                member=v.member,
                terminating_replicas=v.terminating,
            )
            for v in observation.variants
        )
        caps = {pool.name: pool.accelerators for pool in observation.pools}
        state, decided = self.wrap(make_plan_law(plan))(state, ReplicaRequest(observation.at_seconds, variants, caps))
        ready = {v.name: v.ready * (capacity_rps(v.model, SHAPE, LATENCY) or 0.0) for v in observation.variants}
        total = sum(ready.values())
        weights = {name: share / total for name, share in ready.items() if share > 0.0}
        return state, FleetDecision(
            decided.replicas(), {v.name: v.ready for v in observation.variants}, {"chat": weights}
        )


def run(wrap: Wrap, steps: int) -> FluidResult:
    ones = np.ones((240, 1))
    demand = FluidDemand(15.0, ("chat",), 15.0 * RATE_RPS * ones, SHAPE.input_tokens * ones, SHAPE.output_tokens * ones)
    began = tuple(
        replace(v, replicas=count(v), ready=count(v), serving=count(v)) if v.name == "70b-h100" else v for v in VARIANTS
    )
    scenario = FluidScenario(
        demand, POOLS, began, (SERVICE,), {"chat": {"8b": 0.5, "70b": 0.6}}, warmup_steps=0, patience_seconds=30.0
    )
    return run_fluid(scenario, ChangingPlans(wrap, steps), np.random.default_rng(1))


def test_make_before_break_is_the_difference_between_serving_and_not() -> None:
    # Six plans of ten minutes, five changes: bare each costs the 120 s of a start, and what piled up afterwards.
    bare = run(with_accelerator_cap, steps=40)
    assert bare.attainment < 1.0 - 5 * 120.0 / 3600.0 + 0.01
    kept = run(lambda law: with_accelerator_cap(with_variant_change(law)), steps=40)
    assert kept.attainment == pytest.approx(1.0, abs=1e-9)
    assert kept.starts == bare.starts == 2 * count_of(LARGE) + 3 * count_of(LARGE_B200)


def test_the_window_ends_a_plan_that_swings_faster_than_servers_start() -> None:
    # A new plan every minute, servers that start in two: bare, nothing is ever ready again once the first have gone.
    bare = run(with_accelerator_cap, steps=4)
    assert bare.attainment < 0.05
    kept = run(lambda law: with_accelerator_cap(with_variant_change(with_down_stabilization(law, 300.0))), steps=4)
    assert kept.attainment == pytest.approx(1.0, abs=1e-9)
    assert kept.starts == count_of(LARGE_B200)  # both stay: the plans never agree for five minutes
    assert run(with_all_limits, steps=4).attainment == pytest.approx(1.0, abs=1e-9)


def count_of(model: object) -> int:
    return next(count(v) for v in VARIANTS if v.model == model)
