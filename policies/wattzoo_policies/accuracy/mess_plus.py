"""MESS+ as published (arXiv 2505.19947), for weights that hold for an interval.

The published rule routes one request at a time: a virtual queue Q <- max(0, Q + alpha - s) holds the unpaid
satisfaction, and request t goes to argmin_m V*E_m + Q*(alpha - shat_m), ties to the cheapest; with probability
p_t = min(1, c / t^(1/4)) it explores instead. Here a gateway splits traffic by weights between two decisions, so

- the rule is *played forward* through the requests expected in the coming interval, each expected outcome shat of the
  chosen member moving the queue, and the weights are the shares of the choices. In short intervals luck alone moves
  the queue by more than the interval can repay, so that the shares jump between all and nothing and servers are kept
  for both. That is the rule; `horizon_requests` plays short intervals on to that many requests, which steadies them;
- exploration takes its scheduled share of the interval and spreads it evenly over the ready members. The published
  rule asks *all* members and credits the largest one's answer; one request that goes to one member cannot do that, so
  a member's satisfaction is learned from the requests it served, and exploration here costs far less than published;
- shat_m is the member's running mean (with its declared prior), the published per-request predictor being blind here;
- feedback arrives as counts without an order. The queue depends on the order because of its floor at zero, so it is
  set to its mean over uniformly random orders of the new outcomes (a fixed set of seeded shuffles).

Requests that are still in flight are not in the queue, as in the published rule, which assumes immediate feedback.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wattzoo_policies.accuracy.ledger import (
    OTHER,
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
from wattzoo_policies.accuracy.virtual_queue import MAX_ITERATIONS, Arm, estimate_choices, estimate_queue, make_hull
from wattzoo_policies.protocols import PolicyState, Promise, StateError
from wattzoo_policies.signals import (
    Constraint,
    Decision,
    DecisionRequest,
    LedgerSummary,
    Member,
    Observation,
    Reason,
    RunnerUp,
)


@dataclass(frozen=True, slots=True)
class MESSPlusParameters:
    """Published setting: V = 1e-4 per joule, c = 0.1.

    v_per_joule: weight of energy. Small: the queue is repaid at any price; large: debt of order V*E is carried.
    exploration: c of the schedule. 0 never explores: members without feedback are then never tried.
    horizon_requests: least number of requests to play forward, also when nobody can say how many will come. 1 is the
    published rule; larger values (400, say) spread the repayment of debt and keep the shares steady, and are ours.
    """

    v_per_joule: float = 1e-4
    exploration: float = 0.1
    horizon_requests: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.v_per_joule) and self.v_per_joule > 0.0):
            raise ValueError(f"v_per_joule must be a positive number, not {self.v_per_joule}")
        if not (math.isfinite(self.exploration) and 0.0 <= self.exploration <= 1.0):
            raise ValueError(f"exploration must lie between 0 and 1, not {self.exploration}")
        if self.horizon_requests < 1:
            raise ValueError(f"horizon_requests must be at least 1, not {self.horizon_requests}")


@dataclass(frozen=True, slots=True)
class MESSPlusState:
    """Queue, ledger and declared members of one service."""

    members: tuple[Member, ...]
    ledger: Ledger
    queue: float = 0.0

    @property
    def version(self) -> int:
        """Return the schema version of the serialised form."""
        return VERSION

    def to_json(self) -> str:
        """Return compact JSON."""
        body = {
            "members": [[m.name, m.accuracy_prior, m.prior_samples] for m in self.members],
            "queue": self.queue,
            "ledger": ledger_to_body(self.ledger),
        }
        return write_state(MESSPlus.name, body)


@dataclass(frozen=True, slots=True)
class MESSPlus:
    """The published controller; see the module's text."""

    parameters: MESSPlusParameters = MESSPlusParameters()
    name = "MESSPlus"

    def initial_state(self, members: tuple[Member, ...], previous: PolicyState | None = None) -> MESSPlusState:
        """Return the state for these members; a previous state of any policy with a ledger is carried over.

        Coming from another policy, the queue starts at the debt: it is what that queue stands for.
        """
        names = [member.name for member in members]
        ledger = getattr(previous, "ledger", None)
        if not isinstance(ledger, Ledger):
            return MESSPlusState(members, make_ledger(names))
        queue = previous.queue if isinstance(previous, MESSPlusState) else max(0.0, ledger.debt_requests)
        return MESSPlusState(members, set_members(ledger, names), queue)

    def state_from_json(self, text: str) -> MESSPlusState:
        """Return the state that `to_json` wrote; raises `StateError`."""
        body = read_state(self.name, text)
        try:
            members = tuple(
                Member(str(name), None if prior is None else float(prior), float(samples))
                for name, prior, samples in body["members"]
            )
            queue = float(body["queue"])
            if not (math.isfinite(queue) and queue >= 0.0):
                raise StateError(f"the queue must be a number of at least 0, not {queue}")
            return MESSPlusState(members, ledger_from_body(body["ledger"]), queue)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StateError(f"state of {self.name} cannot be read: {error}") from error

    def update(self, state: MESSPlusState, observation: Observation) -> MESSPlusState:
        """Count new outcomes and move the queue by them; the same counters again change nothing."""
        ledger, fresh = count(state.ledger, observation)
        new = Outcomes()
        for row in fresh.values():
            new = new.plus(row)
        queue = estimate_queue(state.queue, observation.alpha, round(new.satisfied), round(new.total))
        return replace(state, ledger=ledger, queue=queue)

    def summary(self, state: MESSPlusState) -> LedgerSummary:
        """Return the ledger in one row."""
        return summarise(state.ledger, {m.name: self._accuracy(state, m) for m in state.members})

    def promise(self, state: MESSPlusState, request: DecisionRequest) -> Promise | None:
        """Return nothing: the rule states no bound that holds from a request on."""
        del state, request
        return None

    def decide(self, state: MESSPlusState, request: DecisionRequest, rng: np.random.Generator) -> Decision:
        """Return the shares of the rule's choices over the coming interval, plus exploration.

        The rule itself draws nothing at random in weights mode; `rng` belongs to the protocol.
        """
        del rng
        ready_names = sorted(condition.name for condition in request.members if condition.ready)
        unknown = [c.name for c in request.members if c.ready and not _is_known(c.joules_per_request)]
        if not any(self._samples(state, member) > 0.0 for member in state.members):
            return self._on_safest(request, ready_names, Reason.NOTHING_KNOWN_YET, state)
        arms = self._arms(state, request)
        if not arms:
            return self._on_safest(request, ready_names, Reason.JOULES_UNKNOWN, state)
        wish, _ = self._play(state, arms, request)
        ready = [arm for arm in arms if arm.name in ready_names]
        if not ready:
            message = "no member can serve; weights stay as they are"
            return Decision({}, wish, Reason.NO_READY_MEMBER, message, Constraint.READINESS)
        shares, mean_queue = self._play(state, ready, request)
        explored = self._exploration_share(state, request)
        weights = {arm.name: (1.0 - explored) * shares[arm.name] + explored / len(ready) for arm in ready}
        return self._explain(state, request, ready, weights, wish, mean_queue, unknown)

    def _explain(
        self,
        state: MESSPlusState,
        request: DecisionRequest,
        ready: Sequence[Arm],
        weights: dict[str, float],
        wish: dict[str, float],
        mean_queue: float,
        unknown: list[str],
    ) -> Decision:
        accuracies = [arm.accuracy for arm in ready]
        cheapest = min(ready, key=lambda arm: (arm.joules, -arm.accuracy))
        constraint = Constraint.ACCURACY
        if len(ready) == 1:
            reason = Reason.ONLY_READY_MEMBER
            constraint = Constraint.READINESS if wish.get(ready[0].name, 0.0) < 1.0 else Constraint.NONE
        elif max(accuracies) < request.alpha:
            reason = Reason.TARGET_UNREACHABLE
        elif unknown:
            reason, constraint = Reason.JOULES_UNKNOWN, Constraint.KNOWLEDGE
        elif state.queue == 0.0 and cheapest.accuracy >= request.alpha:
            reason, constraint = Reason.CHEAPEST_SUFFICES, Constraint.NONE
        else:
            reason = Reason.REPAYING_DEBT if state.queue > 1.0 else Reason.HOLDING_TARGET
        price = state.queue / self.parameters.v_per_joule
        satisfaction = sum(weights[arm.name] * arm.accuracy for arm in ready)
        split = ", ".join(f"{arm.name} {weights[arm.name]:.0%}" for arm in ready)
        message = (
            f"queue {state.queue:.2f}, price {price:.0f} J per satisfied request: {split}; "
            f"expected satisfaction {satisfaction:.3f} for target {request.alpha:.3f}"
        )
        if unknown:
            message += f"; joules of {', '.join(unknown)} unknown, taken as the dearest"
        return Decision(
            weights=weights,
            wish=wish,
            reason=reason,
            message=message,
            binding_constraint=constraint,
            runner_up=self._runner_up(ready, weights, mean_queue),
            price_joules_per_satisfied=price,
            expected_satisfaction=satisfaction,
            expected_joules_per_request=None if unknown else sum(weights[arm.name] * arm.joules for arm in ready),
            reachable=(min(accuracies), max(accuracies)),
        )

    def _runner_up(self, arms: Sequence[Arm], weights: dict[str, float], queue: float) -> RunnerUp | None:
        if len(arms) < 2:
            return None
        price = queue / self.parameters.v_per_joule
        first = max(arms, key=lambda arm: weights[arm.name])
        second = min((arm for arm in arms if arm is not first), key=lambda arm: arm.joules - price * arm.accuracy)
        excess = (second.joules - price * second.accuracy) - (first.joules - price * first.accuracy)
        return RunnerUp(second.name, max(0.0, excess))

    def _on_safest(
        self, request: DecisionRequest, ready_names: list[str], reason: Reason, state: MESSPlusState
    ) -> Decision:
        """Decide while nothing can be compared: the declared safest member, else an even split."""
        everyone = [condition.name for condition in request.members]
        safest = request.safest_member
        wish = _on(safest, everyone)
        if not ready_names:
            message = "no member can serve; weights stay as they are"
            return Decision({}, wish, Reason.NO_READY_MEMBER, message, Constraint.READINESS)
        weights = _on(safest, ready_names)
        if safest in ready_names and reason is Reason.NOTHING_KNOWN_YET:
            explored = self._exploration_share(state, request)
            even = explored / len(ready_names)
            weights = {name: (1.0 - explored) * weights.get(name, 0.0) + even for name in ready_names}
        what = "no feedback and no prior yet" if reason is Reason.NOTHING_KNOWN_YET else "no member's joules are known"
        where = f"the safest member {safest}" if safest in ready_names else "all ready members evenly"
        return Decision(weights, wish, reason, f"{what}: traffic goes to {where}", Constraint.KNOWLEDGE)

    def _play(
        self, state: MESSPlusState, arms: Sequence[Arm], request: DecisionRequest
    ) -> tuple[dict[str, float], float]:
        """Play the rule through the expected requests; returns shares by member and the mean queue on the way."""
        hull, breaks = make_hull(arms, self.parameters.v_per_joule)
        counts, mean_queue = estimate_choices(
            state.queue, request.alpha, hull, breaks, self._expected_requests(request)
        )
        shares = {arm.name: 0.0 for arm in arms}
        for arm, number in zip(hull, counts, strict=True):
            shares[arm.name] = number / sum(counts)
        return shares, mean_queue

    def _expected_requests(self, request: DecisionRequest) -> int:
        expected = request.expected_requests
        if expected is None or not math.isfinite(expected):
            return self.parameters.horizon_requests
        return max(self.parameters.horizon_requests, math.ceil(expected))

    def _exploration_share(self, state: MESSPlusState, request: DecisionRequest) -> float:
        """Return the mean of p_t over the coming requests (at most 1,000 of them: the schedule is flat by then)."""
        expected = request.expected_requests
        coming = expected if expected is not None and math.isfinite(expected) else self.parameters.horizon_requests
        first = state.ledger.outcomes.total + 1.0
        t = first + np.arange(max(1, min(math.ceil(coming), MAX_ITERATIONS)))
        return float(np.minimum(1.0, self.parameters.exploration / t**0.25).mean())

    def _arms(self, state: MESSPlusState, request: DecisionRequest) -> list[Arm]:
        """Return members with an estimate; a member of unknown joules counts as the dearest known one."""
        members = {member.name: member for member in state.members}
        known = [c.joules_per_request for c in request.members if _is_known(c.joules_per_request)]
        dearest = max((joules for joules in known if joules is not None), default=None)
        if dearest is None:
            return []
        return [
            Arm(
                condition.name,
                condition.joules_per_request
                if condition.joules_per_request is not None and _is_known(condition.joules_per_request)
                else dearest,
                self._accuracy(state, members.get(condition.name, Member(condition.name))) or 0.5,
            )
            for condition in request.members
        ]

    @staticmethod
    def _samples(state: MESSPlusState, member: Member) -> float:
        prior = member.prior_samples if member.accuracy_prior is not None else 0.0
        return state.ledger.members.get(member.name, Outcomes()).total + prior

    @staticmethod
    def _accuracy(state: MESSPlusState, member: Member) -> float | None:
        """Return the mean of counted outcomes and prior; without a declared prior one of each (rule of succession)."""
        row = state.ledger.members.get(member.name, Outcomes()) if member.name != OTHER else Outcomes()
        if member.accuracy_prior is None or member.prior_samples <= 0.0:
            return (row.satisfied + 1.0) / (row.total + 2.0) if row.total else None
        backing = member.prior_samples
        return (row.satisfied + member.accuracy_prior * backing) / (row.total + backing)


def _on(member: str | None, names: Sequence[str]) -> dict[str, float]:
    if member in names and member is not None:
        return {member: 1.0}
    return {name: 1.0 / len(names) for name in names}


def _is_known(joules: float | None) -> bool:
    return joules is not None and math.isfinite(joules) and joules > 0.0
