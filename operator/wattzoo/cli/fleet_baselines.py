"""The baselines of `--compare`, set up as a careful person would: best accelerators, best mixture, several targets.

Whoever sets a baseline up by hand knows the day: mean and peak demand, request sizes and accuracies are hindsight here.
Services that share members are one group with one set of shares; of swept targets the caller takes the best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

import numpy as np

from wattzoo.api.accelerators import PRODUCT_LABEL
from wattzoo.cli.fleet_model import Fleet
from wattzoo.cli.manifest_files import Manifests
from wattzoo_policies.baselines.fixed_mixture import decide_mixture
from wattzoo_policies.baselines.fleet import Packing
from wattzoo_policies.baselines.hpa import HpaParameters
from wattzoo_policies.baselines.hpa_fleet import make_hpa_fleet
from wattzoo_policies.baselines.keda import KedaParameters, make_keda_fleet
from wattzoo_policies.baselines.melange import MelangeFleet
from wattzoo_policies.baselines.mixture_hpa import (
    HandPlaced,
    MixtureCandidate,
    make_mixture_hpa,
    plan_hpa_parameters,
    plan_mixtures,
)
from wattzoo_policies.baselines.static_peak import make_static_fleet, plan_peak_replicas
from wattzoo_policies.capacity.model import LatencyTarget, RequestShape, capacity_rps, joules_per_request
from wattzoo_policies.placement.packing import decide_serving
from wattzoo_policies.placement.signals import (
    FleetController,
    FleetDecision,
    FleetObservation,
    FleetService,
    FleetVariant,
)
from wattzoo_policies.sim.fluid.scenario import FluidDemand

FILLS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
"""Swept targets, as shares of the requests that a replica has inside at its knee."""
PLACEMENTS = 3
"""How many of the cheapest choices of accelerators are tried."""
PEAK_QUANTILE = 0.999
SPARES = (1.0, 1.15, 1.3)
"""Multiples of the peak that static replicas are tried for: a step's mean hides what comes within it."""


HOURLY_PRICES = {
    "NVIDIA-L4": 0.38,
    "NVIDIA-A100-SXM4-80GB": 0.99,
    "NVIDIA-H100-80GB-HBM3": 1.89,
    "NVIDIA-H200": 2.60,
    "NVIDIA-B200": 6.69,
}
"""US dollars per hour on demand at one provider, as the SkyPilot catalogue had them; what counts is their ratio."""


class PriceError(ValueError):
    """A `--price` that cannot be; the text names the rule."""


def read_prices(found: Manifests, entries: Sequence[str]) -> dict[str, float]:
    """Return prices per accelerator and second by pool: POOL=PRICE per hour, else the spec's, else built in.

    Pools of unknown products are left out. Raises `PriceError` for an entry that cannot be.
    """
    prices = {}
    for name, pool in found.accelerator_pools.items():
        product = pool.spec.node_selector.get(PRODUCT_LABEL, "")
        if product in HOURLY_PRICES:
            prices[name] = HOURLY_PRICES[product] / 3600.0
        if pool.spec.price_per_accelerator_hour_milli:
            prices[name] = pool.spec.price_per_accelerator_hour_milli / 1e3 / 3600.0
    for entry in entries:
        name, _, text = entry.rpartition("=")
        try:
            price = float(text)
        except ValueError:
            price = float("nan")
        if name not in found.accelerator_pools or not 0.0 < price < float("inf"):
            pools = ", ".join(found.accelerator_pools)
            raise PriceError(f"--price must be POOL=NUMBER, a positive number for one of {pools}, not {entry!r}")
        prices[name] = price / 3600.0
    return prices


@dataclass(frozen=True, slots=True)
class Group:
    """Services that share members, with what a person knows about their day.

    margins: by member its least accuracy minus target over the services: a mixture whose margins sum to 0 keeps all.
    """

    services: tuple[FleetService, ...]
    variants: tuple[FleetVariant, ...]
    margins: Mapping[str, float]
    shape: RequestShape
    latency: LatencyTarget
    peak_rps: float
    requests: float

    @property
    def best_member(self) -> str:
        """Return the most accurate member."""
        return max(self.margins, key=lambda name: self.margins[name])

    def placements(self, member: str) -> list[FleetVariant]:
        """Return the member's variants that keep the bounds: enough for the peak first, then fewest joules."""
        ranked = []
        for variant in self.variants:
            rate = capacity_rps(variant.model, self.shape, self.latency)
            if variant.member == member and rate is not None:
                joules = joules_per_request(variant.model, self.shape, rate)
                carries = variant.max_replicas * rate >= self.peak_rps
                ranked.append((not carries, joules or 0.0, variant.name, variant))
        return [entry[-1] for entry in sorted(ranked, key=lambda entry: entry[:3])]

    def mixtures(self) -> list[HandPlaced]:
        """Return the mixtures of any two members that reach the targets (the best one if none does).

        Those that carry the peak come first, then by joules.
        """
        found: dict[tuple[tuple[str, float], ...], HandPlaced] = {}
        for pair in combinations(self.margins, min(2, len(self.margins))):
            own = [candidate for candidate in self.candidates() if candidate.member in pair]
            try:
                placed = plan_mixtures(own, self.margins, self.shape, self.latency, 0.0)
            except ValueError:  # neither of the two is fast enough
                continue
            found |= {tuple(sorted(one.shares.items())): one for one in placed}
        if not found:
            raise ValueError("no variant keeps the latency bounds")
        reaching = [one for one in found.values() if one.feasible]
        if not reaching:
            return [max(found.values(), key=lambda one: one.satisfaction)]
        return sorted(reaching, key=lambda one: (not self._carries(one), one.joules_per_request))

    def _carries(self, placed: HandPlaced) -> bool:
        for variant in self.variants:
            rate = capacity_rps(variant.model, self.shape, self.latency)
            share = placed.shares.get(variant.name, 0.0)
            if share > 0.0 and (rate is None or variant.max_replicas * rate < share * self.peak_rps):
                return False
        return True

    def candidates(self) -> list[MixtureCandidate]:
        """Return the variants as the mixture search takes them."""
        return [MixtureCandidate(v.name, v.member, v.model) for v in self.variants]


@dataclass(frozen=True, slots=True)
class Option:
    """One way to set a baseline up; `remark` says which."""

    controller: FleetController[Any]
    remark: str


def make_groups(fleet: Fleet, demand: FluidDemand, accuracies: Mapping[str, Mapping[str, float]]) -> tuple[Group, ...]:
    """Return the groups of services with what hindsight says of them; services without requests are left out."""
    groups: list[list[FleetService]] = []
    for service in fleet.services:
        if not demand.requests[:, demand.services.index(service.name)].any():
            continue
        mine = [group for group in groups if any(set(other.members) & set(service.members) for other in group)]
        groups = [group for group in groups if group not in mine]
        groups.append([other for group in mine for other in group] + [service])
    return tuple(_make_group(group, fleet, demand, accuracies) for group in groups)


def _make_group(
    services: Sequence[FleetService], fleet: Fleet, demand: FluidDemand, accuracies: Mapping[str, Mapping[str, float]]
) -> Group:
    columns = [demand.services.index(service.name) for service in services]
    requests = demand.requests[:, columns]
    total = float(requests.sum())
    latency = LatencyTarget()
    for service in services:
        latency = latency.strictest(service.latency)
    members = sorted({name for service in services for name in service.members})
    return Group(
        services=tuple(services),
        variants=tuple(variant for variant in fleet.variants if variant.member in members),
        margins={
            name: min(accuracies[s.name][name] - s.alpha for s in services if name in s.members) for name in members
        },
        shape=RequestShape(
            float(np.nansum(requests * demand.input_tokens[:, columns])) / total,
            float(np.nansum(requests * demand.output_tokens[:, columns])) / total,
        ),
        latency=latency,
        peak_rps=float(np.quantile(requests.sum(1), PEAK_QUANTILE)) / demand.step_seconds,
        requests=total,
    )


def make_options(name: str, groups: Sequence[Group], prices: Mapping[str, float]) -> list[Option]:
    """Return the ways to set up the baseline of this name; `prices` in any currency per accelerator and second.

    Raises `ValueError` when no variant of a group keeps the latency bounds.
    """
    makers: dict[str, Callable[[], list[Option]]] = {
        "static-peak": lambda: _static_options(groups),
        "hpa": lambda: _hpa_options(groups),
        "keda": lambda: _keda_options(groups),
        "melange": lambda: _melange_options(groups, prices),
        "fixed-mix": lambda: _mixture_options(groups, None),
        "fixed-mix-packed": lambda: _mixture_options(groups, decide_serving),
    }
    return makers[name]()


def _placed(groups: Sequence[Group], rank: int) -> dict[str, FleetVariant] | None:
    """Return by variant's name the rank-th placement of each group's best member; `None`: nobody has that many."""
    options = [group.placements(group.best_member) for group in groups]
    if not all(options):
        raise ValueError("no variant of the most accurate member keeps the latency bounds")
    if rank > 0 and all(len(option) <= rank for option in options):
        return None
    chosen = [option[min(rank, len(option) - 1)] for option in options]
    return {variant.name: variant for variant in chosen}


def _static_options(groups: Sequence[Group]) -> list[Option]:
    """Replicas of the best member for the peak and some more, on each of the cheapest accelerators."""
    options: dict[str, Option] = {}
    for rank, spare in product(range(PLACEMENTS), SPARES):
        placed = _placed(groups, rank) or {}
        counts = {}
        for group in groups:
            peak = group.peak_rps * spare
            for variant in (v for v in placed.values() if v in group.variants):
                counts[variant.name] = plan_peak_replicas(variant.model, group.shape, group.latency, peak)
        if counts:
            remark = ", ".join(f"{count} x {name}" for name, count in counts.items())
            options[remark] = Option(make_static_fleet(dict.fromkeys(counts, 1.0), counts), remark)
    return list(options.values())


def _targets(group: Group, fill: float) -> dict[str, HpaParameters]:
    return plan_hpa_parameters(group.candidates(), group.shape, group.latency, fill)


def _hpa_options(groups: Sequence[Group]) -> list[Option]:
    """The best member alone, its autoscaler's target swept, on each of the cheapest accelerators."""
    options = []
    for rank in range(PLACEMENTS):
        placed = _placed(groups, rank)
        for fill in FILLS if placed is not None else ():
            targets = {name: target for group in groups for name, target in _targets(group, fill).items()}
            controller = make_hpa_fleet(dict.fromkeys(placed or (), 1.0), targets)
            options.append(Option(controller, f"{', '.join(placed or ())} at {fill:.0%} of the knee"))
    return options


def _keda_options(groups: Sequence[Group]) -> list[Option]:
    """The best member alone, scaled on waiting requests and cache, and with a swept trigger on running ones."""
    placed = _placed(groups, 0) or {}
    shares = dict.fromkeys(placed, 1.0)
    options = [Option(make_keda_fleet(shares, KedaParameters()), f"{', '.join(placed)}, waiting and cache")]
    for fill in FILLS:
        targets = {name: target for group in groups for name, target in _targets(group, fill).items()}
        triggers = {name: KedaParameters(running=targets[name].target_average) for name in placed}
        remark = f"{', '.join(placed)} at {fill:.0%} of the knee"
        options.append(Option(make_keda_fleet(shares, triggers), remark))
    return options


def _mixture_options(groups: Sequence[Group], packing: Packing | None) -> list[Option]:
    """The cheapest blind mixtures that reach the target, each member with its autoscaler, targets swept."""
    options = []
    mixtures = [group.mixtures() for group in groups]
    for rank in range(min(PLACEMENTS, max(map(len, mixtures)))):
        placed = [found[min(rank, len(found) - 1)] for found in mixtures]
        shares = {name: share for one in placed for name, share in one.shares.items()}
        together = HandPlaced(shares, 0.0, 0.0, all(one.feasible for one in placed))
        text = ", ".join(f"{share:.0%} {name}" for name, share in shares.items())
        for fill in FILLS:
            targets = {name: target for group in groups for name, target in _targets(group, fill).items()}
            remark = f"{text} at {fill:.0%} of the knee"
            options.append(Option(make_mixture_hpa(together, targets, packing), remark))
    return options


def _melange_options(groups: Sequence[Group], prices: Mapping[str, float]) -> list[Option]:
    """The cheapest accelerators per hour for the cheapest mixture of members by price."""
    unpriced = sorted({v.pool for group in groups for v in group.variants} - set(prices))
    if unpriced:
        raise ValueError(f"melange goes by prices and {unpriced[0]} has none: give --price {unpriced[0]}=PRICE")
    members: dict[str, float] = {}
    total = sum(group.requests for group in groups)
    for group in groups:
        costs = {}
        for name in group.margins:
            per_request = [
                prices[v.pool] * v.model.accelerators / rate
                for v in group.variants
                if v.member == name and (rate := capacity_rps(v.model, group.shape, group.latency)) is not None
            ]
            if per_request:
                costs[name] = min(per_request)
        if not costs:
            raise ValueError("no variant keeps the latency bounds")
        mixture = decide_mixture(costs, {name: group.margins[name] for name in costs}, 0.0)
        members |= {name: share * group.requests / total for name, share in mixture.weights.items()}
    text = ", ".join(f"{share:.0%} {name}" for name, share in members.items())
    return [Option(Priced(MelangeFleet(members), prices), text)]


@dataclass(frozen=True, slots=True)
class Priced:
    """A controller that is shown pools with their prices."""

    controller: FleetController[Any]
    prices: Mapping[str, float]

    @property
    def name(self) -> str:
        """Return the controller's name."""
        return self.controller.name

    def initial_state(self) -> Any:
        """Return the controller's first state."""
        return self.controller.initial_state()

    def decide(self, state: Any, observation: FleetObservation, rng: np.random.Generator) -> tuple[Any, FleetDecision]:
        """Decide with the prices filled in."""
        pools = tuple(replace(pool, price_per_accelerator_second=self.prices[pool.name]) for pool in observation.pools)
        return self.controller.decide(state, replace(observation, pools=pools), rng)
