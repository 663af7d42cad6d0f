"""From shares of members to integer weights of variants: split by ready capacity, round, hold small changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wattzoo.model import TOTAL_WEIGHT, VariantKey, VariantState

TOLERANCE = 0.02
"""Sum of absolute share changes below which the live weights stay.

.01 rewrites a steady service with 20 feedbacks per interval about every minute; .05 leaves 2.5 % of the traffic at the
wrong member for as long as the estimate stands still.
"""


@dataclass(frozen=True, slots=True)
class Filling:
    """What it takes to fill a member's variants one after the other.

    rate_rps: of all services of the pool. joules: per request, by variant. replicas: that are ready and stay, silent
    ones included (they wake at once).
    """

    rate_rps: float
    joules: Mapping[VariantKey, float]
    replicas: Mapping[VariantKey, int]

    def carried(self, capacity_rps: Mapping[VariantKey, float | None]) -> dict[VariantKey, float]:
        """Share of the rate that each variant's replicas carry; 0 where that is not known."""
        return {key: count * (capacity_rps.get(key) or 0.0) / self.rate_rps for key, count in self.replicas.items()}


def live_share(weights: Mapping[VariantKey, int], key: VariantKey) -> float:
    """Share of a route's requests that goes to a variant."""
    return weights.get(key, 0) / max(1, sum(weights.values()))


def usable_variants(states: Iterable[VariantState], retiring: frozenset[VariantKey]) -> tuple[VariantState, ...]:
    """Variants that traffic may be sent to; those about to lose their last replica only if there are no others."""
    usable = tuple(state for state in states if state.usable)
    staying = tuple(state for state in usable if state.key not in retiring)
    return staying or usable


def split_member(
    share: float, variants: Sequence[VariantState], capacity_rps: Mapping[VariantKey, float | None]
) -> dict[VariantKey, float]:
    """Divide a member's share among its usable variants in proportion to what their serving replicas carry.

    A gateway spreads evenly over the endpoints of one Service whatever GPU they sit on, so the split is ours. Where a
    capacity is unknown, replicas count alike; a Service that is not ours counts as one replica.
    """
    counts = [float(max(1, len(state.serving))) for state in variants]
    rates = [capacity_rps.get(state.key) or math.nan for state in variants]
    carried = [count * rate for count, rate in zip(counts, rates, strict=True)]
    sizes = carried if min(rates) > 0.0 and math.isfinite(sum(carried)) else counts
    return {state.key: share * size / sum(sizes) for state, size in zip(variants, sizes, strict=True)}


def fill_member(
    share: float, variants: Sequence[VariantState], capacity_rps: Mapping[VariantKey, float | None], filling: Filling
) -> dict[VariantKey, float] | None:
    """Fill a member's variants from the one of fewest joules, each up to what its replicas carry of the pool's rate.

    A replica costs most of its power for the first request, so a dear one that is ready takes the surplus alone. What
    is beyond all of them goes by what they carry. None where a capacity, joules or replicas of one are not known.
    """
    carried = {
        state.key: filling.replicas.get(state.key, 0) * (capacity_rps.get(state.key) or math.nan) / filling.rate_rps
        for state in variants
    }
    known = all(state.key in filling.joules for state in variants)
    if not known or not min(carried.values()) > 0.0 or not math.isfinite(sum(carried.values())):
        return None
    stretch = max(1.0, share / sum(carried.values()))
    room = {key: stretch * share_ for key, share_ in carried.items()}
    return fill_in_order(share, room, sorted(room, key=lambda key: filling.joules[key]))


def fill_in_order(
    share: float, room: Mapping[VariantKey, float], order: Iterable[VariantKey]
) -> dict[VariantKey, float]:
    """Give each in this order what it has room for until the share is used up; keys as in `room`."""
    left, filled = share, dict.fromkeys(room, 0.0)
    for key in order:
        filled[key] = min(left, room[key])
        left = max(0.0, left - filled[key])
    return filled


def split_shares(
    shares: Mapping[str, float],
    usable: Sequence[VariantState],
    capacity_rps: Mapping[VariantKey, float | None],
    filling: Filling | None = None,
) -> dict[VariantKey, float]:
    """Shares by variant; what members without a usable variant were given is spread over the others in proportion.

    Without `filling` (rates are unknown) a member's variants share it by what serves.
    """
    by_member: dict[str, list[VariantState]] = {}
    for state in usable:
        by_member.setdefault(state.key.member, []).append(state)
    valid = {m: s for m, s in shares.items() if m in by_member and math.isfinite(s) and s > 0.0}
    if not valid:
        valid = dict.fromkeys(by_member, 1.0)
    largest = max(valid.values(), default=1.0)
    valid = {member: share / largest for member, share in valid.items()}  # whatever they are, their sum is finite
    total = sum(valid.values())
    result: dict[VariantKey, float] = {}
    for member, share in valid.items():
        own = by_member[member]
        filled = None if filling is None else fill_member(share / total, own, capacity_rps, filling)
        result |= split_member(share / total, own, capacity_rps) if filled is None else filled
    return result


def round_weights(shares: Mapping[VariantKey, float], order: Sequence[VariantKey]) -> dict[VariantKey, int]:
    """Integers in `order` that sum to 1,000,000: the largest remainders get the units that rounding down left over.

    A positive share keeps at least one unit. Empty when there are no positive shares.
    """
    positive = {key: shares[key] for key in order if shares.get(key, 0.0) > 0.0}
    total = sum(positive.values())
    if not positive or not math.isfinite(total):
        return {}
    exact = {key: share / total * TOTAL_WEIGHT for key, share in positive.items()}
    floors = {key: max(1, math.floor(value)) for key, value in exact.items()}
    left = TOTAL_WEIGHT - sum(floors.values())
    by_remainder = sorted(floors, key=lambda key: (floors[key] - exact[key], order.index(key)))
    for key in by_remainder[: max(0, left)]:
        floors[key] += 1
    if left < 0:
        floors[max(floors, key=lambda key: floors[key])] += left
    return {key: floors.get(key, 0) for key in order}


def changes_enough(
    live: Mapping[VariantKey, int], wanted: Mapping[VariantKey, int], tolerance: float = TOLERANCE
) -> bool:
    """Whether the live weights must be rewritten: another order, a variant that starts or stops, or a real shift."""
    if list(live) != list(wanted) or sum(live.values()) != TOTAL_WEIGHT:
        return True
    if any((live[key] > 0) != (wanted[key] > 0) for key in wanted):
        return True
    moved = sum(abs(live[key] - wanted[key]) for key in wanted) / TOTAL_WEIGHT
    return moved > tolerance
