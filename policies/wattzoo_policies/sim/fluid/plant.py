"""The fluid plant: replicas as counts, requests as flows, one step of 15 s at a time, all variants at once.

In a step a variant's serving replicas share its requests evenly. With w seconds of work per request and r requests/s
per replica the load is rho = r*w, a token takes t0/(1 - rho), n = r*O*t0/(1 - rho) sequences are inside, and power is
idle + (1 - exp(-n)) (active - idle) + (max - active) rho: the jump of the first request, then affine. Requests are
within bounds when t0/(1 - rho) <= 1.02 D and wait + (I*tp + t0)/(1 - rho) <= the TTFT bound. What the replicas
cannot take waits, oldest first, and counts as late at once; who waits longer than the patience is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wattzoo_policies.sim.fluid.scenario import FloatArray, FluidScenario, IntArray

TPOT_TOLERANCE = 1.02
MOST_LOAD = 0.97
"""A batch never gets fuller than this share of the time that scales with load, whatever its size limit."""


@dataclass(frozen=True, slots=True, eq=False)
class Flows:
    """What one step did, (services, variants) unless said otherwise; joules by variant.

    served: requests answered, `fresh` those that arrived in this step. load, sequences, tpot_seconds: by variant.
    """

    arrived: FloatArray
    served: FloatArray
    within_ttft: FloatArray
    within_tpot: FloatArray
    within_both: FloatArray
    lost: FloatArray
    load: FloatArray
    sequences: FloatArray
    active_joules: FloatArray
    idle_joules: FloatArray
    start_joules: FloatArray


class FluidPlant:
    """Replicas by phase and requests inside; `begin_step`, then decisions, then `serve`."""

    def __init__(self, scenario: FluidScenario) -> None:
        models = [variant.model for variant in scenario.variants]
        self.step_seconds = scenario.demand.step_seconds
        self.patience_seconds = scenario.patience_seconds
        self.t0 = np.array([m.t0_seconds for m in models])
        self.t1 = np.array([m.t1_seconds for m in models])
        self.tp = np.array([m.prefill_seconds_per_token for m in models])
        self.kv_tokens = np.array([float(m.kv_tokens) for m in models])
        self.max_sequences = np.array([float(m.max_sequences) for m in models])
        self.idle_watts = np.array([m.idle_watts for m in models])
        self.active_watts = np.array([m.active_watts for m in models])
        self.max_watts = np.array([m.max_watts for m in models])
        self.accelerators = np.array([m.accelerators for m in models], dtype=np.int64)
        self.ttft_bound = np.array([_bound(s.latency.ttft_seconds) for s in scenario.services])[:, None]
        self.tpot_bound = np.array([_bound(s.latency.tpot_seconds) for s in scenario.services])[:, None]
        startup = np.array([m.startup_seconds for m in models])
        self.start_steps = np.maximum(1, np.ceil(startup / self.step_seconds - 1e-9)).astype(np.int64)
        self.step_start_joules = np.array([m.startup_joules for m in models]) / self.start_steps
        self.drain_steps = max(1, round(scenario.drain_seconds / self.step_seconds))
        pools = [pool.name for pool in scenario.pools]
        self.pool = np.array([pools.index(v.pool) for v in scenario.variants], dtype=np.int64)
        self.caps = np.array([pool.accelerators for pool in scenario.pools], dtype=np.int64)
        count = len(models)
        self.ready: IntArray = np.array([v.ready for v in scenario.variants], dtype=np.int64)
        self.serving: IntArray = np.array([min(v.serving, v.ready) for v in scenario.variants], dtype=np.int64)
        self.starting: IntArray = np.zeros((count, int(self.start_steps.max(initial=1)) + 1), dtype=np.int64)
        for index, variant in enumerate(scenario.variants):
            self.starting[index, self.start_steps[index]] = max(0, variant.replicas - variant.ready)
        self.draining: IntArray = np.zeros((count, self.drain_steps + 1), dtype=np.int64)
        self.backlog: FloatArray = np.zeros((len(scenario.services), count))
        self.silenced: IntArray = np.zeros(count, dtype=np.int64)
        self.starts = 0

    @property
    def replicas(self) -> IntArray:
        """Return replicas asked for, starting ones included."""
        return self.ready + np.asarray(self.starting.sum(axis=1), dtype=np.int64)

    @property
    def terminating(self) -> IntArray:
        """Return replicas that leave and still hold accelerators."""
        return np.asarray(self.draining.sum(axis=1), dtype=np.int64)

    @property
    def held(self) -> IntArray:
        """Return accelerators held, by pool."""
        held: IntArray = np.zeros(self.caps.size, dtype=np.int64)
        np.add.at(held, self.pool, (self.replicas + self.terminating) * self.accelerators)
        return held

    def begin_step(self) -> None:
        """Let starts and drains go on by one step; what has become ready serves (new pods carry the label)."""
        self.starting[:, :-1] = self.starting[:, 1:]
        self.starting[:, -1] = 0
        born = self.starting[:, 0].copy()
        self.starting[:, 0] = 0
        self.ready += born
        self.serving += born
        self.draining[:, :-1] = self.draining[:, 1:]
        self.draining[:, -1] = 0
        self.draining[:, 0] = 0
        self.silenced[:] = 0

    def scale(self, variant: int, replicas: int) -> None:
        """Ask for this many replicas; raises `ValueError` where a pool's cap forbids it.

        Starting replicas leave before ready ones, the youngest first and at once; of the ready, silent ones first.
        """
        change = replicas - int(self.replicas[variant])
        if change > 0:
            pool = self.pool[variant]
            held = int(self.held[pool]) + change * int(self.accelerators[variant])
            if held > self.caps[pool]:
                raise ValueError(f"{held} accelerators of a pool that may hold {self.caps[pool]}")
            self.starting[variant, self.start_steps[variant]] += change
            self.starts += change
        for left in range(self.starting.shape[1] - 1, 0, -1):
            cancelled = min(-change, int(self.starting[variant, left])) if change < 0 else 0
            self.starting[variant, left] -= cancelled
            change += cancelled
        if change < 0:
            gone = min(-change, int(self.ready[variant]))
            self.ready[variant] -= gone
            self.serving[variant] = min(self.serving[variant], self.ready[variant])
            self.draining[variant, self.drain_steps] += gone

    def set_serving(self, variant: int, serving: int) -> None:
        """Let this many ready replicas serve; those that are silenced finish what they have."""
        number = max(0, min(serving, int(self.ready[variant])))
        self.silenced[variant] += max(0, int(self.serving[variant]) - number)
        self.serving[variant] = number

    def work_seconds(self, input_tokens: FloatArray, output_tokens: FloatArray) -> FloatArray:
        """Return replica-seconds per request, (services, variants)."""
        return np.asarray(input_tokens[:, None] * self.tp + output_tokens[:, None] * self.t1)

    def serve(self, arrivals: FloatArray, input_tokens: FloatArray, output_tokens: FloatArray) -> Flows:
        """Serve one step's arrivals (services, variants); tokens are means by service."""
        dt = self.step_seconds
        work = self.work_seconds(input_tokens, output_tokens)
        serving = self.serving.astype(np.float64)
        lost = np.where(serving > 0.0, 0.0, arrivals + self.backlog)  # nobody is there: the gateway answers 503
        fresh = np.where(serving > 0.0, arrivals, 0.0)
        old = np.where(serving > 0.0, self.backlog, 0.0)
        offered = ((old + fresh) * work).sum(axis=0)
        requests = (old + fresh).sum(axis=0)
        mean_output = _ratio((old + fresh).T @ output_tokens, requests, 1.0)
        mean_input = _ratio((old + fresh).T @ input_tokens, requests, 0.0)
        sequences = np.minimum(self.max_sequences, self.kv_tokens / np.maximum(1.0, mean_input + mean_output))
        per_load = mean_output * self.t0 / np.maximum(_ratio(offered, requests, 1.0), 1e-12)
        most = np.minimum(MOST_LOAD, sequences / (sequences + per_load))
        capacity = serving * most * dt
        old_work = (old * work).sum(axis=0)
        old_share = np.minimum(1.0, _ratio(capacity, old_work, 1.0))
        left_over = np.maximum(0.0, capacity - old_work * old_share)
        fresh_share = np.minimum(1.0, _ratio(left_over, offered - old_work, 1.0))
        served_old, served_fresh = old * old_share, fresh * fresh_share
        served = served_old + served_fresh
        load = _ratio((served * work).sum(axis=0), serving * dt, 0.0)
        tpot = self.t0 / (1.0 - load)
        inside = _ratio((served.T @ output_tokens) * tpot, serving * dt, 0.0)
        wait = _ratio(old_work, capacity, 0.0) * dt
        first = wait + (input_tokens[:, None] * self.tp + self.t0) / (1.0 - load)
        is_soon, is_steady = first <= self.ttft_bound, tpot <= TPOT_TOLERANCE * self.tpot_bound
        left = old + fresh - served
        patience = capacity * (self.patience_seconds / dt)
        kept_share = np.minimum(1.0, _ratio(patience, (left * work).sum(axis=0), 1.0))
        self.backlog = left * kept_share
        busy = -np.expm1(-inside)
        active = dt * serving * (busy * self.active_watts + (self.max_watts - self.active_watts) * load)
        active += dt * self.draining[:, 1:].sum(axis=1) * self.active_watts
        active += self.silenced * np.minimum(dt, mean_output * tpot) * (self.active_watts - self.idle_watts)
        idle = dt * ((self.ready - serving) + serving * (1.0 - busy)) * self.idle_watts
        return Flows(
            arrived=arrivals,
            served=served,
            within_ttft=served_fresh * is_soon,
            within_tpot=served * is_steady,
            within_both=served_fresh * (is_soon & is_steady),
            lost=lost + left * (1.0 - kept_share),
            load=load,
            sequences=inside * serving,
            active_joules=active,
            idle_joules=idle,
            start_joules=self.starting[:, 1:].sum(axis=1) * self.step_start_joules,
        )


def _bound(seconds: float | None) -> float:
    return np.inf if seconds is None else seconds


def _ratio(numerator: FloatArray, denominator: FloatArray, otherwise: float) -> FloatArray:
    """Return the quotient, `otherwise` where the denominator is zero."""
    safe = np.where(denominator > 0.0, denominator, 1.0)
    return np.where(denominator > 0.0, numerator / safe, otherwise)
