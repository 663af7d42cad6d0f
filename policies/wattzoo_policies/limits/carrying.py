"""Wrappers that keep what carries the load: nothing ready leaves before what replaces it is ready.

Demand is that of high load (`VariantDemand.demand_rps`, `ServiceDemand.high_rate_rps`). What must carry it together is
a group: the variants of a member, the variants that a service may use, and all variants of the request. Variants whose
demand or capacity is unknown stand outside, they carry what they carry.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from wattzoo_policies.capacity.replicas import count_replicas, free_accelerators
from wattzoo_policies.limits.waiting import contested_pools
from wattzoo_policies.protocols import ReplicaLaw
from wattzoo_policies.signals import ReplicaHistory, ReplicaPlan, ReplicaRequest, VariantDemand, VariantReplicas


@dataclass(frozen=True, slots=True)
class Removal:
    """Which replicas go: starting ones before ready ones, the youngest first.

    A ReplicaSet does so by itself (pods that are not ready first, then by pod-deletion-cost, then the younger).
    """

    starting: int
    ready: int


def split_removal(variant: VariantDemand, replicas: int) -> Removal:
    """Return how many starting and ready replicas leave on the way down to `replicas`."""
    gone = max(0, variant.current_replicas - replicas)
    starting = min(gone, max(0, variant.current_replicas - variant.ready_replicas))
    return Removal(starting, gone - starting)


def ready_after(variant: VariantDemand, replicas: int) -> int:
    """Return the ready replicas that are left when this many are asked for."""
    return min(variant.ready_replicas, replicas)


def with_make_before_break(law: ReplicaLaw) -> ReplicaLaw:
    """Shrink only while the ready replicas that stay carry the demand: of the member, of each service, of the whole.

    A variant whose ready replicas are fewer than what it is to keep loses none: those that start may never come.
    """

    def made(history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        after, plan = law(history, request)
        numbers = _keep_ready(request, plan.replicas(), _groups(request, by_member=True))
        return after, ReplicaPlan(tuple(_held(v, e, numbers[v.variant]) for v, e in _pairs(request, plan)))

    return made


def with_variant_change(law: ReplicaLaw) -> ReplicaLaw:
    """Make before break, and what happens where a change of variant finds no accelerators for the new replicas.

    Up first if cap and free accelerators allow. Else down first, by as many replicas as the waiting ones need, if the
    rest carries the demand of every service and of the whole (satisfaction may give way for the time of a start,
    latency may not). Else hold. One exception: when all that is ready does not carry the demand as it is, holding would
    keep that so for ever; then what is to come may replace what is there, one replica's accelerators at a time, and
    what a window of wishes still holds does not stand in its way.
    """

    def changed(history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        after, plan = law(history, request)
        wished = plan.replicas()
        strict = _keep_ready(request, wished, _groups(request, by_member=True))
        loose = _keep_ready(request, wished, _groups(request, by_member=False))
        released: dict[str, int] = {}
        contested = contested_pools(request, plan)
        aim = {v.variant: _aim(v, e) for v, e in _pairs(request, plan)}
        is_stuck = _is_overloaded(request) and _carries_more(request, aim)
        for pool in sorted(contested):
            released |= _release(
                request, pool, aim if is_stuck else wished, strict, aim if is_stuck else loose, is_stuck
            )
        # What is released is carried by what `loose` keeps, of other pools too.
        kept = {name: max(strict[name], loose[name]) for name in strict} if released else strict
        decided = []
        for variant, entry in _pairs(request, plan):
            number = released.get(variant.variant, kept[variant.variant])
            if number < strict[variant.variant]:
                message = f"{entry.message}; {number} for now, others wait for its accelerators"
                decided.append(replace(entry, replicas=number, reason="DownFirst", message=message))
            else:
                decided.append(_held(variant, entry, number, blocked=variant.accelerator_pool in contested))
        return after, ReplicaPlan(tuple(decided))

    return changed


def with_last_ready_kept(law: ReplicaLaw) -> ReplicaLaw:
    """Keep one replica of the last variant that can serve, for each service and for the whole.

    A gateway has nobody to hold the first request for us.
    """

    def kept(history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        after, plan = law(history, request)
        numbers = plan.replicas()
        members = [frozenset(service.members) for service in request.services]
        groups = [tuple(v for v in request.variants if v.member in names) for names in members]
        last: set[str] = set()
        for group in (*groups, request.variants):
            if any(ready_after(variant, numbers[variant.variant]) > 0 for variant in group):
                continue
            best = max(group, key=lambda v: (v.ready_replicas, v.current_replicas), default=None)
            if best is not None and best.current_replicas > 0 and numbers[best.variant] == 0:
                numbers[best.variant] = 1
                last.add(best.variant)
        return after, ReplicaPlan(tuple(_last(entry) if entry.variant in last else entry for entry in plan.variants))

    return kept


@dataclass(frozen=True, slots=True)
class _Group:
    variants: tuple[VariantDemand, ...]
    rate_rps: float


def _groups(request: ReplicaRequest, *, by_member: bool) -> list[_Group]:
    """What must carry how much together; the smaller groups first, so that theirs are kept first."""
    known = [v for v in request.variants if _is_known(v.demand_rps) and _is_known(v.capacity_rps) and v.capacity_rps]
    outside = {v.member for v in request.variants if v not in known}
    members = dict.fromkeys(v.member for v in known) if by_member else {}
    groups = [_group(v for v in known if v.member == member) for member in members]
    for service in request.services:
        rate = service.high_rate_rps
        if rate is not None and _is_known(rate) and not outside & {*service.members}:
            groups += [_Group(tuple(v for v in known if v.member in service.members), rate)]
    return [*groups, _group(known)]


def _group(variants: Iterable[VariantDemand]) -> _Group:
    inside = tuple(variants)
    return _Group(inside, sum(variant.demand_rps or 0.0 for variant in inside))


def _keep_ready(request: ReplicaRequest, wished: Mapping[str, int], groups: Iterable[_Group]) -> dict[str, int]:
    """Return replicas with decreases cut until every group's ready replicas carry its rate, as far as they can."""
    numbers = dict(wished)
    for variant in request.variants:
        number = numbers[variant.variant]
        starting = variant.current_replicas - variant.ready_replicas
        if variant.ready_replicas < number < variant.current_replicas and starting > 0:
            numbers[variant.variant] = min(variant.current_replicas, variant.max_replicas)
    for group in groups:
        lack = group.rate_rps - _carried(group, numbers)
        for variant in sorted(group.variants, key=_capacity_per_accelerator, reverse=True):
            number, capacity = numbers[variant.variant], variant.capacity_rps or 0.0
            room = min(variant.ready_replicas, variant.current_replicas, variant.max_replicas) - number
            if room > 0 and lack > 1e-9 * group.rate_rps:
                more = min(room, count_replicas(lack, capacity))
                numbers[variant.variant] = number + more
                lack -= more * capacity
    return numbers


def _release(
    request: ReplicaRequest,
    pool: str,
    wished: Mapping[str, int],
    strict: Mapping[str, int],
    allowed: Mapping[str, int],
    is_stuck: bool,
) -> dict[str, int]:
    """Return replicas of the variants of a contested pool that go down first, none below what is allowed.

    A fleet that is stuck in overload changes one replica's accelerators at a time: none while another change is on.
    """
    inside = [v for v in request.variants if v.accelerator_pool == pool]
    rising = [v for v in inside if wished[v.variant] > v.current_replicas]
    falling = [v for v in inside if wished[v.variant] < v.current_replicas]
    missing = sum((wished[v.variant] - v.current_replicas) * v.accelerators_per_replica for v in rising)
    if is_stuck:
        if any(v.terminating_replicas or v.current_replicas > v.ready_replicas for v in inside):
            return {}
        missing = min(v.accelerators_per_replica for v in rising)
    missing -= max(0, free_accelerators(request, pool) or 0)
    missing -= sum(v.terminating_replicas * v.accelerators_per_replica for v in inside)
    missing -= sum((v.current_replicas - strict[v.variant]) * v.accelerators_per_replica for v in falling)
    released: dict[str, int] = {}
    for variant in sorted(falling, key=_capacity_per_accelerator):
        room = strict[variant.variant] - allowed[variant.variant]
        if room > 0 and missing > 0:
            fewer = min(room, math.ceil(missing / variant.accelerators_per_replica))
            released[variant.variant] = strict[variant.variant] - fewer
            missing -= fewer * variant.accelerators_per_replica
    return released


def _aim(variant: VariantDemand, entry: VariantReplicas) -> int:
    """Return what the law itself wished for within declared bounds, before anything held it."""
    if entry.wished is None or entry.replicas > variant.current_replicas:
        return entry.replicas
    return min(entry.replicas, max(variant.min_replicas, entry.wished))


def _is_overloaded(request: ReplicaRequest) -> bool:
    """Whether what is ready does not carry the demand of the whole or of a service, nothing taken away."""
    current = {variant.variant: variant.current_replicas for variant in request.variants}
    groups = _groups(request, by_member=False)
    return any(_carried(group, current) < group.rate_rps * (1.0 - 1e-9) for group in groups)


def _carries_more(request: ReplicaRequest, wished: Mapping[str, int]) -> bool:
    """Whether the wished replicas, all ready, carry more than the present ones, all ready."""
    known = [variant for variant in request.variants if _is_known(variant.capacity_rps)]
    return sum((wished[v.variant] - v.current_replicas) * (v.capacity_rps or 0.0) for v in known) > 0.0


def _carried(group: _Group, numbers: Mapping[str, int]) -> float:
    return sum(ready_after(v, numbers[v.variant]) * (v.capacity_rps or 0.0) for v in group.variants)


def _capacity_per_accelerator(variant: VariantDemand) -> float:
    return (variant.capacity_rps or 0.0) / max(1, variant.accelerators_per_replica)


def _held(variant: VariantDemand, entry: VariantReplicas, number: int, *, blocked: bool = False) -> VariantReplicas:
    if number <= entry.replicas:
        return entry
    if entry.replicas > variant.ready_replicas:
        message = f"{entry.message}; {number} kept until {entry.replicas} are ready"
        return replace(entry, replicas=number, reason="WaitingForReady", message=message)
    message = f"{entry.message}; {number} kept until others are ready for their load"
    reason = "NoRoomToChange" if blocked else "WaitingForReady"
    return replace(entry, replicas=number, reason=reason, message=message)


def _last(entry: VariantReplicas) -> VariantReplicas:
    message = f"{entry.message}; one kept, nothing else is ready"
    return replace(entry, replicas=1, reason="LastReadyKept", message=message)


def _is_known(number: float | None) -> bool:
    return number is not None and math.isfinite(number) and number >= 0.0


def _pairs(request: ReplicaRequest, plan: ReplicaPlan) -> list[tuple[VariantDemand, VariantReplicas]]:
    return list(zip(request.variants, plan.variants, strict=True))
