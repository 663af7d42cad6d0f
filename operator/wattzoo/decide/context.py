"""Reads our own objects out of a snapshot and follows their references; what is missing becomes a finding.

Parsed specs are kept by uid and generation: a spec does not change without its generation, and parsing all of them in
every pass would cost more than deciding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from wattzoo.api.accelerator_pool import AcceleratorPoolSpec
from wattzoo.api.conditions import Reason
from wattzoo.api.llm_service import LLMService, LLMServiceSpec
from wattzoo.api.model_pool import ModelPool
from wattzoo.api.model_profile import ModelProfileSpec
from wattzoo.api.parse import parse_accelerator_pool, parse_llm_service, parse_model_pool, parse_model_profile
from wattzoo.decide.engine_args import EngineLimits, adopted_arguments, read_engine_limits
from wattzoo.decide.estimate import PoolContext
from wattzoo.decide.traffic import route_backends
from wattzoo.decide.workloads import observe_variants, variants_of
from wattzoo.decisions import Finding
from wattzoo.errors import InvalidSpec
from wattzoo.manifests import labels, metadata
from wattzoo.model import (
    FIELD_MANAGER,
    LABEL_MANAGED_BY,
    Backing,
    ClusterSnapshot,
    Kind,
    Manifest,
    Ref,
    VariantKey,
)

Parsed = TypeVar("Parsed")
POLICY_FIELD = "spec.controller.policy"
MAX_KEPT = 4096
POOL_KINDS = (
    Kind.ACCELERATOR_POOL,
    Kind.MODEL_PROFILE,
    Kind.LLM_SERVICE,
    Kind.DEPLOYMENT,
    Kind.SERVICE,
    Kind.POD_DISRUPTION_BUDGET,
    Kind.HTTP_ROUTE,
    Kind.POD,
)
"""A pass that cannot see one of these does nothing: an absent object might only be unread."""
SERVICE_KINDS = (Kind.ACCELERATOR_POOL, Kind.MODEL_POOL, Kind.MODEL_PROFILE, *POOL_KINDS[3:])


class Specs:
    """Parsed objects of our own kinds; a broken one is kept as its finding."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, object], object] = {}

    def model_pool(self, raw: Manifest) -> ModelPool | Finding:
        """A ModelPool or why it cannot be read."""
        return self._parse(raw, parse_model_pool)

    def llm_service(self, raw: Manifest) -> LLMService | Finding:
        """An LLMService or why it cannot be read."""
        return self._parse(raw, parse_llm_service)

    def hardware(self, raw: Manifest) -> AcceleratorPoolSpec | Finding:
        """An AcceleratorPool's spec or why it cannot be read."""
        parsed = self._parse(raw, parse_accelerator_pool)
        return parsed if isinstance(parsed, Finding) else parsed.spec

    def profile(self, raw: Manifest) -> ModelProfileSpec | Finding:
        """A ModelProfile's spec or why it cannot be read."""
        parsed = self._parse(raw, parse_model_profile)
        return parsed if isinstance(parsed, Finding) else parsed.spec

    def _parse(self, raw: Manifest, parser: Callable[[Manifest], Parsed]) -> Parsed | Finding:
        meta = metadata(raw)
        key = (parser.__name__, str(meta.get("uid")), meta.get("generation"))
        if key not in self._kept:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            try:
                self._kept[key] = parser(raw)
            except InvalidSpec as error:
                unknown = any(problem.field == POLICY_FIELD for problem in error.problems)
                reason = Reason.UNKNOWN_POLICY if unknown else Reason.INVALID_SPEC
                self._kept[key] = Finding(reason, str(error))
        return self._kept[key]  # type: ignore[return-value]


def find_unreadable(snapshot: ClusterSnapshot, kinds: tuple[Kind, ...]) -> Finding | None:
    """The first kind that a pass needs and that could not be listed."""
    for kind in kinds:
        if kind in snapshot.unreadable:
            return Finding(Reason.CLUSTER_UNREADABLE, f"{kind} objects could not be read: {snapshot.unreadable[kind]}")
    return None


def pool_of(ref: Ref, service: LLMServiceSpec) -> Ref:
    """The ModelPool that a service uses; references stay in the namespace."""
    return Ref(ref.namespace, service.model_pool_ref.name)


def read_pools(specs: Specs, snapshot: ClusterSnapshot) -> tuple[ModelPool, ...]:
    """All ModelPools that can be read."""
    parsed = (specs.model_pool(raw) for raw in snapshot.model_pools.values())
    return tuple(pool for pool in parsed if isinstance(pool, ModelPool))


def _services(specs: Specs, snapshot: ClusterSnapshot) -> dict[Ref, dict[Ref, LLMServiceSpec]]:
    """All LLMServices that can be read, by the ModelPool that they use."""
    found: dict[Ref, dict[Ref, LLMServiceSpec]] = {}
    for name, raw in sorted(snapshot.llm_services.items()):
        service = specs.llm_service(raw)
        if isinstance(service, LLMService):
            found.setdefault(pool_of(name, service.spec), {})[name] = service.spec
    return found


def _hardware(
    specs: Specs, pool: ModelPool, snapshot: ClusterSnapshot
) -> tuple[dict[str, AcceleratorPoolSpec], list[Finding]]:
    hardware: dict[str, AcceleratorPoolSpec] = {}
    findings: list[Finding] = []
    names = sorted({v.accelerator_pool for _, v, _ in variants_of(pool) if v.accelerator_pool is not None})
    for name in names:
        raw = snapshot.accelerator_pools.get(name)
        spec = Finding(Reason.ACCELERATOR_POOL_NOT_FOUND, f"AcceleratorPool {name} does not exist")
        read = spec if raw is None else specs.hardware(raw)
        if isinstance(read, Finding):
            findings.append(read)
        elif not read.admits(pool.metadata.namespace or ""):
            text = f"AcceleratorPool {name} is not open to namespace {pool.metadata.namespace}"
            findings.append(Finding(Reason.NAMESPACE_NOT_ALLOWED, text))
        else:
            hardware[name] = read
    return hardware, findings


def _profiles(
    specs: Specs, pool: ModelPool, snapshot: ClusterSnapshot
) -> tuple[dict[str, ModelProfileSpec], list[Finding]]:
    profiles: dict[str, ModelProfileSpec] = {}
    findings: list[Finding] = []
    for name in sorted({variant.profile for _, variant, _ in variants_of(pool)}):
        raw = snapshot.profiles.get(Ref(pool.metadata.namespace or "", name))
        missing = Finding(Reason.PROFILE_NOT_FOUND, f"ModelProfile {name} does not exist")
        read = missing if raw is None else specs.profile(raw)
        if isinstance(read, Finding):
            findings.append(read)
        else:
            profiles[name] = read
    return profiles, findings


def _limits(pool: ModelPool, snapshot: ClusterSnapshot) -> dict[VariantKey, EngineLimits]:
    """What each variant's own command line says; nothing for a Service that is not ours."""
    limits = {}
    for _, variant, key in variants_of(pool):
        if variant.server is not None:
            limits[key] = read_engine_limits(variant.server.args)
        elif variant.workload_ref is not None:
            ref = Ref(pool.metadata.namespace or "", variant.workload_ref.name)
            limits[key] = read_engine_limits(adopted_arguments(snapshot.deployments.get(ref)))
    return limits


def _find_taken(
    specs: Specs, ref: Ref, pool: ModelPool, snapshot: ClusterSnapshot
) -> tuple[frozenset[VariantKey], list[Finding]]:
    """Variants that adopt what is not theirs to scale: a Deployment that we render, or that another variant adopts.

    Of those that adopt one the first by name of the ModelPool and order of its spec has it; two would undo each
    other's replicas in every pass.
    """
    owners: dict[Ref, tuple[Ref, VariantKey]] = {}
    for one in sorted(read_pools(specs, snapshot), key=lambda one: (one.metadata.namespace or "", one.metadata.name)):
        name = Ref(one.metadata.namespace or "", one.metadata.name)
        for _, variant, key in variants_of(one):
            if variant.workload_ref is not None:
                owners.setdefault(Ref(name.namespace, variant.workload_ref.name), (name, key))
    taken, findings = set(), []
    for _, variant, key in variants_of(pool):
        if variant.workload_ref is None:
            continue
        deployment = Ref(ref.namespace, variant.workload_ref.name)
        owner, by = owners.get(deployment, (ref, key))
        text = "" if (owner, by) == (ref, key) else f"is scaled for {by} of ModelPool {owner.name}"
        if labels(snapshot.deployments.get(deployment) or {}).get(LABEL_MANAGED_BY) == FIELD_MANAGER:
            text = "is rendered for a variant with a server"
        if text:
            taken.add(key)
            message = f"{key}: Deployment {deployment.name} {text}; its replicas are left alone here"
            findings.append(Finding(Reason.INVALID_SPEC, message))
    return frozenset(taken), findings


def read_context(
    specs: Specs, ref: Ref, pool: ModelPool, snapshot: ClusterSnapshot
) -> tuple[PoolContext, tuple[Finding, ...]]:
    """A pool with what it refers to, and what of that is missing; a missing part never makes the rest unusable.

    The pool's pass and those of its services all ask, so it is worked out once for each snapshot.
    """
    key = (read_context, specs, ref, id(pool))  # the context holds the pool, so the id stays its own
    return snapshot.derived.once(key, lambda: _read_context(specs, ref, pool, snapshot))


def _read_context(
    specs: Specs, ref: Ref, pool: ModelPool, snapshot: ClusterSnapshot
) -> tuple[PoolContext, tuple[Finding, ...]]:
    hardware, findings = _hardware(specs, pool, snapshot)
    profiles, more = _profiles(specs, pool, snapshot)
    findings += more
    states = observe_variants(pool, snapshot)
    for state, (_, variant, _) in zip(states, variants_of(pool), strict=True):
        if variant.workload_ref is not None and not state.exists:
            text = f"{state.key}: Deployment {variant.workload_ref.name} does not exist"
            findings.append(Finding(Reason.WORKLOAD_NOT_FOUND, text))
        if state.backing is Backing.SERVICE and not state.exists:
            findings.append(Finding(Reason.SERVICE_NOT_FOUND, f"{state.key}: Service {state.service} does not exist"))
    taken, more = _find_taken(specs, ref, pool, snapshot)
    findings += more
    services = snapshot.derived.once((_services, specs), lambda: _services(specs, snapshot))
    limits = _limits(pool, snapshot)
    context = PoolContext(ref, pool, states, profiles, hardware, services.get(ref, {}), limits, taken)
    return context, tuple(findings)


def find_missing_members(service: LLMServiceSpec, pool: ModelPool) -> tuple[tuple[str, ...], Finding | None]:
    """The members that a service uses, in the pool's order, and a finding for those that the pool does not have."""
    present = tuple(member.name for member in pool.spec.members)
    if service.members is None:
        used, asked = present, {service.safest_member}
    else:
        asked = {member.name for member in service.members} | {service.safest_member}
        used = tuple(name for name in present if name in asked)
    missing = sorted(asked - set(present))
    if not missing:
        return used, None
    return used, Finding(Reason.MEMBER_NOT_FOUND, f"the ModelPool has no member {', '.join(missing)}")


def live_services(snapshot: ClusterSnapshot, namespace: str) -> Mapping[str, int]:
    """Largest weight that any route of a namespace gives to each Service."""
    return snapshot.derived.once(live_services, lambda: _live_services(snapshot)).get(namespace, {})


def _live_services(snapshot: ClusterSnapshot) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for ref, route in snapshot.routes.items():
        weights = found.setdefault(ref.namespace, {})
        for name, weight in route_backends(route):
            weights[name] = max(weights.get(name, 0), weight)
    return found
