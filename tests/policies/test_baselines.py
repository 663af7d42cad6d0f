"""The baselines decide as their originals do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattzoo_policies.baselines.fixed_mixture import decide_mixture
from wattzoo_policies.baselines.hpa import HpaObservation, HpaParameters, HpaState, decide_hpa, estimate_replicas

PARAMETERS = HpaParameters(target_average=10.0, max_replicas=20)


@pytest.mark.parametrize(
    ("observation", "replicas"),
    [
        (HpaObservation(2, (20.0, 20.0)), 4),  # ratio 2
        (HpaObservation(4, (5.0, 5.0, 5.0, 5.0)), 2),  # ratio .5
        (HpaObservation(2, (10.9, 10.9)), 2),  # inside the tolerance of .1
        (HpaObservation(2, (11.2, 11.2)), 3),
        (HpaObservation(2, (), missing=2), 2),  # nobody says anything
        # Going up, a pod without a metric counts as idle: (30 + 0)/2 = 15, ratio 1.5 of 2 pods.
        (HpaObservation(2, (30.0,), missing=1), 3),
        # So many start that the mean is below the target: the direction would turn, stay.
        (HpaObservation(5, (30.0,), missing=4), 5),
        # Going down, a pod without a metric counts as on target: (2 + 10)/2 = 6, ratio .6 of 2 pods.
        (HpaObservation(2, (2.0,), missing=1), 2),
        (HpaObservation(3, (2.0, 2.0), missing=1), 2),
        # Pods that do not run yet hold an increase back, not a decrease.
        (HpaObservation(2, (30.0,), pending=1), 3),
        (HpaObservation(3, (4.0, 4.0), pending=1), 1),
        (HpaObservation(2, (float("nan"), 30.0)), 3),
        (HpaObservation(0, ()), 0),
    ],
)
def test_replicas_from_the_metric(observation: HpaObservation, replicas: int) -> None:
    assert estimate_replicas(observation, PARAMETERS) == replicas


def play(parameters: HpaParameters, totals: list[float], replicas: int) -> list[int]:
    """Sync every 15 s with this many requests in all, spread evenly; answers are obeyed at once."""
    state, answers = HpaState(), []
    for turn, total in enumerate(totals):
        observation = HpaObservation(replicas, (total / replicas,) * replicas)
        state, replicas = decide_hpa(state, observation, parameters, 15.0 * turn)
        answers.append(replicas)
    return answers


def test_down_waits_for_the_window_and_up_does_not() -> None:
    short = HpaParameters(target_average=10.0, down_window_seconds=45.0)
    assert play(short, [60, 60, 10, 10, 10, 10, 10], replicas=2) == [6, 6, 6, 6, 1, 1, 1]


def test_growth_is_limited_per_period() -> None:
    # From 1: at most 1 + 4 pods in a period; from 5: doubling.
    assert play(PARAMETERS, [200, 200, 200], replicas=1) == [5, 10, 20]


def test_a_new_autoscaler_does_not_drop_what_it_finds() -> None:
    assert play(PARAMETERS, [1.0], replicas=8) == [8]


def test_scaled_windows_act_alike_in_scaled_time() -> None:
    slow, fast = HpaParameters(10.0), HpaParameters(10.0).scaled(0.1)
    states = [HpaState(), HpaState()]
    replicas = [4, 4]
    for turn, load in enumerate([40, 90, 90, 10, 10, 10] + [10] * 20):
        for i, (parameters, step) in enumerate(((slow, 15.0), (fast, 1.5))):
            observation = HpaObservation(replicas[i], (load / replicas[i],) * replicas[i])
            states[i], replicas[i] = decide_hpa(states[i], observation, parameters, step * turn)
        assert replicas[0] == replicas[1]


def test_impossible_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="target_average"):
        HpaParameters(0.0)
    with pytest.raises(ValueError, match="contradict"):
        HpaParameters(1.0, min_replicas=5, max_replicas=2)


def test_mixture_by_hand() -> None:
    joules = {"small": 10.0, "medium": 42.0, "large": 184.0}
    accuracy = {"small": 0.41, "medium": 0.43, "large": 0.63}
    mixture = decide_mixture(joules, accuracy, 0.52)
    assert mixture.weights == pytest.approx({"small": 0.5, "large": 0.5})
    assert mixture.joules_per_request == pytest.approx(97.0)
    assert mixture.satisfaction == pytest.approx(0.52)
    assert decide_mixture(joules, accuracy, 0.4).weights == {"small": 1.0}
    beyond = decide_mixture(joules, accuracy, 0.9)
    assert (beyond.weights, beyond.feasible) == ({"large": 1.0}, False)


@given(
    st.lists(st.tuples(st.floats(1, 1000), st.floats(0.01, 0.99)), min_size=1, max_size=6),
    st.floats(0.01, 0.99),
    st.lists(st.floats(0.01, 1), min_size=6, max_size=6),
)
def test_no_other_mixture_is_cheaper(zoo: list[tuple[float, float]], alpha: float, draw: list[float]) -> None:
    joules = {str(i): cost for i, (cost, _) in enumerate(zoo)}
    accuracy = {str(i): p for i, (_, p) in enumerate(zoo)}
    best = decide_mixture(joules, accuracy, alpha)
    shares = [share / sum(draw[: len(zoo)]) for share in draw[: len(zoo)]]
    reached = sum(share * p for share, (_, p) in zip(shares, zoo, strict=True))
    cost = sum(share * c for share, (c, _) in zip(shares, zoo, strict=True))
    if reached >= alpha:
        assert best.feasible
        assert best.joules_per_request <= cost * (1 + 1e-9)
