"""`wattzoo plan --propose-variants`: which tensor-parallel degree each pool should run each member with.

Candidates are the variants that the ModelPools list, each with its profile, pool and accelerators per replica: write
every degree that you have a profile of, and keep the ones that win.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wattzoo.cli.fleet_model import Fleet
from wattzoo.cli.manifest_files import Manifests
from wattzoo.decide.capacity import fit_points, replica_facts
from wattzoo.decide.engine_args import EngineLimits
from wattzoo.decide.workloads import variants_of
from wattzoo.model import Ref
from wattzoo_policies.capacity.model import RequestShape
from wattzoo_policies.placement.signals import FleetPool
from wattzoo_policies.techniques.deployment_search import (
    Candidate,
    Deployment,
    Machine,
    Objective,
    find_deployment,
    make_candidate,
)

_UNUSED_BYTES = 1.0
"""Memory of an accelerator: not looked at, a profile's own key-value cache says what fits."""


@dataclass(frozen=True, slots=True)
class MemberProposal:
    """The deployment that wins for one member by one objective."""

    member: str
    deployment: Deployment


def propose_variants(found: Manifests, fleet: Fleet, shape: RequestShape) -> tuple[MemberProposal, ...]:
    """Return for every member the best degree per pool, by tokens per joule and by throughput."""
    machines = [machine for pool in fleet.pools for machine in _machines(pool)]
    proposals = []
    for member, candidates in _candidates(found, fleet).items():
        pools = {candidate.accelerator for candidate in candidates}
        used = [machine for machine in machines if machine.accelerator in pools]
        proposals += [
            MemberProposal(member, find_deployment(used, candidates, shape, objective))
            for objective in (Objective.TOKENS_PER_JOULE, Objective.THROUGHPUT)
        ]
    return tuple(proposals)


def _machines(pool: FleetPool) -> list[Machine]:
    """Return the pool's nodes, alike ones together; the pool's name stands for its type of accelerator."""
    sizes = {size: pool.node_accelerators.count(size) for size in pool.node_accelerators}
    return [
        Machine(pool.name if len(sizes) == 1 else f"{pool.name} ({size})", pool.name, size, _UNUSED_BYTES, count)
        for size, count in sizes.items()
    ]


def _candidates(found: Manifests, fleet: Fleet) -> Mapping[str, list[Candidate]]:
    by_name = {variant.name: variant for variant in fleet.variants}
    candidates: dict[str, list[Candidate]] = {}
    for ref, pool in found.model_pools.items():
        for _, variant, key in variants_of(pool):
            name = next((n for n in (f"{ref}/{key}", f"{ref.name}/{key}", str(key)) if n in by_name), None)
            if name is None or variant.accelerator_pool is None:
                continue
            model = by_name[name].model
            profile = found.profiles[Ref(ref.namespace, variant.profile)].spec
            limits = EngineLimits(model.max_sequences, model.max_batched_tokens)
            facts = replica_facts(profile, model.idle_watts, variant.accelerators, limits)
            candidates.setdefault(by_name[name].member, []).append(
                make_candidate(name, variant.accelerator_pool, variant.accelerators, fit_points(profile), facts)
            )
    return candidates
