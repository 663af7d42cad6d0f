"""The replica laws that are acted on: a wish, and around it everything that stands between wishing and acting.

Going up is never slowed here, except by accelerators that are not there. The order, from the inside: fresh evidence,
what is within reach, the window of the last wishes, the last replica's worth, the change of variant, the last that is
ready, and outermost the cap, so that nothing inside can break it.
"""

from __future__ import annotations

from collections.abc import Mapping

from wattzoo_policies.capacity.replicas import fit_accelerators, make_replica_rule
from wattzoo_policies.limits.carrying import with_last_ready_kept, with_variant_change
from wattzoo_policies.limits.plans import make_plan_law
from wattzoo_policies.limits.waiting import (
    with_down_stabilization,
    with_reachable_only,
    with_stale_hold,
    with_zero_gap,
)
from wattzoo_policies.protocols import ReplicaLaw
from wattzoo_policies.signals import ReplicaHistory, ReplicaPlan, ReplicaRequest

DOWN_STABILIZATION_SECONDS = 300.0
STALE_AFTER_SECONDS = 120.0


def with_accelerator_cap(law: ReplicaLaw) -> ReplicaLaw:
    """Cut increases to the accelerators that are free at this instant, those of terminating replicas not being so.

    It belongs outermost: whatever held replicas up inside, and whatever minimum is declared, the cap wins. Each node
    may still be too full for a large replica; that is checked where nodes are known.
    """

    def capped(history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        after, plan = law(history, request)
        return after, ReplicaPlan(fit_accelerators(plan.variants, request))

    return capped


def with_all_limits(
    law: ReplicaLaw,
    down_stabilization_seconds: float = DOWN_STABILIZATION_SECONDS,
    stale_after_seconds: float = STALE_AFTER_SECONDS,
) -> ReplicaLaw:
    """Put every wrapper around a law, in the order of the module's text."""
    law = with_reachable_only(with_stale_hold(law, stale_after_seconds))
    law = with_zero_gap(with_down_stabilization(law, down_stabilization_seconds))
    return with_accelerator_cap(with_last_ready_kept(with_variant_change(law)))


def make_default_replica_law(
    reserve: float = 0.3, down_stabilization_seconds: float = DOWN_STABILIZATION_SECONDS
) -> ReplicaLaw:
    """Return the plain rule with all limits."""
    return with_all_limits(make_replica_rule(reserve), down_stabilization_seconds)


def decide_replicas(
    history: ReplicaHistory,
    request: ReplicaRequest,
    reserve: float = 0.3,
    down_stabilization_seconds: float = DOWN_STABILIZATION_SECONDS,
) -> tuple[ReplicaHistory, ReplicaPlan]:
    """Decide replicas with the default law; the history must be handed to the next call."""
    return make_default_replica_law(reserve, down_stabilization_seconds)(history, request)


def decide_planned_replicas(
    history: ReplicaHistory,
    request: ReplicaRequest,
    replicas_by_variant: Mapping[str, int],
    down_stabilization_seconds: float = DOWN_STABILIZATION_SECONDS,
    messages: Mapping[str, str] | None = None,
) -> tuple[ReplicaHistory, ReplicaPlan]:
    """Decide replicas that follow a joint plan with all limits; the history must be handed to the next call.

    It may be called between plans with the last one: what waits (for replicas to be ready, for accelerators) goes on.
    """
    return with_all_limits(make_plan_law(replicas_by_variant, messages), down_stabilization_seconds)(history, request)
