"""Whether the accuracy promise can be kept and is kept, in conditions that a reader can act on.

What is judged is what was counted; what is promised of requests that nobody judged is the law's estimate and is
called so. A law that states a bound says from which request on it holds: before that a debt is no broken promise yet.
"""

from __future__ import annotations

from wattzoo.api.conditions import ConditionType, Reason
from wattzoo.api.llm_service import LatencyTarget, LLMServiceSpec
from wattzoo.decisions import Finding, Latencies, ServiceFigures
from wattzoo.status.conditions import Judgement, from_finding
from wattzoo_policies.signals import LedgerSummary

MIN_FEEDBACKS = 100
"""Below this many judged requests neither the promise nor its attainability is judged."""
DEBT_TOLERANCE_REQUESTS = 0.5
"""Less than one request is no debt; without it the condition would flicker around a target that is just met."""
FULL_FEEDBACK = 0.98
"""Above this share of judged requests the rest is on its way."""


def find_reach(ledger: LedgerSummary | None) -> tuple[float, float] | None:
    """Least and most satisfaction that the known members reach, as estimated; None while none is known."""
    known = [row.accuracy for row in ledger.members if row.name and row.accuracy is not None] if ledger else []
    return (min(known), max(known)) if known else None


def judge_feasible(spec: LLMServiceSpec, figures: ServiceFigures, infeasible: Finding | None) -> Judgement:
    """Whether some mixture of the members reaches the target, and from which request on that is promised."""
    kind = ConditionType.SLA_FEASIBLE
    if infeasible is not None:
        return from_finding(kind, "False", infeasible)
    ledger, reach = figures.ledger, find_reach(figures.ledger)
    alpha = spec.sla.accuracy.target_per_mille / 1e3
    has_priors = any(member.accuracy_prior_per_mille is not None for member in spec.members or ())
    if ledger is None or reach is None or (ledger.total < MIN_FEEDBACKS and not has_priors):
        text = f"fewer than {MIN_FEEDBACKS} judged requests and no declared accuracies"
        return Judgement(kind, "Unknown", Reason.TOO_FEW_FEEDBACKS, text)
    least, most = reach
    span = f"members reach about {least:.3f} to {most:.3f}, the target is {alpha:.3f}"
    if most < alpha:
        return Judgement(kind, "False", Reason.TARGET_ABOVE_BEST_MEMBER, span)
    return Judgement(kind, "True", Reason.ATTAINABLE, f"{span}; {describe_promise(figures)}")


def describe_promise(figures: ServiceFigures) -> str:
    """What is promised, in words; nothing more than that where the law states no bound."""
    promise = figures.promise
    if promise is None:
        return "this policy states no bound"
    judged = (
        "" if promise.feedback_share >= FULL_FEEDBACK else f", with {promise.feedback_share:.0%} of requests judged"
    )
    if promise.from_request is None:
        return f"no member lies far enough above it for a promise{judged}"
    sure = f"with probability {1.0 - promise.delta:.1%}"
    return f"kept {sure} from request {promise.from_request:,.0f} on{judged}, {figures.requests:,.0f} so far"


def judge_met(spec: LLMServiceSpec, figures: ServiceFigures) -> Judgement:
    """Whether what was judged so far satisfies what was promised for it, and whether answers come in time."""
    kind = ConditionType.SLA_MET
    ledger = figures.ledger
    if ledger is None or ledger.total < MIN_FEEDBACKS or ledger.achieved is None:
        return Judgement(kind, "Unknown", Reason.TOO_FEW_FEEDBACKS, f"fewer than {MIN_FEEDBACKS} judged requests")
    promised = (ledger.satisfied + ledger.debt_requests) / ledger.total
    text = f"{ledger.achieved:.1%} of {ledger.total:.0f} judged requests were satisfied, {promised:.1%} promised"
    if ledger.debt_requests > DEBT_TOLERANCE_REQUESTS:
        start = None if figures.promise is None else figures.promise.from_request
        if start is not None and figures.requests < start:
            text += f"; the promise holds from request {start:,.0f} on, {figures.requests:,.0f} so far"
        return Judgement(kind, "False", Reason.BELOW_TARGET, text)
    late = _find_late(figures.latencies, spec.sla.latency)
    if late is not None:
        return Judgement(kind, "False", Reason.LATENCY_ABOVE_TARGET, late)
    return Judgement(kind, "True", Reason.ON_TARGET, text)


def _find_late(latencies: Latencies, bounds: LatencyTarget | None) -> str | None:
    """The first latency above its bound; what is unknown is not late."""
    if bounds is None:
        return None
    pairs = (
        ("time to first token", latencies.time_to_first_token_seconds, bounds.time_to_first_token),
        ("time per output token", latencies.time_per_output_token_seconds, bounds.time_per_output_token),
    )
    for name, seen, bound in pairs:
        if seen is not None and bound is not None and seen * 1e3 > bound.p95_milliseconds:
            return f"95th percentile of the {name} is above {bound.p95_milliseconds} ms"
    return None
