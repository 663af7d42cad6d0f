"""The status of an LLMService: is the promise kept, at how many joules, and why are the weights what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wattzoo.api.base import timestamp
from wattzoo.api.conditions import Condition, ConditionType, Reason
from wattzoo.api.llm_service import LLMServiceSpec
from wattzoo.api.llm_service_status import (
    MAX_INPUTS,
    ControllerState,
    Decision,
    DecisionInput,
    EnergyStatus,
    LedgerStatus,
    LLMServiceStatus,
    MemberStatus,
)
from wattzoo.decisions import Finding, MemberEnergy, ServiceDecision, ServiceFigures
from wattzoo.model import Manifest
from wattzoo.status.conditions import Judgement, from_finding
from wattzoo.status.judge import judge_degraded, judge_energy, judge_paused
from wattzoo.status.promise import find_reach, judge_feasible, judge_met
from wattzoo.status.traffic import judge_traffic, share_per_mille

SERVICE_CONDITIONS = tuple(kind for kind in ConditionType if kind is not ConditionType.PLACED)


@dataclass(frozen=True, slots=True)
class ServiceView:
    """Everything that the status of one service is rendered from.

    usable and starting: members that can answer now, and whether others are on their way. metrics: what keeps
    measurements from being used. writes: a write that did not succeed. state: the policy's name and state; counters:
    what was counted beside it; observed_at_seconds: time of the samples that both include.
    """

    obj: Manifest
    spec: LLMServiceSpec
    decision: ServiceDecision
    figures: ServiceFigures
    route: Manifest | None
    usable: frozenset[str]
    starting: bool
    metrics: Finding | None
    writes: Finding | None
    infeasible: Finding | None = None
    findings: tuple[Finding, ...] = ()
    state: tuple[str, str] | None = None
    counters: str | None = None
    observed_at_seconds: float | None = None


def judge_service(view: ServiceView) -> list[Judgement]:
    """All conditions of a service that can be served."""
    paused = judge_paused(view.obj, view.spec.mode)
    traffic = judge_traffic(view.route, view.spec.traffic.parent_refs, view.decision.weights, view.figures.load)
    if view.route is None and paused.status == "True":
        text = "no route is written in this mode"
        traffic = Judgement(ConditionType.TRAFFIC_PROGRAMMED, "False", Reason.OBSERVE_MODE, text)
    why = view.metrics.message if view.metrics else "nothing is ready"
    held = Finding(Reason.HOLDING, f"weights are held: {why}")
    return [
        _judge_ready(view, traffic),
        judge_feasible(view.spec, view.figures, view.infeasible),
        judge_met(view.spec, view.figures),
        _judge_metrics(view.metrics),
        judge_energy(view.figures.energy),
        traffic,
        _judge_progress(view),
        judge_degraded((view.writes, *view.findings, held if view.decision.held else None, view.metrics)),
        paused,
    ]


def _judge_ready(view: ServiceView, traffic: Judgement) -> Judgement:
    kind = ConditionType.READY
    if not view.usable:
        if view.starting:
            return Judgement(kind, "False", Reason.STARTING, "no member is ready yet, replicas are starting")
        return Judgement(kind, "False", Reason.NO_READY_MEMBER, "no member can answer")
    if traffic.status != "True" and traffic.reason in {
        Reason.ROUTE_PENDING,
        Reason.ROUTE_NOT_ACCEPTED,
        Reason.REFS_NOT_RESOLVED,
    }:
        return Judgement(kind, "False", traffic.reason, traffic.message)
    return Judgement(kind, "True", Reason.AVAILABLE, f"{', '.join(sorted(view.usable))} can answer")


def _judge_metrics(problem: Finding | None) -> Judgement:
    kind = ConditionType.METRICS_AVAILABLE
    if problem is None:
        return Judgement(kind, "True", Reason.SCRAPED)
    waiting = problem.reason is Reason.NO_SAMPLES
    return from_finding(kind, "Unknown" if waiting else "False", problem, Reason.OBSERVATION_FAILED)


def _judge_progress(view: ServiceView) -> Judgement:
    kind = ConditionType.PROGRESSING
    if view.decision.held:
        return Judgement(kind, "False", Reason.HOLDING, "weights are held")
    if view.starting and not view.usable:
        return Judgement(kind, "True", Reason.STARTING, "the first replicas are starting")
    return Judgement(kind, "False", Reason.STEADY)


def render_llm_service_status(
    view: ServiceView, conditions: tuple[Condition, ...], generation: int | None
) -> LLMServiceStatus:
    """The whole status; figures are rounded to what a reader can use."""
    decision = view.decision
    return LLMServiceStatus(
        observed_generation=generation,
        sla=_render_ledger(view),
        energy=_render_energy(view),
        members=_render_members(view),
        decision=Decision(
            time=timestamp(decision.at_seconds),
            reason=decision.reason,
            message=decision.message,
            binding_constraint=_binding(decision),
            runner_up=_runner_up(decision),
            price_joules_per_satisfied_request=render_decimal(
                None if decision.policy is None else decision.policy.price_joules_per_satisfied
            ),
            inputs=tuple(
                DecisionInput(
                    name=row.name,
                    value=row.value,
                    observed_at=None if row.at_seconds is None else timestamp(row.at_seconds),
                )
                for row in decision.inputs[:MAX_INPUTS]
            ),
        ),
        controller=_render_controller(view),
        conditions=conditions,
    )


def _render_controller(view: ServiceView) -> ControllerState | None:
    if view.state is None:
        return None
    observed = view.decision.at_seconds if view.observed_at_seconds is None else view.observed_at_seconds
    return ControllerState(
        policy=view.state[0], state=view.state[1], counters=view.counters, observed_at=timestamp(observed)
    )


def _binding(decision: ServiceDecision) -> str | None:
    if decision.policy is None or decision.policy.binding_constraint == "None":
        return None
    return str(decision.policy.binding_constraint)


def _runner_up(decision: ServiceDecision) -> str | None:
    second = None if decision.policy is None else decision.policy.runner_up
    if second is None:
        return None
    return second.member if second.excess_joules is None else f"{second.member}, {second.excess_joules:.3g} J dearer"


def _render_ledger(view: ServiceView) -> LedgerStatus:
    figures, latencies = view.figures, view.figures.latencies
    ledger, promise, reach = figures.ledger, figures.promise, find_reach(figures.ledger)
    first = _milliseconds(latencies.time_to_first_token_seconds)
    further = _milliseconds(latencies.time_per_output_token_seconds)
    start = None if promise is None else promise.from_request
    return LedgerStatus(
        target=f"{view.spec.sla.accuracy.target_per_mille / 10:.1f}%",
        achieved=None if ledger is None or ledger.achieved is None else f"{100 * ledger.achieved:.1f}%",
        feedback_count=None if ledger is None else round(ledger.total),
        satisfied_count=None if ledger is None else round(ledger.satisfied),
        unknown_member_feedback_count=None
        if ledger is None
        else round(sum(row.total for row in ledger.members if not row.name)),
        request_count=round(figures.requests),
        debt_requests=None if ledger is None else round(ledger.debt_requests),
        credit_requests=None if promise is None else round(promise.credit),
        reachable=None if reach is None else f"{100 * reach[0]:.1f}% to {100 * reach[1]:.1f}%",
        promised_from_request=None if start is None else round(start),
        confidence_per_mille=None if promise is None else round(1000 * (1.0 - promise.delta)),
        feedback_share_per_mille=None if promise is None else round(1000 * promise.feedback_share),
        since=None if ledger is None or ledger.since_seconds is None else timestamp(ledger.since_seconds),
        time_to_first_token_p95_milliseconds=first,
        time_per_output_token_p95_milliseconds=further,
        latency=None if first is None and further is None else f"{_shown(first)}/{_shown(further)}",
    )


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e3)


def _shown(milliseconds: int | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds}ms"


def render_decimal(value: float | None) -> str | None:
    """Three significant digits without an exponent."""
    if value is None:
        return None
    digits = max(0, 2 - len(str(int(abs(value)))) + 1)
    return f"{value:.{digits}f}"


def _render_energy(view: ServiceView) -> EnergyStatus | None:
    used = [view.figures.energy[name] for name in sorted(view.usable) if name in view.figures.energy]
    if not used:
        return None
    watts, regret = view.figures.watts, view.figures.regret
    times = [row.observed_at_seconds for row in used if row.observed_at_seconds is not None]
    return EnergyStatus(
        joules_per_request=render_decimal(view.figures.joules_per_request),
        power_watts=None if watts is None else round(watts),
        provenance=_provenance(used),
        observed_at=timestamp(min(times)) if times else None,
        coverage_percent=min((row.coverage_percent for row in used if row.coverage_percent is not None), default=None),
        joules_per_satisfied_request=render_decimal(view.figures.joules_per_satisfied),
        blind_joules_per_request=None if regret is None else render_decimal(regret.blind_joules_per_request),
        ratio_to_blind=None if regret is None else f"{regret.ratio:.3f}",
        regret_joules=None if regret is None else round(regret.joules),
    )


def _provenance(rows: list[MemberEnergy]) -> Literal["Measured", "Proportional", "Derived"]:
    if not all(row.measured for row in rows):
        return "Derived"
    return "Proportional" if any(row.shared for row in rows) else "Measured"


def _render_members(view: ServiceView) -> tuple[MemberStatus, ...]:
    weights: dict[str, int] = {}
    for key, weight in view.decision.weights.items():
        weights[key.member] = weights.get(key.member, 0) + weight
    ledger = view.figures.ledger
    outcomes: Mapping[str, tuple[float, float | None]] = (
        {} if ledger is None else {row.name: (row.total, row.accuracy) for row in ledger.members}
    )
    shares = share_per_mille(view.figures.load.counted, weights)
    rows = []
    for name, weight in weights.items():
        total, accuracy = outcomes.get(name, (0.0, None))
        energy = view.figures.energy.get(name)
        rows.append(
            MemberStatus(
                name=name,
                weight=weight,
                share_per_mille=shares.get(name),
                accuracy_per_mille=None if accuracy is None else round(1000 * accuracy),
                feedback_count=round(total),
                joules_per_request=render_decimal(None if energy is None else energy.average_joules),
            )
        )
    return tuple(rows)
