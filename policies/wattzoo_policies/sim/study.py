"""Replay of request outcomes against laws that set weights, vectorised over seeds.

The study does to a law what a gateway and a feedback source would: it splits each interval's requests by the law's
weights, burns the recorded joules, hands back the outcomes whose feedback was given and had time to arrive, and keeps
the true ledger of **all** outcomes, which the law never sees. Energy is reported as a ratio to the blind optimum of the
same stream; exploration and the start are part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.accuracy.frontier import solve_mixture
from wattzoo_policies.sim.stream import Stream, StreamError, Zoo

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

JOULES_DISCOUNT = 0.98
JOULES_DISCOUNT_REQUESTS = 200.0
GRACE_REQUESTS = 1000


@dataclass(frozen=True, slots=True)
class View:
    """What a law sees before an interval; (R, M) arrays.

    served, labels, satisfied: new since the last view: requests whose feedback had time to come, feedback that came.
    served_all: all requests so far, the ones still due included. joules: mean per request, NaN while unknown.
    by_group returns labels and satisfied (R, G, M) by the requests' group.
    expected_requests: of the coming interval; index: of that interval; current: weights in force (zero rows at first).
    """

    served: Floats
    labels: Floats
    satisfied: Floats
    served_all: Floats
    pending: Floats
    joules: Floats
    ready: Bools
    current: Floats
    expected_requests: float
    index: int
    alpha: float
    by_group: Callable[[], tuple[Floats, Floats]]


class Law(Protocol):
    """A law over a batch of seeds. The state is the law's own business."""

    @property
    def name(self) -> str:
        """Return the name that reports print."""
        ...

    def begin(self, seeds: int, members: tuple[str, ...], rng: np.random.Generator) -> Any:
        """Return the state before the first request."""
        ...

    def step(self, state: Any, view: View) -> tuple[Any, Floats, Floats]:
        """Return the state, the weights (R, M) of the coming interval and the same without exploration.

        A law that looks at the group of a request returns weights (R, G, M).
        """
        ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What a replay depends on besides law and stream.

    feedback: share of requests that give feedback; promise_from: request from which a deficit counts as a violation.
    """

    alpha: float
    feedback: float = 1.0
    promise_from: int = GRACE_REQUESTS

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha <= 1.0:
            raise StreamError(f"alpha must lie above 0 and at most at 1, not {self.alpha}")
        if not 0.0 < self.feedback <= 1.0:
            raise StreamError(f"feedback must be a share above 0 and at most 1, not {self.feedback}")


@dataclass(frozen=True, slots=True)
class Replay:
    """What came out, one number per seed (R,), and what was compared with.

    joules_ratio: to the blind optimum of the same stream, NaN where that stream cannot reach alpha; met: alpha is
    reached at the end; violated: the running share was below alpha at a request from `promise_from` on; worst_deficit:
    largest alpha - running share from request 1,000 on (from the end, in shorter streams), at least 0; churn: mean over
    intervals of the sum of absolute weight changes; exploration_share: of the joules; mean_weights: (K, M).
    """

    name: str
    joules_ratio: Floats
    joules_per_request: Floats
    satisfaction: Floats
    met: Bools
    violated: Bools
    worst_deficit: Floats
    churn: Floats
    exploration_share: Floats
    lowest_credit: Floats
    mean_weights: Floats


@dataclass(slots=True)
class _Books:
    """Everything the study keeps while it runs; arrays with R in front."""

    choices: NDArray[np.int8]
    outcomes: NDArray[np.float32]
    labelled: Bools | None
    credit: Floats
    joules: Floats
    explored: Floats
    churn: Floats
    lowest: Floats
    violated: Bools
    deficit: Floats
    discounted_joules: Floats
    discounted_count: Floats


def estimate_blind(zoo: Zoo, stream: Stream, alpha: float) -> tuple[Floats, Floats]:
    """Return weights (R, M) and joules per request (R,) of the blind optimum of each seed's stream; NaN out of reach.

    Means are those of hindsight. Where members change or leave during a stream, each interval's own answerers count
    and a member that could not serve at all times is not usable in the optimum.
    """
    members = len(zoo.members)
    accuracy, joules = np.zeros((2, stream.seeds, members))
    for index, (first, last) in enumerate(zip(stream.bounds[:-1], stream.bounds[1:], strict=True)):
        rows = stream.requests[:, first:last]
        columns = stream.replacement[index]
        accuracy += zoo.outcomes[rows][:, :, columns].sum(1)
        joules += zoo.joules[rows][:, :, columns].sum(1)
    accuracy, joules = accuracy / stream.length, joules / stream.length
    weights, reached = solve_mixture(joules, accuracy, alpha, stream.ready.all(0))
    return weights, np.where(reached, (weights * joules).sum(-1), np.nan)


def replay(zoo: Zoo, stream: Stream, law: Law, setting: Setting, rng: np.random.Generator) -> Replay:
    """Run the law over all seeds of the stream at once."""
    seeds, members = stream.seeds, len(zoo.members)
    books = _make_books(zoo, stream, setting, rng)
    state = law.begin(seeds, zoo.members, rng)
    current = np.zeros((seeds, members))
    served_all = np.zeros((seeds, members))
    matured = np.zeros((seeds, members))
    mean_weights = np.zeros((len(stream.visible), members))
    seen, expected = 0, float(max(1, stream.bounds[1]))
    for index in range(len(stream.visible)):
        window = (seen, int(stream.visible[index]))
        counts = _count(books, *window, members)
        seen = window[1]
        matured += counts[0]
        expected = _expect(stream, index, expected)
        view = View(
            *counts,
            served_all=served_all,
            pending=served_all - matured,
            joules=_mean_joules(books),
            ready=np.broadcast_to(stream.ready[index], (seeds, members)),
            current=current,
            expected_requests=expected,
            index=index,
            alpha=setting.alpha,
            by_group=partial(_count_by_group, zoo, stream, books, *window),
        )
        state, weights, wish = law.step(state, view)
        served_all = served_all + _serve(zoo, stream, index, books, weights, wish, setting, rng)
        overall = weights if weights.ndim == 2 else weights.mean(1)
        mean_weights[index] = overall.mean(0)
        if index:
            books.churn += np.abs(overall - current).sum(-1)
        current = overall
    return _report(law.name, zoo, stream, books, setting, mean_weights)


def _make_books(zoo: Zoo, stream: Stream, setting: Setting, rng: np.random.Generator) -> _Books:
    shape, members = stream.requests.shape, len(zoo.members)
    labelled = None if setting.feedback >= 1.0 else rng.random(shape, dtype=np.float32) < setting.feedback
    zeros = np.zeros(stream.seeds)
    return _Books(
        choices=np.zeros(shape, dtype=np.int8),
        outcomes=np.zeros(shape, dtype=np.float32),
        labelled=labelled,
        credit=zeros.copy(),
        joules=zeros.copy(),
        explored=zeros.copy(),
        churn=zeros.copy(),
        lowest=np.full(stream.seeds, np.inf),
        violated=np.zeros(stream.seeds, dtype=bool),
        deficit=zeros.copy(),
        discounted_joules=np.zeros((stream.seeds, members)),
        discounted_count=np.zeros((stream.seeds, members)),
    )


def _expect(stream: Stream, index: int, before: float) -> float:
    """Return the requests to expect: the mean of the last three intervals, as an operator would know it."""
    if not index:
        return before
    recent = np.diff(stream.bounds[max(0, index - 3) : index + 1])
    return float(max(1.0, recent.mean()))


def _count(books: _Books, first: int, last: int, members: int) -> tuple[Floats, Floats, Floats]:
    """Return served, labels and satisfied (R, M) of the requests [first, last)."""
    choice = books.choices[:, first:last]
    outcome = books.outcomes[:, first:last]
    seeds = len(choice)
    if first >= last:
        return np.zeros((seeds, members)), np.zeros((seeds, members)), np.zeros((seeds, members))
    cell = (choice + members * np.arange(seeds)[:, None]).ravel()
    size = seeds * members
    served = np.bincount(cell, minlength=size).reshape(seeds, members).astype(float)
    if books.labelled is None:
        satisfied = np.bincount(cell, weights=outcome.ravel(), minlength=size).reshape(seeds, members)
        return served, served.copy(), satisfied.astype(float)
    given = books.labelled[:, first:last].astype(float)
    labels = np.bincount(cell, weights=given.ravel(), minlength=size).reshape(seeds, members)
    satisfied = np.bincount(cell, weights=(given * outcome).ravel(), minlength=size).reshape(seeds, members)
    return served, labels.astype(float), satisfied.astype(float)


def _count_by_group(zoo: Zoo, stream: Stream, books: _Books, first: int, last: int) -> tuple[Floats, Floats]:
    """Return labels and satisfied (R, G, M) of the requests [first, last)."""
    seeds, members, groups = stream.seeds, len(zoo.members), int(zoo.group.max()) + 1
    group = zoo.group[stream.requests[:, first:last]]
    cell = ((np.arange(seeds)[:, None] * groups + group) * members + books.choices[:, first:last]).ravel()
    given = np.ones(len(cell)) if books.labelled is None else books.labelled[:, first:last].ravel().astype(float)
    size, shape = seeds * groups * members, (seeds, groups, members)
    good = given * books.outcomes[:, first:last].ravel()
    labels = np.bincount(cell, weights=given, minlength=size).astype(float).reshape(shape)
    return labels, np.bincount(cell, weights=good, minlength=size).astype(float).reshape(shape)


def _mean_joules(books: _Books) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(books.discounted_count > 0.0, books.discounted_joules / books.discounted_count, np.nan)


def _serve(
    zoo: Zoo,
    stream: Stream,
    index: int,
    books: _Books,
    weights: Floats,
    wish: Floats,
    setting: Setting,
    rng: np.random.Generator,
) -> Floats:
    """Route the interval's requests, keep the true books; returns the requests served (R, M)."""
    first, last = int(stream.bounds[index]), int(stream.bounds[index + 1])
    seeds, members = weights.shape[0], weights.shape[-1]
    if last == first:
        return np.zeros((seeds, members))
    rows = stream.requests[:, first:last]
    if weights.ndim == 3:
        weights, wish = (np.take_along_axis(w, zoo.group[rows][:, :, None], 1) for w in (weights, wish))
    choice = draw_choices(weights, last - first, rng)
    column = stream.replacement[index][choice]
    cell = rows * members + column
    outcome, joules = zoo.outcomes.ravel()[cell], zoo.joules.ravel()[cell]
    books.choices[:, first:last] = choice
    books.outcomes[:, first:last] = outcome
    slot = (choice + members * np.arange(seeds)[:, None]).ravel()
    served = np.bincount(slot, minlength=seeds * members).reshape(seeds, members).astype(float)
    burnt = np.bincount(slot, weights=joules.ravel(), minlength=seeds * members).reshape(seeds, members)
    keep = JOULES_DISCOUNT ** ((last - first) / JOULES_DISCOUNT_REQUESTS)
    books.discounted_joules = books.discounted_joules * keep + burnt
    books.discounted_count = books.discounted_count * keep + served
    books.joules += burnt.sum(-1)
    if weights.ndim == 2:
        extra = np.divide(np.maximum(weights - wish, 0.0), weights, out=np.zeros_like(weights), where=weights > 0.0)
        books.explored += (extra * burnt).sum(-1)
    _watch(books, outcome, first, setting, stream.length)
    return served


def _watch(books: _Books, outcome: Floats, first: int, setting: Setting, length: int) -> None:
    """Move the true credit request by request and note the first breaches."""
    walk = books.credit[:, None] + np.cumsum(outcome - setting.alpha, axis=1)
    number = first + 1 + np.arange(outcome.shape[1])
    promised = number >= setting.promise_from
    if promised.any():
        low = walk[:, promised].min(axis=1)
        books.lowest = np.minimum(books.lowest, low)
        books.violated |= low < -1e-9
    watched = number >= min(GRACE_REQUESTS, length)
    if watched.any():
        worst = (-walk[:, watched] / number[watched]).max(axis=1)
        books.deficit = np.maximum(books.deficit, worst)
    books.credit = walk[:, -1]


def draw_choices(weights: Floats, requests: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return (R, B) members drawn by the weights (R, M) or (R, B, M), each row of which must sum to one."""
    if not np.allclose(weights.sum(-1), 1.0, atol=1e-6) or weights.min() < -1e-9:
        raise StreamError("a law must return weights that are not negative and sum to one")
    rows = weights[:, None, :] if weights.ndim == 2 else weights
    edges = np.cumsum(rows, axis=-1)
    uniform = rng.random((len(weights), requests))
    choice = np.zeros(uniform.shape, dtype=np.int64)
    for member in range(weights.shape[-1] - 1):
        choice += uniform >= edges[:, :, member]
    last_used = weights.shape[-1] - 1 - np.argmax(rows[:, :, ::-1] > 0.0, axis=-1)
    return np.asarray(np.minimum(choice, last_used))


def _report(name: str, zoo: Zoo, stream: Stream, books: _Books, setting: Setting, mean_weights: Floats) -> Replay:
    _, blind = estimate_blind(zoo, stream, setting.alpha)
    per_request = books.joules / stream.length
    return Replay(
        name=name,
        joules_ratio=per_request / blind,
        joules_per_request=per_request,
        satisfaction=setting.alpha + books.credit / stream.length,
        met=books.credit >= -1e-9,
        violated=books.violated,
        worst_deficit=books.deficit,
        churn=books.churn / max(1, len(stream.visible) - 1),
        exploration_share=books.explored / np.maximum(books.joules, 1e-300),
        lowest_credit=books.lowest,
        mean_weights=mean_weights,
    )
