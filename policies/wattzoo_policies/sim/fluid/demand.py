"""Demand by step: a day's rate curve made bursty, recorded traces in bins, jumps.

The synthetic day is curve(t) scaled to a mean rate, times exp of an AR(1) process (a load that wanders for minutes),
with negative binomial counts (bursts within a step) and tokens drawn from recorded requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wattzoo_policies.sim.fluid.scenario import STEP_SECONDS, FloatArray, FluidDemand, IntArray


@dataclass(frozen=True, slots=True)
class Burstiness:
    """log_sigma, coefficient: standard deviation of the log rate's AR(1) process and its memory per 15 s.

    dispersion: variance over mean of a step's count (1: Poisson).
    """

    log_sigma: float = 0.10
    coefficient: float = 0.88
    dispersion: float = 2.0


def draw_curve(
    at_seconds: FloatArray,
    rates_rps: FloatArray,
    tokens: tuple[FloatArray, FloatArray],
    rng: np.random.Generator,
    *,
    service: str = "day",
    mean_rps: float | None = None,
    step_seconds: float = STEP_SECONDS,
    burstiness: Burstiness | None = None,
) -> FluidDemand:
    """Return demand that follows a rate curve (interpolated between its times), scaled to `mean_rps`.

    tokens: (input, output) of recorded requests, drawn together with replacement.
    """
    if at_seconds.size < 2 or not np.all(np.diff(at_seconds) > 0.0):
        raise ValueError("at_seconds must hold at least two rising times")
    law = burstiness or Burstiness()
    steps = int((at_seconds[-1] - at_seconds[0]) // step_seconds)
    middle = at_seconds[0] + (np.arange(steps) + 0.5) * step_seconds
    rate = np.interp(middle, at_seconds, rates_rps)
    if mean_rps is not None:
        rate = rate * (mean_rps / float(rate.mean()))
    expected = rate * _wander(steps, law, step_seconds, rng) * step_seconds
    counts = draw_counts(expected, law.dispersion, rng)
    total = int(counts.sum())
    rows = rng.integers(0, tokens[0].size, total)
    owner = np.repeat(np.arange(steps), counts)
    column = np.zeros(total, dtype=np.int64)
    return _binned(step_seconds, (service,), steps, owner, column, tokens[0][rows], tokens[1][rows])


def draw_counts(expected: FloatArray, dispersion: float, rng: np.random.Generator) -> IntArray:
    """Return negative binomial counts of these means, variance = dispersion * mean (Poisson at 1)."""
    if dispersion <= 1.0:
        return rng.poisson(expected)
    shape = expected / (dispersion - 1.0)
    counts = np.zeros(expected.shape, dtype=np.int64)
    busy = shape > 0.0
    counts[busy] = rng.negative_binomial(shape[busy], 1.0 / dispersion)
    return counts


def bin_trace(
    at_seconds: FloatArray,
    input_tokens: FloatArray,
    output_tokens: FloatArray,
    *,
    service: IntArray | None = None,
    services: Sequence[str] = ("trace",),
    step_seconds: float = STEP_SECONDS,
) -> FluidDemand:
    """Return a recorded trace in steps; `service` numbers `services`. A last step that is not full is left out.

    Raises `ValueError` for an empty trace and for times that are not sorted.
    """
    if at_seconds.size == 0:
        raise ValueError("the trace is empty")
    if np.any(np.diff(at_seconds) < 0.0):
        raise ValueError("the trace's times must not fall")
    owner = ((at_seconds - at_seconds[0]) // step_seconds).astype(np.int64)
    steps = max(1, int((at_seconds[-1] - at_seconds[0]) // step_seconds))
    keep = owner < steps
    column = np.zeros(at_seconds.size, dtype=np.int64) if service is None else service
    return _binned(
        step_seconds, tuple(services), steps, owner[keep], column[keep], input_tokens[keep], output_tokens[keep]
    )


def with_jump(
    demand: FluidDemand, factor: float, first_step: int, last_step: int, rng: np.random.Generator
) -> FluidDemand:
    """Return the demand multiplied in some steps (the added requests are Poisson, tokens stay)."""
    requests = demand.requests.copy()
    inside = slice(first_step, last_step)
    requests[inside] += rng.poisson(requests[inside] * (factor - 1.0))
    return replace(demand, requests=requests)


def take_steps(demand: FluidDemand, first_step: int, last_step: int) -> FluidDemand:
    """Return a part of the demand."""
    part = slice(first_step, last_step)
    return replace(
        demand,
        requests=demand.requests[part],
        input_tokens=demand.input_tokens[part],
        output_tokens=demand.output_tokens[part],
    )


def join_services(demands: Sequence[FluidDemand]) -> FluidDemand:
    """Return several services' demands side by side, cut to the shortest."""
    steps = min(demand.steps for demand in demands)
    return FluidDemand(
        demands[0].step_seconds,
        tuple(name for demand in demands for name in demand.services),
        np.concatenate([demand.requests[:steps] for demand in demands], axis=1),
        np.concatenate([demand.input_tokens[:steps] for demand in demands], axis=1),
        np.concatenate([demand.output_tokens[:steps] for demand in demands], axis=1),
    )


def _wander(steps: int, law: Burstiness, step_seconds: float, rng: np.random.Generator) -> FloatArray:
    """Return exp of a stationary AR(1) process with mean 1."""
    memory = law.coefficient ** (step_seconds / STEP_SECONDS)
    shocks = rng.normal(0.0, law.log_sigma * math.sqrt(1.0 - memory**2), steps)
    level, levels = rng.normal(0.0, law.log_sigma), np.zeros(steps)
    for step in range(steps):
        level = memory * level + shocks[step]
        levels[step] = level
    return np.asarray(np.exp(levels - law.log_sigma**2 / 2.0))


def _binned(
    step_seconds: float,
    services: tuple[str, ...],
    steps: int,
    owner: IntArray,
    column: IntArray,
    input_tokens: FloatArray,
    output_tokens: FloatArray,
) -> FluidDemand:
    flat, size = owner * len(services) + column, steps * len(services)
    counts = np.bincount(flat, minlength=size).astype(np.float64)
    safe = np.where(counts > 0.0, counts, np.nan)
    return FluidDemand(
        step_seconds,
        services,
        counts.reshape(steps, -1),
        (np.bincount(flat, weights=input_tokens, minlength=size) / safe).reshape(steps, -1),
        (np.bincount(flat, weights=output_tokens, minlength=size) / safe).reshape(steps, -1),
    )
