"""Which pods of a variant take traffic: as many as its load fills to the knee; the rest are resident, silent, ready.

Waking is immediate. Silencing needs a load that has been lower for a while, ready pods that carry it, and telemetry: on
unknown load all serve. It is done by a label that the Service selects and the Deployment does not, so without us the
last choice stays in force and new pods serve. Only pods of rendered servers are flipped, and none during a rollout,
whose order of replacement is not ours to plan for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from wattzoo.decide.capacity import KNEE_SHARE
from wattzoo.decide.demand import PoolInputs
from wattzoo.decide.engines import PodSeries
from wattzoo.decide.estimate import PoolContext
from wattzoo.decide.forecast import estimate_coming_rps
from wattzoo.decide.memory import PoolMemory
from wattzoo.decide.series import estimate_latest
from wattzoo.decide.weights import live_share
from wattzoo.decisions import ServiceLoad, VariantPacking
from wattzoo.model import Backing, Signal, VariantKey, VariantState
from wattzoo_policies.placement.packing import decide_serving

ENABLED, ACT = "Enabled", "Act"
MARGIN = 0.05
"""While a forecast's error is unknown: kept free besides the tenth of the knee that a capacity leaves."""
BACKLOG_SECONDS = 10.0
"""Waiting requests wake enough to be worked off within this time: silent replicas need no start."""
SILENCE_SECONDS = 14.0
"""Silence only to the largest number needed in this time: one step of the forecast, less what a pass may be early.

Waking costs nothing but a label, so a longer look back keeps replicas active for swings of the weights that are over:
one that reaches the pass before costs 2 to 3 % of the energy at the default intervals.
"""
SETTLE_SECONDS = 5.0
"""From the label until no gateway sends to the pod any more; a scrape counts as proof only after that."""


def may_silence(context: PoolContext) -> bool:
    """Whether pods of this pool may fall silent; an autoscaler would average over silent ones."""
    scaling = context.pool.spec.scaling
    return scaling.packing == ENABLED and scaling.mode == ACT


def is_packed(inputs: PoolInputs, state: VariantState) -> bool:
    """Whether this variant's pods may be silenced; all pods of others serve."""
    return may_silence(inputs.context) and state.backing is Backing.SERVER and state.exists


def estimate_variant_rps(inputs: PoolInputs, key: VariantKey) -> float | None:
    """Requests per second that a variant must be able to take now: each service's latest rate by its live weights.

    On top comes what others send: what arrived at its servers beyond what our routes sent there in the same time, so
    that a fall of our own load is not taken for others' traffic while the window still holds the rate before. And the
    backlog. None as soon as something that may reach it is unknown, what keeps its warm servers busy included; young
    ones have no rate yet, what our routes send them is all that is asked.
    """
    signals = inputs.estimate.signals[key]
    if signals.running is None or signals.waiting is None:
        return None
    if signals.arrived_rps is None and signals.warm > 0 and signals.running + signals.waiting > 0.0:
        return None
    total = sent = 0.0
    for ref, weights in inputs.live.items():
        load = inputs.estimate.loads.get(ref, ServiceLoad())
        sent += load.by_variant_rps.get(key, 0.0)
        share = live_share(weights, key)
        if share == 0.0:
            continue
        latest = None if load.total_rps is None else load.latest_rps
        if latest is None:
            return None
        total += share * latest
    others = max(0.0, (signals.arrived_rps or 0.0) - sent)
    return total + others + signals.waiting / BACKLOG_SECONDS


def _running(index: PodSeries, namespace: str, pod: str, since_seconds: float = float("-inf")) -> float | None:
    """Requests inside a pod by a scrape after `since_seconds`; None is unknown."""
    total = 0.0
    for name in (Signal.REQUESTS_RUNNING, Signal.REQUESTS_WAITING):
        found = index.find(namespace, pod, name)
        readings = [estimate_latest(series, index.at_seconds, index.stale_after_seconds) for series in found]
        if not readings or any(r.value is None or (r.at_seconds or 0.0) <= since_seconds for r in readings):
            return None
        total += sum(reading.value or 0.0 for reading in readings)
    return total


def note_silent(inputs: PoolInputs, memory: PoolMemory) -> dict[str, float]:
    """Since when each silent pod has been seen silent, by its name."""
    names = [name for state in inputs.context.states for name in state.silent]
    return {name: memory.silent_since_seconds.get(name, inputs.at_seconds) for name in names}


def find_drained_pods(
    inputs: PoolInputs, index: PodSeries, silent_since: Mapping[str, float]
) -> dict[VariantKey, frozenset[str]]:
    """Silent pods on which nothing runs any more (or whose time to finish is over), of every variant that is packed."""
    namespace, timeout = inputs.context.ref.namespace, inputs.context.pool.spec.scaling.drain_timeout_seconds

    def is_drained(name: str) -> bool:
        since = silent_since[name]
        over = inputs.at_seconds - since >= timeout + SETTLE_SECONDS
        return over or _running(index, namespace, name, since + SETTLE_SECONDS) == 0.0

    return {
        state.key: frozenset(filter(is_drained, state.silent))
        for state in inputs.context.states
        if is_packed(inputs, state)
    }


def decide_packing(
    inputs: PoolInputs, replicas: Mapping[VariantKey, int], index: PodSeries, memory: PoolMemory
) -> tuple[dict[VariantKey, VariantPacking], PoolMemory]:
    """Pods to flip of every variant, for the replicas just decided; the memory holds what was needed lately."""
    window = min(SILENCE_SECONDS, float(inputs.context.pool.spec.scaling.down_stabilization_seconds))
    known = memory.needs if inputs.live == memory.packed_for else {}  # what other weights needed says nothing
    packed, needs = {}, {}
    for state in inputs.context.states:
        if not is_packed(inputs, state) or state.key not in replicas:
            packed[state.key] = VariantPacking(state.key, None, wake=_own_silent(state), reason="AllServe")
            continue
        rate = estimate_variant_rps(inputs, state.key)
        limit = _limit(state, replicas[state.key], memory, rate)
        needed = _needed(inputs, state, limit, rate)
        past = [row for row in known.get(state.key, ()) if inputs.at_seconds - row[0] <= window]
        needs[state.key] = (*past, (inputs.at_seconds, needed))
        largest = max(number for _, number in needs[state.key])
        if inputs.at_seconds - memory.first_at_seconds < window:  # what was needed before this process is not known
            largest = max(largest, len(state.serving))
        packed[state.key] = _flip(state, min(largest, limit), index, inputs.context.ref.namespace)
    return packed, replace(memory, needs=needs, packed_for=inputs.live)


def _own_silent(state: VariantState) -> tuple[str, ...]:
    return state.silent if state.backing is Backing.SERVER else ()


def _limit(state: VariantState, replicas: int, memory: PoolMemory, rate_rps: float | None) -> int:
    """Most pods that shall serve: those that stay. One that goes to zero keeps all until its traffic has moved.

    On unknown load all stay for now, whatever was wished before.
    """
    if rate_rps is None:
        return max(1, replicas, len(state.serving))
    lower = memory.pending.get(state.key, replicas)
    return max(1, min(replicas, lower) if lower else replicas)


def _needed(inputs: PoolInputs, state: VariantState, limit: int, rate_rps: float | None) -> int:
    """Serving pods for what comes: filled to the knee over the forecast's bound, and never over what is there now."""
    key, serving = state.key, len(state.serving)
    capacity = inputs.estimate.capacities[key].rps
    coming = estimate_coming_rps(inputs.forecasts, inputs.live, key)
    if rate_rps is None or not capacity:
        return decide_serving(None, 1.0, limit, serving)
    if coming is None:  # the capacity is already that of a replica filled to its share of the knee
        return decide_serving(rate_rps / capacity, 1.0, limit, serving, eta=1.0, margin=MARGIN)
    backlog = (inputs.estimate.signals[key].waiting or 0.0) / BACKLOG_SECONDS
    work = max(rate_rps, coming + backlog) * KNEE_SHARE / capacity
    return decide_serving(work, 1.0, limit, serving, eta=1.0, slack=0.0)


def _flip(state: VariantState, wanted: int, index: PodSeries, namespace: str) -> VariantPacking:
    """Wake silent pods, ready and busy ones first, or silence those with the fewest requests inside; never the last."""
    surplus = len(state.serving) - wanted
    running = {pod.name: _running(index, namespace, pod.name) for pod in state.pods}
    if surplus < 0:
        ready = frozenset(state.ready)
        silent = sorted(state.silent, key=lambda name: (name not in ready, -(running[name] or 0.0), name))
        return VariantPacking(state.key, wanted, wake=tuple(silent[:-surplus]), reason="LoadNeedsThem")
    if surplus == 0 or state.rolling or any(running[name] is None for name in state.serving):
        return VariantPacking(state.key, wanted, reason="Filled")
    chosen = sorted(state.serving, key=lambda name: (running[name] or 0.0, name))[:surplus]
    return VariantPacking(state.key, wanted, silence=tuple(chosen), reason="LoadFitsTheRest")
