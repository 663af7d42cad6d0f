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
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.accuracy.anytime_estimates import (
    AnytimeParameters,
    LawState,
    Situation,
    estimate_accuracy,
    estimate_buffers,
    estimate_present_accuracy,
)
from wattzoo_policies.accuracy.frontier import estimate_price, solve_rows

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

KNOWN_LABELS = 10.0
"""Outcomes (or imaginary ones of a prior) from which on a member's accuracy is used; before, it is only tried."""

CATCH_UP_REQUESTS = 700.0
"""Requests within which the first buffer is earned; a debt is repaid by servers of its own no faster than that."""

START_REQUESTS = 2000.0
"""Requests after which members still unknown no longer hold up the law; they are tried beside it."""

SMOOTHING = 0.3
"""Share of the weights in force that the next ones keep, from the first decision of the law on."""

TRIAL_SHARE = 0.05
"""Most traffic that goes to members about which nothing is known, once the law runs."""

EXPLORATION_JOULES = 0.01
"""Most of the joules, as estimated, that exploration of known members may add."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A batch of decisions with what led to them; (R, M) weights, floor, wish and sustained, (R,) the rest.

    floor: what each member gets for its estimates' sake; wish: the weights without it; sustained: the mixture that they
        swing around, the cheapest that holds alpha and, while the service owes, repays within a horizon: what servers
        are for.
    buffer: sqrt(b^2 + u^2), the credit aimed at; predicted: credit expected once all feedback is in; target: tau.
    reached: tau can be met by the members in question; starting: nothing is compared yet. accuracy: (R, M) present
    estimates; price: joules per additional satisfied request at the plan, NaN where no member is better.
    """

    weights: Floats
    floor: Floats
    wish: Floats
    sustained: Floats
    target: Floats
    buffer: Floats
    predicted: Floats
    reached: Bools
    starting: Bools
    accuracy: Floats
    price: Floats


def decide_weights(state: LawState, now: Situation, parameters: AnytimeParameters) -> Choice:
    """Return the weights of the coming interval."""
    accuracy = estimate_present_accuracy(state)
    known = state.old_labels + state.new_labels >= KNOWN_LABELS
    passed = (state.served + now.pending).sum(-1)
    b, u, horizon = estimate_buffers(state, now, parameters)
    predicted = now.credit + state.open_credit + (now.pending * (accuracy - now.alpha)).sum(-1)
    buffer = np.hypot(b, u)
    target = _aim(buffer - predicted, b, horizon, passed, now)
    candidates = now.ready & known
    repaying = np.maximum(-predicted, 0.0) / np.maximum(horizon, CATCH_UP_REQUESTS)
    rows = len(b)  # both programmes at once: one service's decision is mostly calls
    solved, reaches = solve_rows(
        np.concatenate((now.joules, now.joules)),
        np.concatenate((accuracy, estimate_accuracy(state))),
        np.concatenate((target, now.alpha + repaying)),
        np.concatenate((candidates, candidates)),
    )
    plan, sustained, reached = solved[:rows], solved[rows:], reaches[:rows]
    hopeless = (np.where(candidates, accuracy, 0.0).max(-1) < now.alpha)[:, None]
    if hopeless.any():
        plan = np.where(hopeless, _most_promising(state, accuracy, now), plan)
        sustained = np.where(hopeless, plan, sustained)
    wish = _smooth(plan, now)
    price = estimate_price(now.joules, accuracy, plan)
    floor = _floor(plan, accuracy, price, passed, now, state)
    weights = _raise_to(floor, wish)
    starting = _is_starting(state, now, known, passed)
    if starting.any():
        start, safe = _start_weights(now)
        wish, weights = np.where(starting[:, None], safe, wish), np.where(starting[:, None], start, weights)
    return Choice(weights, floor, wish, sustained, target, buffer, predicted, reached, starting, accuracy, price)


def _aim(gap: Floats, b: Floats, horizon: Floats, passed: Floats, now: Situation) -> Floats:
    """Return (R,) the satisfaction to aim at: alpha, and what closes the gap in time."""
    fast = np.where(gap > b / 2.0, (gap - b / 2.0) / now.expected, 0.0)
    early = gap / np.maximum(CATCH_UP_REQUESTS - passed, now.expected)
    return np.asarray(now.alpha + np.where(passed < CATCH_UP_REQUESTS, early, gap / horizon + fast))


def _is_starting(state: LawState, now: Situation, known: Bools, passed: Floats) -> Bools:
    """Return (R,) whether too little is known to compare: until each ready member has its first outcomes.

    A member that joins a service whose other members are long known does not bring the start back.
    """
    unknown = (now.ready & ~known).any(-1)
    if not unknown.any():
        return np.asarray(~now.ready.any(-1))
    some = (now.ready & known).any(-1)
    early = (passed < START_REQUESTS) & (state.labels.sum(-1) < START_REQUESTS)
    joined_late = (state.labels * now.ready).max(-1) >= CATCH_UP_REQUESTS
    return np.asarray(~some | (unknown & early & ~joined_late))


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


def _smooth(weights: Floats, now: Situation) -> Floats:
    """Keep part of the weights in force, over ready members; all is new where nothing was sent yet."""
    old = np.where(now.ready, now.current, 0.0)
    total = old.sum(-1, keepdims=True)
    apply = total > 0.0
    return np.where(apply, (1.0 - SMOOTHING) * weights + SMOOTHING * old / np.where(apply, total, 1.0), weights)


def _floor(plan: Floats, accuracy: Floats, price: Floats, passed: Floats, now: Situation, state: LawState) -> Floats:
    """Return (R, M) the little traffic that each ready member gets, so that its estimates stay alive.

    A request on member m instead of the plan costs c = (E_m - E) - price (p_m - p), the price the slope of the
    frontier at the plan. Each member may cost one per cent / (M - 1) of the joules; at most (.005 + .05 / sqrt(k + 1))
    / (M - 1) of the traffic at interval k, or `TRIAL_SHARE` / (M - 1) where its place off the frontier could be luck (c
    within two standard errors). Members of which nothing is known share `TRIAL_SHARE`.
    """
    labels = state.old_labels + state.new_labels
    count = now.ready.sum(-1, keepdims=True)
    others = np.maximum(count - 1, 1)
    base = (0.005 + 0.05 / np.sqrt((passed / now.expected)[:, None] + 1.0)) / others
    mean_joules, mean_accuracy = (plan * now.joules).sum(-1, keepdims=True), (plan * accuracy).sum(-1, keepdims=True)
    price = np.where((plan > 0.0).sum(-1) > 1, price, 0.0)[:, None]
    cost = np.maximum(now.joules - mean_joules - price * (accuracy - mean_accuracy), 1e-9 * mean_joules)
    error = price * np.sqrt(accuracy * (1.0 - accuracy) / (labels + 2.0))
    most = np.where(cost < 2.0 * error, np.maximum(base, TRIAL_SHARE / others), base)
    floor = np.minimum(most, EXPLORATION_JOULES / others * mean_joules / cost)
    strangers = now.ready & (labels < KNOWN_LABELS)
    if strangers.any():
        trial = np.minimum(TRIAL_SHARE, 20.0 / now.expected[:, None]) / np.maximum(strangers.sum(-1, keepdims=True), 1)
        floor = np.where(strangers, np.maximum(base, trial), floor)
    return np.asarray(np.where(now.ready & (count > 1), floor, 0.0))


def _raise_to(floor: Floats, weights: Floats) -> Floats:
    """Raise shares below the floor to it, in proportion at the cost of those above."""
    missing = np.maximum(floor - weights, 0.0)
    spare = np.maximum(weights - floor, 0.0)
    room = spare.sum(-1, keepdims=True)
    taken = missing.sum(-1, keepdims=True) / np.maximum(room, 1e-300)
    return np.asarray(np.where(room > 0.0, weights + missing - spare * taken, weights))
