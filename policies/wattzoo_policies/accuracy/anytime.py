"""MESSPlusAnytime: the promise is kept from a stated request on, at close to the least energy (the default law).

This is the policy object around `anytime_law`: it turns cumulative counters into increments through the ledger, keeps
the state of one service as one value of text, and says in words why the weights are what they are. All arithmetic is
the law's, of which this is the batch of one.

Requests whose feedback may still come are told from those that will get none by age: `feedback_delay_seconds` after
they were served. They are counted from the served counters of the observation; where a service has none, every
outcome counts as a request and one interval is taken to be under way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.accuracy.anytime_estimates import (
    AnytimeParameters,
    Increments,
    LawState,
    Situation,
    apply_increments,
    estimate_credit,
    estimate_feedback,
    estimate_present_accuracy,
    estimate_promise_start,
)
from wattzoo_policies.accuracy.anytime_law import Choice, decide_weights
from wattzoo_policies.accuracy.explain import explain_choice
from wattzoo_policies.accuracy.ledger import (
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
from wattzoo_policies.protocols import PolicyState, StateError
from wattzoo_policies.signals import (
    Decision,
    DecisionRequest,
    LedgerSummary,
    Member,
    Observation,
    OutcomeCounter,
)

Floats = NDArray[np.float64]

_MAX_DUE = 4
_SERVED, _LABELS = 6, 7
_COLUMNS = 8  # per-member numbers of the law: every field of LawState but open_credit


@dataclass(frozen=True, slots=True)
class AnytimeState:
    """Ledger, law and what is still due of one service.

    rows: per member, in the order of `members`, the law's `_COLUMNS` numbers. served: a ledger of served requests.
    due: (at_seconds, served requests by member then), oldest first; of the first no feedback can come any more.
    """

    members: tuple[Member, ...]
    ledger: Ledger
    rows: tuple[tuple[float, ...], ...]
    open_credit: float = 0.0
    served: Ledger | None = None
    due: tuple[tuple[float, tuple[float, ...]], ...] = ()

    @property
    def version(self) -> int:
        """Return the schema version of the serialised form."""
        return VERSION

    def to_json(self) -> str:
        """Return compact JSON; numbers keep nine digits."""
        body = {
            "members": [[m.name, m.accuracy_prior, m.prior_samples] for m in self.members],
            "ledger": ledger_to_body(self.ledger),
            "rows": [[_short(value) for value in row] for row in self.rows],
            "open": _short(self.open_credit),
            "served": None if self.served is None else ledger_to_body(self.served),
            "due": [[at, list(map(_short, totals))] for at, totals in self.due],
        }
        return write_state(MESSPlusAnytime.name, body)


@dataclass(frozen=True, slots=True)
class Promise:
    """What can be promised at the present target, for the condition that reports it.

    from_request: number of the request from which the running share shall not fall below the target with probability
    1 - delta; `None` where the target lies at or above what the best member is estimated to reach. credit: estimated
    sum of (satisfied - target) over all requests. feedback_share: share of requests that give feedback.
    """

    from_request: float | None
    delta: float
    credit: float
    feedback_share: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class MESSPlusAnytime:
    """The default controller; see the module's text."""

    parameters: AnytimeParameters = field(default_factory=AnytimeParameters)
    name = "MESSPlusAnytime"

    def initial_state(self, members: tuple[Member, ...], previous: PolicyState | None = None) -> AnytimeState:
        """Return the state for these members; members are kept in the order of their names.

        The ledger of any previous policy is carried over. From another policy the estimates start from its ledger.
        """
        members = tuple(sorted(members, key=lambda member: member.name))
        names = [member.name for member in members]
        ledger = getattr(previous, "ledger", None)
        if not isinstance(ledger, Ledger):
            return AnytimeState(members, make_ledger(names), tuple(_fresh_row(member) for member in members))
        if not isinstance(previous, AnytimeState):
            rows = tuple(_fresh_row(m, ledger.members.get(m.name, Outcomes())) for m in members)
            return AnytimeState(members, set_members(ledger, names), rows)
        old = {member.name: index for index, member in enumerate(previous.members)}
        rows = tuple(previous.rows[old[m.name]] if m.name in old else _fresh_row(m) for m in members)
        due = tuple(
            (at, tuple(totals[old[name]] if name in old else 0.0 for name in names)) for at, totals in previous.due
        )
        served = None if previous.served is None else set_members(previous.served, names)
        return AnytimeState(members, set_members(ledger, names), rows, previous.open_credit, served, due)

    def state_from_json(self, text: str) -> AnytimeState:
        """Return the state that `to_json` wrote; raises `StateError`."""
        body = read_state(self.name, text)
        try:
            return _state_from_body(body)
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise StateError(f"state of {self.name} cannot be read: {error}") from error

    def update(self, state: AnytimeState, observation: Observation) -> AnytimeState:
        """Fold new outcomes and served requests into the state; the same counters again change nothing."""
        last = state.ledger.at_seconds
        if observation.outcomes is None or (last is not None and observation.at_seconds < last):
            return state
        names = [member.name for member in state.members]
        ledger, fresh = count(state.ledger, observation)
        rows = [fresh.get(name, Outcomes()) for name in names]
        labels = np.array([[row.total for row in rows]])
        satisfied = np.array([[row.satisfied for row in rows]])
        served, due, settled = self._count_served(state, observation, names, labels)
        new = Increments(settled, labels, satisfied)
        law = apply_increments(_law(state.rows, state.open_credit), new, observation.alpha)
        return replace(
            state, ledger=ledger, rows=_rows(law), open_credit=float(law.open_credit[0]), served=served, due=due
        )

    def _count_served(
        self, state: AnytimeState, observation: Observation, names: Sequence[str], labels: Floats
    ) -> tuple[Ledger | None, tuple[tuple[float, tuple[float, ...]], ...], Floats]:
        """Return the ledger of served requests, what is due, and the requests (1, M) that are newly settled.

        A request is settled when its feedback came or can no longer come. Without counters every outcome is a request.
        """
        counters = observation.served
        if counters is None:
            return state.served, state.due, labels
        settled = np.array([[row[_SERVED] for row in state.rows]])
        heard = np.array([[row[_LABELS] for row in state.rows]]) + labels
        as_outcomes = tuple(OutcomeCounter(c.member, c.series, satisfied=True, count=c.count) for c in counters)
        ledger = state.served
        if ledger is None:
            ledger = replace(
                make_ledger(names),
                members={n: Outcomes(float(x), float(x)) for n, x in zip(names, settled[0], strict=True)},
            )
        ledger, _ = count(ledger, Observation(observation.at_seconds, 0.0, as_outcomes))
        totals = tuple(ledger.members[name].total for name in names)
        due = (*(entry for entry in state.due if entry[0] < observation.at_seconds), (observation.at_seconds, totals))
        last = observation.at_seconds - self.parameters.feedback_delay_seconds
        over = [number for number, (at, _) in enumerate(due) if at <= last]
        due = _thin(due[over[-1] :] if over else due)
        silent = np.array([due[0][1]]) if over else settled
        return ledger, due, np.maximum(np.maximum(silent, heard) - settled, 0.0)

    def summary(self, state: AnytimeState) -> LedgerSummary:
        """Return the ledger in one row."""
        accuracy = estimate_present_accuracy(_law(state.rows, state.open_credit))[0]
        known = [sum(row[:3:2]) > 0.0 for row in state.rows]
        estimates = {
            member.name: float(level) if seen else None
            for member, level, seen in zip(state.members, accuracy, known, strict=True)
        }
        return summarise(state.ledger, estimates)

    def promise(self, state: AnytimeState, request: DecisionRequest) -> Promise:
        """Return what can be promised at the target of the request over its members."""
        law, now = self._situation(state, request)
        accuracy = estimate_present_accuracy(law)[0]
        expected = float(now.expected[0])
        totals = law.served.sum()
        feedback = float(np.clip(law.labels.sum() / totals, 0.001, 1.0)) if totals > 0.0 else 1.0
        start = estimate_promise_start(
            request.alpha,
            accuracy,
            expected,
            float(now.pending.sum()) / expected,
            feedback,
            self.parameters,
        )
        credit = estimate_credit(law, now.credit, now.pending, request.alpha)[0]
        return Promise(
            from_request=start if math.isfinite(start) else None,
            delta=self.parameters.delta,
            credit=float(credit),
            feedback_share=float(estimate_feedback(law).mean()) if totals > 0.0 else 1.0,
            least=float(accuracy.min()),
            most=float(accuracy.max()),
        )

    def decide(self, state: AnytimeState, request: DecisionRequest, rng: np.random.Generator) -> Decision:
        """Return the law's weights for the coming interval; it draws nothing at random."""
        del rng
        names = sorted(condition.name for condition in request.members)
        if not names:
            return explain_choice(names, request, None, None, None)
        law, now = self._situation(state, request)
        everyone = decide_weights(law, replace(now, ready=np.ones_like(now.ready)), self.parameters)
        choice: Choice | None = None
        if now.ready.all():
            choice = everyone
        elif now.ready.any():
            choice = decide_weights(law, now, self.parameters)
        return explain_choice(names, request, now, choice, everyone)

    def _situation(self, state: AnytimeState, request: DecisionRequest) -> tuple[LawState, Situation]:
        """Return the law's state and situation over the members of the request, in the order of their names."""
        conditions = sorted(request.members, key=lambda condition: condition.name)
        index = {member.name: n for n, member in enumerate(state.members)}
        rows = tuple(state.rows[index[c.name]] if c.name in index else _fresh_row(Member(c.name)) for c in conditions)
        expected = self._expected_requests(request)
        current = _row(request.current_weights or {}, [c.name for c in conditions])
        if state.served is not None:
            totals = {name: row.total for name, row in state.served.members.items()}
            rows_settled = np.array([[row[_SERVED] for row in rows]])
            pending = np.maximum(_row(totals, [c.name for c in conditions]) - rows_settled, 0.0)
        else:
            pending = current * expected
        joules = np.array([[math.nan if c.joules_per_request is None else c.joules_per_request for c in conditions]])
        return _law(rows, state.open_credit), Situation(
            joules=fill_joules(joules),
            ready=np.array([[c.ready for c in conditions]]),
            credit=np.array([-state.ledger.debt_requests]),
            pending=pending,
            alpha=request.alpha,
            expected=np.array([expected]),
            current=current,
            safest=np.array([c.name == request.safest_member for c in conditions]),
        )

    def _expected_requests(self, request: DecisionRequest) -> float:
        expected = request.expected_requests
        if expected is None or not math.isfinite(expected):
            return float(self.parameters.unknown_expected_requests)
        return max(1.0, expected)


def fill_joules(joules: Floats) -> Floats:
    """Return joules in which an unknown member counts as the dearest known one; all 1 where none is known."""
    known = np.isfinite(joules) & (joules > 0.0)
    dearest = np.where(known, joules, 0.0).max(axis=-1, keepdims=True)
    return np.asarray(np.where(known, joules, np.where(dearest > 0.0, dearest, 1.0)))


def _row(values: Mapping[str, float], names: Sequence[str]) -> Floats:
    return np.array([[values.get(name, 0.0) for name in names]], dtype=float)


def _fresh_row(member: Member, seen: Outcomes | None = None) -> tuple[float, ...]:
    """Return the law's numbers of a member: its prior and what a ledger has already counted."""
    samples = member.prior_samples if member.accuracy_prior is not None else 0.0
    prior = samples * (member.accuracy_prior or 0.0)
    seen = seen or Outcomes()
    return (samples + seen.total, prior + seen.satisfied, 0.0, 0.0, 0.0, 0.0, seen.total, seen.total)


def _law(rows: Sequence[tuple[float, ...]], open_credit: float) -> LawState:
    table = np.array(rows, dtype=float).reshape(len(rows), _COLUMNS).T[:, None, :]
    return LawState(
        old_labels=table[0],
        old_satisfied=table[1],
        new_labels=table[2],
        new_satisfied=table[3],
        recent_labels=table[4],
        recent_satisfied=table[5],
        served=table[6],
        labels=table[7],
        open_credit=np.array([open_credit]),
    )


def _rows(law: LawState) -> tuple[tuple[float, ...], ...]:
    columns = (
        law.old_labels, law.old_satisfied, law.new_labels, law.new_satisfied,
        law.recent_labels, law.recent_satisfied, law.served, law.labels,
    )  # fmt: skip
    return tuple(tuple(float(value) for value in row) for row in np.concatenate(columns).T)


def _thin(due: tuple[tuple[float, tuple[float, ...]], ...]) -> tuple[tuple[float, tuple[float, ...]], ...]:
    """Keep the first, the last and few in between, so that the state stays small."""
    while len(due) > _MAX_DUE:
        gaps = [due[n + 1][0] - due[n - 1][0] for n in range(1, len(due) - 1)]
        drop = 1 + gaps.index(min(gaps))
        due = due[:drop] + due[drop + 1 :]
    return due


def _state_from_body(body: Mapping[str, Any]) -> AnytimeState:
    members = tuple(
        Member(str(name), None if prior is None else float(prior), float(samples))
        for name, prior, samples in body["members"]
    )
    rows = tuple(tuple(float(value) for value in row) for row in body["rows"])
    if len(rows) != len(members) or any(len(row) != _COLUMNS for row in rows):
        raise ValueError("the law's numbers do not fit the members")
    due = tuple((float(at), tuple(float(value) for value in totals)) for at, totals in body["due"])
    numbers = [float(body["open"]), *(value for row in rows for value in row)]
    if not all(math.isfinite(number) for number in numbers) or any(value < 0.0 for row in rows for value in row):
        raise ValueError("the law holds a number that is negative or not finite")
    served = None if body["served"] is None else ledger_from_body(body["served"])
    if any(len(totals) != len(members) for _, totals in due):
        raise ValueError("what is due does not fit the members")
    return AnytimeState(members, ledger_from_body(body["ledger"]), rows, float(body["open"]), served, due)


def _short(value: float) -> float | int:
    rounded = float(f"{value:.9g}")
    return int(rounded) if rounded.is_integer() else rounded
