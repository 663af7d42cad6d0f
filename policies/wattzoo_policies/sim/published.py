"""The published MESS+ rule, request by request, in a synthetic zoo calibrated to the paper's table.

The paper's per-request data is not public; its mean accuracies and joules are. So a zoo is drawn that has these means:
every request has one latent difficulty, a member satisfies it when its own noise does not push the difficulty over the
member's threshold (a probit model), and a few features see a part of the difficulty. On it runs the rule as published:
the virtual queue, argmin V E + Q (alpha - s), exploration of all members with probability c / t^(1/4), a predictor that
is trained on the explored requests alone. All joules count, those of exploration too; the published ones seem to log
the cost of the request before in its place, so both ways of counting are reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri

from wattzoo_policies.accuracy.frontier import solve_mixture

Floats = NDArray[np.float64]

SHARED_VARIANCE = 0.6
"""Share of the outcomes' latent variance that members have in common (their answers are correlated)."""

SEEN_VARIANCE = 0.15
"""Share of the difficulty that the features explain: an area under the curve of about .65 for the 8B member."""

FEATURES = 8
LEARNING_RATE = 0.06
MOMENTUM = 0.9
WEIGHT_DECAY = 0.01


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One row of the paper's table: accuracies and joules per request of its three members, target, length."""

    name: str
    accuracy: tuple[float, ...]
    joules: tuple[float, ...]
    alpha: float
    requests: int
    reported_megajoules: float | None = None


BENCHMARKS = (
    Benchmark("ARC-C", (0.3788, 0.5444, 0.6084), (79.9, 393.7, 2002.6), 0.50, 1172, 0.83),
    Benchmark("ARC-E", (0.6300, 0.7968, 0.8318), (82.1, 390.9, 2029.8), 0.75, 2376),
    Benchmark("BoolQ", (0.6917, 0.8416, 0.8878), (43.6, 130.7, 1040.8), 0.80, 3270, 0.90),
    Benchmark("LogiQA", (0.2661, 0.3172, 0.5245), (83.0, 418.3, 2090.7), 0.40, 651),
    Benchmark("PIQA", (0.7405, 0.7933, 0.8270), (38.6, 198.3, 1000.3), 0.78, 1838),
    Benchmark("SciQ", (0.9380, 0.9700, 0.9710), (97.5, 444.1, 2230.2), 0.96, 1000),
    Benchmark("SIQA", (0.4171, 0.4831, 0.4867), (67.7, 301.8, 1534.3), 0.44, 1954),
    Benchmark("Winogrande", (0.5967, 0.7364, 0.7908), (49.0, 200.5, 1018.4), 0.70, 1267),
)


@dataclass(frozen=True, slots=True)
class PublishedReplay:
    """Per seed (R,): joules per request, the same as the published code counts it, satisfaction; blind: joules."""

    joules: Floats
    joules_as_published: Floats
    satisfaction: Floats
    met: NDArray[np.bool_]
    blind: float


def draw_outcomes(benchmark: Benchmark, seeds: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return outcomes (R, T, M) and features (R, T, F) of a zoo with the benchmark's mean accuracies."""
    shape = (seeds, benchmark.requests)
    features = rng.standard_normal((*shape, FEATURES))
    seen = features.sum(-1) / np.sqrt(FEATURES)
    difficulty = np.sqrt(SEEN_VARIANCE) * seen + np.sqrt(1.0 - SEEN_VARIANCE) * rng.standard_normal(shape)
    own = rng.standard_normal((*shape, len(benchmark.accuracy)))
    strain = np.sqrt(SHARED_VARIANCE) * difficulty[:, :, None] + np.sqrt(1.0 - SHARED_VARIANCE) * own
    return (strain < ndtri(np.array(benchmark.accuracy))).astype(float), features


def replay_published(
    benchmark: Benchmark, seeds: int, rng: np.random.Generator, v_per_joule: float = 1e-4, exploration: float = 0.1
) -> PublishedReplay:
    """Run the published rule over a drawn zoo, all seeds at once."""
    outcomes, features = draw_outcomes(benchmark, seeds, rng)
    joules, everyone = np.array(benchmark.joules), np.arange(seeds)
    members, largest = len(joules), len(joules) - 1
    predictor, velocity = np.zeros((2, seeds, FEATURES + 1, members))
    known_joules = np.ones((seeds, members))
    queue, spent, logged, last, good = np.zeros((5, seeds))
    inputs = np.concatenate([features, np.ones((*features.shape[:2], 1))], axis=-1)
    for t in range(benchmark.requests):
        x, s = inputs[:, t], outcomes[:, t]
        explores = rng.random(seeds) < min(1.0, exploration / max(t, 1) ** 0.25)
        estimate = expit(np.einsum("rf,rfm->rm", x, predictor))
        choice = np.argmin(v_per_joule * known_joules - queue[:, None] * estimate, axis=1)
        choice = np.where(explores, largest, choice)
        satisfied = s[everyone, choice]
        spent += np.where(explores, joules.sum(), joules[choice])
        last = np.where(explores, last, joules[choice])
        logged += last
        good += satisfied
        queue = np.maximum(0.0, queue + benchmark.alpha - satisfied)
        if explores.any():
            known_joules = np.where(explores[:, None], joules, known_joules)
            gradient = np.einsum("rf,rm->rfm", x, estimate - s) + WEIGHT_DECAY * predictor
            velocity = np.where(explores[:, None, None], MOMENTUM * velocity + gradient, velocity)
            predictor = np.where(explores[:, None, None], predictor - LEARNING_RATE * velocity, predictor)
    weights, _ = solve_mixture(joules, np.array(benchmark.accuracy), benchmark.alpha, np.ones(members, dtype=bool))
    count = benchmark.requests
    return PublishedReplay(
        joules=spent / count,
        joules_as_published=logged / count,
        satisfaction=good / count,
        met=good >= benchmark.alpha * count,
        blind=float(weights @ joules),
    )
