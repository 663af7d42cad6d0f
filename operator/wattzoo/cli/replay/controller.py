"""The operator as a fleet controller: its Reconciler's passes, the joint plan included, once per step of the plant.

Nothing is decided here. A step brings cluster and meters up to what the plant shows, runs the passes that fall into it
in the loop's order (pools, then services, and again what a new plan or new weights mark), and reads replicas, serving
pods and weights back from what was written. Passes that would see the same data again within a step are left out: the
plant's figures are those of whole steps, and the weights' law counts nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wattzoo.cli.fleet_model import Fleet
from wattzoo.cli.manifest_files import Manifests
from wattzoo.cli.replay.cluster import Cluster, Pod
from wattzoo.cli.replay.meters import Metered, Meters
from wattzoo.model import Kind, Manifest, Ref
from wattzoo.planning import FleetPlanner
from wattzoo.reconcile import PLAN_INTERVALS, Reconciler
from wattzoo.settings import LeaseSettings, PrometheusSettings, Settings
from wattzoo.telemetry import Telemetry
from wattzoo_policies.accuracy.ledger import Outcomes, ledger_from_body, ledger_to_body
from wattzoo_policies.accuracy.state_text import read_state, write_state
from wattzoo_policies.placement.objective import Objective
from wattzoo_policies.placement.problem import Plan, PlanProblem
from wattzoo_policies.placement.signals import FleetDecision, FleetObservation
from wattzoo_policies.placement.solve import solve_plan

EPOCH_SECONDS = 1_700_000_000.0
"""What the first counted step is on the operator's clock: timestamps must not be before 1970."""
MAX_ROUNDS = 8
"""Rounds of passes in one step: first what is due, then what a new plan, new weights or changed pods mark."""


@dataclass(slots=True)
class Replay:
    """One run: the operator, what it acts on, and what it has asked to look at again. It goes on in place."""

    cluster: Cluster
    meters: Meters
    settings: Settings
    operator: Reconciler | None = None
    at_seconds: float = 0.0
    served_by: dict[str, Sequence[Pod]] = field(default_factory=dict)
    marked: set[Ref] = field(default_factory=set)
    plans: int = 0

    def begin(self, seed: int) -> Reconciler:
        """Start the operator's process."""
        telemetry = Telemetry()
        operator = Reconciler(
            self.cluster,
            self.cluster,
            telemetry,
            self.settings,
            clock=lambda: self.at_seconds,
            mark=self._mark,
            seed=seed,
        )
        interval = PLAN_INTERVALS * self.settings.pool_interval_seconds
        operator.planner = FleetPlanner(
            telemetry, self._mark, interval, solve=self._solve, objective=self.settings.objective
        )
        self.operator = operator
        return operator

    def _mark(self, kind: Kind, ref: Ref) -> None:
        if kind is Kind.MODEL_POOL:
            self.marked.add(ref)

    def _solve(self, problem: PlanProblem, *, time_limit_seconds: float, previous: Plan | None, explain: bool) -> Plan:
        """Return the plan; the runner-up, which only a status shows, is not looked for."""
        del explain
        self.plans += 1
        return solve_plan(problem, time_limit_seconds=time_limit_seconds, previous=previous)

    async def tick(self, operator: Reconciler) -> None:
        """Run all passes of a step."""
        snapshot, telemetry = self.cluster.snapshot(), self.meters.snapshot()
        pools, services = frozenset(snapshot.model_pools), set(snapshot.llm_services)
        for _ in range(MAX_ROUNDS):
            self.marked.clear()
            self.cluster.take_changed()
            for ref in sorted(pools):
                await operator.reconcile_pool(ref, snapshot, telemetry)
            for ref in sorted(services):
                await operator.reconcile_service(ref, snapshot, telemetry)
            await operator.planner.wait()
            pools = frozenset(self.marked) | self.cluster.take_changed()
            if not pools:
                return
            snapshot = self.cluster.snapshot()


def forgive(status: Mapping[str, Any]) -> Manifest | None:
    """Return a status to go on from in which nothing is owed or owned any more; None where there is none.

    What the policy has learned of the members stays. An operator reads it as after a restart.
    """
    controller = dict(status.get("controller") or {})
    policy, text = controller.get("policy"), controller.get("state")
    if not isinstance(policy, str) or not isinstance(text, str):
        return None
    body = dict(read_state(policy, text))
    ledger = ledger_from_body(body["ledger"])
    members = dict.fromkeys(ledger.members, Outcomes())
    body["ledger"] = ledger_to_body(replace(ledger, members=members, required=0.0, worst_deficit=None))
    return {"controller": {**controller, "state": write_state(policy, body)}}


class OperatorController:
    """Runs the operator of these manifests in the plant; see the module's text."""

    def __init__(
        self, found: Manifests, fleet: Fleet, objective: Objective = Objective.ENERGY, name: str = "wattzoo"
    ) -> None:
        """`found` and `fleet` are of the same files."""
        self.name = name
        self._found, self._fleet = found, fleet
        self._settings = Settings(
            prometheus=PrometheusSettings(url="http://simulated"),
            lease=LeaseSettings("simulated", "simulated"),
            objective=objective,
        )

    def initial_state(self) -> Replay:
        """Return a cluster in which the operator is about to start."""
        services = {
            name: Metered(ref, self._found.services[ref].spec.feedback.prometheus, self._fleet.members[name])
            for name, ref in self._fleet.service_refs.items()
        }
        return Replay(Cluster(self._found, self._fleet), Meters(services), self._settings)

    def decide(
        self, state: Replay, observation: FleetObservation, rng: np.random.Generator
    ) -> tuple[Replay, FleetDecision]:
        """Let the operator look at the step that has ended, and return what the cluster then holds.

        The state moves on in place. Must not be called from a running event loop.
        """
        operator = state.operator or state.begin(int(rng.integers(2**31)))
        cluster, at_seconds = state.cluster, EPOCH_SECONDS + observation.at_seconds
        state.at_seconds = at_seconds
        cluster.follow(observation.variants, at_seconds)
        for name in state.meters.advance(observation, cluster, state.served_by, at_seconds):
            ref = self._fleet.service_refs[name]
            cluster.renew(ref, forgive(cluster.status(ref)))
        before = state.plans
        asyncio.run(state.tick(operator))
        state.served_by = {name: tuple(own.serving) for name, own in cluster.replicas.items()}
        return state, FleetDecision(
            replicas={name: len(own.staying) for name, own in cluster.replicas.items()},
            serving={name: len(own.serving) for name, own in cluster.replicas.items()},
            weights=self._weights(cluster),
            planned=state.plans > before,
        )

    def _weights(self, cluster: Cluster) -> dict[str, Mapping[str, float]]:
        names = {(own.deployment.namespace, own.service): name for name, own in cluster.replicas.items()}
        weights: dict[str, Mapping[str, float]] = {}
        for service, ref in self._fleet.service_refs.items():
            live = {names.get((ref.namespace, b)): w for b, w in cluster.weights(ref).items()}
            known = {name: weight for name, weight in live.items() if name is not None and weight > 0}
            total = sum(known.values())
            weights[service] = {name: weight / total for name, weight in known.items()}
        return weights
