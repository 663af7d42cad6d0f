"""What one replica carries within the latency bounds, from the measured points of its ModelProfile.

Points are interpolated, not fitted: a fit is poor at small batches, where light load lives. A request shape other than
the profile's scales the rate by its output tokens.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence

from wattzoo.api.conditions import Reason
from wattzoo.api.llm_service import LLMServiceSpec
from wattzoo.api.model_profile import ModelProfileSpec, ProfilePoint
from wattzoo.decide.engine_args import EngineLimits
from wattzoo.decisions import Capacity, Finding
from wattzoo_policies.capacity.fit import FitError, ReplicaFacts, ReplicaFit, fit_replica_model
from wattzoo_policies.capacity.fit import ProfilePoint as FitPoint
from wattzoo_policies.capacity.model import LatencyTarget, RequestShape, capacity_rps, power_watts

KNEE_SHARE = 0.9
"""Share of the knee that a replica is planned to carry: arrivals are bursty, and the last tenth costs most latency."""
MICROSECONDS = 1e6
ASSUMED_OUTPUT_TOKENS = 256.0
MAX_FITS = 1024
MAX_FIT_ERROR = 0.2
"""Mean relative error from which on a fitted law is called poor."""
LEAST_TOKEN_SECONDS = 1e-9
"""Less than this is no work at all, but the rounding of a fit."""
SPEC_FIELDS = {
    "running_requests": "runningRequests",
    "input_tokens": "inputTokens",
    "output_tokens_per_second": "outputTokensPerSecond",
    "power_watts": "powerWatts",
    "ttft_seconds": "timeToFirstTokenMicroseconds.p50",
    "tpot_seconds": "timePerOutputTokenMicroseconds.p50",
}
"""Where the numbers that a fit speaks of stand in a point."""
DEFAULT_LIMITS = EngineLimits()


def service_bounds(service: LLMServiceSpec) -> LatencyTarget:
    """The latency bounds of one service."""
    latency = service.sla.latency
    if latency is None:
        return LatencyTarget()
    first, further = latency.time_to_first_token, latency.time_per_output_token
    return LatencyTarget(
        None if first is None else first.p95_milliseconds / 1e3,
        None if further is None else further.p95_milliseconds / 1e3,
    )


def strictest_bounds(services: Iterable[LLMServiceSpec]) -> LatencyTarget:
    """On a variant that services share the strictest counts."""
    return functools.reduce(LatencyTarget.strictest, map(service_bounds, services), LatencyTarget())


def profile_output_tokens(point: ProfilePoint) -> float:
    """Output tokens per request of a measurement: half of them are in the mean context besides the prompt.

    A profile whose context is the prompt alone does not say; then a long answer is assumed rather than a short one.
    """
    tokens = 2.0 * (point.context_tokens - point.input_tokens)
    return tokens if tokens >= 1.0 else ASSUMED_OUTPUT_TOKENS


def _crossing(points: Sequence[ProfilePoint], values: Sequence[float], bound: float | None) -> float:
    """Largest concurrency at which a rising value stays within its bound; 0 when the first point exceeds it."""
    if bound is None:
        return float(points[-1].running_requests)
    if values[0] > bound:
        return 0.0
    for (a, below), (b, above) in itertools.pairwise(zip(points, values, strict=True)):
        if above > bound:
            share = (bound - below) / (above - below) if above > below else 0.0
            return a.running_requests + share * (b.running_requests - a.running_requests)
    return float(points[-1].running_requests)


def _interpolate(points: Sequence[ProfilePoint], values: Sequence[float], concurrency: float) -> float:
    for (a, left), (b, right) in itertools.pairwise(zip(points, values, strict=True)):
        if concurrency <= b.running_requests:
            share = (concurrency - a.running_requests) / (b.running_requests - a.running_requests)
            return left + max(0.0, share) * (right - left)
    return values[-1]


def fit_points(profile: ModelProfileSpec) -> tuple[FitPoint, ...]:
    """The profile's medians as the numbers that a fit takes."""
    return tuple(
        FitPoint(
            running_requests=point.running_requests,
            input_tokens=point.input_tokens,
            output_tokens_per_second=point.output_tokens_per_second,
            power_watts=point.power_watts,
            ttft_seconds=point.time_to_first_token_microseconds.p50 / MICROSECONDS,
            tpot_seconds=point.time_per_output_token_microseconds.p50 / MICROSECONDS,
        )
        for point in profile.points
    )


def replica_facts(
    profile: ModelProfileSpec, idle_watts: float | None, accelerators: int, limits: EngineLimits
) -> ReplicaFacts:
    """What is known of one replica besides its points."""
    return ReplicaFacts(
        kv_tokens=profile.kv_cache_tokens,
        idle_watts=min([idle_watts or 0.0, *(float(point.power_watts) for point in profile.points)]),
        startup_seconds=profile.startup.seconds,
        startup_joules=profile.startup.joules,
        max_sequences=limits.max_sequences,
        accelerators=accelerators,
        max_batched_tokens=limits.max_batched_tokens,
    )


@functools.lru_cache(maxsize=MAX_FITS)
def fit_profile(
    profile: ModelProfileSpec,
    idle_watts: float | None = None,
    accelerators: int = 1,
    limits: EngineLimits = DEFAULT_LIMITS,
) -> ReplicaFit | Finding:
    """The fluid law fitted to the profile's medians, or by field and rule why the points cannot be one replica."""
    try:
        fit = fit_replica_model(fit_points(profile), replica_facts(profile, idle_watts, accelerators, limits))
    except FitError as error:
        field = SPEC_FIELDS.get(error.field)
        rule = error.rule
        for name, shown in SPEC_FIELDS.items():
            rule = rule.replace(name, shown)
        path = "spec.points" if field is None else f"spec.points[].{field}"
        return Finding(Reason.POINTS_CONTRADICT, f"{path}: {rule}")
    if max(fit.model.t1_seconds, fit.model.prefill_seconds_per_token) < LEAST_TOKEN_SECONDS:
        text = "spec.points: no latency rises with load or prompt, as if requests were no work; one must"
        return Finding(Reason.POINTS_CONTRADICT, text)
    return fit


def find_poor_fit(fit: ReplicaFit) -> Finding | None:
    """That a law is off by more than may be relied on."""
    errors = {"tpot_seconds": fit.tpot_error_mean, "power_watts": fit.power_error_mean}
    worst = max(errors, key=lambda name: errors[name])
    if errors[worst] <= MAX_FIT_ERROR:
        return None
    text = f"the fitted law is off by {errors[worst]:.0%} on average, above {MAX_FIT_ERROR:.0%}"
    return Finding(Reason.FIT_POOR, f"spec.points[].{SPEC_FIELDS[worst]}: {text}")


def _latency_miss(first: ProfilePoint, bounds: LatencyTarget) -> str:
    """Which bound the lightest point of a profile misses, by field."""
    rows = (
        ("timeToFirstToken", bounds.ttft_seconds, first.time_to_first_token_microseconds),
        ("timePerOutputToken", bounds.tpot_seconds, first.time_per_output_token_microseconds),
    )
    number = first.running_requests
    for name, bound, taken in rows:
        if bound is not None and taken.p95 / MICROSECONDS > bound:
            path, took = f"spec.sla.latency.{name}.p95Milliseconds", taken.p95 / 1e3
            return f"{path}: {bound * 1e3:g} is asked for, and {number} running requests already take {took:g}"
    return f"spec.sla.latency: even {number} running requests miss a bound"


def _measured_rps(
    profile: ModelProfileSpec, bounds: LatencyTarget, shape: RequestShape, limits: EngineLimits
) -> float | None:
    """Rate at the largest concurrency at which the measured 95th percentiles keep the bounds and the cache suffices."""
    points = profile.points
    first = [point.time_to_first_token_microseconds.p95 / MICROSECONDS for point in points]
    further = [point.time_per_output_token_microseconds.p95 / MICROSECONDS for point in points]
    knee = min(
        _crossing(points, first, bounds.ttft_seconds),
        _crossing(points, further, bounds.tpot_seconds),
        profile.kv_cache_tokens / (shape.input_tokens + shape.output_tokens),
        float(limits.max_sequences),
    )
    if knee < points[0].running_requests:
        return None
    tokens = _interpolate(points, [float(point.output_tokens_per_second) for point in points], knee)
    return KNEE_SHARE * tokens / shape.output_tokens


def estimate_capacity(
    profile: ModelProfileSpec | None,
    bounds: LatencyTarget,
    shape: RequestShape | None,
    resident_watts: float | None,
    accelerators: int = 1,
    limits: EngineLimits = DEFAULT_LIMITS,
) -> Capacity:
    """Requests per second and joules per request of one replica near its knee under these bounds.

    The smaller of what the measured points and what the fluid law fitted to them allow: points know the tails, the law
    knows the prompt's work. `shape` is what was measured of the requests (None: the profile's). `resident_watts` (all
    accelerators of a replica) stands in where the profile does not say it.
    """
    if profile is None:
        return Capacity(problem=Finding(Reason.PROFILE_NOT_FOUND, "the variant's ModelProfile does not exist"))
    points = profile.points
    idle = float(profile.resident_watts) if profile.resident_watts is not None else resident_watts
    peak = float(max(point.power_watts for point in points))
    used = shape or RequestShape(float(points[0].input_tokens), profile_output_tokens(points[0]))
    measured = _measured_rps(profile, bounds, used, limits)
    fit = fit_profile(profile, idle, accelerators, limits)
    model = None if isinstance(fit, Finding) else fit.model
    modelled = None if model is None else capacity_rps(model, used, bounds, KNEE_SHARE)
    if measured is None or (model is not None and modelled is None):
        problem = Finding(Reason.LATENCY_UNATTAINABLE, _latency_miss(points[0], bounds))
        return Capacity(None, None, idle, peak, problem, model, used)
    rate = measured if modelled is None else min(measured, modelled)
    concurrency = min(points, key=lambda p: abs(p.output_tokens_per_second / used.output_tokens - rate))
    watts = float(concurrency.power_watts) if model is None else power_watts(model, used, rate)
    return Capacity(rate, watts / rate, idle, peak, fit if isinstance(fit, Finding) else None, model, used)
