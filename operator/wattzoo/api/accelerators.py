"""Built-in figures of known accelerators, so that a pool of common hardware needs no power data in its spec.

Watts are per accelerator. `idle` is allocated with nothing loaded, `resident` is with a model loaded and nothing
running, `max` is the board's power limit. Sources: own measurements (H100: 70 / 116 W, H200: 80 / 124 W), vendor
data sheets (limits); the idle and resident watts of A100, L4 and B200 are assumptions in proportion to those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PRODUCT_LABEL = "nvidia.com/gpu.product"


@dataclass(frozen=True, slots=True)
class AcceleratorFigures:
    """What one accelerator draws."""

    idle_watts: int
    resident_watts: int
    max_watts: int


KNOWN_ACCELERATORS: Mapping[str, AcceleratorFigures] = {
    "NVIDIA-L4": AcceleratorFigures(idle_watts=13, resident_watts=28, max_watts=72),
    "NVIDIA-A100-SXM4-80GB": AcceleratorFigures(idle_watts=53, resident_watts=80, max_watts=400),
    "NVIDIA-H100-80GB-HBM3": AcceleratorFigures(idle_watts=70, resident_watts=116, max_watts=700),
    "NVIDIA-H200": AcceleratorFigures(idle_watts=80, resident_watts=124, max_watts=700),
    "NVIDIA-B200": AcceleratorFigures(idle_watts=140, resident_watts=200, max_watts=1000),
}


def known_accelerator(node_selector: Mapping[str, str]) -> AcceleratorFigures | None:
    """Figures for the product that a node selector names, None where it names none or one we do not know."""
    return KNOWN_ACCELERATORS.get(node_selector.get(PRODUCT_LABEL, ""))
