"""Sending requests to instances that differ in speed and memory, after arXiv 2504.15303.

That paper keeps a workload per instance from its compute capability and its memory, and sends each request so that
workloads stay balanced relative to capability. Its equations were not at hand; the score below is our formulation after
its abstract. Two forms: weights for a gateway that cannot look at a request (`weights_by_capability`), and a choice per
request for one that can (`choose_instance`). Both take the batch that an instance's KV cache allows into account,
because reading the weights is shared by the batch: an instance with little memory is slow however fast its
arithmetic. `memory_aware=False` and `weights_round_robin` are what to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wattzoo_policies.capacity.coefficients import Coefficients, make_coefficients
from wattzoo_policies.capacity.model import ReplicaModel, RequestShape


@dataclass(frozen=True, slots=True)
class Instance:
    """What the scheduler knows of one kind of server; `replicas` alike ones share its weight."""

    name: str
    coefficients: Coefficients
    kv_tokens: int
    max_sequences: int = 256
    replicas: int = 1

    def __post_init__(self) -> None:
        for field, value, least in (
            ("kv_tokens", self.kv_tokens, 1),
            ("max_sequences", self.max_sequences, 1),
            ("replicas", self.replicas, 0),
        ):
            if value < least:
                raise ValueError(f"instance {self.name}: {field}: must be at least {least}, not {value}")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Mean lengths of the requests; kv_tokens_per_running: what a *running* one holds of the cache, on average.

    Requests with long outputs run longer, so those that run are longer than those that come: with outputs O and prompts
    I it is E[(I + O) O] / E[O]. `None`: not known, I + O is taken.
    """

    mean: RequestShape
    kv_tokens_per_running: float | None = None

    @property
    def running_tokens(self) -> float:
        """Return tokens of KV cache of a running request."""
        known = self.kv_tokens_per_running
        return self.mean.input_tokens + self.mean.output_tokens if known is None else known


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What an instance has been sent and has not finished, waiting or running: seconds of work, tokens of KV cache."""

    work_seconds: float = 0.0
    kv_tokens: float = 0.0

    def plus(self, work_seconds: float, kv_tokens: float) -> Outstanding:
        """Return what is outstanding with a request sent, or, with negative figures, finished."""
        return Outstanding(self.work_seconds + work_seconds, self.kv_tokens + kv_tokens)


def make_instance(name: str, model: ReplicaModel, replicas: int = 1) -> Instance:
    """Return the instance that a fitted replica is."""
    return Instance(name, make_coefficients(model), model.kv_tokens, model.max_sequences, replicas)


def full_batch(instance: Instance, traffic: Traffic) -> float:
    """Return how many requests run at once when there is always another: the batch limit or what the cache holds."""
    return min(float(instance.max_sequences), instance.kv_tokens / traffic.running_tokens)


def assumed_batches(instances: Sequence[Instance], traffic: Traffic, *, memory_aware: bool = True) -> dict[str, float]:
    """Return the full batch of each; blind to memory, all are taken to run the largest of any."""
    batches = {instance.name: full_batch(instance, traffic) for instance in instances}
    return batches if memory_aware else dict.fromkeys(batches, max(batches.values(), default=math.nan))


def request_work_seconds(instance: Instance, shape: RequestShape, batch: float) -> float:
    """Return the seconds of the instance that a request of this size takes among `batch` others.

    Its own prefill, its own tokens (p5, p6), and its share of what each step costs whatever runs (p7, p8).
    """
    p5, p6, p7, p8 = instance.coefficients.decode
    context = shape.input_tokens + 0.5 * shape.output_tokens
    per_token = p5 * context + p6 + (p7 * context + p8) / max(1.0, batch)
    return instance.coefficients.prefill_seconds(1.0, shape.input_tokens) + shape.output_tokens * per_token


def weights_by_capability(
    instances: Sequence[Instance], traffic: Traffic, *, memory_aware: bool = True
) -> dict[str, float]:
    """Return shares proportional to the requests per second of each, all replicas together; they sum to 1.

    Instances that can hold no request of this shape get nothing. Empty when nobody can serve.
    """
    batches = assumed_batches(instances, traffic, memory_aware=memory_aware)
    rates = {}
    for instance in instances:
        batch = batches[instance.name]
        serves = instance.replicas > 0 and batch >= 1.0
        work = request_work_seconds(instance, traffic.mean, batch)
        rates[instance.name] = instance.replicas / work if serves else 0.0
    total = sum(rates.values())
    return {name: rate / total for name, rate in rates.items()} if total > 0.0 else {}


def weights_round_robin(instances: Sequence[Instance]) -> dict[str, float]:
    """Return equal shares of every replica; empty without any."""
    total = sum(instance.replicas for instance in instances)
    return {instance.name: instance.replicas / total for instance in instances} if total else {}


def choose_instance(
    instances: Sequence[Instance],
    outstanding: Mapping[str, Outstanding],
    request: RequestShape,
    traffic: Traffic,
    *,
    memory_aware: bool = True,
) -> str | None:
    """Return the instance whose backlog in seconds is smallest once it has the request; `None` when nobody can.

    `request` has the predicted lengths of this request. Backlog is the larger of the work sent and not finished and of
    the KV cache promised, in units of the time in which a full cache drains. Instances whose cache the request would
    overfill are passed over unless all are. `replicas` are not looked at: the picker knows each server.
    """
    batches = assumed_batches(instances, traffic, memory_aware=memory_aware)
    tokens = request.input_tokens + request.output_tokens
    able = [instance for instance in instances if tokens <= instance.kv_tokens]
    sent = {instance.name: outstanding.get(instance.name, Outstanding()) for instance in able}
    if memory_aware:
        able = [i for i in able if sent[i.name].kv_tokens + tokens <= i.kv_tokens] or able

    def backlog_seconds(instance: Instance) -> float:
        batch = batches[instance.name]
        work = sent[instance.name].work_seconds + request_work_seconds(instance, request, batch)
        if not memory_aware:
            return work
        fill = (sent[instance.name].kv_tokens + tokens) / instance.kv_tokens
        return max(work, fill * drain_seconds(instance, traffic, batch))

    return min(able, key=lambda i: (backlog_seconds(i), i.name)).name if able else None


def drain_seconds(instance: Instance, traffic: Traffic, batch: float) -> float:
    """Return the time in which a full KV cache of mean requests is worked off."""
    sequences = instance.kv_tokens / (traffic.mean.input_tokens + traffic.mean.output_tokens)
    return sequences * request_work_seconds(instance, traffic.mean, batch)
