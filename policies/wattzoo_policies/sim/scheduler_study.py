"""What a split of requests is worth: saturated instances of different speed and memory, request by request.

Each instance is a `Replica` of the plant (continuous batching, KV limit). Requests arrive faster than all instances
together can serve; throughput is all requests over the time until the last is done, so an instance that got too many
holds up the end. Round robin is bound by the slowest: with rates mu, the best split gains mean(mu)/min(mu) - 1 over it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.capacity.model import ReplicaModel, RequestShape
from wattzoo_policies.sim.plant import Replica
from wattzoo_policies.sim.request import EventKind, PlantRequest
from wattzoo_policies.techniques.scheduler import (
    Instance,
    Outstanding,
    Traffic,
    assumed_batches,
    choose_instance,
    full_batch,
    make_instance,
    request_work_seconds,
    weights_by_capability,
    weights_round_robin,
)

Ints = NDArray[np.int64]
MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS = 2048, 1024
OVERLOAD = 1.5
"""Arrival rate relative to what all instances together can serve."""

BASE = ReplicaModel(
    t0_seconds=0.00673,
    t1_seconds=0.000088,
    prefill_seconds_per_token=0.0000258,
    kv_tokens=60_000,
    max_sequences=256,
    off_watts=70.0,
    idle_watts=116.0,
    active_watts=475.0,
    max_watts=700.0,
    startup_seconds=0.0,
    startup_joules=0.0,
)
"""An 8B model on one H100, the cache cut down to 60,000 tokens."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Tokens of each request and, relative to a mean of 1, the gaps between arrivals."""

    input_tokens: Ints
    output_tokens: Ints
    gaps: NDArray[np.float64]

    @property
    def traffic(self) -> Traffic:
        """Return what is known of the requests on average."""
        prompts, outputs = self.input_tokens.astype(float), self.output_tokens.astype(float)
        running = float(((prompts + outputs) * outputs).mean() / outputs.mean())
        return Traffic(RequestShape(float(prompts.mean()), float(outputs.mean())), running)


Pick = Callable[[Mapping[str, Outstanding], RequestShape], str]


@dataclass(frozen=True, slots=True)
class Split:
    """A way to send requests, and what it believes in when it books work.

    predicted_output_tokens `None`: output lengths are known exactly.
    """

    pick: Pick
    batches: Mapping[str, float]
    predicted_output_tokens: float | None = None


def draw_workload(requests: int, rng: np.random.Generator) -> Workload:
    """Draw log-normal lengths (medians 400 and 150, sigma .8, capped) and exponential gaps."""
    prompts = np.clip(np.exp(rng.normal(np.log(400.0), 0.8, requests)), 1, MAX_INPUT_TOKENS)
    outputs = np.clip(np.exp(rng.normal(np.log(150.0), 0.8, requests)), 1, MAX_OUTPUT_TOKENS)
    gaps = rng.exponential(1.0, requests)
    return Workload(prompts.astype(np.int64), outputs.astype(np.int64), gaps)


def make_pair(speed_ratio: float, kv_tokens: tuple[int, int]) -> dict[str, ReplicaModel]:
    """Return a fast replica and one whose every time is `speed_ratio` times longer."""
    slow = replace(
        BASE,
        t0_seconds=BASE.t0_seconds * speed_ratio,
        t1_seconds=BASE.t1_seconds * speed_ratio,
        prefill_seconds_per_token=BASE.prefill_seconds_per_token * speed_ratio,
        kv_tokens=kv_tokens[1],
    )
    return {"fast": replace(BASE, kv_tokens=kv_tokens[0]), "slow": slow}


def split_by(weights: Mapping[str, float]) -> Pick:
    """Return a split that ignores the request and keeps counts as close to the weights as whole numbers allow."""
    credit = dict.fromkeys(weights, 0.0)

    def pick(outstanding: Mapping[str, Outstanding], request: RequestShape) -> str:
        del outstanding, request
        for name, weight in weights.items():
            credit[name] += weight
        chosen = max(credit, key=lambda name: credit[name])
        credit[chosen] -= 1.0
        return chosen

    return pick


def score_by(instances: Sequence[Instance], traffic: Traffic, *, memory_aware: bool) -> Pick:
    """Return the choice per request."""

    def pick(outstanding: Mapping[str, Outstanding], request: RequestShape) -> str:
        chosen = choose_instance(instances, outstanding, request, traffic, memory_aware=memory_aware)
        if chosen is None:
            raise ValueError("no instance can hold the request")
        return chosen

    return pick


def make_splits(models: Mapping[str, ReplicaModel], traffic: Traffic) -> dict[str, Split]:
    """Return every split of the study by name, round robin first."""
    instances = [make_instance(name, model) for name, model in models.items()]
    aware = assumed_batches(instances, traffic)
    blind = assumed_batches(instances, traffic, memory_aware=False)
    return {
        "round robin": Split(split_by(weights_round_robin(instances)), aware),
        "weighted": Split(split_by(weights_by_capability(instances, traffic)), aware),
        "weighted, blind": Split(split_by(weights_by_capability(instances, traffic, memory_aware=False)), blind),
        "score": Split(score_by(instances, traffic, memory_aware=True), aware),
        "score, mean output": Split(score_by(instances, traffic, memory_aware=True), aware, traffic.mean.output_tokens),
        "score, blind": Split(score_by(instances, traffic, memory_aware=False), blind),
    }


def simulate_split(models: Mapping[str, ReplicaModel], workload: Workload, split: Split) -> float:
    """Return requests per second until the last request is done."""
    instances = {name: make_instance(name, model) for name, model in models.items()}
    interval = 1.0 / (OVERLOAD * estimate_rate(list(instances.values()), workload.traffic))
    replicas = {name: Replica(model, started=True) for name, model in models.items()}
    outstanding = dict.fromkeys(models, Outstanding())
    sent: dict[str, tuple[str, float, float]] = {}
    at = 0.0
    rows = zip(workload.input_tokens.tolist(), workload.output_tokens.tolist(), workload.gaps.tolist(), strict=True)
    for number, (prompt, output, gap) in enumerate(rows):
        at += gap * interval
        for replica in replicas.values():
            for event in replica.advance(at):
                if event.kind is EventKind.COMPLETED:
                    name, work, tokens = sent.pop(event.request.request_id)
                    outstanding[name] = outstanding[name].plus(-work, -tokens)
        believed = split.predicted_output_tokens
        request = RequestShape(float(prompt), float(output) if believed is None else believed)
        chosen = split.pick(outstanding, request)
        work = request_work_seconds(instances[chosen], request, split.batches[chosen])
        tokens = request.input_tokens + request.output_tokens
        sent[str(number)] = (chosen, work, tokens)
        outstanding[chosen] = outstanding[chosen].plus(work, tokens)
        replicas[chosen].submit(PlantRequest(str(number), prompt, output), at)
    return len(workload.gaps) / max(_drain(replica, at) for replica in replicas.values())


def estimate_rate(instances: Sequence[Instance], traffic: Traffic) -> float:
    """Return requests per second of all instances when each always runs its full batch."""
    return sum(1.0 / request_work_seconds(i, traffic.mean, full_batch(i, traffic)) for i in instances)


def _drain(replica: Replica, at: float) -> float:
    """Return when the replica has nothing left."""
    last = at
    while (following := replica.next_event_seconds()) is not None:
        last = following
        replica.advance(following)
    return last
