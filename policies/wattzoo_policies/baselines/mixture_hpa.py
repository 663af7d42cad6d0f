"""A fixed blind mixture of members, each member's variant with its own autoscaler: the strongest thing done by hand.

Which members, which variant (and so which accelerators) each runs on and with what shares is found in hindsight by
trying them all: somebody who knows the accuracies and the requests of the day would choose so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from wattzoo_policies.baselines.fixed_mixture import decide_mixture
from wattzoo_policies.baselines.fleet import Packing, ScaledFleet, knee_concurrency
from wattzoo_policies.baselines.hpa import HpaParameters
from wattzoo_policies.baselines.hpa_fleet import make_hpa_fleet
from wattzoo_policies.capacity.model import LatencyTarget, ReplicaModel, RequestShape, capacity_rps, joules_per_request


@dataclass(frozen=True, slots=True)
class MixtureCandidate:
    """A variant that a person may put a member on."""

    variant: str
    member: str
    model: ReplicaModel


@dataclass(frozen=True, slots=True)
class HandPlaced:
    """One mixture: shares by variant, what a request costs at the knee, the satisfaction it reaches, its target met."""

    shares: Mapping[str, float]
    joules_per_request: float
    satisfaction: float
    feasible: bool


def plan_mixtures(
    candidates: Sequence[MixtureCandidate],
    accuracy: Mapping[str, float],
    shape: RequestShape,
    latency: LatencyTarget,
    alpha: float,
    eta: float = 0.9,
) -> tuple[HandPlaced, ...]:
    """Return the best mixture of every choice of one variant per member; those that reach alpha first, cheapest first.

    accuracy: hindsight mean by member. Joules per request are those at `eta` of the knee; variants that cannot keep the
    bounds are left out. Raises `ValueError` when none can.
    """
    by_member: dict[str, list[tuple[MixtureCandidate, float]]] = {}
    for candidate in candidates:
        rate = capacity_rps(candidate.model, shape, latency, eta)
        joules = None if rate is None else joules_per_request(candidate.model, shape, rate)
        if joules is not None:
            by_member.setdefault(candidate.member, []).append((candidate, joules))
    if not by_member:
        raise ValueError("no variant keeps the latency bounds")
    found: dict[tuple[tuple[str, float], ...], HandPlaced] = {}
    for choice in product(*by_member.values()):
        joules_of = {candidate.member: joules for candidate, joules in choice}
        variant_of = {candidate.member: candidate.variant for candidate, _ in choice}
        mixture = decide_mixture(joules_of, {member: accuracy[member] for member in joules_of}, alpha)
        shares = {variant_of[member]: share for member, share in mixture.weights.items() if share > 0.0}
        placed = HandPlaced(shares, mixture.joules_per_request, mixture.satisfaction, mixture.feasible)
        found[tuple(sorted(shares.items()))] = placed
    return tuple(sorted(found.values(), key=lambda placed: (not placed.feasible, placed.joules_per_request)))


def plan_hpa_parameters(
    candidates: Sequence[MixtureCandidate],
    shape: RequestShape,
    latency: LatencyTarget,
    fill: float,
    base: HpaParameters | None = None,
) -> dict[str, HpaParameters]:
    """Return autoscaler parameters by variant: the target is the share `fill` of what a replica has inside at its knee.

    One number sweeps all variants, though a 70B at its knee holds others than an 8B. Variants that cannot keep the
    bounds get none. base: everything but the target.
    """
    base = base or HpaParameters(target_average=1.0)
    parameters = {}
    for candidate in candidates:
        most = knee_concurrency(candidate.model, shape, latency)
        if most is not None:
            parameters[candidate.variant] = base.with_target(fill * most)
    return parameters


def make_mixture_hpa(
    placed: HandPlaced,
    parameters: Mapping[str, HpaParameters],
    packing: Packing | None = None,
    name: str | None = None,
) -> ScaledFleet:
    """Return the mixture with an autoscaler per variant; `packing` serves from as few ready replicas as it allows."""
    return make_hpa_fleet(
        placed.shares, parameters, packing, name or ("fixed-mix-packed" if packing is not None else "fixed-mix")
    )
