"""Decides the weights of one service: spec and estimate into a policy, its answer into weights of variants.

The policy says which members; what is ready says which variants. Between two decisions of the policy a pass still moves
traffic away from what cannot serve. Whatever is unknown holds the live weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wattzoo.api.llm_service import LLMServiceSpec
from wattzoo.decide.filling import ROUNDING, Coming, fill_replicas, may_fill, may_give
from wattzoo.decide.memory import Asked, PoolEstimate, ServiceMemory
from wattzoo.decide.weights import Filling, changes_enough, live_share, round_weights, split_shares, usable_variants
from wattzoo.decisions import DecisionInput, ServiceDecision
from wattzoo.model import Backing, VariantKey, VariantState
from wattzoo_policies.capacity.replicas import average_shares, estimate_max_shares
from wattzoo_policies.protocols import ControllerPolicy
from wattzoo_policies.registry import make_policy
from wattzoo_policies.signals import (
    DecisionRequest,
    LedgerSummary,
    Member,
    MemberCondition,
    Observation,
    OutcomeCounter,
    Reason,
    VariantDemand,
)

EARLY_SECONDS = 0.5
"""A policy decides anew this much before its interval is over; passes wake up a little early or late."""
MIN_LABELS = 20
UNKNOWN_SECONDS = 60.0
"""A gateway shows a new route, and two scrapes make a rate, well within it; what is unknown for longer may stay so."""
EXPLORATION_SHARE = 0.02
"""Planned for a member with fewer than 20 feedbacks and no declared accuracy: enough for one replica, no more."""


@dataclass(frozen=True, slots=True)
class ServiceInputs:
    """Everything one decision about a service's weights rests on.

    live: weights of the live route in its order; empty when there is no route. outcomes: None when feedback could not
    be read. retiring: variants that the pool wants to bring to zero. pool_rps: requests of all services of the
    pool, which share what its replicas carry. planned: replicas that a joint plan leaves, by variant. coming: what
    they send, where replicas may be filled or left silent (`fills`), unless it is not known.
    """

    spec: LLMServiceSpec
    member_names: tuple[str, ...]
    states: tuple[VariantState, ...]
    estimate: PoolEstimate
    live: Mapping[VariantKey, int]
    outcomes: tuple[OutcomeCounter, ...] | None
    retiring: frozenset[VariantKey]
    load_rps: float | None
    pool_rps: float | None
    at_seconds: float
    resets: tuple[tuple[float, tuple[OutcomeCounter, ...]], ...] = ()
    feedback_source: str = ""
    requests_known: bool = False
    planned: Mapping[VariantKey, int] = field(default_factory=dict)
    coming: Coming | None = None
    fills: bool = False

    @property
    def rates_known(self) -> bool:
        """Whether all is known that weights are filled by."""
        return self.pool_rps is not None and (self.coming is not None or not self.fills)


def make_service_policy(spec: LLMServiceSpec) -> ControllerPolicy[Any]:
    """The policy that the spec names, with its parameters in the policy's own units."""
    return make_policy(spec.controller.policy, spec.controller.policy_parameters())


def declared_members(spec: LLMServiceSpec, pool_members: tuple[str, ...]) -> tuple[Member, ...]:
    """The members that the service uses, with what it declares of them, in the pool's order."""
    if spec.members is None:
        return tuple(Member(name) for name in pool_members)
    declared = {member.name: member for member in spec.members}
    chosen = []
    for name in pool_members:
        if name not in declared:
            continue
        prior = declared[name].accuracy_prior_per_mille
        samples = float(declared[name].prior_samples or 0)
        chosen.append(Member(name, None if prior is None else prior / 1e3, samples))
    return tuple(chosen)


def _set_members(memory: ServiceMemory, policy: ControllerPolicy[Any], members: tuple[Member, ...]) -> ServiceMemory:
    """Carry the ledger over to another policy or other members; the same ones change nothing."""
    known: tuple[Member, ...] = getattr(memory.state, "members", ())
    same = {member.name: member for member in known} == {member.name: member for member in members}
    if memory.policy == policy.name and memory.state is not None and same:
        return memory
    return replace(memory, policy=policy.name, state=policy.initial_state(members, memory.state))


def _note_unknown(memory: ServiceMemory, inputs: ServiceInputs) -> ServiceMemory:
    since = inputs.at_seconds if memory.unknown_since_seconds is None else memory.unknown_since_seconds
    return replace(memory, unknown_since_seconds=None if inputs.rates_known or inputs.outcomes is None else since)


def _conditions(inputs: ServiceInputs, usable: tuple[VariantState, ...]) -> tuple[MemberCondition, ...]:
    ready = {state.key.member for state in usable}
    energy = inputs.estimate.energy
    limits = estimate_max_shares([_carrier(state, inputs) for state in usable], inputs.pool_rps)
    return tuple(
        MemberCondition(name, name in ready, energy[name].marginal_joules if name in energy else None, limits.get(name))
        for name in inputs.member_names
    )


def _carrier(state: VariantState, inputs: ServiceInputs) -> VariantDemand:
    """A usable variant as what its ready replicas carry, those left out that a joint plan will take away."""
    capacity, ready = inputs.estimate.capacities.get(state.key), len(state.ready)
    count = max(1, min(ready, inputs.planned.get(state.key, ready)))
    return VariantDemand(
        variant=str(state.key),
        member=state.key.member,
        demand_rps=None,
        capacity_rps=None if capacity is None else capacity.rps,
        current_replicas=count,
        ready_replicas=count,
        min_replicas=0,
        max_replicas=count,
    )


def _is_due(memory: ServiceMemory, inputs: ServiceInputs) -> bool:
    if memory.decided_at_seconds is None or memory.decision is None or memory.decided_for != inputs.spec:
        return True
    elapsed = inputs.at_seconds - memory.decided_at_seconds
    return elapsed < 0.0 or elapsed >= inputs.spec.controller.interval_seconds - EARLY_SECONDS


def decide_service(
    inputs: ServiceInputs, memory: ServiceMemory, rng: np.random.Generator
) -> tuple[ServiceDecision, ServiceMemory]:
    """Weights for one service. Total: nothing ready, nothing known and nothing measured are decisions too.

    The policy is asked once per interval, and at once when the spec or the set of ready members changed (else leaving
    a pause would send out what was decided for a promise that no longer holds); counters it has seen
    change nothing, so asking often does not count twice. While feedback cannot be read the last shares stay.
    """
    policy = make_service_policy(inputs.spec)
    members = declared_members(inputs.spec, inputs.member_names)
    memory = _note_unknown(_set_members(memory, policy, members), inputs)
    usable = tuple(
        state
        for state in usable_variants(inputs.states, inputs.retiring)
        if state.key.member in set(inputs.member_names)
    )
    ready = frozenset(state.key.member for state in usable)
    due = _is_due(memory, inputs)
    blind = inputs.outcomes is None
    if memory.decision is not None and (blind or not due) and ready == memory.ready_members:
        decision = replace(_keep(inputs, usable, memory.decision, memory), held=blind)
        return decision, replace(memory, decision=decision)
    if due:
        memory = _count_outcomes(policy, inputs, memory)
    request = _make_request(inputs, usable)
    state = memory.state
    chosen = policy.decide(state, request, rng)
    hold = memory.hold and chosen.reason is Reason.NOTHING_KNOWN_YET
    holding = hold or _is_settling(memory, inputs.at_seconds)
    wish = explore_unknown(chosen.wish, members, policy.summary(state))
    if due:
        live = _live_shares(inputs.live)
        memory = replace(memory, wished=average_shares(memory.wished, wish), sent=average_shares(memory.sent, live))
    draft = ServiceDecision(
        at_seconds=inputs.at_seconds,
        weights={},
        reason=str(chosen.reason),
        message=chosen.message,
        policy=chosen,
        inputs=describe_inputs(inputs),
        wish=_planned(inputs, memory, followed=_is_followed(inputs, memory)),
    )
    decision = _weigh(inputs, usable, _live_shares(inputs.live) if holding else chosen.weights, draft, memory)
    memory = replace(
        memory,
        decision=decision,
        decided_at_seconds=inputs.at_seconds if due else memory.decided_at_seconds,
        decided_for=inputs.spec,
        ready_members=ready,
        hold=hold,
        promise=policy.promise(state, request),
    )
    return decision, memory


def _count_outcomes(policy: ControllerPolicy[Any], inputs: ServiceInputs, memory: ServiceMemory) -> ServiceMemory:
    """Fold new feedback and requests into the policy's state; what restarts between two looks hid comes first.

    Feedback from other series than those counted so far is a new base: their past was never promised.
    """
    if inputs.outcomes is None or memory.state is None:
        return memory
    alpha = inputs.spec.sla.accuracy.target_per_mille / 1e3
    counting, state = memory.counting, memory.state
    moved = counting.feedback not in {"", inputs.feedback_source}
    for at_seconds, counters in () if moved else inputs.resets:
        state = policy.update(state, Observation(at_seconds, alpha, counters))
    served = counting.served() if inputs.requests_known else None
    state = policy.update(state, Observation(inputs.at_seconds, alpha, inputs.outcomes, served, rebase=moved))
    counting = replace(counting, feedback=inputs.feedback_source)
    return replace(memory, state=state, counting=counting, observed_at_seconds=inputs.at_seconds)


def _make_request(inputs: ServiceInputs, usable: tuple[VariantState, ...]) -> DecisionRequest:
    """What the policy is asked: who can serve at which cost, and how many requests will come."""
    live = _live_shares(inputs.live)
    total = sum(live.values())
    current = {name: live.get(name, 0.0) / total for name in inputs.member_names} if total > 0.0 else None
    if current is not None and not any(current.values()):
        current = None
    rate = inputs.load_rps
    return DecisionRequest(
        members=_conditions(inputs, usable),
        alpha=inputs.spec.sla.accuracy.target_per_mille / 1e3,
        expected_requests=None if rate is None else rate * inputs.spec.controller.interval_seconds,
        at_seconds=inputs.at_seconds,
        safest_member=inputs.spec.safest_member,
        current_weights=current,
    )


def explore_unknown(wish: Mapping[str, float], members: tuple[Member, ...], ledger: LedgerSummary) -> dict[str, float]:
    """The wish with a small share for members of which nothing is known: none could be learned that never runs."""
    if not wish:
        return {}
    counted = {row.name: row.total for row in ledger.members}
    unknown = [m.name for m in members if m.accuracy_prior is None and counted.get(m.name, 0.0) < MIN_LABELS]
    return {
        member.name: max(wish.get(member.name, 0.0), EXPLORATION_SHARE if member.name in unknown else 0.0)
        for member in members
    }


def _is_followed(inputs: ServiceInputs, memory: ServiceMemory) -> bool:
    """Whether the live route has the weights that were last decided: somebody else's traffic is steered by nobody."""
    decided = None if memory.decision is None else memory.decision.weights
    return bool(decided) and decided is not None and not changes_enough(inputs.live, decided)


def _planned(inputs: ServiceInputs, memory: ServiceMemory, *, followed: bool) -> dict[str, float]:
    """The shares to plan replicas for: what the policy wishes, and what the route has where it does not follow us.

    Where it does, the weights' swings around the wish are within what ready replicas carry and need none of their own.
    """
    sent: Mapping[str, float] = {} if followed else memory.sent
    return {name: max(memory.wished.get(name, 0.0), sent.get(name, 0.0)) for name in inputs.member_names}


def _is_settling(memory: ServiceMemory, at_seconds: float) -> bool:
    return memory.hold_until_seconds is not None and at_seconds < memory.hold_until_seconds


def _keep(
    inputs: ServiceInputs, usable: tuple[VariantState, ...], last: ServiceDecision, memory: ServiceMemory
) -> ServiceDecision:
    """The last decision for what is ready now.

    While rates are unknown, and the same variants are ready, the live weights stay: they were filled when rates were
    known, and nobody knows that they have changed.
    """
    members = {key.member for key in last.asked}
    is_same = {state.key for state in usable if state.key.member in members} == set(last.asked)
    is_whole = tuple(inputs.live) == tuple(state.key for state in inputs.states)
    if inputs.pool_rps is None and is_same and is_whole and _is_followed(inputs, memory):
        return replace(last, weights=dict(inputs.live))
    return _weigh(inputs, usable, _kept_shares(inputs, memory), last, memory)


def _kept_shares(inputs: ServiceInputs, memory: ServiceMemory) -> Mapping[str, float]:
    """Shares between two decisions: those decided, or the live ones while they are held."""
    if (
        memory.hold
        or _is_settling(memory, inputs.at_seconds)
        or memory.decision is None
        or memory.decision.policy is None
    ):
        return _live_shares(inputs.live)
    return memory.decision.policy.weights


def _live_shares(live: Mapping[VariantKey, int]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for key, weight in live.items():
        shares[key.member] = shares.get(key.member, 0.0) + weight
    return shares


def _weigh(
    inputs: ServiceInputs,
    usable: tuple[VariantState, ...],
    shares: Mapping[str, float],
    draft: ServiceDecision,
    memory: ServiceMemory,
) -> ServiceDecision:
    """Turn shares of members into weights of variants, or keep the live ones where a change would not matter."""
    order = [state.key for state in inputs.states]
    if not usable:
        return replace(draft, weights=_without_ready(inputs, order), held=False)
    filling, capacities = _make_filling(inputs, usable), inputs.estimate.capacity_rps()
    split = split_shares(shares, usable, capacities, filling)
    surplus = draft.surplus_requests
    draft = replace(draft, asked=split)
    if inputs.coming is not None and filling is not None and may_fill(surplus, inputs.coming.own_rps):
        packed = {s.key: filling.replicas[s.key] for s in usable if s.backing is Backing.SERVER}
        coming = inputs.coming.asking(Asked(split, may_gain=True, may_give=may_give(surplus)))
        accuracy, carried = _accuracies(inputs.spec, memory), filling.carried(capacities)
        floor = {} if draft.policy is None else draft.policy.floor
        split = fill_replicas(split, packed, carried, capacities, accuracy, filling.joules, coming, floor)
    wanted = round_weights(split, order)
    if inputs.live and (not changes_enough(inputs.live, wanted) or _awaits_rates(inputs, draft, memory)):
        return replace(draft, weights=dict(inputs.live), held=False)
    return replace(draft, weights=wanted, held=False)


def _awaits_rates(inputs: ServiceInputs, draft: ServiceDecision, memory: ServiceMemory) -> bool:
    """Whether live weights that answer no worse than a law with credit asks for stay until what comes is known.

    They were filled when it was; without it a restart or a new service would have them emptied, to be filled again.
    """
    since, last = memory.unknown_since_seconds, memory.decision
    if inputs.rates_known or (since is not None and inputs.at_seconds - since >= UNKNOWN_SECONDS):
        return False
    asked, live, accuracy = draft.asked, inputs.live, _accuracies(inputs.spec, memory)
    if draft.surplus_requests is None or not accuracy.keys() >= {key.member for key in asked}:
        return False
    is_ours = last is None or (_is_followed(inputs, memory) and last.asked.keys() == asked.keys())
    serves = list(live) == [s.key for s in inputs.states] and all(key in asked for key in live if live[key] > 0)
    more = sum((live_share(live, key) - share) * accuracy[key.member] for key, share in asked.items())
    return is_ours and serves and more >= -ROUNDING


def _accuracies(spec: LLMServiceSpec, memory: ServiceMemory) -> dict[str, float]:
    """Accuracies by member, of those that are known."""
    ledger = summarise_service(spec, memory)
    return {} if ledger is None else {row.name: row.accuracy for row in ledger.members if row.accuracy is not None}


def _make_filling(inputs: ServiceInputs, usable: tuple[VariantState, ...]) -> Filling | None:
    """What a member's variants are filled by; None while the pool's rate is unknown or nothing comes."""
    if inputs.pool_rps is None or not inputs.pool_rps > 0.0:
        return None
    capacities = inputs.estimate.capacities
    joules = {key: capacity.joules_per_request for key, capacity in capacities.items()}
    return Filling(
        rate_rps=inputs.pool_rps,
        joules={key: value for key, value in joules.items() if value is not None},
        replicas={state.key: _carrier(state, inputs).ready_replicas for state in usable},
    )


def _without_ready(inputs: ServiceInputs, order: list[VariantKey]) -> dict[VariantKey, int]:
    """Weights while nothing is ready: the live ones, or all on the safest member where there is no route yet.

    Variants that left the spec leave the route; a new one enters with weight 0.
    """
    kept = {key: float(inputs.live.get(key, 0)) for key in order}
    if any(kept.values()):
        return round_weights(kept, order)
    safest = [key for key in order if key.member == inputs.spec.safest_member] or order
    return round_weights(dict.fromkeys(safest, 1.0), order)


def describe_inputs(inputs: ServiceInputs) -> tuple[DecisionInput, ...]:
    """What the decision rested on, as its record shows it."""
    estimate = inputs.estimate
    rate = "unknown" if inputs.load_rps is None else f"{inputs.load_rps:.2f}/s"
    outcomes = inputs.outcomes
    judged = "unknown" if outcomes is None else f"{sum(counter.count for counter in outcomes):.0f} in all counters"
    rows = [
        DecisionInput("requests", rate, estimate.at_seconds if inputs.load_rps is not None else None),
        DecisionInput("feedback", judged, inputs.at_seconds if outcomes is not None else None),
    ]
    for name in inputs.member_names:
        energy = estimate.energy.get(name)
        joules = None if energy is None else energy.marginal_joules
        source = "measured" if energy is not None and energy.measured else "from the profile"
        text = "unknown" if joules is None else f"{joules:.3g} J {source}"
        rows.append(DecisionInput(f"joules/{name}", text, None if energy is None else energy.observed_at_seconds))
    return tuple(rows)


def summarise_service(spec: LLMServiceSpec, memory: ServiceMemory) -> LedgerSummary | None:
    """The service's ledger in one row."""
    return None if memory.state is None else make_service_policy(spec).summary(memory.state)
