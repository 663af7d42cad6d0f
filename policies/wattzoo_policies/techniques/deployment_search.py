"""Which tensor-parallel degree each machine should run a model with, after arXiv 2504.15303.

That paper picks per machine the degree, hence the number of instances, with the highest throughput by exhaustive
search over what a light profile predicts. The equations here are our formulation after its abstract; joules per token
as an objective is ours. Machines add up: a degree on one changes nothing on another, so the best cluster for throughput
is the best of each machine. Tokens per joule is a ratio of sums, whose best choice per machine depends on the others;
Dinkelbach's iteration solves that exactly, each round again one pass over the machines.

A candidate is feasible where its weights and a reserve leave room for one request's KV cache, and where a whole
instance fits the machine. Instances never span machines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from wattzoo_policies.capacity.coefficients import Coefficients
from wattzoo_policies.capacity.fit import ProfilePoint, ReplicaFacts
from wattzoo_policies.capacity.interpolation import ProfileCurves
from wattzoo_policies.capacity.model import RequestShape

MEMORY_USED_SHARE = 0.9
RESERVE_BYTES = 1.5e9
"""Per accelerator, for activations and the engine itself."""


KV_CACHE, BATCH_LIMIT, MEASURED_RANGE = "KV cache", "batch limit", "largest measured batch"


class Objective(StrEnum):
    """What the search maximises."""

    THROUGHPUT = "Throughput"
    TOKENS_PER_JOULE = "TokensPerJoule"


class InstanceSpeed(Protocol):
    """What an instance does with a batch that is always full."""

    def largest_batch(self, shape: RequestShape) -> tuple[float, str]:
        """Return the largest batch that the source of the figures allows, and what bounds it."""
        ...

    def estimate(self, batch: float, shape: RequestShape) -> tuple[float, float]:
        """Return (prompt and output tokens per second, watts)."""
        ...


@dataclass(frozen=True, slots=True)
class CoefficientSpeed:
    """Speed from the eight coefficients; power is one mean, for they know none."""

    coefficients: Coefficients
    mean_watts: float
    max_sequences: int = 256

    def largest_batch(self, shape: RequestShape) -> tuple[float, str]:  # noqa: ARG002 - they know no cache
        """Return the batch limit."""
        return float(self.max_sequences), BATCH_LIMIT

    def estimate(self, batch: float, shape: RequestShape) -> tuple[float, float]:
        """Return tokens per second of whole batches, and the mean power."""
        return self.coefficients.tokens_per_second(batch, shape), self.mean_watts


@dataclass(frozen=True, slots=True)
class ProfileSpeed:
    """Speed and power from measured points; prompts take their share of the time at full power."""

    curves: ProfileCurves

    def largest_batch(self, shape: RequestShape) -> tuple[float, str]:
        """Return the largest batch that was measured and that the profile's own KV cache and batch limit allow."""
        batch = self.curves.largest_batch(shape)
        if batch == float(self.curves.batches[-1]):
            return batch, MEASURED_RANGE
        return batch, BATCH_LIMIT if batch == float(self.curves.facts.max_sequences) else KV_CACHE

    def estimate(self, batch: float, shape: RequestShape) -> tuple[float, float]:
        """Return tokens per second and watts; a batch below the measured ones follows the outer segment."""
        seen = self.curves.estimate_at_batch(batch, shape, extrapolate=True)
        prefill = shape.input_tokens * self.curves.prefill_seconds_per_token
        decode = shape.output_tokens * seen.step_seconds.value / batch
        working = (prefill * self.curves.max_watts + decode * seen.power_watts.value) / (prefill + decode)
        return (shape.input_tokens + shape.output_tokens) / (prefill + decode), working


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """Bytes of the whole model's weights, and of the KV cache of one token."""

    weight_bytes: float
    kv_bytes_per_token: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A profiled way to run the model: a degree on an accelerator.

    memory `None`: not known; then the KV cache that the profile states is all that counts.
    """

    name: str
    accelerator: str
    tensor_parallel: int
    speed: InstanceSpeed
    memory: ModelMemory | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """`count` alike machines (the nodes of a pool), each with that many accelerators of one type.

    memory_bytes_per_accelerator `None`: not known; then the KV cache that profiles state is all that counts.
    """

    name: str
    accelerator: str
    accelerators: int
    memory_bytes_per_accelerator: float | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate on a machine: its instances there, all its machines together, and what they do.

    bound: what keeps the batch from being larger; a candidate bound by what was measured may be better than it looks.
    """

    machine: str
    candidate: str
    tensor_parallel: int
    instances: int
    batch: float
    bound: str
    tokens_per_second: float
    watts: float

    @property
    def tokens_per_joule(self) -> float:
        """Return prompt and output tokens per joule."""
        return self.tokens_per_second / self.watts


@dataclass(frozen=True, slots=True)
class Rejection:
    """A candidate that cannot run on a machine, and why."""

    machine: str
    candidate: str
    reason: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to run on a machine and why; `runner_up` is the next best degree there."""

    choice: Choice
    runner_up: Choice | None
    reason: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """The best deployment: one proposal per machine that can run the model; machines that cannot are in `rejected`."""

    objective: Objective
    proposals: tuple[Proposal, ...]
    rejected: tuple[Rejection, ...]

    @property
    def tokens_per_second(self) -> float:
        """Return prompt and output tokens per second of the cluster."""
        return sum(proposal.choice.tokens_per_second for proposal in self.proposals)

    @property
    def watts(self) -> float:
        """Return the power of all instances, full."""
        return sum(proposal.choice.watts for proposal in self.proposals)


def make_candidate(
    name: str,
    accelerator: str,
    tensor_parallel: int,
    points: Sequence[ProfilePoint],
    facts: ReplicaFacts,
    memory: ModelMemory | None = None,
) -> Candidate:
    """Return the candidate that a profile describes; raises `FitError` when its points cannot be a replica."""
    return Candidate(name, accelerator, tensor_parallel, ProfileSpeed(ProfileCurves(points, facts, name)), memory)


def find_deployment(
    machines: Sequence[Machine],
    candidates: Sequence[Candidate],
    shape: RequestShape,
    objective: Objective = Objective.THROUGHPUT,
) -> Deployment:
    """Return the deployment that maximises the objective over the product of all machines' feasible candidates.

    Every machine that can run the model does. Raises `ValueError`, naming object, field and rule, on figures that no
    machine or candidate can have.
    """
    _check(machines, candidates)
    rejected: list[Rejection] = []
    options: list[list[Choice]] = []
    for machine in machines:
        found = [evaluate_candidate(machine, c, shape) for c in candidates if c.accelerator == machine.accelerator]
        rejected += [option for option in found if isinstance(option, Rejection)]
        options.append([option for option in found if isinstance(option, Choice)])
        if not found:
            rejected.append(Rejection(machine.name, "", f"no candidate is profiled on {machine.accelerator}"))
    options = [choices for choices in options if choices]
    price = 0.0 if objective is Objective.THROUGHPUT else _find_price(options)
    ranked = [sorted(choices, key=lambda choice: (-_gain(choice, price), choice.candidate)) for choices in options]
    proposals = (Proposal(r[0], r[1] if len(r) > 1 else None, _explain(r, objective, price)) for r in ranked)
    return Deployment(objective, tuple(proposals), tuple(rejected))


def evaluate_candidate(machine: Machine, candidate: Candidate, shape: RequestShape) -> Choice | Rejection:
    """Return what a candidate does on a machine when every instance is full, or why it cannot run there."""
    degree = candidate.tensor_parallel
    per_machine = machine.accelerators // degree
    if per_machine < 1:
        reason = f"needs {degree} accelerators on one machine, which has {machine.accelerators}"
        return Rejection(machine.name, candidate.name, reason)
    most, bound = candidate.speed.largest_batch(shape)
    batch = math.floor(most + 1e-9)
    if candidate.memory is not None and machine.memory_bytes_per_accelerator is not None:
        memory = machine.memory_bytes_per_accelerator * MEMORY_USED_SHARE - RESERVE_BYTES
        budget = degree * memory - candidate.memory.weight_bytes
        if budget <= 0.0:
            weights = f"the weights take {candidate.memory.weight_bytes / 1e9:.1f} GB"
            return Rejection(machine.name, candidate.name, f"{weights}, {-budget / 1e9:.1f} GB more than there are")
        needed = (shape.input_tokens + shape.output_tokens) * candidate.memory.kv_bytes_per_token
        if budget / needed < batch:
            batch, bound = math.floor(budget / needed), KV_CACHE
    if batch < 1:
        return Rejection(machine.name, candidate.name, "the KV cache holds no request of this shape")
    tokens, watts = candidate.speed.estimate(batch, shape)
    instances = per_machine * machine.count
    return Choice(machine.name, candidate.name, degree, instances, batch, bound, instances * tokens, instances * watts)


def _gain(choice: Choice, price: float) -> float:
    return choice.tokens_per_second - price * choice.watts


def _find_price(options: Sequence[Sequence[Choice]]) -> float:
    """Return the largest tokens per joule of any product of choices (Dinkelbach; each round raises it strictly)."""
    price = 0.0
    while True:
        best = [max(choices, key=lambda choice: _gain(choice, price)) for choices in options]
        watts = sum(choice.watts for choice in best)
        ratio = sum(choice.tokens_per_second for choice in best) / watts if watts else 0.0
        if ratio <= price * (1.0 + 1e-12):
            return price
        price = ratio


def _explain(ranked: Sequence[Choice], objective: Objective, price: float) -> str:
    best = ranked[0]
    text = f"{best.instances} x {_describe(best)}, {best.watts:.0f} W"
    if len(ranked) == 1:
        return f"{text}; the only candidate that fits"
    text = f"{text}; instead of {ranked[1].instances} x {_describe(ranked[1])}"
    if objective is Objective.THROUGHPUT or best.tokens_per_joule >= ranked[1].tokens_per_joule:
        return text
    return f"{text}, which lowers the cluster's {price:.2f} tokens/J"


def _describe(choice: Choice) -> str:
    speed = f"{choice.tokens_per_second:.0f} tokens/s, {choice.tokens_per_joule:.2f} tokens/J"
    return f"TP{choice.tensor_parallel}, batch {choice.batch:g} ({choice.bound}): {speed}"


def _check(machines: Sequence[Machine], candidates: Sequence[Candidate]) -> None:
    for machine in machines:
        sizes = [("accelerators", machine.accelerators), ("count", machine.count)]
        _check_positive(f"machine {machine.name}", sizes)
        if machine.memory_bytes_per_accelerator is not None:
            memory = ("memory_bytes_per_accelerator", machine.memory_bytes_per_accelerator)
            _check_positive(f"machine {machine.name}", [memory])
    for candidate in candidates:
        subject = f"candidate {candidate.name}"
        _check_positive(subject, [("tensor_parallel", candidate.tensor_parallel)])
        if candidate.memory is not None:
            bytes_per_token = ("kv_bytes_per_token", candidate.memory.kv_bytes_per_token)
            _check_positive(subject, [("weight_bytes", candidate.memory.weight_bytes), bytes_per_token])


def _check_positive(subject: str, figures: Sequence[tuple[str, float]]) -> None:
    for field, value in figures:
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{subject}: {field}: must be a positive number, not {value}")
