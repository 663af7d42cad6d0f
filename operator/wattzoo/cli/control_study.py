"""Runs the comparison behind `wattzoo simulate control`: options and files in, one row per policy out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattzoo.cli.control_report import ControlReport, PolicyRow
from wattzoo.cli.outcome_files import Arrivals, Recorded
from wattzoo_policies.accuracy.anytime import AnytimeState, MESSPlusAnytime
from wattzoo_policies.accuracy.anytime_estimates import AnytimeParameters, estimate_promise_start
from wattzoo_policies.accuracy.mess_plus import MESSPlus
from wattzoo_policies.protocols import PolicyState, Promise
from wattzoo_policies.signals import Decision, DecisionRequest, LedgerSummary, Member, Observation
from wattzoo_policies.sim.laws import AnytimeLaw, FixedLaw, PolicyLaw, PrimalDualLaw, ThresholdLaw
from wattzoo_policies.sim.stream import (
    Stream,
    Zoo,
    draw_drifting,
    draw_independent,
    draw_shuffled,
    draw_sorted,
    make_intervals,
    make_timed_intervals,
)
from wattzoo_policies.sim.study import Law, Setting, View, estimate_blind, replay

POLICIES = ("MESSPlusAnytime", "MESSPlus", "PrimalDual", "Threshold", "FixedMixture", "AlwaysLargest")
DEFAULT_REQUESTS = 20_000
ORDERS: dict[str, Callable[[Zoo, int, int, np.random.Generator], NDArray[np.int64]]] = {
    "independent": draw_independent,
    "shuffled": draw_shuffled,
    "drifting": draw_drifting,
    "sorted": draw_sorted,
}


class StudyError(ValueError):
    """An option that cannot be; the text names it and the rule."""


@dataclass(frozen=True, slots=True)
class ControlOptions:
    """The command's options, as they go into the report."""

    alpha: float
    policies: tuple[str, ...]
    safest: str | None
    requests_count: int | None
    order: str
    interval_requests: int
    interval_seconds: float | None
    lag_intervals: int
    feedback: float
    feedback_delay_seconds: float
    delta: float
    seeds: int
    seed: int
    outcomes_file: str


@dataclass(slots=True)
class _TimedPolicy:
    """The default policy as the operator runs it, with the processor time of each decision."""

    policy: MESSPlusAnytime
    seconds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.policy.name

    def initial_state(self, members: tuple[Member, ...], previous: PolicyState | None = None) -> AnytimeState:
        return self.policy.initial_state(members, previous)

    def state_from_json(self, text: str) -> AnytimeState:
        return self.policy.state_from_json(text)

    def update(self, state: AnytimeState, observation: Observation) -> AnytimeState:
        return self.policy.update(state, observation)

    def summary(self, state: AnytimeState) -> LedgerSummary:
        return self.policy.summary(state)

    def promise(self, state: AnytimeState, request: DecisionRequest) -> Promise | None:
        return self.policy.promise(state, request)

    def decide(self, state: AnytimeState, request: DecisionRequest, rng: np.random.Generator) -> Decision:
        started = time.thread_time()
        decision = self.policy.decide(state, request, rng)
        self.seconds.append(time.thread_time() - started)
        return decision


@dataclass(slots=True)
class _TimedLaw:
    """A law with the processor time of each step."""

    law: Law
    seconds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.law.name

    def begin(self, seeds: int, members: tuple[str, ...], rng: np.random.Generator) -> Any:
        return self.law.begin(seeds, members, rng)

    def step(self, state: Any, view: View) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]]:
        started = time.thread_time()
        result = self.law.step(state, view)
        self.seconds.append(time.thread_time() - started)
        return result


def run_study(recorded: Recorded, arrivals: Arrivals | None, options: ControlOptions) -> ControlReport:
    """Return the comparison; raises `StudyError` and `StreamError`."""
    zoo = recorded.zoo
    _check(zoo, arrivals, options)
    stream = make_study_stream(zoo, arrivals, options)
    weights, joules = estimate_blind(zoo, stream, options.alpha)
    start = _promise_start(zoo, stream, options)
    setting = Setting(options.alpha, options.feedback, min(start, stream.length + 1))
    rows = [_row(zoo, stream, _make_law(name, zoo, weights, options), setting, options) for name in options.policies]
    reached = np.isfinite(joules)
    inputs = {key: value for key, value in asdict(options).items() if key != "policies"}
    inputs |= {
        "energy_column": recorded.energy_column,
        "requests_dropped": recorded.dropped,
        "requests": stream.length,
        "intervals": len(stream.visible),
        "members": {
            name: {"accuracy": float(level), "joules_per_request": float(cost)}
            for name, level, cost in zip(zoo.members, zoo.accuracy, zoo.mean_joules, strict=True)
        },
    }
    return ControlReport(
        rows=tuple(rows),
        members=zoo.members,
        blind_weights=weights[reached].mean(0) if reached.any() else weights.mean(0),
        blind_joules=float(joules[reached].mean()) if reached.any() else float("nan"),
        promise_from=start,
        inputs=inputs,
    )


def _check(zoo: Zoo, arrivals: Arrivals | None, options: ControlOptions) -> None:
    for name, ok, rule in (
        ("--alpha", 0.0 < options.alpha <= 1.0, f"must lie above 0 and at most at 1, not {options.alpha}"),
        ("--feedback", 0.0 < options.feedback <= 1.0, f"must lie above 0 and at most at 1, not {options.feedback}"),
        ("--delta", 0.0 < options.delta < 0.5, f"must lie between 0 and 0.5, not {options.delta}"),
        ("--seeds", options.seeds >= 1, f"must be at least 1, not {options.seeds}"),
        ("--interval-requests", options.interval_requests >= 1, f"must be at least 1, not {options.interval_requests}"),
        ("--requests-count", (options.requests_count or 1) >= 1 and options.requests_count != 0, "must be at least 1"),
        ("--lag-intervals", options.lag_intervals >= 0, f"must be at least 0, not {options.lag_intervals}"),
        ("--interval-seconds", (options.interval_seconds or 1.0) > 0.0, "must be positive"),
        ("--feedback-delay-seconds", options.feedback_delay_seconds >= 0.0, "must be at least 0"),
    ):
        if not ok:
            raise StudyError(f"{name} {rule}")
    _check_names(zoo, options)
    best = int(np.argmax(zoo.accuracy))
    if options.alpha > zoo.accuracy[best]:
        raise StudyError(
            f"{options.outcomes_file}, column correct: --alpha {options.alpha} is above the best member "
            f"({zoo.members[best]} reaches {zoo.accuracy[best]:.4f}): no mixture can meet it"
        )
    if arrivals is None and (options.interval_seconds is not None or options.feedback_delay_seconds > 0.0):
        raise StudyError("--interval-seconds and --feedback-delay-seconds need the times of a --stream")
    if options.order in {"drifting", "sorted"} and zoo.group.max() == 0:
        raise StudyError(f"--order {options.order} needs categories: give --requests")


def _check_names(zoo: Zoo, options: ControlOptions) -> None:
    unknown = [name for name in options.policies if name not in POLICIES]
    if unknown:
        raise StudyError(f"--policy: unknown policy {unknown[0]!r}; known are {', '.join(POLICIES)}")
    if options.order not in ORDERS:
        raise StudyError(f"--order: unknown order {options.order!r}; known are {', '.join(ORDERS)}")
    if options.safest is not None and options.safest not in zoo.members:
        raise StudyError(f"--safest: unknown model {options.safest!r}; there are {', '.join(zoo.members)}")


def make_study_stream(zoo: Zoo, arrivals: Arrivals | None, options: ControlOptions) -> Stream:
    """Return the stream that all policies are replayed on."""
    rng = np.random.default_rng(options.seed)
    if arrivals is None:
        length = options.requests_count or DEFAULT_REQUESTS
        requests = ORDERS[options.order](zoo, options.seeds, length, rng)
        bounds, visible = make_intervals(length, options.interval_requests, options.lag_intervals)
    else:
        length = min(options.requests_count or len(arrivals.rows), len(arrivals.rows))
        requests = np.broadcast_to(arrivals.rows[:length], (options.seeds, length))
        bounds, visible = _timed_intervals(arrivals.at_seconds[:length], options)
    ready, replacement = _pool(zoo, bounds, () if arrivals is None else arrivals.events)
    return Stream(requests, bounds, visible, ready, replacement)


def _timed_intervals(
    at_seconds: NDArray[np.float64], options: ControlOptions
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if options.interval_seconds is not None:
        return make_timed_intervals(
            at_seconds, options.interval_seconds, options.lag_intervals, options.feedback_delay_seconds
        )
    bounds, visible = make_intervals(len(at_seconds), options.interval_requests, options.lag_intervals)
    if options.feedback_delay_seconds > 0.0:
        known = np.searchsorted(at_seconds, at_seconds[bounds[:-1]] - options.feedback_delay_seconds, side="left")
        visible = np.minimum(visible, known)
    return bounds, visible


def _pool(
    zoo: Zoo, bounds: NDArray[np.int64], events: tuple[tuple[int, str, str, str], ...]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return readiness and answerers (K, M); an event holds from the first interval that begins at or after it."""
    count, members = len(bounds) - 1, len(zoo.members)
    ready = np.ones((count, members), dtype=bool)
    answers = np.tile(np.arange(members), (count, 1))
    for request, verb, name, other in events:
        first = int(np.searchsorted(bounds[:-1], request, side="left"))
        member = zoo.members.index(name)
        if verb == "swap":
            answers[first:, member] = zoo.members.index(other)
        else:
            ready[first:, member] = verb == "join"
    if not ready.any(1).all():
        raise StudyError("--stream, column pool_event: at some time no member is left")
    return ready, answers


def _promise_start(zoo: Zoo, stream: Stream, options: ControlOptions) -> int:
    """Return N0 for the stream's mean interval and the delay of its feedback."""
    interval = max(1.0, stream.length / len(stream.visible))
    behind = (stream.bounds[:-1] - stream.visible)[len(stream.visible) // 2 :]
    lag = float(behind.mean()) / interval
    parameters = AnytimeParameters(delta=options.delta)
    start = estimate_promise_start(options.alpha, zoo.accuracy, interval, lag, options.feedback, parameters)
    return int(np.ceil(min(start, 1e9)))


def _safest(zoo: Zoo, options: ControlOptions) -> int:
    return zoo.members.index(options.safest) if options.safest else int(np.argmax(zoo.accuracy))


def _make_law(name: str, zoo: Zoo, blind: NDArray[np.float64], options: ControlOptions) -> Law:
    safe = _safest(zoo, options)
    safest = np.arange(len(zoo.members)) == safe
    if name == "MESSPlusAnytime":
        return AnytimeLaw(safest, AnytimeParameters(delta=options.delta))
    if name == "MESSPlus":
        return PolicyLaw(MESSPlus(), zoo.members[safe])
    if name == "PrimalDual":
        return PrimalDualLaw()
    if name == "Threshold":
        return ThresholdLaw(int(np.argmin(zoo.mean_joules)), safe, int(zoo.group.max()) + 1)
    if name == "FixedMixture":
        return FixedLaw(blind, name)
    return FixedLaw(safest.astype(float), name)


def _time_decisions(zoo: Zoo, stream: Stream, law: Law, setting: Setting, options: ControlOptions) -> float:
    """Return the 99th percentile of one service's decision time over the first seed's run, the quietest of three."""
    one = Stream(stream.requests[:1], stream.bounds, stream.visible, stream.ready, stream.replacement)
    if isinstance(law, FixedLaw):
        law = FixedLaw(np.atleast_2d(law.weights)[:1], law.name)
    return min(_time_run(zoo, one, law, setting, options) for _ in range(3))


def _time_run(zoo: Zoo, stream: Stream, law: Law, setting: Setting, options: ControlOptions) -> float:
    rng = np.random.default_rng(options.seed + 1)
    if law.name == "MESSPlusAnytime":
        policy = _TimedPolicy(MESSPlusAnytime(AnytimeParameters(delta=options.delta)))
        replay(zoo, stream, PolicyLaw(policy, zoo.members[_safest(zoo, options)]), setting, rng)
        return float(np.quantile(policy.seconds, 0.99))
    timed = _TimedLaw(law)
    replay(zoo, stream, timed, setting, rng)
    return float(np.quantile(timed.seconds, 0.99))


def _row(zoo: Zoo, stream: Stream, law: Law, setting: Setting, options: ControlOptions) -> PolicyRow:
    result = replay(zoo, stream, law, setting, np.random.default_rng(options.seed + 1))
    return PolicyRow(law.name, result, _time_decisions(zoo, stream, law, setting, options))
