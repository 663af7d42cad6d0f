"""What stands between a wish for traffic and sending it: a member gets no more than its ready replicas carry.

Without it a law that changes its mind floods two ready servers with what twenty will carry in five minutes. What does
not fit goes to the members with room: at the fewest joules among those mixtures that satisfy as many as the law meant
to, and where there is none, as many as can be. So satisfaction gives way before latency does, and the ledger makes up
for it later; the wish is not touched, so that replicas are planned for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from scipy.optimize import linprog

from wattzoo_policies.protocols import ControllerPolicy, PolicyState, Promise
from wattzoo_policies.signals import Constraint, Decision, DecisionRequest, LedgerSummary, Member, Observation

S = TypeVar("S", bound=PolicyState)

LEAST_KEPT = 0.05
"""Share up to which a member keeps what the law gave it: less than that is exploration, not economy."""
ROOM = 0.8
"""Of what its replicas carry, up to which a member takes what others cannot: loads are not known to the last tenth."""
_SLACK = 1e-9


def with_capacity_cap(policy: ControllerPolicy[S]) -> ControllerPolicy[S]:
    """Return the policy with its weights cut to `MemberCondition.max_share`."""
    return _CapacityCapped(policy)


def cap_weights(
    weights: Mapping[str, float],
    max_shares: Mapping[str, float | None],
    joules: Mapping[str, float] | None = None,
    accuracy: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Return weights of which none exceeds its cap: the cheapest that satisfy as many as the given ones, or the most.

    joules, accuracy: per request and per member. Where one of a member is not known, what does not fit is spread in
    proportion to room. When the caps together cannot take everything, all members are overloaded alike (shares in
    proportion to caps). Members without a cap have room for all.
    """
    caps = {name: _cap(max_shares.get(name)) for name in weights}
    total = sum(caps.values())
    if total <= 1.0:
        return {name: cap / total for name, cap in caps.items()} if total > 0.0 else dict(weights)
    capped = {name: min(weight, caps[name]) for name, weight in weights.items()}
    excess = 1.0 - sum(capped.values())
    if excess <= 0.0:
        return capped
    roomy = {name: max(capped[name], ROOM * cap) for name, cap in caps.items()}
    placed = _place(weights, roomy if sum(roomy.values()) >= 1.0 else caps, joules or {}, accuracy or {})
    if placed is not None:
        return placed
    room = {name: caps[name] - weight for name, weight in capped.items()}
    share = excess / sum(room.values())
    return {name: weight + share * room[name] for name, weight in capped.items()}


def _place(
    weights: Mapping[str, float],
    caps: Mapping[str, float],
    joules: Mapping[str, float],
    accuracy: Mapping[str, float],
) -> dict[str, float] | None:
    """Return the cheapest weights within the caps that satisfy as many; `None` where something is not known."""
    if not (caps.keys() <= joules.keys() and caps.keys() <= accuracy.keys()):
        return None
    floors = {name: min(weights[name], cap, LEAST_KEPT) for name, cap in caps.items()}
    most = dict(floors)
    for name in sorted(caps, key=lambda name: -accuracy[name]):
        most[name] += min(caps[name] - floors[name], max(0.0, 1.0 - sum(most.values())))
    meant = min(sum(weights[name] * accuracy[name] for name in caps), sum(most[name] * accuracy[name] for name in caps))
    found = linprog(
        [joules[name] for name in caps],
        A_ub=[[-accuracy[name] for name in caps]],
        b_ub=[_SLACK - meant],
        A_eq=[[1.0] * len(caps)],
        b_eq=[1.0],
        bounds=[(floors[name], caps[name]) for name in caps],
    )
    return dict(zip(caps, map(float, found.x), strict=True)) if found.success else most


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
        joules = {c.name: j for c in request.members if (j := c.joules_per_request) is not None and np.isfinite(j)}
        accuracy = {row.name: row.accuracy for row in self.policy.summary(state).members if row.accuracy is not None}
        weights = cap_weights(decision.weights, limits, joules, accuracy)
        moved = sum(abs(weights[name] - weight) for name, weight in decision.weights.items()) / 2.0
        if moved < 1e-9:
            return decision
        message = f"{decision.message}; {moved:.0%} moved to members whose ready replicas have room"
        return replace(decision, weights=weights, message=message, binding_constraint=Constraint.CAPACITY)


def _cap(share: float | None) -> float:
    return 1.0 if share is None or not share >= 0.0 else min(1.0, share)
