"""Words for a decision of the anytime law: which reason, what binds, who came second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.accuracy.anytime_estimates import Situation
from wattzoo_policies.accuracy.anytime_law import Choice
from wattzoo_policies.signals import Constraint, Decision, DecisionRequest, Reason, RunnerUp

Floats = NDArray[np.float64]

_NEGLIGIBLE = 1e-3


def explain_choice(
    names: Sequence[str],
    request: DecisionRequest,
    now: Situation | None,
    choice: Choice | None,
    everyone: Choice | None,
) -> Decision:
    """Return the decision of a batch of one; `choice` is `None` when no member can serve.

    everyone: the choice if all members were ready, which is the wish.
    """
    wish = {} if everyone is None else _by_name(names, _wish(everyone))
    if now is None or choice is None:
        message = "no member can serve; weights stay as they are"
        return Decision({}, wish, Reason.NO_READY_MEMBER, message, Constraint.READINESS)
    accuracy, joules, ready = choice.accuracy[0], now.joules[0], now.ready[0]
    weights = choice.weights[0]
    reason, constraint = _reason(request, now, choice, accuracy, wish, names)
    price = float(choice.price[0])
    known_price = None if np.isnan(price) or bool(choice.starting[0]) else price
    known = _known_joules(request, names)
    expected = float(weights @ accuracy)
    shares = zip(names, weights, strict=True)
    split = ", ".join(f"{name} {share:.0%}" for name, share in shares if share > _NEGLIGIBLE)
    message = (
        f"credit {choice.predicted[0]:.0f} of {choice.buffer[0]:.0f} requests aimed at, so {choice.target[0]:.3f} for "
        f"a target of {request.alpha:.3f}: {split}; expected satisfaction {expected:.3f}"
    )
    if bool(choice.starting[0]):
        message = f"no outcomes of every member yet: half on the safest, half even: {split}"
    if not known.all():
        unknown = ", ".join(name for name, has in zip(names, known, strict=True) if not has)
        message += f"; joules of {unknown} unknown, taken as the dearest"
    return Decision(
        weights=_by_name(names, np.where(ready, weights, -1.0)),
        wish=wish,
        reason=reason,
        message=message,
        binding_constraint=constraint,
        runner_up=_runner_up(names, accuracy, joules, ready, weights, known_price or 0.0),
        price_joules_per_satisfied=known_price,
        expected_satisfaction=expected,
        expected_joules_per_request=float(weights @ joules) if known[ready].all() else None,
        reachable=(float(accuracy[ready].min()), float(accuracy[ready].max())),
        surplus_requests=None if bool(choice.starting[0]) else float(choice.predicted[0] - choice.buffer[0]),
        floor=_by_name(names, np.where(ready, choice.floor[0], -1.0)),
    )


def _wish(choice: Choice) -> Floats:
    """Return (M,) what replicas are planned from: all members while they are compared, no exploration later.

    Servers take minutes to come and burn while they wait, weights change within seconds: servers are for the mixture
    that the weights swing around. What the swings need beyond the planners' reserve is steered later.
    """
    return np.asarray(choice.weights[0] if bool(choice.starting[0]) else choice.sustained[0])


def _by_name(names: Sequence[str], row: Floats) -> dict[str, float]:
    """Return shares by name; negative ones mark members that get none."""
    return {name: float(share) for name, share in zip(names, row, strict=True) if share >= 0.0}


def _known_joules(request: DecisionRequest, names: Sequence[str]) -> NDArray[np.bool_]:
    joules = {c.name: c.joules_per_request for c in request.members}
    values = np.array([np.nan if joules[name] is None else joules[name] for name in names], dtype=float)
    return np.asarray(np.isfinite(values) & (values > 0.0))


def _reason(
    request: DecisionRequest,
    now: Situation,
    choice: Choice,
    accuracy: Floats,
    wish: dict[str, float],
    names: Sequence[str],
) -> tuple[Reason, Constraint]:
    ready = now.ready[0]
    if ready.sum() == 1:
        only = names[int(np.argmax(ready))]
        return Reason.ONLY_READY_MEMBER, Constraint.READINESS if wish.get(only, 0.0) < 1.0 else Constraint.NONE
    if bool(choice.starting[0]):
        return Reason.NOTHING_KNOWN_YET, Constraint.KNOWLEDGE
    if float(accuracy[ready].max()) < request.alpha:
        return Reason.TARGET_UNREACHABLE, Constraint.ACCURACY
    if not _known_joules(request, names)[ready].all():
        return Reason.JOULES_UNKNOWN, Constraint.KNOWLEDGE
    cheapest = int(np.argmin(np.where(ready, now.joules[0], np.inf)))
    if choice.wish[0, cheapest] > 1.0 - _NEGLIGIBLE:
        return Reason.CHEAPEST_SUFFICES, Constraint.NONE
    owing = float(choice.predicted[0]) < 0.0
    return (Reason.REPAYING_DEBT if owing else Reason.HOLDING_TARGET), Constraint.ACCURACY


def _runner_up(
    names: Sequence[str], accuracy: Floats, joules: Floats, ready: NDArray[np.bool_], weights: Floats, price: float
) -> RunnerUp | None:
    if ready.sum() < 2:
        return None
    first = int(np.argmax(weights))
    value = np.where(ready, joules - price * accuracy, np.inf)
    second = int(np.argmin(np.where(np.arange(len(names)) == first, np.inf, value)))
    return RunnerUp(names[second], max(0.0, float(value[second] - value[first])))
