"""The cheapest mixture of members that does not look at the request, with its shares fixed in advance.

With the hindsight means of a stream it is the *blind optimum* that every weights law is compared with; with somebody's
guesses it is what a careful person would write into a route.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares by member, and what they cost and reach in the mean. `feasible`: whether the target is reached."""

    weights: Mapping[str, float]
    joules_per_request: float
    satisfaction: float
    feasible: bool


def decide_mixture(joules: Mapping[str, float], satisfaction: Mapping[str, float], alpha: float) -> Mixture:
    """Return argmin w.E subject to w.p >= alpha; when nothing reaches it, all on the best member.

    joules: mean joules per request by member; satisfaction: mean satisfied share by member. An optimum with at most
    two members exists, so singles and pairs are tried.
    """
    if not joules or set(joules) != set(satisfaction):
        raise ValueError(
            f"joules and satisfaction must name the same members, not {set(joules)} and {set(satisfaction)}"
        )
    options = [{name: 1.0} for name in joules if satisfaction[name] >= alpha]
    for low, high in permutations(joules, 2):
        if satisfaction[low] < alpha < satisfaction[high]:
            share = (alpha - satisfaction[low]) / (satisfaction[high] - satisfaction[low])
            options.append({low: 1.0 - share, high: share})
    feasible = bool(options)
    if not feasible:
        options = [{max(satisfaction, key=lambda name: (satisfaction[name], -joules[name])): 1.0}]
    costs = [sum(share * joules[name] for name, share in weights.items()) for weights in options]
    best = costs.index(min(costs))
    reached = sum(share * satisfaction[name] for name, share in options[best].items())
    return Mixture(options[best], costs[best], reached, feasible)
