"""The laws that the study replays, each over a batch of seeds; any `ControllerPolicy` can be one, seed by seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.accuracy.anytime import fill_joules
from wattzoo_policies.accuracy.anytime_estimates import (
    AnytimeParameters,
    Increments,
    LawState,
    Situation,
    apply_increments,
    make_law_state,
)
from wattzoo_policies.accuracy.anytime_law import decide_weights
from wattzoo_policies.accuracy.dual import DualParameters, apply_outcomes, decide_by_price
from wattzoo_policies.accuracy.frontier import solve_mixture
from wattzoo_policies.accuracy.threshold import estimate_cut
from wattzoo_policies.protocols import ControllerPolicy
from wattzoo_policies.signals import (
    DecisionRequest,
    Member,
    MemberCondition,
    Observation,
    OutcomeCounter,
    ServedCounter,
)
from wattzoo_policies.sim.study import View

Floats = NDArray[np.float64]
Step = tuple[Any, Floats, Floats]


@dataclass(frozen=True, slots=True)
class AnytimeLaw:
    """`MESSPlusAnytime`; `safest` (M,) marks where traffic starts."""

    safest: NDArray[np.bool_]
    parameters: AnytimeParameters = field(default_factory=AnytimeParameters)
    name: str = "MESSPlusAnytime"

    def begin(self, seeds: int, members: tuple[str, ...], rng: np.random.Generator) -> tuple[LawState, Floats]:
        """Return the law's state and an empty credit."""
        del rng
        zeros = np.zeros(len(members))
        return make_law_state(zeros, zeros, seeds), np.zeros(seeds)

    def step(self, state: tuple[LawState, Floats], view: View) -> Step:
        """Fold what is new, decide."""
        inner, credit = state
        inner = apply_increments(inner, Increments(view.served, view.labels, view.satisfied), view.alpha)
        credit = credit + (view.satisfied - view.alpha * view.labels).sum(-1)
        situation = Situation(
            joules=fill_joules(view.joules),
            ready=view.ready,
            credit=credit,
            pending=view.pending,
            alpha=view.alpha,
            expected=np.full(len(credit), view.expected_requests),
            current=view.current,
            safest=self.safest,
        )
        choice = decide_weights(inner, situation, self.parameters)
        return (inner, credit), choice.weights, choice.wish


@dataclass(frozen=True, slots=True)
class FixedLaw:
    """Shares fixed in advance, moved to the ready members: the hindsight mixture (R, M), always-largest, one member."""

    weights: Floats
    name: str

    def begin(self, seeds: int, members: tuple[str, ...], rng: np.random.Generator) -> Floats:
        """Return the shares of each seed."""
        del rng
        return np.broadcast_to(self.weights, (seeds, len(members)))

    def step(self, state: Floats, view: View) -> Step:
        """Return the same shares again; those of members that are away go to the others evenly."""
        kept = np.where(view.ready, state, 0.0)
        lost = 1.0 - kept.sum(-1, keepdims=True)
        weights = kept + lost * view.ready / np.maximum(view.ready.sum(-1, keepdims=True), 1)
        return state, weights, weights


@dataclass(frozen=True, slots=True)
class PrimalDualLaw:
    """Online primal-dual: a price that rises with debt, all traffic to the member that is cheapest at that price."""

    parameters: DualParameters = field(default_factory=DualParameters)
    name: str = "PrimalDual"

    def begin(self, seeds: int, members: tuple[str, ...], rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
        """Return price (R,) and counts (R, M)."""
        del rng
        shape = (seeds, len(members))
        return np.zeros(seeds), np.zeros(shape), np.zeros(shape)

    def step(self, state: tuple[Floats, Floats, Floats], view: View) -> Step:
        """Move the price by the new outcomes, decide."""
        price, labels, satisfied = state
        joules = fill_joules(view.joules)
        price = apply_outcomes(price, labels, view.labels, view.satisfied, joules, view.alpha, self.parameters)
        labels, satisfied = labels + view.labels, satisfied + view.satisfied
        weights, plan = decide_by_price(price, labels, satisfied, joules, view.ready, self.parameters)
        return (price, labels, satisfied), weights, plan


@dataclass(frozen=True, slots=True)
class ThresholdLaw:
    """A calibrated threshold router in the manner of RouteLLM, between the cheapest and the safest member.

    The first `calibration_requests` go to both by halves. Then each group of requests is scored by the share of its
    calibration outcomes that the cheap member satisfied, the score is cut where the calibration sample just reaches
    alpha, and nothing is ever adapted again. `group` (N,) of the zoo is all that the router sees of a request.
    """

    cheap: int
    safe: int
    groups: int
    calibration_requests: int = 1000
    name: str = "Threshold"

    def begin(self, seeds: int, members: tuple[str, ...], rng: np.random.Generator) -> tuple[Floats, Floats, None]:
        """Return counts by group (R, G, M) and no decision yet."""
        del rng
        shape = (seeds, self.groups, len(members))
        return np.zeros(shape), np.zeros(shape), None

    def step(self, state: tuple[Floats, Floats, Floats | None], view: View) -> Step:
        """Collect until calibrated, then return the frozen shares by group (R, G, M)."""
        labels, satisfied, frozen = state
        if frozen is None:
            new_labels, new_satisfied = view.by_group()
            labels, satisfied = labels + new_labels, satisfied + new_satisfied
            if (labels.sum((1, 2)) >= self.calibration_requests).all():
                frozen = self._calibrate(labels, satisfied, view.alpha)
        weights = np.zeros(labels.shape) if frozen is None else frozen
        if frozen is None:
            weights[:, :, self.cheap] += 0.5
            weights[:, :, self.safe] += 0.5
        return (labels, satisfied, frozen), weights, weights

    def _calibrate(self, labels: Floats, satisfied: Floats, alpha: float) -> Floats:
        """Return (R, G, M) shares: groups by rising score to the safe member until the sample reaches alpha."""
        pair = [self.cheap, self.safe]
        share = estimate_cut(labels[:, :, pair], satisfied[:, :, pair], alpha)
        weights = np.zeros(labels.shape)
        weights[:, :, self.safe] = share
        weights[:, :, self.cheap] = 1.0 - share
        return weights


def make_hindsight_law(joules: Floats, accuracy: Floats, alpha: float) -> FixedLaw:
    """Return the cheapest fixed mixture (the blind optimum) for known means (..., M)."""
    weights, _ = solve_mixture(joules, accuracy, alpha, np.ones(np.shape(joules), dtype=bool))
    return FixedLaw(weights, "FixedMixture")


@dataclass(frozen=True, slots=True)
class PolicyLaw:
    """Any policy, run seed by seed on the counters that a Prometheus would hold; slow, and exactly the operator's path.

    seconds_per_interval and the policy's own idea of time are all the clock there is.
    """

    policy: ControllerPolicy[Any]
    safest: str | None
    seconds_per_interval: float = 15.0
    report_served: bool = True

    @property
    def name(self) -> str:
        """Return the policy's name."""
        return self.policy.name

    def begin(self, seeds: int, members: tuple[str, ...], rng: np.random.Generator) -> tuple[Any, ...]:
        """Return each seed's state after a first look at counters that stand at zero, and empty counters."""
        shape = (seeds, len(members))
        zero = np.zeros(len(members))
        state = self.policy.initial_state(tuple(Member(name) for name in members))
        state = self.policy.update(state, self._observe(members, 0.0, 1.0, zero, zero, zero))
        return [state] * seeds, np.zeros(shape), np.zeros(shape), members, rng

    def step(self, state: tuple[Any, ...], view: View) -> Step:
        """Advance every seed by one observation and one decision."""
        states, labels, satisfied, members, rng = state
        labels, satisfied = labels + view.labels, satisfied + view.satisfied
        at_seconds = view.index * self.seconds_per_interval
        following, weights = [], np.zeros(view.ready.shape)
        for seed, old in enumerate(states):
            seen = self._observe(members, at_seconds, view.alpha, view.served_all[seed], labels[seed], satisfied[seed])
            new = self.policy.update(old, seen) if view.index else old
            decision = self.policy.decide(new, self._request(members, at_seconds, view, seed), rng)
            weights[seed] = [decision.weights.get(name, 0.0) for name in members]
            following.append(new)
        return (following, labels, satisfied, members, rng), weights, weights

    def _request(self, members: tuple[str, ...], at_seconds: float, view: View, seed: int) -> DecisionRequest:
        joules = [None if np.isnan(value) else float(value) for value in view.joules[seed]]
        conditions = tuple(
            MemberCondition(name, bool(ready), cost)
            for name, ready, cost in zip(members, view.ready[seed], joules, strict=True)
        )
        current = {name: float(share) for name, share in zip(members, view.current[seed], strict=True) if share > 0.0}
        return DecisionRequest(
            conditions, view.alpha, view.expected_requests, at_seconds, self.safest, current_weights=current
        )

    def _observe(
        self, members: tuple[str, ...], at_seconds: float, alpha: float, served: Floats, labels: Floats, good: Floats
    ) -> Observation:
        outcomes = [
            OutcomeCounter(name, "study", satisfied=kind, count=float(good[n] if kind else labels[n] - good[n]))
            for n, name in enumerate(members)
            for kind in (True, False)
        ]
        counted = tuple(ServedCounter(name, "study", float(served[n])) for n, name in enumerate(members))
        return Observation(at_seconds, alpha, tuple(outcomes), counted if self.report_served else None)
