"""The laws that the study knows, each over a batch of seeds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.accuracy.anytime_law import (
    AnytimeParameters,
    Increments,
    LawState,
    Situation,
    apply_increments,
    decide_weights,
    make_law_state,
)
from wattzoo_policies.sim.study import View

Floats = NDArray[np.float64]


def fill_joules(joules: Floats) -> Floats:
    """Return joules in which an unknown member counts as the dearest known one; all 1 where none is known."""
    known = np.isfinite(joules) & (joules > 0.0)
    dearest = np.where(known, joules, 0.0).max(axis=-1, keepdims=True)
    return np.where(known, joules, np.where(dearest > 0.0, dearest, 1.0))


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

    def step(self, state: tuple[LawState, Floats], view: View) -> tuple[tuple[LawState, Floats], Floats, Floats]:
        """Fold what is new, decide."""
        inner, credit = state
        inner = apply_increments(inner, Increments(view.served, view.labels, view.satisfied), view.alpha)
        credit = credit + (view.satisfied - view.alpha * view.labels).sum(-1)
        choice = decide_weights(
            inner,
            Situation(
                joules=fill_joules(view.joules),
                ready=view.ready,
                credit=credit,
                pending=view.pending,
                alpha=view.alpha,
                expected=np.full(len(credit), view.expected_requests),
                current=view.current,
                safest=self.safest,
            ),
            self.parameters,
        )
        return (inner, credit), choice.weights, choice.wish
