"""Decides the replicas of one pool: measured load times coming weights over what a replica carries.

The law (reserve, stabilisation, last ready kept) is the policies'; here stands what only the operator knows: what may
be trusted, what is draining, what a cap leaves free. Going down needs two observations that agree and, for the last
replica of a variant, proof that nothing is sent to it and nothing runs on it. Going up needs free accelerators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from wattzoo.api.base import timestamp
from wattzoo.api.conditions import Reason
from wattzoo.decide.caps import Headroom, held_by_variant
from wattzoo.decide.demand import PoolInputs, estimate_variant_demand
from wattzoo.decide.memory import PoolEstimate, PoolMemory
from wattzoo.decide.planned import follow_plan, planned_demand
from wattzoo.decisions import Finding, PoolDecision, VariantPlan
from wattzoo.model import Accelerators, Backing, VariantKey, VariantState
from wattzoo_policies.limits.replicas import decide_replicas
from wattzoo_policies.signals import ReplicaRequest, VariantDemand, VariantReplicas


def decide_pool(inputs: PoolInputs, memory: PoolMemory) -> tuple[PoolDecision, PoolMemory]:
    """Replicas of every variant that can be scaled and placed; the others keep what they have."""
    spec = inputs.context.pool.spec
    bounds = replica_bounds(inputs)
    demand = estimate_variant_demand(inputs, bounds) if inputs.plan is None else planned_demand(inputs, inputs.plan)
    states = {state.key: state for state in inputs.context.states if state.key in bounds}
    names = {str(key): key for key in states}
    variants = tuple(_demand(state, demand, bounds, inputs.estimate) for state in states.values())
    request, down = ReplicaRequest(inputs.at_seconds, variants), float(spec.scaling.down_stabilization_seconds)
    if inputs.plan is None:
        history, plan = decide_replicas(memory.history, request, spec.scaling.measured_reserve, down)
    else:
        history, plan = follow_plan(inputs, inputs.plan, memory.history, request, down)
    wished = {names[entry.variant]: entry for entry in plan.variants}
    wished = _start_something(inputs, states, wished)
    zero_since = _zero_since(inputs, memory)
    lowered = {key: entry.replicas for key, entry in wished.items() if entry.replicas < (states[key].desired or 0)}
    guarded = {key: _guard_decrease(inputs, memory, states[key], entry, zero_since) for key, entry in wished.items()}
    # A plan cuts a declared minimum to what there is; here it is asked for again, so that what is missing is told.
    wanted = {key: max(entry.replicas, bounds[key][0]) for key, (entry, _) in guarded.items()}
    granted = grant_increases(inputs, states, wanted)
    plans = tuple(_variant_plan(inputs, state, guarded, wanted, granted) for state in inputs.context.states)
    decision = _summarise(inputs, plans, demand if inputs.plan is None else inputs.plan.expected_rps)
    retiring = frozenset(key for key, number in lowered.items() if number == 0)
    pending = lowered if _is_new(inputs, memory) else {**memory.pending, **_lowest(memory.pending, lowered)}
    return decision, replace(
        memory,
        history=history,
        pending=pending,
        retiring=retiring,
        planned={} if inputs.plan is None else {key: entry.replicas for key, entry in wished.items()},
        zero_since_seconds=zero_since,
        decided_at_seconds=inputs.at_seconds,
    )


def replica_bounds(inputs: PoolInputs) -> dict[VariantKey, tuple[int, int]]:
    """Least and most replicas of the variants that exist or may be created, and whose accelerators may be used."""
    bounds = {}
    states = {state.key: state for state in inputs.context.states}
    for member in inputs.context.pool.spec.members:
        for variant in member.variants:
            key = VariantKey(member.name, variant.name)
            adopted_missing = states[key].backing is Backing.WORKLOAD and not states[key].exists
            held = adopted_missing or states[key].asked is not None or key in inputs.context.taken
            if variant.scalable and variant.accelerator_pool in inputs.headroom and not held:
                bounds[key] = _short_bounds(variant.replica_bounds, inputs, states[key])
    return bounds


def _short_bounds(declared: tuple[int, int], inputs: PoolInputs, state: VariantState) -> tuple[int, int]:
    """Declared bounds; of a variant whose accelerators do not come, no more than it has and what may ask again.

    Amid a rollout nothing is taken back: of fewer replicas the Deployment's controller would end another old pod, which
    serves, for the new one that waits.
    """
    shortage = inputs.shortages.get(state.key)
    if shortage is None:
        return declared
    least, most = declared
    placed = shortage.most_replicas(inputs.at_seconds)
    return least, max(least, min(most, max(placed, state.desired or 0) if state.rolling else placed))


def _demand(
    state: VariantState,
    demand: Mapping[VariantKey, float | None],
    bounds: Mapping[VariantKey, tuple[int, int]],
    estimate: PoolEstimate,
) -> VariantDemand:
    least, most = bounds[state.key]
    return VariantDemand(
        variant=str(state.key),
        member=state.key.member,
        demand_rps=demand.get(state.key),
        capacity_rps=estimate.capacities[state.key].rps,
        current_replicas=state.desired or 0,
        ready_replicas=len(state.ready),
        min_replicas=least,
        max_replicas=most,
        accelerators_per_replica=state.accelerators_per_replica,
        accelerator_pool=state.accelerator_pool,
    )


def _start_something(
    inputs: PoolInputs, states: Mapping[VariantKey, VariantState], wished: Mapping[VariantKey, VariantReplicas]
) -> dict[VariantKey, VariantReplicas]:
    """A pool that somebody uses and that has nothing at all starts one replica of a safest member, load or not."""
    result = dict(wished)
    elsewhere = any(state.usable for state in inputs.context.states if state.key not in states)
    if elsewhere or any(entry.replicas > 0 for entry in wished.values()):
        return result
    for service in inputs.context.services.values():
        own = [key for key in states if key.member == service.safest_member and states[key].desired is not None]
        own += [key for key in states if key.member == service.safest_member and key not in own]
        if own:
            text = f"nothing runs: one replica of the safest member {service.safest_member} starts"
            result[own[0]] = replace(result[own[0]], replicas=1, reason="FirstReplica", message=text)
            break
    return result


def _zero_since(inputs: PoolInputs, memory: PoolMemory) -> dict[str, float]:
    """Since when no live route sends anything to a variant, by its name."""
    busy = {key for weights in inputs.live.values() for key, weight in weights.items() if weight > 0}
    return {
        str(state.key): memory.zero_since_seconds.get(str(state.key), inputs.at_seconds)
        for state in inputs.context.states
        if state.key not in busy
    }


def _is_new(inputs: PoolInputs, memory: PoolMemory) -> bool:
    return memory.decided_at_seconds is None or inputs.at_seconds > memory.decided_at_seconds


def _lowest(before: Mapping[VariantKey, int], now: Mapping[VariantKey, int]) -> dict[VariantKey, int]:
    return {key: max(before.get(key, number), number) for key, number in now.items()}


def is_drained(inputs: PoolInputs, key: VariantKey, zero_since: Mapping[str, float]) -> bool:
    """Whether the last replica may go: nothing is sent to it, and a later scrape saw nothing, or time is up."""
    since = zero_since.get(str(key))
    if since is None:
        return False
    signals = inputs.estimate.signals[key]
    if inputs.at_seconds - since >= inputs.context.pool.spec.scaling.drain_timeout_seconds:
        return True
    return signals.idle and signals.observed_at_seconds is not None and signals.observed_at_seconds > since


def _guard_decrease(
    inputs: PoolInputs,
    memory: PoolMemory,
    state: VariantState,
    entry: VariantReplicas,
    zero_since: Mapping[str, float],
) -> tuple[VariantReplicas, bool]:
    """Hold a decrease until two observations agree, telemetry is there, and the last replica is drained.

    Returns the entry and whether it was held.
    """
    current = state.desired or 0
    if entry.replicas >= current:
        return entry, False

    def hold(reason: str, why: str) -> tuple[VariantReplicas, bool]:
        return replace(entry, replicas=current, reason=reason, message=f"{entry.message}; {current} kept: {why}"), True

    blind = bool(state.ready) and inputs.estimate.signals[state.key].running is None
    if blind or state.key not in memory.pending or not _is_new(inputs, memory):
        unknown = ("MetricsUnknown", "what runs on it is unknown")
        return hold(*unknown if blind else ("Confirming", "a second observation must agree"))
    number = max(entry.replicas, memory.pending[state.key])
    if number >= current:
        return hold("Confirming", "the last observation wanted more")
    if number == 0 and state.ready and not is_drained(inputs, state.key, zero_since):
        return hold("Draining", "traffic moves away first")
    number = max(number, _busy_pods(inputs, state)) if number else 0
    if number >= current:
        return hold("Silencing", "its surplus pods lose their traffic first")
    return replace(entry, replicas=number), False


def _busy_pods(inputs: PoolInputs, state: VariantState) -> int:
    """Ready pods that a decrease may not take yet: where packing drains pods, the silent ones go once all are drained.

    A scale-down takes silent pods first, but does not tell the drained ones among them.
    """
    drained = inputs.drained.get(state.key)
    if drained is None:
        return 0
    silent = [name for name in state.silent if name in state.ready]
    return len(state.ready) - (len(silent) if drained.issuperset(silent) else 0)


def grant_increases(
    inputs: PoolInputs, states: Mapping[VariantKey, VariantState], wanted: Mapping[VariantKey, int]
) -> dict[VariantKey, int]:
    """Replicas that caps leave room for: what is there stays, additions come one by one to who lacks most.

    A decrease frees nothing before its pods are gone, so it counts with what it still holds.
    """
    granted = {key: min(number, states[key].desired or 0) for key, number in wanted.items()}
    while True:
        short = [key for key in wanted if granted[key] < wanted[key]]
        short = [key for key in short if _fits(inputs, states, granted, key)]
        if not short:
            return granted
        neediest = min(short, key=lambda key: (granted[key] / wanted[key], list(wanted).index(key)))
        granted[neediest] += 1


def _fits(
    inputs: PoolInputs,
    states: Mapping[VariantKey, VariantState],
    granted: Mapping[VariantKey, int],
    key: VariantKey,
) -> bool:
    """Whether one more replica of `key` stays within every bound of its AcceleratorPool."""
    pool = states[key].accelerator_pool
    room = inputs.headroom.get(pool or "")
    if room is None:
        return False
    numbers: dict[VariantKey, int] = {**granted, key: granted[key] + 1}
    inside = (state for state in inputs.context.states if state.accelerator_pool == pool)
    return room.allows(sum(held_by_variant(state, numbers.get(state.key)) for state in inside))


def _limit(inputs: PoolInputs, state: VariantState, wanted: int, granted: int) -> Finding | None:
    """What kept a variant from what it was to have."""
    if shortage := inputs.shortages.get(state.key):
        again = timestamp(shortage.retry_at_seconds)
        text = f"{state.key}: {state.accelerator_pool} had no room, asked {shortage.tries} times, again at {again}"
        return Finding(Reason.UNSCHEDULABLE, f"{text}: {shortage.message}")
    if granted >= wanted:
        return None
    text = f"{state.key} needs {wanted} replicas and may have {granted} on {state.accelerator_pool}"
    room = inputs.headroom[state.accelerator_pool or ""]
    if room.accelerators is not None and (room.allocatable is None or room.accelerators <= room.allocatable):
        needed = (granted + 1) * state.accelerators_per_replica
        if room.watts is None or needed > room.accelerators:
            return Finding(Reason.MAX_ACCELERATORS_REACHED, f"{text}: maxAccelerators leaves {room.accelerators}")
    if room.watts is not None and room.watts_per_accelerator is not None:
        return Finding(Reason.POWER_BUDGET_REACHED, f"{text}: powerBudgetWatts leaves {room.watts:.0f} W")
    return Finding(Reason.ACCELERATORS_SHORT, f"{text}: the nodes have {room.allocatable}")


def _binding(room: Headroom) -> Reason:
    """Which bound of an AcceleratorPool is the smallest."""
    if room.bound == room.accelerators:
        return Reason.MAX_ACCELERATORS_REACHED
    return Reason.ACCELERATORS_SHORT if room.bound == room.allocatable else Reason.POWER_BUDGET_REACHED


def _variant_plan(
    inputs: PoolInputs,
    state: VariantState,
    guarded: Mapping[VariantKey, tuple[VariantReplicas, bool]],
    wanted: Mapping[VariantKey, int],
    granted: Mapping[VariantKey, int],
) -> VariantPlan:
    signals, capacity = inputs.estimate.signals[state.key], inputs.estimate.capacities[state.key]
    utilisation = None
    active = signals.warm - signals.silent
    if signals.served_rps is not None and capacity.rps and active:
        utilisation = signals.served_rps / (active * capacity.rps)
    if state.asked is not None:
        return _wait(inputs, state, state.asked, utilisation)
    if state.key not in guarded:
        return VariantPlan(state.key, None, None, "NotScaled", "its replicas are not ours", utilisation=utilisation)
    entry, held = guarded[state.key]
    number = granted[state.key]
    return VariantPlan(
        key=state.key,
        replicas=number,
        wished=entry.wished,
        reason=entry.reason,
        message=entry.message,
        retiring=held and entry.reason == "Draining",
        limited_by=_limit(inputs, state, wanted[state.key], number),
        utilisation=utilisation,
    )


def _wait(inputs: PoolInputs, state: VariantState, asked: Accelerators, utilisation: float | None) -> VariantPlan:
    """A variant whose accelerators were changed in the spec, to more than may be held: it stays as it is."""
    count, room = max(state.desired or 0, len(state.ready)), inputs.headroom.get(asked.pool or "")
    limited = None
    if room is not None:
        text = (
            f"{state.key} asks for {count} replicas of {asked.count} on {asked.pool}, which leaves {room.bound}; until "
            f"they fit its {count} of {state.accelerators_per_replica} stay as they are, however the load changes"
        )
        limited = Finding(_binding(room), text)
    message = "its new accelerators do not fit, and its replicas do not follow the load meanwhile"
    return VariantPlan(state.key, None, None, "ChangeWaits", message, limited_by=limited, utilisation=utilisation)


def _watts(
    inputs: PoolInputs, plans: tuple[VariantPlan, ...], demand: Mapping[VariantKey, float | None]
) -> float | None:
    """Modelled power of the plan: idle power of every replica plus the load's part; None where a profile is missing."""
    total = 0.0
    for plan in plans:
        capacity = inputs.estimate.capacities[plan.key]
        if not plan.replicas:
            continue
        if capacity.idle_watts is None or capacity.max_watts is None or not capacity.rps:
            return None
        load = min(1.0, (demand.get(plan.key) or 0.0) / (plan.replicas * capacity.rps))
        total += plan.replicas * (capacity.idle_watts + load * (capacity.max_watts - capacity.idle_watts))
    return total


def _summarise(
    inputs: PoolInputs, plans: tuple[VariantPlan, ...], demand: Mapping[VariantKey, float | None]
) -> PoolDecision:
    before = {state.key: state.desired or 0 for state in inputs.context.states}
    changed = [p for p in plans if p.replicas is not None and p.replicas != before[p.key]]
    limited = [p.limited_by for p in plans if p.limited_by is not None]
    problems = {c.problem for c in inputs.estimate.capacities.values() if c.problem is not None}
    unknown = [p for p in plans if p.reason in {"DemandUnknown", "MetricsUnknown"}]
    shown = changed or [p for p in plans if p.replicas is not None]
    return PoolDecision(
        at_seconds=inputs.at_seconds,
        variants=plans,
        reason=shown[0].reason if shown else "NothingToScale",
        message="; ".join(f"{p.key} {before[p.key]} -> {p.replicas}: {p.message}" for p in shown[:4]),
        held=bool(unknown),
        watts=_watts(inputs, plans, demand),
        binding_constraint=str(limited[0].reason) if limited else None,
        plan=inputs.plan,
        findings=(*limited, *sorted(problems, key=lambda finding: finding.message)),
    )
