"""The arithmetic of `MESSPlusAnytime`, over arrays whose leading axis is a batch of independent services.

The operator's policy is the batch of one and the study runs hundreds of seeds at once, so both are this code. One
service owes alpha per request and has earned S: its *credit* is C = sum(s - alpha). The law steers C to a buffer b
that is just large enough for C to stay above zero with the promised probability while requests are decided blind:

    gap  = sqrt(b^2 + u^2) - C_predicted
    tau  = alpha + gap / H  (faster when the gap exceeds b / 2, or in the first requests)
    w    = argmin w.E  subject to  w.p >= tau

b covers luck between two decisions, u covers what partial feedback leaves unknown. Derivation, proof and limits are in
`docs/design/0010-the-anytime-law.md`. Axes: R services, M members.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.accuracy.frontier import estimate_price, solve_mixture

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

KNOWN_LABELS = 10.0
"""Outcomes (or imaginary ones of a prior) from which on a member's accuracy is used; before, it is only tried."""

CATCH_UP_REQUESTS = 700.0
"""Requests within which the first buffer is earned; also from where on weights are smoothed."""

START_REQUESTS = 2000.0
"""Requests after which members still unknown no longer hold up the law; they are tried beside it."""

SMOOTHING = 0.3
"""Share of the weights in force that the next ones keep."""

RECENT_LABELS = 400.0
MEMORY_LABELS = 4000.0
"""The estimates of members rest on their last 4,000 outcomes; a shift common to all is seen in the last 400."""

CHANGE_LABELS = 20.0
CHANGE_ERRORS = 3.0
CHANGE_KEEPS = 0.1
"""A member whose last 20 outcomes or more are 3 standard errors off the older ones keeps 10 % of its history."""

TRIAL_SHARE = 0.05
"""Most traffic that goes to members about which nothing is known, once the law runs."""

EXPLORATION_JOULES = 0.01
"""Most of the joules, as estimated, that exploration of known members may add."""

LEAST_VARIANCE = 0.05
LEAST_FEEDBACK = 0.001
FEEDBACK_PRIOR = 20.0


@dataclass(frozen=True, slots=True)
class AnytimeParameters:
    """What may be set; the defaults are the ones every published figure uses.

    delta: promised probability of ever owing, after the first requests. Smaller buys more credit.
    drift_buffer_requests: least buffer, for traffic that is known to drift; 0 trusts the bound.
    feedback_delay_seconds: time after which a request without feedback is taken never to get any.
    unknown_expected_requests: requests of the coming interval when nobody can say how many will come.
    """

    delta: float = 0.05
    drift_buffer_requests: float = 0.0
    feedback_delay_seconds: float = 15.0
    unknown_expected_requests: int = 100

    def __post_init__(self) -> None:
        if not (math.isfinite(self.delta) and 0.0 < self.delta < 0.5):
            raise ValueError(f"delta must lie between 0 and 0.5, not {self.delta}")
        if not (math.isfinite(self.drift_buffer_requests) and self.drift_buffer_requests >= 0.0):
            raise ValueError(f"drift_buffer_requests must be at least 0, not {self.drift_buffer_requests}")
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


@dataclass(frozen=True, slots=True)
class Choice:
    """A batch of decisions with what led to them; (R, M) weights and wish (without exploration), (R,) the rest.

    buffer: sqrt(b^2 + u^2), the credit aimed at; predicted: credit expected once all feedback is in; target: tau.
    reached: tau can be met by the members in question; starting: nothing is compared yet.
    """

    weights: Floats
    wish: Floats
    target: Floats
    buffer: Floats
    predicted: Floats
    reached: Bools
    starting: Bools


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


def estimate_shift(state: LawState) -> Floats:
    """Return (R, 1) by how much traffic has lately been harder (negative) than the estimates of all members say."""
    recent = state.recent_labels.sum(-1, keepdims=True)
    excess = (state.recent_satisfied - state.recent_labels * estimate_accuracy(state)).sum(-1, keepdims=True)
    return np.asarray(excess / np.maximum(recent, 1.0))


def estimate_present_accuracy(state: LawState) -> Floats:
    """Return (R, M) satisfaction that members would reach on the present traffic."""
    return np.clip(estimate_accuracy(state) + estimate_shift(state), 0.001, 0.999)


def estimate_feedback(state: LawState) -> Floats:
    """Return (R, M) shares of requests that give feedback; members with little data lean on all others."""
    served, labels = state.served.sum(-1, keepdims=True), state.labels.sum(-1, keepdims=True)
    share = np.where(served > 0.0, labels / np.maximum(served, 1.0), 1.0)
    mixed = (state.labels + FEEDBACK_PRIOR * share) / (state.served + FEEDBACK_PRIOR)
    return np.clip(mixed, LEAST_FEEDBACK, 1.0)


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


def estimate_buffers(
    state: LawState, pending: Floats, expected: Floats, parameters: AnytimeParameters
) -> tuple[Floats, Floats, Floats]:
    """Return (R,) buffers b and u in requests, and the horizon H over which a gap is closed.

    D requests are decided before an outcome can answer; with H = 2 D the credit's variance around its course is at
    most v = (H / 2 + D) / 4. b makes exp(-b^2 / 2v) summable over decisions. u bounds with
    probability delta, at any one moment, what is unknown of requests without feedback.
    """
    blind = pending.sum(-1) + expected
    horizon = 2.0 * blind
    variance = (horizon / 2.0 + blind) / 4.0
    number = (state.served.sum(-1) + pending.sum(-1)) / expected
    b = np.sqrt(2.0 * variance * np.log(1.65 * (number + 2.0) ** 2 / parameters.delta))
    accuracy, feedback = estimate_accuracy(state), estimate_feedback(state)
    silence = (1.0 - feedback) / feedback
    spread = np.maximum(accuracy * (1.0 - accuracy), LEAST_VARIANCE)
    unknown = ((state.served * spread + pending * 0.25) * silence).sum(-1)
    u = np.sqrt(2.0 * unknown * math.log(1.0 / parameters.delta))
    return np.maximum(b, parameters.drift_buffer_requests), u, horizon


def decide_weights(state: LawState, now: Situation, parameters: AnytimeParameters) -> Choice:
    """Return the weights of the coming interval."""
    accuracy = estimate_present_accuracy(state)
    known = state.old_labels + state.new_labels >= KNOWN_LABELS
    passed = (state.served + now.pending).sum(-1)
    b, u, horizon = estimate_buffers(state, now.pending, now.expected, parameters)
    predicted = now.credit + state.open_credit + (now.pending * (accuracy - now.alpha)).sum(-1)
    buffer = np.hypot(b, u)
    target = _aim(buffer - predicted, b, horizon, passed, now)
    candidates = now.ready & known
    plan, reached = solve_mixture(now.joules, accuracy, target, candidates)
    hopeless = np.where(candidates, accuracy, 0.0).max(-1) < now.alpha
    if hopeless.any():
        plan = np.where(hopeless[:, None], _most_promising(state, accuracy, now), plan)
    wish = _smooth(plan, now, passed)
    weights = _with_floor(wish, plan, accuracy, now, state)
    starting = _is_starting(state, now, known, passed)
    if starting.any():
        start, safe = _start_weights(now)
        wish, weights = np.where(starting[:, None], safe, wish), np.where(starting[:, None], start, weights)
    return Choice(weights, wish, target, buffer, predicted, reached, starting)


def _aim(gap: Floats, b: Floats, horizon: Floats, passed: Floats, now: Situation) -> Floats:
    """Return (R,) the satisfaction to aim at: alpha, and what closes the gap in time."""
    fast = np.where(gap > b / 2.0, (gap - b / 2.0) / now.expected, 0.0)
    early = gap / np.maximum(CATCH_UP_REQUESTS - passed, now.expected)
    return np.asarray(now.alpha + np.where(passed < CATCH_UP_REQUESTS, early, gap / horizon + fast))


def _is_starting(state: LawState, now: Situation, known: Bools, passed: Floats) -> Bools:
    """Return (R,) whether too little is known to compare: until each ready member has its first outcomes."""
    unknown = now.ready & ~known
    some = (now.ready & known).any(-1)
    early = (passed < START_REQUESTS) & (state.labels.sum(-1) < START_REQUESTS)
    return np.asarray(~some | (unknown.any(-1) & early & ~_is_joined_late(state, now)))


def _is_joined_late(state: LawState, now: Situation) -> Bools:
    """Return (R,) whether the unknown members joined a service whose other members are long known."""
    return np.asarray((state.labels * now.ready).max(-1) >= CATCH_UP_REQUESTS)


def _most_promising(state: LawState, accuracy: Floats, now: Situation) -> Floats:
    """Return (R, M) all weight on the safest member while it may still reach alpha, then on who may be most accurate.

    Only used where no member seems to reach alpha. Without the optimism a member that was unlucky in its first
    outcomes would never be tried again, and the service would stay in debt for ever.
    """
    labels = state.old_labels + state.new_labels
    total = labels.sum(-1, keepdims=True)
    hope = accuracy + np.sqrt(0.5 * np.log(total + math.e) / (labels + 1.0))
    hope = np.where(now.safest & (hope >= now.alpha), np.inf, hope)
    best = np.argmax(np.where(now.ready, hope, -np.inf), axis=-1)[:, None]
    return np.where(now.ready, np.arange(hope.shape[-1]) == best, 0.0)


def _start_weights(now: Situation) -> tuple[Floats, Floats]:
    """Return (R, M) half on the safest member and half even, all even where no safest member is ready; and the safe."""
    ready = now.ready.astype(float)
    even = ready / np.maximum(ready.sum(-1, keepdims=True), 1.0)
    safest = ready * now.safest
    total = safest.sum(-1, keepdims=True)
    safe = np.where(total > 0.0, safest / np.maximum(total, 1.0), even)
    return 0.5 * safe + 0.5 * even, safe


def estimate_promise_start(
    alpha: float,
    best: float,
    interval_requests: float,
    lag_intervals: float,
    feedback: float,
    parameters: AnytimeParameters,
) -> float:
    """Return N0, the request from which the promise holds; infinite where the best member does not exceed alpha.

    max(1000, twice the buffer at that request over what the best member earns per request): the buffer has to be earned
    first, with half the traffic's edge left for everything else.
    """
    edge = best - alpha
    if not edge > 0.0:
        return math.inf
    number = 1000.0
    blind = interval_requests * (1.0 + lag_intervals)
    silence = (1.0 - feedback) / feedback
    spread = max(alpha * (1.0 - alpha), LEAST_VARIANCE)
    for _ in range(200):
        b = math.sqrt(blind * math.log(1.65 * (number / interval_requests + 2.0) ** 2 / parameters.delta))
        unknown = (number * spread + blind * 0.25) * silence
        u = math.sqrt(2.0 * unknown * math.log(1.0 / parameters.delta))
        after = max(1000.0, 2.0 * (max(b, parameters.drift_buffer_requests) + u) / edge)
        if abs(after - number) < 0.5:
            break
        number = (number + after) / 2.0
    return number


def _smooth(weights: Floats, now: Situation, passed: Floats) -> Floats:
    """Keep part of the weights in force, over ready members."""
    old = np.where(now.ready, now.current, 0.0)
    total = old.sum(-1, keepdims=True)
    apply = (passed[:, None] >= CATCH_UP_REQUESTS) & (total > 0.0)
    return np.where(apply, (1.0 - SMOOTHING) * weights + SMOOTHING * old / np.where(apply, total, 1.0), weights)


def _with_floor(weights: Floats, plan: Floats, accuracy: Floats, now: Situation, state: LawState) -> Floats:
    """Give each ready member a little traffic, so that its estimates stay alive.

    A request on member m instead of the plan costs c = (E_m - E) - price (p_m - p), the price the slope of the
    frontier at the plan. Each member may cost one per cent / (M - 1) of the joules; at most (.005 + .05 / sqrt(k + 1))
    / (M - 1) of the traffic at interval k, or `TRIAL_SHARE` / (M - 1) where its place off the frontier could be luck (c
    within two standard errors). Members of which nothing is known share `TRIAL_SHARE`.
    """
    labels = state.old_labels + state.new_labels
    others = np.maximum(now.ready.sum(-1, keepdims=True) - 1, 1)
    number = ((state.served + now.pending).sum(-1) / now.expected)[:, None]
    base = (0.005 + 0.05 / np.sqrt(number + 1.0)) / others
    mean_joules, mean_accuracy = (plan * now.joules).sum(-1, keepdims=True), (plan * accuracy).sum(-1, keepdims=True)
    price = np.where((plan > 0.0).sum(-1) > 1, estimate_price(now.joules, accuracy, plan), 0.0)[:, None]
    cost = np.maximum(now.joules - mean_joules - price * (accuracy - mean_accuracy), 1e-9 * mean_joules)
    error = price * np.sqrt(accuracy * (1.0 - accuracy) / (labels + 2.0))
    most = np.where(cost < 2.0 * error, np.maximum(base, TRIAL_SHARE / others), base)
    floor = np.minimum(most, EXPLORATION_JOULES / others * mean_joules / cost)
    strangers = now.ready & (labels < KNOWN_LABELS)
    trial = np.minimum(TRIAL_SHARE, 20.0 / now.expected[:, None]) / np.maximum(strangers.sum(-1, keepdims=True), 1)
    floor = np.where(strangers, np.maximum(base, trial), floor)
    floor = np.where(now.ready & (now.ready.sum(-1, keepdims=True) > 1), floor, 0.0)
    missing, spare = np.maximum(floor - weights, 0.0), np.maximum(weights - floor, 0.0)
    room = spare.sum(-1, keepdims=True)
    taken = missing.sum(-1, keepdims=True) / np.where(room > 0.0, room, 1.0)
    return np.where(room > 0.0, weights + missing - spare * taken, weights)
