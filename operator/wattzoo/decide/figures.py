"""What a service's status and metrics report besides its decision: ledger, energy, promise, regret."""

from __future__ import annotations

from collections.abc import Mapping

from wattzoo.decide.energy import estimate_service_watts
from wattzoo.decide.estimate import PoolContext
from wattzoo.decide.memory import PoolEstimate, ServiceMemory
from wattzoo.decisions import Latencies, MemberEnergy, ServiceFigures, ServiceLoad
from wattzoo.model import Ref
from wattzoo_policies.accuracy.regret import MemberPast, Regret, estimate_regret
from wattzoo_policies.signals import LedgerSummary


def estimate_figures(
    ref: Ref,
    members: tuple[str, ...],
    context: PoolContext,
    estimate: PoolEstimate,
    load: ServiceLoad,
    memory: ServiceMemory,
    ledger: LedgerSummary | None,
) -> ServiceFigures:
    """The figures of one service after a pass."""
    energy = {name: estimate.energy[name] for name in members if name in estimate.energy}
    others = [estimate.loads[name] for name in context.services if name in estimate.loads and name != ref]
    return ServiceFigures(
        ledger=ledger,
        load=load,
        energy=energy,
        latencies=estimate.latencies.get(ref, Latencies()),
        watts=estimate_service_watts(load, others, estimate.energy),
        requests=memory.counting.total,
        promise=memory.promise,
        regret=None if ledger is None else estimate_service_regret(ledger, memory.counting.by_member(), energy),
    )


def estimate_service_regret(
    ledger: LedgerSummary, requests: Mapping[str, float], energy: Mapping[str, MemberEnergy]
) -> Regret | None:
    """What the service's past has cost over the blind optimum, at the joules by which members are compared.

    Without the gateway's counters every judged request counts as one.
    """
    counted = any(requests.values())
    past = [
        MemberPast(
            served=requests.get(row.name, 0.0) if counted else row.total,
            satisfied=row.satisfied,
            total=row.total,
            joules=energy[row.name].marginal_joules if row.name in energy else None,
        )
        for row in ledger.members
        if row.name
    ]
    target = (ledger.satisfied + ledger.debt_requests) / ledger.total if ledger.total else 0.0
    return estimate_regret(past, target) if ledger.total else None
