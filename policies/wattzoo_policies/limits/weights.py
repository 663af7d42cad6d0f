"""What stands between a wish for traffic and sending it: a member gets no more than its ready replicas carry.

Without it a law that changes its mind floods two ready servers with what twenty will carry in five minutes. The share
that does not fit goes to the members with room, so satisfaction gives way before latency does, and the ledger makes up
for it later; the wish is not touched, so that replicas are planned for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from wattzoo_policies.protocols import ControllerPolicy, PolicyState, Promise
from wattzoo_policies.signals import Constraint, Decision, DecisionRequest, LedgerSummary, Member, Observation

S = TypeVar("S", bound=PolicyState)


def with_capacity_cap(policy: ControllerPolicy[S]) -> ControllerPolicy[S]:
    """Return the policy with its weights cut to `MemberCondition.max_share`."""
    return _CapacityCapped(policy)


def cap_weights(weights: Mapping[str, float], max_shares: Mapping[str, float | None]) -> dict[str, float]:
    """Return weights of which none exceeds its cap, the rest spread over the others in proportion to their room.

    When the caps together cannot take everything, all members are overloaded alike (shares in proportion to caps).
    Members without a cap have room for all.
    """
    caps = {name: _cap(max_shares.get(name)) for name in weights}
    total = sum(caps.values())
    if total <= 1.0:
        return {name: cap / total for name, cap in caps.items()} if total > 0.0 else dict(weights)
    capped = {name: min(weight, caps[name]) for name, weight in weights.items()}
    room = {name: caps[name] - weight for name, weight in capped.items()}
    excess = 1.0 - sum(capped.values())
    if excess <= 0.0:
        return capped
    share = excess / sum(room.values())
    return {name: weight + share * room[name] for name, weight in capped.items()}


@dataclass(frozen=True, slots=True)
class _CapacityCapped(Generic[S]):
    policy: ControllerPolicy[S]

    @property
    def name(self) -> str:
        return self.policy.name

    def initial_state(self, members: tuple[Member, ...], previous: PolicyState | None = None) -> S:
        return self.policy.initial_state(members, previous)

    def state_from_json(self, text: str) -> S:
        return self.policy.state_from_json(text)

    def update(self, state: S, observation: Observation) -> S:
        return self.policy.update(state, observation)

    def summary(self, state: S) -> LedgerSummary:
        return self.policy.summary(state)

    def promise(self, state: S, request: DecisionRequest) -> Promise | None:
        return self.policy.promise(state, request)

    def decide(self, state: S, request: DecisionRequest, rng: np.random.Generator) -> Decision:
        decision = self.policy.decide(state, request, rng)
        limits = {condition.name: condition.max_share for condition in request.members}
        weights = cap_weights(decision.weights, limits)
        moved = sum(abs(weights[name] - weight) for name, weight in decision.weights.items()) / 2.0
        if moved < 1e-9:
            return decision
        message = f"{decision.message}; {moved:.0%} moved to members whose ready replicas have room"
        return replace(decision, weights=weights, message=message, binding_constraint=Constraint.CAPACITY)


def _cap(share: float | None) -> float:
    return 1.0 if share is None or not share >= 0.0 else min(1.0, share)
