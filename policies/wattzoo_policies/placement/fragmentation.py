"""Accelerators sit in nodes: a replica of g accelerators needs g free ones on one node.

For every size G the replicas of at least G hold floor(g/G) pieces of G each, and a node of n has at most floor(n/G) of
them. These rows are linear in the replicas, valid for all sizes, and sufficient when every size divides the next
larger one (1, 2, 4, 8: the usual case), because then it does not matter which node a large replica takes. Other sizes
are checked by packing (`fits_nodes`), and the plan is solved again with the offending count lowered.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

SEARCH_STEPS = 20_000


def chunk_limits(sizes: Sequence[int], nodes: Sequence[int]) -> list[tuple[int, int]]:
    """Return (size G, most pieces of G that the nodes hold) for every size that occurs; empty without known nodes."""
    return [(size, sum(node // size for node in nodes)) for size in sorted(set(sizes))] if nodes else []


def is_divisible(sizes: Sequence[int]) -> bool:
    """Return whether every size divides the next larger one (the rows of `chunk_limits` are then exact)."""
    ordered = sorted(set(sizes))
    return all(large % small == 0 for small, large in pairwise(ordered))


def fits_nodes(replicas: Sequence[tuple[int, int]], nodes: Sequence[int]) -> bool:
    """Return whether (accelerators, count) replicas fit the nodes at once; unknown nodes (none) hold everything.

    Exact by depth-first search, largest first; a search that takes too long counts as no fit.
    """
    if not nodes:
        return True
    items = sorted((size for size, count in replicas for _ in range(count)), reverse=True)
    if sum(items) > sum(nodes) or (items and items[0] > max(nodes)):
        return False
    free = sorted(nodes)
    if _first_fit(items, list(free)):
        return True
    if is_divisible(items):
        return False
    return _search(items, free)


def _first_fit(items: Sequence[int], free: list[int]) -> bool:
    """Place the items, largest first, each where least is left over."""
    for item in items:
        best = min((index for index, room in enumerate(free) if room >= item), key=lambda i: free[i], default=None)
        if best is None:
            return False
        free[best] -= item
    return True


def _search(items: Sequence[int], nodes: Sequence[int]) -> bool:
    """Search all packings over sets of free rooms; equal nodes are tried once."""
    steps = 0
    seen: set[tuple[int, ...]] = set()
    stack: list[tuple[int, ...]] = [tuple(sorted(nodes))]
    depth = {stack[0]: 0}
    while stack and steps < SEARCH_STEPS:
        steps += 1
        free = stack.pop()
        index = depth[free]
        if index == len(items):
            return True
        for position in range(len(free)):
            if free[position] < items[index] or (position and free[position] == free[position - 1]):
                continue
            after = tuple(sorted((*free[:position], free[position] - items[index], *free[position + 1 :])))
            if after not in seen:
                seen.add(after)
                depth[after] = index + 1
                stack.append(after)
    return False
