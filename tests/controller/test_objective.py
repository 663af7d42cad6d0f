"""Objectives of the joint plan: what moves where, by figures that can be followed, and what an unknown figure does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import make_accelerator_pool
from tests.controller.test_planning import Planned
from tests.controller.world import POOL, SETTINGS
from wattzoo.api.accelerator_pool import AcceleratorPoolSpec
from wattzoo.decide.objective import weigh_pools
from wattzoo.model import Kind
from wattzoo.reconcile import Reconciler
from wattzoo.telemetry import Telemetry
from wattzoo_policies.placement.objective import Objective
from wattzoo_policies.placement.problem import Plan, PlanPool, PlanProblem, PlanService, PlanVariant
from wattzoo_policies.placement.solve import solve_plan

COAL, HYDRO = {"carbon_grams_per_kilowatt_hour": 600}, {"carbon_grams_per_kilowatt_hour": 100}


def spec(**figures: int) -> AcceleratorPoolSpec:
    return AcceleratorPoolSpec.model_validate(
        {"node_selector": {"pool": "x"}, "allowed_namespaces": {"all": True}, **figures}
    )


def variant(pool: str, idle_watts: float, max_watts: float) -> PlanVariant:
    return PlanVariant(
        f"m/{pool}",
        "m",
        pool,
        accelerators=1,
        idle_watts=idle_watts,
        active_watts=idle_watts,
        max_watts=max_watts,
        start_joules=0.0,
        knee_load=1.0,
    )


def problem() -> PlanProblem:
    """A request/s that fills half a replica: 100 + 200 / 2 = 200 W on `lean`, 150 + 300 / 2 = 300 W on `rich`."""
    service = PlanService("chat", 1.0, 1.0, 0.5, {"m/lean": 0.5, "m/rich": 0.5}, {"m/lean": 0.6, "m/rich": 0.6})
    variants = (variant("lean", 100.0, 300.0), variant("rich", 150.0, 450.0))
    return PlanProblem((PlanPool("lean", 8), PlanPool("rich", 8)), variants, (service,))


def solve(objective: Objective, lean: AcceleratorPoolSpec, rich: AcceleratorPoolSpec) -> Plan:
    weighed, fallbacks = weigh_pools(problem(), {"lean": lean, "rich": rich}, objective)
    assert fallbacks == ()
    return solve_plan(weighed)


def test_energy_takes_the_pool_of_fewest_watts() -> None:
    plan = solve(Objective.ENERGY, spec(**COAL), spec(**HYDRO))
    assert (plan.replicas["m/lean"], plan.replicas["m/rich"]) == (1, 0)
    assert plan.objective == pytest.approx(200.0)


def test_carbon_takes_the_pool_of_least_grams_though_it_draws_more() -> None:
    """200 W at 600 g/kWh are 120 g/h, 300 W at 100 g/kWh 30 g/h; the even .1 g/kWh of every pool adds .03 g/h."""
    plan = solve(Objective.CARBON, spec(**COAL), spec(**HYDRO))
    assert (plan.replicas["m/lean"], plan.replicas["m/rich"]) == (0, 1)
    assert plan.watts == pytest.approx(300.0)
    assert plan.objective * 3600.0 / 1e3 == pytest.approx(30.03)  # milligrams/s as grams/h
    turned = solve(Objective.CARBON, spec(carbon_grams_per_kilowatt_hour=100), spec(carbon_grams_per_kilowatt_hour=100))
    assert turned.replicas["m/lean"] == 1  # even grids: the fewest joules


def test_cost_takes_the_pool_of_least_price_though_it_draws_more() -> None:
    """One accelerator at 3.00 an hour, or one at 1.00: 1e6 / 3600 millionths per second; a joule counts .001."""
    dear, cheap = spec(price_per_accelerator_hour_milli=3000), spec(price_per_accelerator_hour_milli=1000)
    plan = solve(Objective.COST, dear, cheap)
    assert (plan.replicas["m/lean"], plan.replicas["m/rich"]) == (0, 1)
    assert plan.objective == pytest.approx(1e6 / 3600.0 + 0.3)
    assert solve(Objective.COST, cheap, cheap).replicas["m/lean"] == 1  # even prices: the fewest joules


def test_nothing_emitted_and_nothing_paid_are_figures_and_not_unknown() -> None:
    none = spec(carbon_grams_per_kilowatt_hour=0, price_per_accelerator_hour_milli=0)
    some = spec(carbon_grams_per_kilowatt_hour=20, price_per_accelerator_hour_milli=20)
    for objective in (Objective.CARBON, Objective.COST):
        plan = solve(objective, some, none)
        assert (plan.replicas["m/lean"], plan.replicas["m/rich"]) == (0, 1)  # and no more than it needs


def test_an_unknown_figure_leaves_what_is_planned_together_to_energy_and_nothing_else() -> None:
    first = problem()
    alone = PlanService("mail", 1.0, 1.0, 0.5, {"m/apart": 0.5}, {"m/apart": 0.6})
    whole = replace(
        first,
        pools=(*first.pools, PlanPool("apart", 8)),
        variants=(*first.variants, variant("apart", 100.0, 300.0)),
        services=(*first.services, alone),
    )
    hardware = {"lean": spec(**COAL), "rich": spec(), "apart": spec(carbon_grams_per_kilowatt_hour=36)}
    weighed, fallbacks = weigh_pools(whole, hardware, Objective.CARBON)
    assert [pool.objective_weight for pool in weighed.pools] == [1.0, 1.0, pytest.approx(0.01, rel=0.01)]
    (fallback,) = fallbacks
    assert fallback.pools == {"lean", "rich"}
    assert fallback.finding.message == (
        "AcceleratorPool/rich: spec.carbonGramsPerKilowattHour is unset, so that the plan minimises Energy instead of "
        "Carbon in lean, rich"
    )
    plan = solve_plan(weighed)
    assert (plan.replicas["m/lean"], plan.replicas["m/rich"], plan.replicas["m/apart"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("objective", "field", "figure"),
    [
        (Objective.CARBON, "carbonGramsPerKilowattHour", 56),
        (Objective.COST, "pricePerAcceleratorHourMilli", 1890),
    ],
)
async def test_the_operator_says_what_is_missing_until_it_is_there(
    objective: Objective, field: str, figure: int
) -> None:
    world = Planned()
    settings = replace(SETTINGS, objective=objective)
    world.reconciler = Reconciler(world.cluster, world.events, Telemetry("t"), settings, clock=lambda: world.now)
    await world.start(rps=10.0)
    assert (world.plan["planner"], world.plan["objective"]) == ("Joint", "Energy")
    assert "J" in world.plan["price"]
    degraded = world.condition(Kind.MODEL_POOL, POOL, "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "ObjectiveFigureMissing")
    assert degraded["message"].startswith(f"AcceleratorPool/h100: spec.{field} is unset")
    changed = make_accelerator_pool()
    changed["spec"][field] = figure
    changed["metadata"]["generation"] = 2
    world.cluster.add(Kind.ACCELERATOR_POOL, changed)
    await world.run(10, rps=10.0)
    assert world.plan["objective"] == objective
    assert "price" not in world.plan  # no joules
    assert world.condition(Kind.MODEL_POOL, POOL, "Degraded")["status"] == "False"


async def test_energy_needs_no_figure() -> None:
    world = Planned()
    await world.start(rps=10.0)
    assert world.plan["objective"] == "Energy"
    assert world.condition(Kind.MODEL_POOL, POOL, "Degraded")["status"] == "False"
