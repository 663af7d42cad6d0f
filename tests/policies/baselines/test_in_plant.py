"""The baselines in the fluid plant: an hour whose load rises threefold and falls, by energy, latency and accuracy."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.policies.baselines.observations import ACCURACY, LARGE, LATENCY, POOLS, SERVICE, SHAPE, VARIANTS
from wattzoo_policies.baselines.hpa_fleet import make_hpa_fleet
from wattzoo_policies.baselines.keda import KedaParameters, make_keda_fleet
from wattzoo_policies.baselines.melange import MelangeFleet
from wattzoo_policies.baselines.mess_hpa import MessHpa
from wattzoo_policies.baselines.mixture_hpa import (
    MixtureCandidate,
    make_mixture_hpa,
    plan_hpa_parameters,
    plan_mixtures,
)
from wattzoo_policies.baselines.static_peak import make_static_peak, plan_peak_replicas
from wattzoo_policies.placement.packing import decide_serving
from wattzoo_policies.placement.signals import FleetController
from wattzoo_policies.sim.fluid.demand import draw_curve
from wattzoo_policies.sim.fluid.result import FluidResult
from wattzoo_policies.sim.fluid.run import run_fluid
from wattzoo_policies.sim.fluid.scenario import FluidDemand, FluidScenario

CANDIDATES = tuple(MixtureCandidate(v.name, v.member, v.model) for v in VARIANTS)
PLACED = plan_mixtures(CANDIDATES, ACCURACY, SHAPE, LATENCY, alpha=0.52)[0]
TARGETS = plan_hpa_parameters(CANDIDATES, SHAPE, LATENCY, fill=0.3)


def make_demand() -> FluidDemand:
    """100 to 300 requests/s and back, bursty, of one size."""
    at, rates = np.array([0.0, 1500.0, 2100.0, 3600.0]), np.array([100.0, 300.0, 300.0, 100.0])
    tokens = (np.array([SHAPE.input_tokens]), np.array([SHAPE.output_tokens]))
    return draw_curve(at, rates, tokens, np.random.default_rng(5), service="chat")


SCENARIO = FluidScenario(make_demand(), POOLS, VARIANTS, (SERVICE,), {"chat": ACCURACY})
CONTROLLERS: dict[str, FleetController[Any]] = {
    "static-peak": make_static_peak("70b-h100", plan_peak_replicas(LARGE, SHAPE, LATENCY, 380.0)),
    "hpa": make_hpa_fleet("70b-h100", TARGETS),
    "keda": make_keda_fleet("70b-h100", KedaParameters(running=TARGETS["70b-h100"].target_average)),
    "melange": MelangeFleet({"70b": 1.0}),
    "fixed-mix": make_mixture_hpa(PLACED, TARGETS),
    "fixed-mix-packed": make_mixture_hpa(PLACED, TARGETS, decide_serving),
    "mess-plus-hpa": MessHpa(tuple(PLACED.shares), TARGETS),
}


@cache
def run(name: str) -> FluidResult:
    return run_fluid(SCENARIO, CONTROLLERS[name], np.random.default_rng(6))


@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_baseline_serves_nearly_all_requests_in_time_and_reaches_the_target(name: str) -> None:
    result = run(name)
    assert result.policy == name
    assert result.attainment > 0.98
    assert result.accuracy_end > 0.52 - 0.004  # blind shares reach it in the mean


def test_who_knows_more_burns_less() -> None:
    wh = {name: run(name).wh_per_1000_requests for name in CONTROLLERS}
    assert wh["static-peak"] > wh["hpa"]
    assert wh["hpa"] > wh["fixed-mix"] > wh["fixed-mix-packed"]
    assert wh["mess-plus-hpa"] > wh["fixed-mix"]  # it routes one request at a time and ends above its target
    assert run("mess-plus-hpa").accuracy_end > run("fixed-mix").accuracy_end


def test_melange_has_the_cheapest_accelerators_of_those_that_serve_the_large_model_alone() -> None:
    prices = np.array([pool.price_per_accelerator_second for pool in POOLS])

    def price(name: str) -> float:
        held = np.array([run(name).accelerators[pool.name].mean() for pool in POOLS])
        return float(prices @ held)

    assert price("melange") < min(price(name) for name in ("static-peak", "hpa", "keda"))
