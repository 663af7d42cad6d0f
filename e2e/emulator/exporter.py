"""The GPU exporter: power and energy of every GPU of every emulated node under DCGM's names, owned or free."""

from __future__ import annotations

from e2e.emulator.faults import Faults
from e2e.emulator.fleet import PlayedPod
from e2e.emulator.gpus import Gpu, GpuInventory

POWER = "DCGM_FI_DEV_POWER_USAGE"
ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"


def render_gpu_metrics(inventory: GpuInventory, faults: Faults, at_seconds: float) -> list[str]:
    """Return the lines: watts, and millijoules since the emulator's start."""
    if faults.hide_power:
        return []
    power = [f"# TYPE {POWER} gauge"]
    energy = [f"# TYPE {ENERGY} counter"]
    for gpus in inventory.nodes.values():
        for gpu in gpus:
            labels = render_labels(gpu)
            watts = "NaN" if faults.report_nan_power else f"{gpu.power_watts():.3f}"
            power.append(f"{POWER}{{{labels}}} {watts}")
            energy.append(f"{ENERGY}{{{labels}}} {1000 * gpu.energy_joules(at_seconds):.0f}")
    return power + energy


def render_labels(gpu: Gpu) -> str:
    """Return the labels of a GPU, with its pod's when it has one."""
    labels = {
        "gpu": str(gpu.index),
        "UUID": gpu.uuid,
        "device": f"nvidia{gpu.index}",
        "modelName": gpu.product.replace("-", " "),
        "Hostname": gpu.node,
    }
    if gpu.owner is not None:
        labels |= {"namespace": gpu.owner.namespace, "pod": gpu.owner.name}
        if isinstance(gpu.owner, PlayedPod):
            labels["container"] = gpu.owner.container
    return ",".join(f'{name}="{value}"' for name, value in labels.items())
