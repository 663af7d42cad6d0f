"""Common ground of the simple policies: a ledger, a few numbers, the protocol; each adds only its rule.

They are what a user would compare the default law with: everything on the largest member, a mixture fixed in advance,
the textbook primal-dual price, a threshold calibrated once. None of them states a bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.accuracy.ledger import (
    Ledger,
    Outcomes,
    count,
    ledger_from_body,
    ledger_to_body,
    make_ledger,
    set_members,
    summarise,
)
from wattzoo_policies.accuracy.state_text import VERSION, read_state, write_state
from wattzoo_policies.protocols import PolicyState, Promise, StateError
from wattzoo_policies.signals import (
    Constraint,
    Decision,
    DecisionRequest,
    LedgerSummary,
    Member,
    MemberCondition,
    Observation,
    Reason,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BaselineState:
    """Ledger and declared members of one service; `numbers` is what the rule itself remembers."""

    policy: str
    members: tuple[Member, ...]
    ledger: Ledger
    numbers: tuple[float, ...] = ()

    @property
    def version(self) -> int:
        """Return the schema version of the serialised form."""
        return VERSION

    def to_json(self) -> str:
        """Return compact JSON."""
        body = {
            "members": [[m.name, m.accuracy_prior, m.prior_samples] for m in self.members],
            "ledger": ledger_to_body(self.ledger),
            "numbers": list(self.numbers),
        }
        return write_state(self.policy, body)


@dataclass(frozen=True, slots=True)
class BaselinePolicy:
    """Everything of the protocol but the rule: `_wish` says what the rule would do with the given members."""

    name: ClassVar[str] = ""

    def initial_state(self, members: tuple[Member, ...], previous: PolicyState | None = None) -> BaselineState:
        """Return the state for these members; the ledger of any previous policy is carried over."""
        members = tuple(sorted(members, key=lambda member: member.name))
        names = [member.name for member in members]
        ledger = getattr(previous, "ledger", None)
        ledger = set_members(ledger, names) if isinstance(ledger, Ledger) else make_ledger(names)
        return BaselineState(self.name, members, ledger)

    def state_from_json(self, text: str) -> BaselineState:
        """Return the state that `to_json` wrote; raises `StateError`."""
        body = read_state(self.name, text)
        try:
            members = tuple(
                Member(str(name), None if prior is None else float(prior), float(samples))
                for name, prior, samples in body["members"]
            )
            numbers = tuple(float(value) for value in body["numbers"])
            if not all(math.isfinite(value) for value in numbers):
                raise StateError("the state holds a number that is not finite")
            return BaselineState(self.name, members, ledger_from_body(body["ledger"]), numbers)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StateError(f"state of {self.name} cannot be read: {error}") from error

    def update(self, state: BaselineState, observation: Observation) -> BaselineState:
        """Count new outcomes; the same counters again change nothing."""
        ledger, fresh = count(state.ledger, observation)
        return replace(state, ledger=ledger, numbers=self._remember(state, fresh, observation.alpha))

    def summary(self, state: BaselineState) -> LedgerSummary:
        """Return the ledger in one row."""
        levels = self._accuracy(state, [m.name for m in state.members])
        rows = state.ledger.members
        known = {
            member.name: float(level) if rows[member.name].total or member.prior_samples else None
            for member, level in zip(state.members, levels, strict=True)
        }
        return summarise(state.ledger, known)

    def promise(self, state: BaselineState, request: DecisionRequest) -> Promise | None:
        """Return nothing: the rule states no bound that holds from a request on."""
        del state, request
        return None

    def decide(self, state: BaselineState, request: DecisionRequest, rng: np.random.Generator) -> Decision:
        """Return the rule's shares over the ready members; it draws nothing at random."""
        del rng
        everyone = tuple(sorted(request.members, key=lambda condition: condition.name))
        ready = tuple(condition for condition in everyone if condition.ready)
        wish, _, _ = self._shares(state, request, everyone)
        if not ready:
            message = "no member can serve; weights stay as they are"
            return Decision({}, wish, Reason.NO_READY_MEMBER, message, Constraint.READINESS)
        weights, reason, message = self._shares(state, request, ready)
        if len(ready) == 1:
            reason = Reason.ONLY_READY_MEMBER
        constraint = Constraint.READINESS if len(ready) < len(everyone) and weights != wish else Constraint.NONE
        levels = self._accuracy(state, [condition.name for condition in ready])
        expected = sum(weights[c.name] * float(level) for c, level in zip(ready, levels, strict=True))
        return Decision(
            weights,
            wish,
            reason,
            message,
            constraint,
            expected_satisfaction=expected,
            reachable=(float(levels.min()), float(levels.max())),
        )

    def _shares(
        self, state: BaselineState, request: DecisionRequest, conditions: Sequence[MemberCondition]
    ) -> tuple[dict[str, float], Reason, str]:
        """Return shares by name over these members, the reason and a message."""
        raise NotImplementedError

    def _remember(self, state: BaselineState, fresh: dict[str, Outcomes], alpha: float) -> tuple[float, ...]:
        """Return the rule's own numbers after new outcomes."""
        del fresh, alpha
        return state.numbers

    @staticmethod
    def _accuracy(state: BaselineState, names: Sequence[str]) -> Floats:
        """Return (M,) means of counted outcomes and prior, by the rule of succession where there is no prior."""
        members = {member.name: member for member in state.members}
        levels = []
        for name in names:
            row = state.ledger.members.get(name, Outcomes())
            member = members.get(name, Member(name))
            backing = member.prior_samples if member.accuracy_prior is not None else 0.0
            good, total = (member.accuracy_prior or 0.0, backing) if backing > 0.0 else (0.5, 2.0)
            levels.append((row.satisfied + good * total) / (row.total + total))
        return np.array(levels)


def shares_by_name(conditions: Sequence[MemberCondition], shares: Floats) -> dict[str, float]:
    """Return shares (M,) by the members' names."""
    return {condition.name: float(share) for condition, share in zip(conditions, shares, strict=True)}


def joules_of(conditions: Sequence[MemberCondition]) -> Floats:
    """Return (M,) joules per request, NaN where unknown."""
    return np.array([math.nan if c.joules_per_request is None else c.joules_per_request for c in conditions])
