"""Who was satisfied: a draw per answer with its member's probability, and the ledger that controllers see."""

from __future__ import annotations

import numpy as np

from wattzoo_policies.sim.fluid.scenario import FloatArray, FluidScenario

PRIOR_REQUESTS = 20.0
"""What a prior accuracy of a member weighs against outcomes."""


class Ledger:
    """Outcomes by service and member: cumulative for the promise, all of them for the members' accuracies."""

    def __init__(self, scenario: FluidScenario) -> None:
        self.members = tuple(dict.fromkeys(variant.member for variant in scenario.variants))
        place = {member: number for number, member in enumerate(self.members)}
        self._services = scenario.services
        self._of_variant = np.array([place[variant.member] for variant in scenario.variants], dtype=np.int64)
        shape = (len(scenario.services), len(scenario.variants))
        self._probability = np.zeros(shape)
        for row, service in enumerate(scenario.services):
            for column, variant in enumerate(scenario.variants):
                self._probability[row, column] = scenario.accuracy[service.name].get(variant.member, 0.0)
        self._served = np.zeros(shape)
        self._counted = np.zeros(shape)
        self._correct = np.zeros((len(scenario.services), len(self.members)))
        self._total = np.zeros((len(scenario.services), len(self.members)))
        self._promise = np.zeros((2, len(scenario.services)))

    def restart(self) -> None:
        """Begin the promise anew; what is known of the members stays."""
        self._promise[:] = 0.0

    def add(self, served: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw the outcomes of served flows (services, variants); returns (correct, outcomes) by service.

        Flows may be fractions of requests; an outcome comes when a whole one is through.
        """
        self._served += served
        whole = np.floor(self._served - self._counted + 1e-6)
        self._counted += whole
        correct = rng.binomial(whole.astype(np.int64), self._probability).astype(np.float64)
        for column, member in enumerate(self._of_variant):
            self._correct[:, member] += correct[:, column]
            self._total[:, member] += whole[:, column]
        sums = correct.sum(axis=1), whole.sum(axis=1)
        self._promise += np.stack(sums)
        return sums

    def satisfied(self, service: int) -> float:
        """Return satisfied requests since the promise began."""
        return float(self._promise[0, service])

    def total(self, service: int) -> float:
        """Return outcomes since the promise began."""
        return float(self._promise[1, service])

    def accuracies(self, service: int) -> dict[str, float | None]:
        """Return the estimated satisfied share by member; `None` where neither prior nor outcome says anything."""
        promise = self._services[service]
        found: dict[str, float | None] = {}
        for name in promise.members:
            prior = promise.accuracies.get(name)
            weight = 0.0 if prior is None else PRIOR_REQUESTS
            good, total = 0.0, 0.0
            if name in self.members:
                place = self.members.index(name)
                good, total = float(self._correct[service, place]), float(self._total[service, place])
            found[name] = (good + weight * (prior or 0.0)) / (total + weight) if total + weight > 0.0 else None
        return found
