"""The two interfaces that everything which decides implements, so that laws can be swapped and composed."""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np

from wattzoo_policies.signals import (
    Decision,
    DecisionRequest,
    LedgerSummary,
    Member,
    Observation,
    ReplicaHistory,
    ReplicaPlan,
    ReplicaRequest,
)


class PolicyState(Protocol):
    """Everything a policy remembers: one immutable value of less than 4 kB that survives a restart as text."""

    @property
    def version(self) -> int:
        """Return the schema version of the serialised form."""
        ...

    def to_json(self) -> str:
        """Return compact JSON that `state_from_json` of the same policy accepts."""
        ...


class Promise(Protocol):
    """What a law can promise at a target, for the condition that reports it."""

    @property
    def from_request(self) -> float | None:
        """Return the number of the request from which the promise holds; None where the target is out of reach."""
        ...

    @property
    def delta(self) -> float:
        """Return the probability with which the running share may fall below the target after that request."""
        ...

    @property
    def credit(self) -> float:
        """Return the estimated sum of (satisfied - target) over all requests, judged or not."""
        ...

    @property
    def feedback_share(self) -> float:
        """Return the share of requests that give feedback."""
        ...


S = TypeVar("S", bound=PolicyState)


class ControllerPolicy(Protocol[S]):
    """A law that turns observed outcomes and joules into traffic weights. Pure: no method changes its arguments."""

    @property
    def name(self) -> str:
        """Return the name under which the registry knows the policy."""
        ...

    def initial_state(self, members: tuple[Member, ...], previous: PolicyState | None = None) -> S:
        """Return the state for these members.

        `previous` may be a state of this or another policy: its ledger is carried over, whatever else fits is too.
        """
        ...

    def state_from_json(self, text: str) -> S:
        """Return the state that `to_json` wrote; raises `StateError` when the text is damaged or of another policy."""
        ...

    def update(self, state: S, observation: Observation) -> S:
        """Fold an observation into the state; seeing the same counters again changes nothing."""
        ...

    def decide(self, state: S, request: DecisionRequest, rng: np.random.Generator) -> Decision:
        """Choose weights for the coming interval. Total: no member ready is a decision, not an error."""
        ...

    def summary(self, state: S) -> LedgerSummary:
        """Return the ledger in one row."""
        ...

    def promise(self, state: S, request: DecisionRequest) -> Promise | None:
        """Return what can be promised at the request's target over its members; None from a law without a bound."""
        ...


class StateError(ValueError):
    """A stored state cannot be read: damaged, of a newer version or of another policy."""


class ReplicaLaw(Protocol):
    """Decides replicas from demand. The plain rule is in `capacity.replicas`; `limits` wraps it with `with_*`."""

    def __call__(self, history: ReplicaHistory, request: ReplicaRequest) -> tuple[ReplicaHistory, ReplicaPlan]:
        """Return the history to keep and decided replicas for every variant of the request, in the same order."""
        ...
