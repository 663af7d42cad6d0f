"""One service's figures as the operator's own metrics show them: the same that its status has, not rounded."""

from __future__ import annotations

from wattzoo import telemetry
from wattzoo.api.llm_service import LLMServiceSpec
from wattzoo.decisions import ServiceDecision, ServiceFigures
from wattzoo.status.promise import find_reach


def service_figures(
    spec: LLMServiceSpec, decision: ServiceDecision, figures: ServiceFigures
) -> telemetry.ServiceFigures:
    """What the metrics say of a service after a pass; what is unknown is None and has no series."""
    ledger, promise, regret = figures.ledger, figures.promise, figures.regret
    total = sum(decision.weights.values())
    shares: dict[str, float] = {}
    for key, weight in decision.weights.items():
        shares[key.member] = shares.get(key.member, 0.0) + (weight / total if total else 0.0)
    values = {
        "target": spec.sla.accuracy.target_per_mille / 1e3,
        "achieved": None if ledger is None else ledger.achieved,
        "debt": None if ledger is None else ledger.debt_requests,
        "credit": None if promise is None else promise.credit,
        "promised_from": None if promise is None else promise.from_request,
        "confidence": None if promise is None else 1.0 - promise.delta,
        "feedback_share": None if promise is None else promise.feedback_share,
        "joules": figures.joules_per_request,
        "joules_satisfied": figures.joules_per_satisfied,
        "price": None if decision.policy is None else decision.policy.price_joules_per_satisfied,
        "blind": None if regret is None else regret.blind_joules_per_request,
        "ratio": None if regret is None else regret.ratio,
        "regret": None if regret is None else regret.joules,
    }
    return telemetry.ServiceFigures(values, find_reach(ledger), shares)
