"""Services on the same variants planned as one.

Exact when their works are proportional and their accuracies agree up to shift and scale: by Strassen's theorem on
submartingale couplings, flows X over variants of accuracies a can be shared out so that every service reaches its
alpha if and only if for every threshold t the sum of X (a - t)+ is at least the sum over services of their rate times
(alpha - t)+. The left side is linear in t between two accuracies and the right side convex, so the thresholds to check
are the accuracies themselves: one row for each distinct accuracy instead of one for each service, and no buckets of
alpha at all. Rates count in units of work, so that services of long and of short requests add up.

Where works and accuracies differ, the nearest are put together with their mean, up to `MOST_GROUPS`; the flows are
afterwards laid service by service, and a shortage that the means hid is repaired.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wattzoo_policies.placement.instance import Demand, FloatArray, IntArray

MOST_GROUPS = 16
SAME = 1e-9
"""Features that differ by less are the same."""


def group_demands(demands: Sequence[Demand], most: int = MOST_GROUPS) -> tuple[list[Demand], bool]:
    """Return the demands grouped, and whether the grouping is exact."""
    by_variants: dict[tuple[int, ...], list[Demand]] = {}
    for demand in demands:
        by_variants.setdefault(tuple(int(v) for v in demand.variants), []).append(demand)
    groups: list[Demand] = []
    is_exact = True
    for variants, members in by_variants.items():
        if not variants or len(members) == 1:
            groups += members
            continue
        share = max(1, (most * len(members)) // len(demands))
        labels, spread = _cluster(np.array([_features(demand) for demand in members]), share)
        is_exact = is_exact and spread <= SAME
        for label in range(int(labels.max()) + 1):
            inside = [demand for demand, own in zip(members, labels, strict=True) if own == label]
            groups.append(inside[0] if len(inside) == 1 else _merge(inside))
    return groups, is_exact


def _features(demand: Demand) -> FloatArray:
    """Return the direction of the works (logarithms) and the accuracies from 0 (least) to 1 (best)."""
    direction = np.log(demand.high_load)
    return np.concatenate([direction - float(np.mean(direction)), _scaled(demand)[0]])


def _scaled(demand: Demand) -> tuple[FloatArray, float]:
    """Return the accuracies scaled to 0..1 and alpha on that scale, kept inside it (beyond the best is best)."""
    row = demand.high_accuracy_rows[0]
    least, span = float(np.min(row)), float(np.ptp(row))
    if span <= SAME:
        return np.zeros(row.size), 0.0
    return (row - least) / span, min(1.0, max(0.0, -least / span))


def _cluster(features: FloatArray, most: int) -> tuple[IntArray, float]:
    """Return labels and the largest distance to a centre: farthest-point centres, then a few rounds of means."""
    centres = [int(np.argmin(np.linalg.norm(features - features.mean(axis=0), axis=1)))]
    distance = np.linalg.norm(features - features[centres[0]], axis=1)
    while len(centres) < most and float(distance.max()) > SAME:
        centres.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(features - features[centres[-1]], axis=1))
    points = features[centres]
    labels = np.zeros(len(features), dtype=np.int64)
    for _ in range(8):
        apart = np.linalg.norm(features[:, None, :] - points[None, :, :], axis=2)
        labels = np.argmin(apart, axis=1)
        points = np.array(
            [features[labels == k].mean(axis=0) if np.any(labels == k) else p for k, p in enumerate(points)]
        )
    used = np.unique(labels)
    spread = float(np.max(np.linalg.norm(features - points[labels], axis=1)))
    return np.searchsorted(used, labels), spread


def _merge(members: Sequence[Demand]) -> Demand:
    """Return one demand for all members; its shares are of their work."""
    first = members[0]
    load = np.sum([demand.load for demand in members], axis=0)
    high_load = np.sum([demand.high_load for demand in members], axis=0)
    scales = np.array([float(np.exp(np.mean(np.log(demand.high_load)))) for demand in members])
    rates = np.array([demand.rate_rps for demand in members])
    high_rates = np.array([demand.high_rate_rps for demand in members])
    accuracies, alphas = zip(*(_scaled(demand) for demand in members), strict=True)
    high_weights = scales / scales.sum()
    weights = scales * rates / high_rates
    weights = weights / weights.sum() if weights.sum() > 0.0 else high_weights
    mean = high_weights @ np.array(accuracies)
    return Demand(
        name=f"{first.name} and {len(members) - 1} others",
        rate_rps=float(rates.sum()),
        high_rate_rps=float(high_rates.sum()),
        variants=first.variants,
        load=load,
        high_load=high_load,
        watts=np.sum([demand.watts for demand in members], axis=0),
        high_watts=np.sum([demand.high_watts for demand in members], axis=0),
        cost=np.sum([demand.cost for demand in members], axis=0),
        high_cost=np.sum([demand.high_cost for demand in members], axis=0),
        accuracy_rows=_threshold_rows(mean, np.array(alphas), weights),
        high_accuracy_rows=_threshold_rows(mean, np.array(alphas), high_weights),
    )


def _threshold_rows(accuracy: FloatArray, alphas: FloatArray, weights: FloatArray) -> FloatArray:
    """Return, for each accuracy t below the best, the coefficients (a - t)+ minus the mean of (alpha - t)+."""
    rows = []
    for threshold in np.unique(np.round(accuracy, 9))[:-1]:
        asked = float(weights @ np.maximum(alphas - threshold, 0.0))
        if asked > 0.0:
            rows.append(np.maximum(accuracy - threshold, 0.0) - asked)
    return np.array(rows).reshape(-1, accuracy.size)
