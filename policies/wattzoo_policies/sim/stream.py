"""Recorded outcomes of requests at every member, and streams drawn from them.

A zoo's record says for each request whether each member satisfied it and what that cost. A stream is an order in which
requests arrive, the same number for each of R seeds, together with the requests at which decisions fall and how many
outcomes had been fed back by then. Nothing here reads files or clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class StreamError(ValueError):
    """A record or a stream that cannot be replayed; the text names the rule."""


@dataclass(frozen=True, slots=True)
class Zoo:
    """Outcomes (N, M) in [0, 1] and joules (N, M) of N requests at M members; `group` (N,) is a category or empty."""

    members: tuple[str, ...]
    outcomes: Floats
    joules: Floats
    group: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.outcomes.shape != self.joules.shape or self.outcomes.shape[1:] != (len(self.members),):
            raise StreamError("outcomes and joules must have one row per request and one column per member")
        if not self.outcomes.size:
            raise StreamError("a zoo needs at least one request and one member")
        if not np.isfinite(self.outcomes).all() or self.outcomes.min() < 0.0 or self.outcomes.max() > 1.0:
            raise StreamError("outcomes must lie between 0 and 1")
        if not np.isfinite(self.joules).all() or self.joules.min() <= 0.0:
            raise StreamError("joules must be finite and positive")

    @property
    def accuracy(self) -> Floats:
        """Return (M,) mean satisfaction."""
        return np.asarray(self.outcomes.mean(0))

    @property
    def mean_joules(self) -> Floats:
        """Return (M,) mean joules per request."""
        return np.asarray(self.joules.mean(0))

    def choose(self, members: Sequence[str]) -> Zoo:
        """Return the zoo of some of its members."""
        columns = [self.members.index(name) for name in members]
        return Zoo(tuple(members), self.outcomes[:, columns], self.joules[:, columns], self.group)


@dataclass(frozen=True, slots=True)
class Stream:
    """Which request comes when.

    requests: (R, T) rows of the zoo; bounds: (K + 1,) first request of each interval and T at the end;
    visible: (K,) number of leading requests whose feedback, if any, has been counted when interval k is decided;
    ready: (K, M) members that can serve in interval k; replacement: (K, M) column of the zoo that answers for member m.
    """

    requests: Integers
    bounds: Integers
    visible: Integers
    ready: NDArray[np.bool_]
    replacement: Integers

    def __post_init__(self) -> None:
        if self.requests.ndim != 2 or not self.requests.size:
            raise StreamError("a stream needs at least one seed and one request")
        if self.bounds[-1] != self.requests.shape[1] or (np.diff(self.bounds) < 0).any():
            raise StreamError("the intervals must cover the stream in order")

    @property
    def seeds(self) -> int:
        """Return R."""
        return int(self.requests.shape[0])

    @property
    def length(self) -> int:
        """Return T."""
        return int(self.requests.shape[1])


def make_intervals(length: int, interval_requests: int, lag_intervals: int) -> tuple[Integers, Integers]:
    """Return bounds and visible for intervals of equally many requests; feedback is in after `lag_intervals` more."""
    if length < 1 or interval_requests < 1 or lag_intervals < 0:
        raise StreamError("requests and interval must be at least 1, the lag at least 0")
    bounds = np.unique(np.append(np.arange(0, length, interval_requests), length)).astype(np.int64)
    starts = bounds[:-1]
    visible = np.concatenate([np.zeros(lag_intervals, dtype=np.int64), starts])[: len(starts)]
    return bounds, visible


def make_timed_intervals(
    at_seconds: Floats, interval_seconds: float, lag_intervals: int, delay_seconds: float
) -> tuple[Integers, Integers]:
    """Return bounds and visible for intervals of equal time; feedback comes `delay_seconds` after its request.

    An interval without a request stays in the list: a decision falls there all the same.
    """
    if not len(at_seconds) or (np.diff(at_seconds) < 0).any():
        raise StreamError("arrival times must be there and must not fall")
    if interval_seconds <= 0.0 or delay_seconds < 0.0:
        raise StreamError("the interval must be positive and the delay at least 0")
    first = float(at_seconds[0])
    count = int(np.floor((float(at_seconds[-1]) - first) / interval_seconds)) + 1
    starts_seconds = first + interval_seconds * np.arange(count)
    starts = np.searchsorted(at_seconds, starts_seconds, side="left")
    bounds = np.append(starts, len(at_seconds)).astype(np.int64)
    known_seconds = starts_seconds - lag_intervals * interval_seconds - delay_seconds
    visible = np.minimum(np.searchsorted(at_seconds, known_seconds, side="left"), starts).astype(np.int64)
    return bounds, visible


def make_stream(requests: Integers, members: int, bounds: Integers, visible: Integers) -> Stream:
    """Return a stream in which every member can always serve and is what it says."""
    count = len(visible)
    ready = np.ones((count, members), dtype=bool)
    return Stream(requests, bounds, visible, ready, np.tile(np.arange(members), (count, 1)))


def draw_independent(zoo: Zoo, seeds: int, length: int, rng: np.random.Generator) -> Integers:
    """Return (R, T) rows drawn independently with replacement: the stationary case of the guarantee."""
    return rng.integers(0, len(zoo.outcomes), size=(seeds, length))


def draw_shuffled(zoo: Zoo, seeds: int, length: int, rng: np.random.Generator) -> Integers:
    """Return (R, T) rows without replacement, pass after pass over the record."""
    count = len(zoo.outcomes)
    passes = -(-length // count)
    rows = np.tile(np.arange(count), (seeds, passes, 1))
    return rng.permuted(rows, axis=2).reshape(seeds, -1)[:, :length]


def draw_drifting(zoo: Zoo, seeds: int, length: int, rng: np.random.Generator) -> Integers:
    """Return (R, T) rows whose mix of groups moves linearly from the easy half of them to the hard half.

    Groups are ordered by the mean outcome over members; at request t a row comes from the hard half with probability
    t / T.
    """
    hard = _is_hard(zoo)
    late = rng.random((seeds, length)) < np.arange(length) / max(length - 1, 1)
    return np.where(late, rng.choice(np.flatnonzero(hard), late.shape), rng.choice(np.flatnonzero(~hard), late.shape))


def draw_sorted(zoo: Zoo, seeds: int, length: int, rng: np.random.Generator) -> Integers:
    """Return (R, T) independent rows sorted by the difficulty of their group, easy first: abrupt blocks."""
    rows = draw_independent(zoo, seeds, length, rng)
    ease = _group_ease(zoo)[zoo.group]
    return np.take_along_axis(rows, np.argsort(-ease[rows], axis=1, kind="stable"), axis=1)


def _group_ease(zoo: Zoo) -> Floats:
    mean = zoo.outcomes.mean(1)
    counts = np.bincount(zoo.group)
    return np.asarray(np.bincount(zoo.group, weights=mean) / np.maximum(counts, 1))


def _is_hard(zoo: Zoo) -> NDArray[np.bool_]:
    ease = _group_ease(zoo)[zoo.group]
    hard = ease < np.median(ease)
    if not hard.any():
        raise StreamError("drift needs at least two groups of requests of different difficulty")
    return np.asarray(hard)
