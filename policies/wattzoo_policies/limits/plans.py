"""A joint plan as a replica law, so that the wrappers around it keep it from flapping and from breaking anything."""

from __future__ import annotations

from collections.abc import Mapping

from wattzoo_policies.protocols import ReplicaLaw
from wattzoo_policies.signals import ReplicaHistory, ReplicaPlan, ReplicaRequest, VariantDemand, VariantReplicas


def make_plan_law(replicas_by_variant: Mapping[str, int], messages: Mapping[str, str] | None = None) -> ReplicaLaw:
    """Return a law that wishes for what a plan says, within each variant's declared bounds.

    It is made anew for every plan; the history lies outside. A variant that the plan does not name keeps what it has.
    messages: by variant, why the plan wants it so.
    """
    texts = messages or {}

    def planned(history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        entries = (_entry(v, replicas_by_variant.get(v.variant), texts.get(v.variant)) for v in request.variants)
        return history, ReplicaPlan(tuple(entries))

    return planned


def _entry(variant: VariantDemand, wished: int | None, text: str | None) -> VariantReplicas:
    name = variant.variant
    if wished is None:
        held = clip_replicas(variant, variant.current_replicas)
        return VariantReplicas(name, held, None, "NotPlanned", f"no plan names it, {held} kept")
    if wished < 0:
        raise ValueError(f"planned replicas of {name} must be at least 0, not {wished}")
    replicas = clip_replicas(variant, wished)
    message = text or f"{wished} planned"
    if replicas > wished:
        return VariantReplicas(name, replicas, wished, "AtMinimum", f"{message}; at least {replicas} declared")
    if replicas < wished:
        return VariantReplicas(name, replicas, wished, "AtMaximum", f"{message}; at most {replicas} declared")
    return VariantReplicas(name, replicas, wished, "Planned", message)


def clip_replicas(variant: VariantDemand, replicas: int) -> int:
    """Return the number within the variant's declared bounds."""
    return max(variant.min_replicas, min(variant.max_replicas, replicas))
