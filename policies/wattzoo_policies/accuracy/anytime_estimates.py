"""What `MESSPlusAnytime` knows of a service and how it learns, over arrays whose leading axis is a batch of services.

Estimates of members (accuracy, drift that all share), the credit that partial feedback leaves open, and the buffer that
the promise asks for. Axes: R services, M members. Derivation and proof: `docs/design/0010-the-anytime-law.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RECENT_LABELS = 400.0
MEMORY_LABELS = 4000.0
"""The estimates of members rest on their last 4,000 outcomes; a shift common to all is seen in the last 400."""

CHANGE_LABELS = 20.0
CHANGE_ERRORS = 3.0
CHANGE_KEEPS = 0.1
"""A member whose last 20 outcomes or more are 3 standard errors off the older ones keeps 10 % of its history."""

MEMBER_REQUESTS = 200.0
"""Requests that each member adds to the beginning of a promise: of many members known by a few outcomes each, the one
that looks best is one that was lucky, so plans disappoint until luck has averaged out."""

LEAST_VARIANCE = 0.05
LEAST_FEEDBACK = 0.001
FEEDBACK_PRIOR = 20.0


@dataclass(frozen=True, slots=True)
class AnytimeParameters:
    """What may be set; the defaults are the ones every published figure uses.

    delta: promised probability of ever owing, after the first requests. Smaller buys more credit.
    drift_buffer_requests: least buffer, for traffic that is known to drift; 0 trusts the bound.
    least_horizon_requests: a gap is closed over at least so many requests. With intervals of few requests a larger one
        moves weights, and the replicas behind them, less, and costs more credit.
    feedback_delay_seconds: time after which a request without feedback is taken never to get any.
    unknown_expected_requests: requests of the coming interval when nobody can say how many will come.
    """

    delta: float = 0.05
    drift_buffer_requests: float = 0.0
    least_horizon_requests: float = 0.0
    feedback_delay_seconds: float = 60.0
    unknown_expected_requests: int = 100

    def __post_init__(self) -> None:
        if not (math.isfinite(self.delta) and 0.0 < self.delta < 0.5):
            raise ValueError(f"delta must lie between 0 and 0.5, not {self.delta}")
        for name in ("drift_buffer_requests", "least_horizon_requests"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"{name} must be at least 0, not {value}")
        if not (math.isfinite(self.feedback_delay_seconds) and self.feedback_delay_seconds >= 0.0):
            raise ValueError(f"feedback_delay_seconds must be at least 0, not {self.feedback_delay_seconds}")
        if self.unknown_expected_requests < 1:
            raise ValueError(f"unknown_expected_requests must be at least 1, not {self.unknown_expected_requests}")


@dataclass(frozen=True, slots=True)
class LawState:
    """Everything the law remembers, besides the exact sums of a ledger.

    old_labels, old_satisfied, new_labels, new_satisfied: (R, M) outcomes that the estimates use, prior included; the
        new ones wait for the change detector.
    recent_labels, recent_satisfied: (R, M) outcomes of the last `RECENT_LABELS` or so, with exponential weights.
    served, labels: (R, M) requests whose feedback had time to come, and feedback that came.
    open_credit: (R,) estimated credit of served requests that gave no feedback, doubly robust.
    """

    old_labels: Floats
    old_satisfied: Floats
    new_labels: Floats
    new_satisfied: Floats
    recent_labels: Floats
    recent_satisfied: Floats
    served: Floats
    labels: Floats
    open_credit: Floats


@dataclass(frozen=True, slots=True)
class Increments:
    """What one update brings, each (R, M).

    served: requests whose feedback had time to come since the last update; labels, satisfied: feedback that came.
    """

    served: Floats
    labels: Floats
    satisfied: Floats


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision depends on besides the state.

    joules: (R, M) per request, finite and positive; ready: (R, M); credit: (R,) sum of s - alpha over feedback;
    pending: (R, M) served requests whose feedback is still due; expected: (R,) requests until the next decision;
    current: (R, M) weights in force, zero rows when there are none; safest: (M,) members that traffic starts on.
    """

    joules: Floats
    ready: Bools
    credit: Floats
    pending: Floats
    alpha: float
    expected: Floats
    current: Floats
    safest: Bools


def make_law_state(prior_accuracy: Floats, prior_samples: Floats, batch: int) -> LawState:
    """Return the state of `batch` services; priors are (M,), zero samples for none."""
    shape = (batch, len(prior_samples))
    zeros = np.zeros(shape)
    labels = np.broadcast_to(prior_samples, shape).copy()
    satisfied = np.broadcast_to(prior_samples * prior_accuracy, shape).copy()
    return LawState(labels, satisfied, zeros, zeros, zeros, zeros, zeros, zeros, np.zeros(batch))


def estimate_accuracy(state: LawState) -> Floats:
    """Return (R, M) estimated satisfaction, by the rule of succession."""
    labels = state.old_labels + state.new_labels
    return (state.old_satisfied + state.new_satisfied + 1.0) / (labels + 2.0)


def estimate_present_accuracy(state: LawState) -> Floats:
    """Return (R, M) satisfaction that members would reach on the present traffic.

    All are shifted by how much traffic has lately been easier or harder than their own estimates say.
    """
    accuracy = estimate_accuracy(state)
    recent = state.recent_labels.sum(-1, keepdims=True)
    excess = (state.recent_satisfied - state.recent_labels * accuracy).sum(-1, keepdims=True)
    return np.asarray(np.minimum(np.maximum(accuracy + excess / np.maximum(recent, 1.0), 0.001), 0.999))


def estimate_feedback(state: LawState) -> Floats:
    """Return (R, M) shares of requests that give feedback; members with little data lean on all others."""
    served, labels = state.served.sum(-1, keepdims=True), state.labels.sum(-1, keepdims=True)
    share = np.where(served > 0.0, labels / np.maximum(served, 1.0), 1.0)
    mixed = (state.labels + FEEDBACK_PRIOR * share) / (state.served + FEEDBACK_PRIOR)
    return np.asarray(np.minimum(np.maximum(mixed, LEAST_FEEDBACK), 1.0))


def apply_increments(state: LawState, new: Increments, alpha: float) -> LawState:
    """Return the state after an update: open credit first, with the accuracies of before, then the estimates.

    A request that gave no feedback is worth p - alpha; each one that did corrects that by (s - p)(1 - f)/f, so a wrong
    p biases nothing and with f = 1 the open credit is exactly zero.
    """
    accuracy = estimate_accuracy(state)
    counted = replace(state, served=state.served + new.served, labels=state.labels + new.labels)
    feedback = estimate_feedback(counted)
    silent = (new.served - new.labels) * (accuracy - alpha)
    correction = (new.satisfied - new.labels * accuracy) * (1.0 - feedback) / feedback
    opened = state.open_credit + (silent + correction).sum(-1)
    keep = np.exp(-new.labels.sum(-1, keepdims=True) / RECENT_LABELS)
    fresh = replace(
        counted,
        open_credit=opened,
        new_labels=state.new_labels + new.labels,
        new_satisfied=state.new_satisfied + new.satisfied,
        recent_labels=state.recent_labels * keep + new.labels,
        recent_satisfied=state.recent_satisfied * keep + new.satisfied,
    )
    return _fold_new(fresh)


def _fold_new(state: LawState) -> LawState:
    """Merge enough new outcomes into the old ones; a member that changed first forgets most of its history."""
    full = state.new_labels >= CHANGE_LABELS
    if not full.any():
        return state
    n_old, n_new = np.maximum(state.old_labels, 1.0), np.maximum(state.new_labels, 1.0)
    pooled = (state.old_satisfied + state.new_satisfied) / (n_old + n_new)
    error = np.sqrt(np.maximum(pooled * (1.0 - pooled), 1e-9) * (1.0 / n_old + 1.0 / n_new))
    off = np.abs(state.old_satisfied / n_old - state.new_satisfied / n_new) > CHANGE_ERRORS * error
    changed = full & (state.old_labels >= CHANGE_LABELS) & off
    keep = np.where(changed, CHANGE_KEEPS, np.minimum(1.0, MEMORY_LABELS / n_old))
    return replace(
        state,
        old_labels=np.where(full, state.old_labels * keep + state.new_labels, state.old_labels),
        old_satisfied=np.where(full, state.old_satisfied * keep + state.new_satisfied, state.old_satisfied),
        new_labels=np.where(full, 0.0, state.new_labels),
        new_satisfied=np.where(full, 0.0, state.new_satisfied),
    )


def estimate_credit(state: LawState, credit: Floats, pending: Floats, alpha: float) -> Floats:
    """Return (R,) credit once all feedback is in: counted, silent and still due."""
    due = (pending * (estimate_present_accuracy(state) - alpha)).sum(-1)
    return np.asarray(credit + state.open_credit + due)


def estimate_buffers(state: LawState, now: Situation, parameters: AnytimeParameters) -> tuple[Floats, Floats, Floats]:
    """Return (R,) buffers b and u in requests, and the horizon H over which a gap is closed.

    D requests are decided before an outcome can answer. With H = 2 D the credit varies around its course by at most
    (H / 2 + D) / 4, and by D e if the estimates are off by e. b makes exp(-b^2 / 2v) sum to delta over all decisions,
    by blocks of one horizon. u bounds with probability delta, at any one moment, what is unknown of requests without
    feedback.
    """
    blind = now.pending.sum(-1) + now.expected
    horizon = np.maximum(2.0 * blind, parameters.least_horizon_requests)
    accuracy, feedback = estimate_accuracy(state), estimate_feedback(state)
    spread = accuracy * (1.0 - accuracy)
    weights = np.where(now.current.sum(-1, keepdims=True) > 0.0, now.current, 1.0 / now.current.shape[-1])
    error = (weights**2 * spread / (state.old_labels + state.new_labels + 2.0)).sum(-1) + _shift_variance(state, spread)
    variance = (horizon / 2.0 + blind) / 4.0 + blind**2 * error
    number = (state.served + now.pending).sum(-1)
    b = np.sqrt(2.0 * variance * _log_of_decisions(number, horizon, now.expected, parameters))
    silence = (1.0 - feedback) / feedback
    unknown = ((state.served * np.maximum(spread, LEAST_VARIANCE) + now.pending * 0.25) * silence).sum(-1)
    u = np.sqrt(2.0 * unknown * math.log(1.0 / parameters.delta))
    return np.maximum(b, parameters.drift_buffer_requests), u, horizon


def _shift_variance(state: LawState, spread: Floats) -> Floats:
    """Return (R,) the variance of the shift in `estimate_present_accuracy`: recent mean against the mean of all.

    Exponential weights that sum to n are worth 2 n outcomes; while those are all there are, the two means are one.
    """
    recent, total = state.recent_labels.sum(-1), (state.old_labels + state.new_labels).sum(-1)
    typical = (state.recent_labels * spread).sum(-1) / np.maximum(recent, 1.0)
    return np.asarray(typical * np.maximum(0.5 / np.maximum(recent, 1.0) - 1.0 / np.maximum(total, 1.0), 0.0))


def _log_of_decisions(number: Floats, horizon: Floats, expected: Floats, parameters: AnytimeParameters) -> Floats:
    """Return ln(1 / delta_k) for the decision after `number` requests; delta_k sum to at most delta.

    Block j of one horizon holds H / B decisions, each with delta / (.645 (j + 2)^2 H / B): sum 1 / (j + 2)^2 = .645.
    """
    return np.log(0.645 * (number / horizon + 2.0) ** 2 * (horizon / expected) / parameters.delta)


def estimate_promise_start(
    alpha: float,
    accuracy: Floats,
    interval_requests: float,
    lag_intervals: float,
    feedback: float,
    parameters: AnytimeParameters,
) -> float:
    """Return N0, the request from which the promise holds; infinite where no member (M,) exceeds alpha.

    At least 1,000 and `MEMBER_REQUESTS` a member, and until the best member has earned twice the buffer of that
    request, half of its edge being left for everything else, and what the start may owe (half the requests that are
    decided blind are spread evenly).
    """
    best = float(accuracy.max())
    edge = best - alpha
    if not edge > 0.0:
        return math.inf
    blind = interval_requests * (1.0 + lag_intervals)
    horizon = max(2.0 * blind, parameters.least_horizon_requests)
    owed = blind * max(0.0, alpha - (best + float(accuracy.mean())) / 2.0)
    silence = (1.0 - feedback) / feedback
    spread = max(alpha * (1.0 - alpha), LEAST_VARIANCE)
    least = max(1000.0, MEMBER_REQUESTS * len(accuracy))
    number = least
    for _ in range(200):
        decisions = 0.645 * (number / horizon + 2.0) ** 2 * (horizon / interval_requests)
        variance = (horizon / 2.0 + blind) / 4.0
        b = max(math.sqrt(2.0 * variance * math.log(decisions / parameters.delta)), parameters.drift_buffer_requests)
        u = math.sqrt(2.0 * (number * spread + blind * 0.25) * silence * math.log(1.0 / parameters.delta))
        after = max(least, (2.0 * (b + u) + owed) / edge)
        if abs(after - number) < 0.5:
            break
        number = (number + after) / 2.0
    return number
