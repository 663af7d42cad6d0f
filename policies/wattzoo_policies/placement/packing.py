"""How many of a variant's ready replicas take traffic: filled to the knee, the rest silent and ready at once.

Energy follows active replicas: a silent resident one draws a fifth of what one request in flight makes it draw. The
operator and the fluid plant use the same rule; work is that of an interval that has ended, never of the coming one.
"""

from __future__ import annotations

import math

ETA = 0.9
"""Share of the knee to which serving replicas are filled."""
SLACK = 0.1
"""Work must fall this much further before a replica is silenced than it rose before one was woken.

0 flips a pod whenever the load swings around a multiple of what a replica carries; .3 keeps one replica in four busy
for nothing.
"""
ROUNDING = 1e-9


def serving_replicas(
    work: float | None, knee_load: float | None, ready: int, *, eta: float = ETA, margin: float = 0.0
) -> int:
    """Return how many of `ready` replicas shall serve: ceil(work / (eta * knee_load) * (1 + margin)), at least one.

    work: replica-seconds of work per second (rate times `capacity.model.work_seconds`) of the previous interval;
    knee_load: the load of one replica at which the latency target still holds. All serve when one is unknown.
    """
    if ready <= 0:
        return 0
    if work is None or knee_load is None or not math.isfinite(work) or not knee_load > 0.0 or not eta > 0.0:
        return ready
    filled = eta * knee_load
    if not filled > 0.0:  # a product too small for a float
        return ready
    needed = max(0.0, work) / filled * (1.0 + margin) - ROUNDING
    return max(1, ready if not needed < ready else math.ceil(needed))


def decide_serving(
    work: float | None,
    knee_load: float | None,
    ready: int,
    serving: int,
    *,
    eta: float = ETA,
    margin: float = 0.0,
    slack: float = SLACK,
) -> int:
    """Return `serving_replicas`, with slack on the way down: more at once, fewer only when the work has clearly fallen.

    serving: how many serve now.
    """
    needed = serving_replicas(work, knee_load, ready, eta=eta, margin=margin)
    if needed >= serving or work is None:
        return needed
    kept = serving_replicas(work * (1.0 + slack), knee_load, ready, eta=eta, margin=margin)
    return max(needed, min(serving, kept))
