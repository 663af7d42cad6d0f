"""From API objects to the plain fleet that a controller sees: through the operator's own reading of them.

The operator's `read_context` follows the references and its `estimate_capacities` fits the profiles; nothing is
converted a second way here. What a cluster would show (replicas, rates) is left open for the plant to fill in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from wattzoo.api.llm_service import LLMService
from wattzoo.api.model_pool import ModelPool, Scaling, Variant
from wattzoo.cli.fleet_objective import read_coefficients
from wattzoo.cli.manifest_files import Manifests, count_nodes
from wattzoo.decide.capacity import service_bounds
from wattzoo.decide.context import Specs, find_missing_members, read_context
from wattzoo.decide.estimate import PoolContext, estimate_capacities
from wattzoo.decide.workloads import variants_of
from wattzoo.decisions import Capacity
from wattzoo.errors import InvalidSpec, Problem
from wattzoo.model import Ref, VariantKey
from wattzoo_policies.capacity.model import ReplicaModel, RequestShape, knee_load
from wattzoo_policies.placement.objective import Objective
from wattzoo_policies.placement.signals import FleetPool, FleetService, FleetVariant

DEFAULT_ACCELERATORS_PER_NODE = 8


@dataclass(frozen=True, slots=True)
class Fleet:
    """Pools, variants without a replica yet, and services without a rate yet; names are those of reports.

    keys: by variant's name its ModelPool and its name there. service_refs: the object behind each service's name.
    members: by service the member names as its ModelPool writes them, by the fleet's name. models: by fleet's member
    the model it loads. shapes: by service what the profiles were measured with. scaling: by service the block of its
    ModelPool. notes: what was left out, for the user.
    """

    pools: tuple[FleetPool, ...]
    variants: tuple[FleetVariant, ...]
    services: tuple[FleetService, ...]
    keys: Mapping[str, tuple[Ref, VariantKey]]
    service_refs: Mapping[str, Ref]
    members: Mapping[str, Mapping[str, str]]
    models: Mapping[str, str]
    shapes: Mapping[str, RequestShape]
    scaling: Mapping[str, Scaling]
    notes: tuple[str, ...]


def make_fleet(
    found: Manifests, per_node: int = DEFAULT_ACCELERATORS_PER_NODE, objective: Objective = Objective.ENERGY
) -> Fleet:
    """Return the fleet of these objects; raises `InvalidSpec` for what can serve nothing.

    per_node: accelerators of a node where no Node object says it. objective: what the pools' coefficients are of.
    """
    specs = Specs()
    pool_refs = {ref: Ref(ref.namespace, service.spec.model_pool_ref.name) for ref, service in found.services.items()}
    contexts = {
        ref: read_context(specs, ref, pool, found.snapshot)[0]
        for ref, pool in found.model_pools.items()
        if ref in pool_refs.values()
    }
    names = _Names(tuple(contexts), tuple(found.services))
    pools = _make_pools(found, contexts.values(), per_node, objective)
    variants: list[FleetVariant] = []
    notes: list[str] = []
    shapes: dict[Ref, RequestShape] = {}
    for ref, context in contexts.items():
        capacities = estimate_capacities(context, {})
        own, more = _make_variants(context, capacities, pools, names)
        variants += own
        notes += more
        shapes[ref] = next(c.shape for c in capacities.values() if c.shape is not None)
    served = {variant.member for variant in variants}
    services = [
        _make_service(ref, service, found.model_pools[pool_refs[ref]], pool_refs[ref], names, served)
        for ref, service in found.services.items()
    ]
    return Fleet(
        pools=tuple(pools.values()),
        variants=tuple(variants),
        services=tuple(services),
        keys={
            names.variant(ref, key): (ref, key)
            for ref, context in contexts.items()
            for _, variant, key in variants_of(context.pool)
            if variant.accelerator_pool is not None
        },
        service_refs={names.service(ref): ref for ref in found.services},
        members={
            names.service(ref): {
                names.member(pool_refs[ref], member.name): member.name
                for member in found.model_pools[pool_refs[ref]].spec.members
            }
            for ref in found.services
        },
        models={
            names.member(ref, member.name): member.model
            for ref, context in contexts.items()
            for member in context.pool.spec.members
        },
        shapes={names.service(ref): shapes[pool_refs[ref]] for ref in found.services},
        scaling={names.service(ref): found.model_pools[pool_refs[ref]].spec.scaling for ref in found.services},
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class _Names:
    """Names that are as short as they can be and still tell all pools and services apart."""

    pool_refs: tuple[Ref, ...]
    services: tuple[Ref, ...]

    def _pool(self, ref: Ref) -> str:
        if len(self.pool_refs) == 1:
            return ""
        same = sum(other.name == ref.name for other in self.pool_refs)
        return f"{ref.name if same == 1 else ref}/"

    def member(self, pool: Ref, member: str) -> str:
        return f"{self._pool(pool)}{member}"

    def variant(self, pool: Ref, key: VariantKey) -> str:
        return f"{self._pool(pool)}{key}"

    def service(self, ref: Ref) -> str:
        same = sum(other.name == ref.name for other in self.services)
        return ref.name if same == 1 else str(ref)


def _make_pools(
    found: Manifests, contexts: Iterable[PoolContext], per_node: int, objective: Objective
) -> dict[str, FleetPool]:
    """Return the pools that a used variant names; one that nobody uses need not say its size."""
    used = {v.accelerator_pool for context in contexts for _, v, _ in variants_of(context.pool)} - {None}
    pools = {}
    for name, pool in found.accelerator_pools.items():
        if name in used:
            accelerators, nodes = count_nodes(name, found, per_node)
            budget = pool.spec.power_budget_watts
            counted = read_coefficients(pool, objective)
            pools[name] = FleetPool(
                name,
                accelerators,
                nodes,
                None if budget is None else float(budget),
                counted.objective_weight,
                counted.price_per_accelerator_second,
            )
    return pools


def _variant_paths(pool: ModelPool) -> Iterator[tuple[VariantKey, str, Variant]]:
    for m, member in enumerate(pool.spec.members):
        for v, variant in enumerate(member.variants):
            yield VariantKey(member.name, variant.name), f"spec.members[{m}].variants[{v}]", variant


def _make_variants(
    context: PoolContext, capacities: Mapping[VariantKey, Capacity], pools: Mapping[str, FleetPool], names: _Names
) -> tuple[list[FleetVariant], list[str]]:
    variants, notes = [], []
    for key, path, variant in _variant_paths(context.pool):
        name = names.variant(context.ref, key)
        if variant.accelerator_pool is None:
            notes.append(f"{name} is left out: replicas behind a serviceRef are not WattZoo's to plan")
            continue
        model = _model(capacities[key], context.ref.namespace, variant)
        pool = pools[variant.accelerator_pool]
        _check_room(context.ref, path, variant, pool)
        least, most = variant.replica_bounds
        variants.append(
            FleetVariant(
                name=name,
                member=names.member(context.ref, key.member),
                pool=pool.name,
                model=model,
                replicas=least,
                ready=least,
                serving=least,
                min_replicas=least,
                max_replicas=min(most, pool.accelerators // variant.accelerators),
            )
        )
    return variants, notes


def _model(capacity: Capacity, namespace: str, variant: Variant) -> ReplicaModel:
    if capacity.model is None:
        rule = "no replica behaves so: step time or power come out below zero when the points are fitted"
        obj = f"ModelProfile/{Ref(namespace, variant.profile)}"
        raise InvalidSpec(obj, (Problem("spec.points", "these points", rule),))
    return capacity.model


def _check_room(ref: Ref, path: str, variant: Variant, pool: FleetPool) -> None:
    """Refuse what no scheduler could place: it would be simulated as if the zoo were smaller than written."""
    obj, each = f"ModelPool/{ref}", variant.accelerators
    largest = min(max(pool.node_accelerators), pool.accelerators)
    if each > largest:
        rule = f"a replica must fit on one node; AcceleratorPool {pool.name} has {largest} accelerators there"
        raise InvalidSpec(obj, (Problem(f"{path}.acceleratorsPerReplica", str(each), rule),))
    least = variant.min_replicas or 0
    if least * each > pool.accelerators:
        rule = f"AcceleratorPool {pool.name} has {pool.accelerators} accelerators, these need {least * each}"
        raise InvalidSpec(obj, (Problem(f"{path}.minReplicas", str(least), rule),))


def _make_service(
    ref: Ref, service: LLMService, pool: ModelPool, pool_ref: Ref, names: _Names, served: set[str]
) -> FleetService:
    members, _ = find_missing_members(service.spec, pool)
    priors = {member.name: member.accuracy_prior_per_mille for member in service.spec.members or ()}
    usable = [name for name in members if names.member(pool_ref, name) in served]
    if not usable:
        rule = "every variant of its members is a serviceRef: nothing to plan"
        raise InvalidSpec(f"LLMService/{ref}", (Problem("spec.members", ", ".join(members), rule),))
    return FleetService(
        name=names.service(ref),
        alpha=service.spec.sla.accuracy.target_per_mille / 1e3,
        members=tuple(names.member(pool_ref, name) for name in usable),
        latency=service_bounds(service.spec),
        rate_rps=None,
        shape=None,
        satisfied=0.0,
        total=0.0,
        accuracies={
            names.member(pool_ref, name): None if (prior := priors.get(name)) is None else prior / 1e3
            for name in usable
        },
    )


def check_promises(
    fleet: Fleet, accuracies: Mapping[str, Mapping[str, float]], shapes: Mapping[str, RequestShape]
) -> None:
    """Raise `InvalidSpec` for a service level that no member, or no member that is fast enough, can keep.

    accuracies: by service the satisfied share of each member. shapes: by service its requests.
    """
    for service in fleet.services:
        shape = shapes.get(service.name, fleet.shapes[service.name])
        fast = {
            variant.member
            for variant in fleet.variants
            if variant.member in service.members and knee_load(variant.model, shape, service.latency) is not None
        }
        obj = f"LLMService/{fleet.service_refs[service.name]}"
        if not fast:
            rule = (
                f"contradicts every profile: no variant keeps it even at the lightest load, with "
                f"{shape.input_tokens:.0f} tokens in and {shape.output_tokens:.0f} out"
            )
            raise InvalidSpec(obj, (Problem("spec.sla.latency", _bounds(service), rule),))
        known = accuracies[service.name]
        best = max(service.members, key=lambda name: known[name])
        target = f"{service.alpha * 1e3:.0f}"
        if service.alpha > known[best]:
            rule = f"no member reaches it: the best, {best}, satisfies {known[best] * 1e3:.0f}"
            raise InvalidSpec(obj, (Problem("spec.sla.accuracy.targetPerMille", target, rule),))
        best = max(fast, key=lambda name: known[name])
        if service.alpha > known[best]:
            rule = (
                f"contradicts spec.sla.latency ({_bounds(service)}): of the members that are fast enough the best, "
                f"{best}, satisfies {known[best] * 1e3:.0f}"
            )
            raise InvalidSpec(obj, (Problem("spec.sla.accuracy.targetPerMille", target, rule),))


def _bounds(service: FleetService) -> str:
    first, further = service.latency.ttft_seconds, service.latency.tpot_seconds
    parts = [
        f"{name} {bound * 1e3:.0f} ms"
        for name, bound in (("time to first token", first), ("time per output token", further))
        if bound is not None
    ]
    return ", ".join(parts) or "none"
