"""Every figure that makes this demo this demo, in one place, and the words with which the report owns up to them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from e2e.load.schedule import LoadShape, ServiceLoad, read_curve

REPOSITORY = Path(__file__).parents[2]
MANIFESTS = REPOSITORY / "examples" / "demo"
PROFILES = REPOSITORY / "examples" / "profiles"
TABLE = REPOSITORY / "examples" / "data" / "requests.csv.gz"
RATES = REPOSITORY / "examples" / "data" / "day_shape.csv"

NAMESPACE = "demo"
POOL = "llama"
SERVICES = ("chat", "search")
LARGEST_MEMBER = "large"
TARGET = 0.519
"""Promised share of satisfied answers: 83 % of what the largest model reaches on these requests (.6262)."""

MEAN_RPS = 11.5
"""Both services together: each then gets over 3,000 feedbacks in ten minutes, and two cores still keep up."""
RATES_SERVICE, RATES_DAY = "m-small", 6
"""A working day of production traffic whose top is 1.5 times its mean and whose bottom is .6 of it."""
SEED = 1

LOADING_SCALE = 0.1
"""Model loading takes a tenth of its real time, and every window that waits for it is cut alike, ours and the HPA's."""
INTERVAL_SECONDS = 5.0
"""Both services choose weights this often (examples/demo/60-llm-services.yaml)."""
POOL_INTERVAL_SECONDS, RATE_WINDOW_SECONDS = 5, 15
"""A third of the defaults: rates must follow a day that passes in minutes. The baselines' HPA looks each 1.5 s."""
SETTLE_SECONDS = 45.0
"""From Ready until nothing is left to decide: the pool's scale-down window of 30 s, and the draining after it."""
STEADY_SECONDS = 60.0
NODES = {"l4": 2, "a100": 2, "h100": 4, "h200": 1, "b200": 1, "cpu": 1}


@dataclass(frozen=True, slots=True)
class Run:
    """What differs from run to run."""

    minutes: float
    seed: int
    steady_seconds: float

    @property
    def load_seconds(self) -> float:
        """Length of the load."""
        return 60.0 * self.minutes


def make_load_shape(run: Run) -> LoadShape:
    """Return the day, squeezed into the run, at the demo's mean rate."""
    curve = read_curve(RATES, RATES_SERVICE, RATES_DAY)
    return LoadShape(duration_seconds=run.load_seconds, peak_rps=peak_rps(curve), curve=curve)


def peak_rps(curve: tuple[float, ...]) -> float:
    """Return the rate at the top of the curve that gives the mean rate over the (interpolated) day."""
    steps = list(pairwise(curve))
    mean = sum((a + b) / 2 for a, b in steps) / len(steps)
    return MEAN_RPS * max(curve) / mean


def service_loads() -> tuple[ServiceLoad, ...]:
    """Return the callers of the services, half of the requests each."""
    return tuple(ServiceLoad(NAMESPACE, name, f"{name}.demo.example") for name in SERVICES)


def describe(run: Run) -> dict[str, Any]:
    """Return what the report says of emulation, squeezing and seeds."""
    hours = 24 * 60 / run.minutes
    return {
        "minutes": run.minutes,
        "seeds": {"load": run.seed},
        "emulated": (
            "GPUs, nodes, kubelets and model servers: one process plays them by a discrete-event model of continuous "
            "batching whose speed and power come from published and own measurements; which answer satisfies is looked "
            "up in recorded outcomes. Real: etcd, the Kubernetes API server and controllers, Envoy Gateway and Envoy, "
            "Prometheus, Helm, the operator with its chart's rights, and every request."
        ),
        "squeezed": {
            "the load's day": f"{run.minutes:g} minutes, {hours:.0f} times faster",
            "model loading": f"x {LOADING_SCALE:g} (seconds and joules of a start)",
            "windows": (
                f"scale-down stabilisation x {LOADING_SCALE:g}, for WattZoo and the baselines' HPA alike (the HPA's "
                f"sync period too: 1.5 s); WattZoo plans every {POOL_INTERVAL_SECONDS} s from rates over "
                f"{RATE_WINDOW_SECONDS} s, a third of its defaults"
            ),
            "physics": "not squeezed: batching, latency and power run in real time",
        },
    }
