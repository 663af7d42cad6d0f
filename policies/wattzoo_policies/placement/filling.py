"""What serving replicas are filled with: room for chance, as few as the load needs, the best answers they can give.

Serving replicas are whole, so a mixture at exactly the target leaves one half empty. Filled with the most accurate
answers that fit, it earns a surplus, the surplus lowers the target, and after a while a replica falls silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from wattzoo_policies.placement.joint_demand import LEAST_CARE, ROUTE_DEVIATIONS, Group
from wattzoo_policies.placement.packing import serving_replicas
from wattzoo_policies.placement.problem import PlanService, PlanVariant
from wattzoo_policies.placement.target import REACH
from wattzoo_policies.placement.weights import Weights, decide_weights

MOST_FILLED = 8
"""Services that share replicas and are filled together; many fill replicas by their number."""
FILL_STEPS = 5
"""Bisections of how far several services can be raised together: to a thirty-second of the way."""


def fill_serving(
    found: Weights,
    services: list[PlanService],
    variants: list[PlanVariant],
    serving: Mapping[str, int],
    eta: float,
    counted: Mapping[str, float],
) -> Weights:
    """Return the most accurate answers that these replicas can give; several services gain the same share of the way.

    The way of each leads from its target to the best it could have.
    """
    best = {service.name: max(service.accuracy.values()) - REACH for service in services}

    def decide(share: float) -> Weights:
        raised = [replace(s, alpha=s.alpha + share * max(0.0, best[s.name] - s.alpha)) for s in services]
        return decide_weights(raised, variants, serving, eta=eta, objective_weights=counted)

    if len(services) == 1:
        return decide(1.0)
    low, high = 0.0, 1.0
    for _ in range(FILL_STEPS):
        middle = (low + high) / 2.0
        tried = decide(middle)
        if tried.overload > 0.0 or tried.accuracy_missing:
            high = middle
        else:
            low, found = middle, tried
    return found


def keep_promises(
    decide: Callable[[float], tuple[list[PlanVariant], Weights]],
    services: Sequence[PlanService],
    alphas: Mapping[str, float],
    care: float,
) -> tuple[list[PlanVariant], Weights]:
    """Return variants and weights with this care, or with as much of it as leaves every service its promise.

    Where even the least would not, nothing is given up for it.

    decide: variants with room for chance at a care, and weights over them. Room that is kept free takes its requests
    from accurate replicas to the others that are ready. Against an hour like any other that room is silent replicas;
    where all are needed, after a jump for instance, requests that come would be answered worse for those that might.
    """

    def is_kept(found: Weights) -> bool:
        return all(reached(found, s) >= min(s.alpha, alphas[s.name]) - REACH for s in services)

    tried = decide(care)
    if is_kept(tried[1]) or care <= LEAST_CARE:
        return tried
    low, high, best = LEAST_CARE, care, decide(LEAST_CARE)
    if not is_kept(best[1]):  # accuracy gives way before latency
        return tried
    for _ in range(FILL_STEPS):
        middle = (low + high) / 2.0
        tried = decide(middle)
        low, high, best = (middle, high, tried) if is_kept(tried[1]) else (low, middle, best)
    return best


def reached(found: Weights, service: PlanService) -> float:
    """Return the accuracy of a service's mixture; its target where nothing serves it."""
    shares = found.shares[service.name]
    return sum(share * service.accuracy[name] for name, share in shares.items()) if shares else service.alpha


def count_serving(
    found: Weights,
    services: list[PlanService],
    variants: list[PlanVariant],
    ready: Mapping[str, int],
    eta: float,
) -> dict[str, int]:
    """Return by variant the replicas that these weights fill; none where nothing is sent."""
    serving = {}
    for variant in variants:
        work = sum(
            service.rate_rps * found.shares[service.name].get(variant.name, 0.0) * service.work_seconds[variant.name]
            for service in services
            if variant.name in service.work_seconds
        )
        serving[variant.name] = (
            serving_replicas(work, variant.knee_load, ready[variant.name], eta=eta) if work > 0.0 else 0
        )
    return serving


def with_route_noise(
    variants: list[PlanVariant],
    found: Weights,
    services: list[PlanService],
    ready: Mapping[str, int],
    group: Group,
    care: float,
    interval_seconds: float,
) -> list[PlanVariant]:
    """Return the variants with knees lowered for what chance does to their share of an interval's requests.

    Each request draws its route alone: of k expected ones at share p the count has the variance k (1 - p), which adds
    to the forecast's own error; the sum is taken `care` times. A variant that nothing
    was sent to yet may get what fills its ready replicas.
    """
    noisy, ratio = [], group.next_ratio
    total = sum(service.rate_rps for service in services) * interval_seconds
    for variant in variants:
        work = [s.work_seconds[variant.name] for s in services if variant.name in s.work_seconds]
        if variant.knee_load is None or not min(work, default=0.0) > 0.0:
            noisy.append(variant)
            continue
        sent = sum(service.rate_rps * found.shares[service.name].get(variant.name, 0.0) for service in services)
        room = variant.knee_load / ratio * ready[variant.name] / min(work)
        count = min(total, interval_seconds * (sent or room))
        chance = ROUTE_DEVIATIONS * math.sqrt(max(0.0, 1.0 - count / total) / count) if count > 0.0 else 0.0
        noisy.append(replace(variant, knee_load=variant.knee_load * ratio / group.widened(chance, care)))
    return noisy
