"""One replica of one variant as a handful of numbers.

A decode step of b sequences lasts t0 + t1*b: reading the weights costs t0 whatever the batch, each sequence adds t1.
Prefill adds a time per prompt token. Power jumps from idle to `active_watts` with the first request and is then affine
in the share of time that scales with load, up to `max_watts`. With work w = I*tp + O*t1 seconds per request, a rate r
gives the load rho = r*w, the time per output token t0/(1 - rho) and r*O*t0/(1 - rho) sequences at once.

The law fits measured engines within 2 to 8 % from batch 8 upwards and is poorer below (`capacity.fit` reports it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

LOAD_CAP = 0.85
"""Load above which the queueing of real, bursty arrivals makes the linear law too kind."""

PREFILL_CAP = 0.8
"""Share of the chunked prefill throughput above which prompts queue for longer than a time to first token allows."""

START_POWER_RATIO = 1.25
"""Power while weights load, relative to idle with weights resident (assumed; no public measurement)."""


@dataclass(frozen=True, slots=True)
class ReplicaModel:
    """Speed, memory and power of one replica (all its accelerators together).

    t0_seconds, t1_seconds: step time t0 + t1*b. prefill_seconds_per_token: extra step time per prompt token.
    kv_tokens: tokens that fit the KV cache. max_sequences: most sequences in a batch. max_batched_tokens: most tokens
    of one iteration, decoding sequences and prompt chunks together; small values trade time to first token for steady
    output.
    off_watts: no process on the accelerators. idle_watts: weights resident, nothing running. active_watts: one request
    in flight. max_watts: saturated.
    """

    t0_seconds: float
    t1_seconds: float
    prefill_seconds_per_token: float
    kv_tokens: int
    max_sequences: int
    off_watts: float
    idle_watts: float
    active_watts: float
    max_watts: float
    startup_seconds: float
    startup_joules: float
    accelerators: int = 1
    max_batched_tokens: int = 2048

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value < 0.0:
                raise ValueError(f"{field.name} must be a number of at least 0, not {value}")
        if self.t0_seconds <= 0.0:
            raise ValueError("t0_seconds must be positive")
        if min(self.kv_tokens, self.max_sequences, self.accelerators, self.max_batched_tokens) < 1:
            raise ValueError("kv_tokens, max_sequences, accelerators and max_batched_tokens must be at least 1")
        if not self.idle_watts <= self.active_watts <= self.max_watts:
            raise ValueError(
                f"idle_watts {self.idle_watts}, active_watts {self.active_watts} and max_watts {self.max_watts} "
                "must not fall in that order"
            )

    def step_seconds(self, batch: int) -> float:
        """Return the time of one decode step of that many sequences."""
        return self.t0_seconds + self.t1_seconds * batch

    def decode_watts(self, batch: int) -> float:
        """Return power while that many sequences decode; idle for none.

        The jump to `active_watts` is taken whole by the first sequence. Averaged over a Poisson number of sequences
        of mean n this is idle + (1 - exp(-n)) (active - idle) + (max - active) rho, the form that plans use.
        """
        if batch <= 0:
            return self.idle_watts
        load = self.t1_seconds * batch / self.step_seconds(batch)
        return self.active_watts + (self.max_watts - self.active_watts) * load

    @property
    def start_watts(self) -> float:
        """Return mean power while starting."""
        return self.startup_joules / self.startup_seconds if self.startup_seconds else 0.0

    def with_startup(self, seconds: float) -> ReplicaModel:
        """Return the model with a start of this length at the same power (for demonstrations that cannot wait)."""
        return replace(self, startup_seconds=seconds, startup_joules=self.start_watts * seconds)


@dataclass(frozen=True, slots=True)
class RequestShape:
    """Mean prompt and output tokens of the requests a replica gets."""

    input_tokens: float
    output_tokens: float

    def __post_init__(self) -> None:
        if not (0.0 <= self.input_tokens < math.inf and 0.0 < self.output_tokens < math.inf):
            raise ValueError(f"mean tokens must be positive numbers, not {self.input_tokens}/{self.output_tokens}")


@dataclass(frozen=True, slots=True)
class LatencyTarget:
    """Latency bounds of a service; `None` sets no bound."""

    ttft_seconds: float | None = None
    tpot_seconds: float | None = None

    def strictest(self, other: LatencyTarget) -> LatencyTarget:
        """Return the bounds that satisfy both."""
        return LatencyTarget(
            _least(self.ttft_seconds, other.ttft_seconds), _least(self.tpot_seconds, other.tpot_seconds)
        )


def work_seconds(model: ReplicaModel, shape: RequestShape) -> float:
    """Return the seconds of a replica that one request takes beyond the weights' reading."""
    return shape.input_tokens * model.prefill_seconds_per_token + shape.output_tokens * model.t1_seconds


def tpot_seconds(model: ReplicaModel, load: float) -> float:
    """Return the mean time per output token at a load below 1."""
    return model.t0_seconds / (1.0 - load)


def concurrency(model: ReplicaModel, shape: RequestShape, rate_rps: float) -> float:
    """Return the mean number of sequences in flight on one replica; infinite at a load of 1 and more."""
    load = rate_rps * work_seconds(model, shape)
    return math.inf if load >= 1.0 else rate_rps * shape.output_tokens * tpot_seconds(model, load)


def knee_load(model: ReplicaModel, shape: RequestShape, target: LatencyTarget) -> float | None:
    """Return the largest load that keeps the latency target, KV cache and batch limit; `None` when none does.

    TPOT: t0/(1 - rho) <= D. TTFT: (I*tp + t0)/(1 - rho) <= D. Sequences: at most kv_tokens/(I + O) and the batch limit.
    Prompts: their tokens take at most 80 % of what iterations full of chunks prefill, else they queue.
    """
    bounds = [LOAD_CAP]
    if target.tpot_seconds is not None:
        bounds.append(1.0 - model.t0_seconds / target.tpot_seconds)
    if target.ttft_seconds is not None:
        first = shape.input_tokens * model.prefill_seconds_per_token + model.t0_seconds
        bounds.append(1.0 - first / target.ttft_seconds)
    sequences = min(model.max_sequences, model.kv_tokens / (shape.input_tokens + shape.output_tokens))
    # sequences = rho*a/(1 - rho) with a = O*t0/w, solved for rho
    work = work_seconds(model, shape)
    if work <= 0.0:
        return None
    bounds.append(sequences / (sequences + shape.output_tokens * model.t0_seconds / work))
    load = min(*bounds, _prefill_load(model, shape))
    return load if load > 0.0 else None


def capacity_rps(model: ReplicaModel, shape: RequestShape, target: LatencyTarget, eta: float = 0.9) -> float | None:
    """Return requests per second of one replica at `eta` of the knee; `None` when it cannot keep the target."""
    load = knee_load(model, shape, target)
    return None if load is None else eta * load / work_seconds(model, shape)


def power_watts(model: ReplicaModel, shape: RequestShape, rate_rps: float) -> float:
    """Return the mean power of one ready replica at a rate (load clipped to 1)."""
    load = min(1.0, rate_rps * work_seconds(model, shape))
    busy = -math.expm1(-concurrency(model, shape, rate_rps))
    return (
        model.idle_watts
        + busy * (model.active_watts - model.idle_watts)
        + (model.max_watts - model.active_watts) * load
    )


def joules_per_request(model: ReplicaModel, shape: RequestShape, rate_rps: float) -> float | None:
    """Return mean energy per request of one replica at a rate, its idle share included; `None` without requests."""
    return power_watts(model, shape, rate_rps) / rate_rps if rate_rps > 0.0 else None


def _prefill_load(model: ReplicaModel, shape: RequestShape) -> float:
    """Return the load at which prompts take 80 % of the chunks (by bisection: the share grows with the load)."""

    def share(load: float) -> float:
        rate = load / work_seconds(model, shape)
        sequences = concurrency(model, shape, rate)
        chunk = max(1.0, model.max_batched_tokens - sequences)
        full_step = model.t0_seconds + model.t1_seconds * sequences + chunk * model.prefill_seconds_per_token
        return rate * shape.input_tokens * full_step / chunk

    low, high = 0.0, LOAD_CAP
    if share(high) <= PREFILL_CAP:
        return high
    for _ in range(30):
        middle = (low + high) / 2.0
        low, high = (middle, high) if share(middle) <= PREFILL_CAP else (low, middle)
    return low


def _least(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)
