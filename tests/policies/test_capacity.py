"""Replica models: the formulas by hand, and profiles that give back what they were made from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo_policies.capacity.fit import FitError, ProfilePoint, ReplicaFacts, fit_replica_model
from wattzoo_policies.capacity.model import (
    LatencyTarget,
    ReplicaModel,
    RequestShape,
    capacity_rps,
    concurrency,
    joules_per_request,
    knee_load,
    power_watts,
    tpot_seconds,
    work_seconds,
)

MODEL = ReplicaModel(
    t0_seconds=0.015,
    t1_seconds=0.0001,
    prefill_seconds_per_token=0.00005,
    kv_tokens=400_000,
    max_sequences=256,
    off_watts=280.0,
    idle_watts=460.0,
    active_watts=1600.0,
    max_watts=2600.0,
    startup_seconds=300.0,
    startup_joules=172_500.0,
    accelerators=4,
)
SHAPE = RequestShape(input_tokens=1000.0, output_tokens=200.0)  # 50 ms + 20 ms of work
FACTS = ReplicaFacts(kv_tokens=400_000, idle_watts=460.0, startup_seconds=300.0, accelerators=4)


def points(model: ReplicaModel, batches: tuple[int, ...], noise: float = 0.0) -> list[ProfilePoint]:
    made = []
    for index, batch in enumerate(batches):
        step = model.step_seconds(batch) * (1.0 + noise * (-1) ** index)
        first = 1024 * model.prefill_seconds_per_token + step
        made.append(ProfilePoint(batch, 1024, batch / step, model.decode_watts(batch), first, step))
    return made


def test_formulas_by_hand() -> None:
    assert work_seconds(MODEL, SHAPE) == pytest.approx(0.07)
    # 5 requests/s: load .35; 15 ms / .65 per token; 5 * 200 * 23.08 ms sequences
    assert tpot_seconds(MODEL, 0.35) == pytest.approx(0.015 / 0.65)
    assert concurrency(MODEL, SHAPE, 5.0) == pytest.approx(5 * 200 * 0.015 / 0.65)
    assert power_watts(MODEL, SHAPE, 5.0) == pytest.approx(1600 + 0.35 * 1000, rel=1e-6)
    assert power_watts(MODEL, SHAPE, 0.0) == 460.0
    assert joules_per_request(MODEL, SHAPE, 5.0) == pytest.approx(1950 / 5, rel=1e-6)
    assert joules_per_request(MODEL, SHAPE, 0.0) is None


def test_knee_takes_the_bound_that_binds() -> None:
    wide = replace(MODEL, max_batched_tokens=100_000)
    assert knee_load(wide, SHAPE, LatencyTarget()) == pytest.approx(0.85)
    assert knee_load(wide, SHAPE, LatencyTarget(tpot_seconds=0.03)) == pytest.approx(0.5)  # 1 - 15/30
    assert knee_load(wide, SHAPE, LatencyTarget(ttft_seconds=0.13)) == pytest.approx(0.5)  # 1 - (50 + 15)/130
    assert knee_load(wide, SHAPE, LatencyTarget(tpot_seconds=0.015)) is None
    assert capacity_rps(wide, SHAPE, LatencyTarget(tpot_seconds=0.015)) is None
    few = replace(wide, max_sequences=10)  # n = rho/(1 - rho) * 200 * 15 ms / 70 ms = 10 at rho = .189
    assert knee_load(few, SHAPE, LatencyTarget()) == pytest.approx(10 / (10 + 200 * 0.015 / 0.07))
    little = replace(wide, kv_tokens=12_000)  # 12,000 / 1,200 = 10 sequences: the same
    assert knee_load(little, SHAPE, LatencyTarget()) == knee_load(few, SHAPE, LatencyTarget())


def test_small_chunks_lower_the_knee() -> None:
    loads = [knee_load(replace(MODEL, max_batched_tokens=n), SHAPE, LatencyTarget(2.0, 0.06)) for n in (128, 256, 2048)]
    assert all(load is not None for load in loads)
    assert loads == sorted(loads, key=lambda load: load or 0.0)
    assert loads[0] != loads[2]


@given(st.floats(0.5, 1.0), st.floats(0.02, 0.2), st.floats(10, 3000), st.floats(1, 800))
def test_capacity_keeps_the_target_by_its_own_formula(eta: float, tpot: float, prompt: float, output: float) -> None:
    shape = RequestShape(prompt, output)
    rate = capacity_rps(MODEL, shape, LatencyTarget(tpot_seconds=tpot), eta)
    assert rate is not None
    load = rate * work_seconds(MODEL, shape)
    assert tpot_seconds(MODEL, load) <= tpot * (1 + 1e-9)
    assert concurrency(MODEL, shape, rate) <= MODEL.max_sequences * (1 + 1e-9)


def test_fit_gives_back_the_law() -> None:
    fit = fit_replica_model(points(MODEL, (1, 2, 4, 8, 16, 32, 64, 128)), FACTS)
    for name in ("t0_seconds", "t1_seconds", "prefill_seconds_per_token", "active_watts", "max_watts"):
        assert getattr(fit.model, name) == pytest.approx(getattr(MODEL, name), rel=1e-6)
    assert fit.model.startup_joules == pytest.approx(1.25 * 460 * 300)
    assert max(fit.tpot_error_max, fit.power_error_max) < 1e-9


def test_fit_states_its_error() -> None:
    fit = fit_replica_model(points(MODEL, (8, 16, 32, 64, 128), noise=0.02), FACTS)
    assert 0.01 < fit.tpot_error_mean < 0.03
    assert fit.model.t0_seconds == pytest.approx(MODEL.t0_seconds, rel=0.05)


def test_fit_of_measured_h100_rows() -> None:
    # Our H100, 8B shape, batches 8 to 256 (examples/data/gpu_measurements.json): steps in ms and watts.
    rows = [(8, 7.3163, 446.2), (16, 7.6674, 478.1), (32, 8.4929, 505.7), (64, 10.0252, 589.4), (128, 13.3674, 695.2)]
    made = [ProfilePoint(b, 2048, b / (ms / 1e3), watts, (52.86 + ms) / 1e3, ms / 1e3) for b, ms, watts in rows]
    fit = fit_replica_model(made, replace(FACTS, idle_watts=118.6, accelerators=1))
    assert fit.model.t0_seconds == pytest.approx(0.0069, abs=0.0002)
    assert fit.tpot_error_max < 0.02
    assert fit.power_error_max < 0.04


def test_flat_power_is_fitted_flat() -> None:
    flat = [replace(point, power_watts=900.0) for point in points(MODEL, (8, 16, 32))]
    assert fit_replica_model(flat, FACTS).model.max_watts == pytest.approx(900.0)


def test_impossible_profiles_are_refused() -> None:
    with pytest.raises(FitError, match="two concurrencies"):
        fit_replica_model(points(MODEL, (8,)), FACTS)
    with pytest.raises(FitError, match="power_watts must be a positive number"):
        fit_replica_model([replace(p, power_watts=-1.0) for p in points(MODEL, (8, 16))], FACTS)
    steep = [
        replace(p, tpot_seconds=0.001 * p.running_requests**2, output_tokens_per_second=1000 / p.running_requests)
        for p in points(MODEL, (8, 16))
    ]
    with pytest.raises(FitError, match="must be positive"):
        fit_replica_model(steep, FACTS)
    with pytest.raises(ValueError, match="idle_watts"):
        replace(MODEL, idle_watts=5000.0)


def test_shorter_start_keeps_its_power() -> None:
    assert MODEL.with_startup(15.0).start_watts == pytest.approx(MODEL.start_watts)
    assert MODEL.with_startup(0.0).startup_joules == 0.0
