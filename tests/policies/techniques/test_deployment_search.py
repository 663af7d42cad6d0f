"""Deployment search: one machine by hand, brute force on random clusters, memory, and what is refused."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from wattzoo_policies.capacity.coefficients import Coefficients
from wattzoo_policies.capacity.fit import FitError, ProfilePoint, ReplicaFacts
from wattzoo_policies.capacity.model import RequestShape
from wattzoo_policies.techniques.deployment_search import (
    Candidate,
    Choice,
    CoefficientSpeed,
    Machine,
    ModelMemory,
    Objective,
    Rejection,
    evaluate_candidate,
    find_deployment,
    make_candidate,
)

SHAPE = RequestShape(900.0, 100.0)
GB = 1e9
MEMORY = ModelMemory(100 * GB, 1e6)  # 1 GB of KV cache per request of 1,000 tokens


def candidate(degree: int, step: float, watts: float, accelerator: str = "h100") -> Candidate:
    """Steps of a constant length, prompts for nothing: a batch of b gives b * 1,000 tokens per 100 steps."""
    speed = CoefficientSpeed(Coefficients((0, 0, 0, 0), (0, 0, 0, step)), watts)
    return Candidate(f"{accelerator}-tp{degree}", accelerator, degree, speed, MEMORY)


def machine(
    accelerators: int = 8, memory: float = 80.0, name: str = "m", kind: str = "h100", count: int = 1
) -> Machine:
    return Machine(name, kind, accelerators, memory * GB, count)


def test_one_machine_by_hand() -> None:
    # .9 * 80 - 1.5 = 70.5 GB each. TP2: 41 GB, batch 41; TP4: 182, batch 182; TP8: 464, batch 256 (the limit).
    candidates = [candidate(2, 0.040, 1000), candidate(4, 0.025, 2000), candidate(8, 0.020, 3800)]
    choices = [evaluate_candidate(machine(), c, SHAPE) for c in candidates]
    assert [c.batch for c in choices if isinstance(c, Choice)] == [41, 182, 256]
    rates = [c.tokens_per_second for c in choices if isinstance(c, Choice)]
    assert rates == pytest.approx([4 * 41 * 1000 / 4.0, 2 * 182 * 1000 / 2.5, 256 * 1000 / 2.0])
    found = find_deployment([machine()], candidates, SHAPE)
    (proposal,) = found.proposals
    assert (proposal.choice.tensor_parallel, proposal.choice.instances) == (4, 2)
    assert proposal.runner_up is not None
    assert proposal.runner_up.tensor_parallel == 8
    assert proposal.reason == (
        "2 x TP4, batch 182 (KV cache): 145600 tokens/s, 36.40 tokens/J, 4000 W; "
        "instead of 1 x TP8, batch 256 (batch limit): 128000 tokens/s, 33.68 tokens/J"
    )
    # 36.4 tokens/J with TP4 (145,600 over 4,000 W), 33.7 with TP8, 10.3 with TP2.
    frugal = find_deployment([machine()], candidates, SHAPE, Objective.TOKENS_PER_JOULE)
    assert frugal.proposals[0].choice.tokens_per_joule == pytest.approx(145_600 / 4000)


def random_cluster(rng: np.random.Generator) -> tuple[list[Machine], list[Candidate]]:
    kinds = [f"gpu{n}" for n in range(rng.integers(1, 4))]
    machines = [
        machine(
            int(rng.integers(1, 9)),
            float(rng.uniform(24, 180)),
            f"m{n}",
            str(rng.choice(kinds)),
            int(rng.integers(1, 4)),
        )
        for n in range(rng.integers(1, 6))
    ]
    candidates = []
    for kind, degree in itertools.product(kinds, (1, 2, 4, 8)):
        decode = (0.0, rng.uniform(1e-5, 4e-4), 0.0, rng.uniform(5e-3, 5e-2))
        coefficients = Coefficients((rng.uniform(1e-5, 2e-4), 0.0, 0.0, 0.0), decode)
        speed = CoefficientSpeed(coefficients, degree * rng.uniform(200, 900))
        memory = ModelMemory(rng.uniform(5, 120) * GB, 10 ** rng.uniform(4.5, 6))
        candidates.append(Candidate(f"{kind}-tp{degree}", kind, degree, speed, memory))
    return machines, candidates


@pytest.mark.parametrize("objective", Objective)
def test_search_equals_brute_force_over_the_product(objective: Objective) -> None:
    several = 0
    for seed in range(100):
        machines, candidates = random_cluster(np.random.default_rng(seed))
        options = []
        for m in machines:
            tried = (evaluate_candidate(m, c, SHAPE) for c in candidates if c.accelerator == m.accelerator)
            feasible = [choice for choice in tried if isinstance(choice, Choice)]
            options += [feasible] if feasible else []
        several += math.prod(map(len, options)) > 1

        def value(choices: tuple[Choice, ...]) -> float:
            tokens, watts = sum(c.tokens_per_second for c in choices), sum(c.watts for c in choices)
            return tokens if objective is Objective.THROUGHPUT else tokens / watts if watts else 0.0

        found = find_deployment(machines, candidates, SHAPE, objective)
        assert len(found.proposals) == len(options)
        best = max(value(choices) for choices in itertools.product(*options))
        assert value(tuple(p.choice for p in found.proposals)) == pytest.approx(best, rel=1e-9)
    assert several > 50


def test_the_best_ratio_is_not_the_ratio_of_each_machine_alone() -> None:
    # Alone, machine b is best with b1. Beside a, which makes 20 tokens/J, every watt of b costs more than it gives.
    shape = RequestShape(0.0, 1.0)

    def option(name: str, kind: str, degree: int, tokens: float, watts: float) -> Candidate:
        return Candidate(
            name, kind, degree, CoefficientSpeed(Coefficients((0, 0, 0, 0), (0, 0, 0, 1 / tokens)), watts, 1)
        )

    machines = [machine(1, 80, "a", "fast"), machine(2, 80, "b", "slow")]
    candidates = [
        option("a1", "fast", 1, 2000, 100),
        option("b1", "slow", 1, 1000, 200),  # two instances: 2,000 tokens/s, 400 W, 5 tokens/J
        option("b2", "slow", 2, 400, 100),  # one: 4 tokens/J, but only 100 W
    ]
    found = find_deployment(machines, candidates, shape, Objective.TOKENS_PER_JOULE)
    assert [p.choice.candidate for p in found.proposals] == ["a1", "b2"]  # 2,400/200 = 12 against 4,000/500 = 8
    assert "lowers the cluster's 12.00 tokens/J" in found.proposals[1].reason
    alone = find_deployment(machines[1:], candidates, shape, Objective.TOKENS_PER_JOULE)
    assert alone.proposals[0].choice.candidate == "b1"


def test_what_does_not_fit_is_rejected_with_its_reason() -> None:
    tight = replace(candidate(2, 0.04, 1000), memory=ModelMemory(140.5 * GB, 1e6))
    cases = [
        (machine(4), candidate(8, 0.02, 3800), "needs 8 accelerators on one machine, which has 4"),
        (machine(8), candidate(1, 0.04, 500), r"weights take 100.0 GB, 29.5 GB more than there are"),
        (machine(8), tight, "the KV cache holds no request"),  # 141 - 140.5 = .5 GB, a request takes 1
    ]
    for where, what, reason in cases:
        rejection = evaluate_candidate(where, what, SHAPE)
        assert isinstance(rejection, Rejection)
        assert reason in rejection.reason
    found = find_deployment([machine(kind="l4")], [candidate(1, 0.04, 500)], SHAPE)
    assert found.proposals == ()
    assert found.rejected[0].reason == "no candidate is profiled on l4"
    assert (found.tokens_per_second, found.watts) == (0.0, 0.0)


def test_a_pool_is_its_nodes() -> None:
    # Three nodes of 6: one TP4 instance each (two accelerators stay free), not four instances of 18 // 4.
    (proposal,) = find_deployment([machine(6, count=3)], [candidate(4, 0.025, 2000)], SHAPE).proposals
    assert proposal.choice.instances == 3


def test_candidates_from_profiles() -> None:
    facts = ReplicaFacts(kv_tokens=40_000, idle_watts=100.0, startup_seconds=60.0)
    rows = [(1, 10, 300), (16, 14, 400), (64, 26, 700)]
    points = [ProfilePoint(b, 1000.0, b / (ms / 1e3), w, 0.1 + ms / 1e3, ms / 1e3) for b, ms, w in rows]
    profiled = make_candidate("h100", "h100", 1, points, facts)
    choice = evaluate_candidate(machine(8), profiled, SHAPE)
    assert isinstance(choice, Choice)
    # 40 sequences of 1,000: a step of 20 ms. A request takes .09 s of prefill and 100 * 20 ms / 40 of decode.
    assert (choice.batch, choice.bound) == (40, "KV cache")
    assert choice == evaluate_candidate(
        Machine("m", "h100", 8), profiled, SHAPE
    )  # no memory known: the profile's cache
    assert choice.tokens_per_second == pytest.approx(8 * 1000 / (0.09 + 0.05))
    decode_watts = 400 + 300 * math.log(40 / 16) / math.log(4)
    assert choice.watts == pytest.approx(8 * (0.09 * 700 + 0.05 * decode_watts) / 0.14)
    with pytest.raises(FitError, match="broken: points: a replica needs points at two"):
        make_candidate("broken", "h100", 1, points[:1], facts)


@pytest.mark.parametrize(
    ("machines", "candidates", "text"),
    [
        ([machine(0)], [candidate(1, 0.04, 500)], "machine m: accelerators: must be a positive number, not 0"),
        ([machine(8, -1.0)], [candidate(1, 0.04, 500)], "machine m: memory_bytes_per_accelerator"),
        ([machine()], [candidate(0, 0.04, 500)], "candidate h100-tp0: tensor_parallel"),
        (
            [machine()],
            [replace(candidate(1, 0.04, 500), memory=ModelMemory(1e9, math.nan))],
            "candidate h100-tp1: kv_bytes_per_token: must be a positive number, not nan",
        ),
    ],
)
def test_bad_input_is_refused_by_name(machines: list[Machine], candidates: list[Candidate], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        find_deployment(machines, candidates, SHAPE)
