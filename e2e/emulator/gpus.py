"""The GPUs of the emulated nodes: who owns which, and what each has burnt. A free GPU burns its idle watts."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from e2e.emulator.roles import GPU_RESOURCE
from wattzoo.api.accelerators import KNOWN_ACCELERATORS, PRODUCT_LABEL


class GpuOwner(Protocol):
    """What holds GPUs: a pod. Its watts and joules are those of all its GPUs; None before its server started."""

    @property
    def namespace(self) -> str: ...

    @property
    def name(self) -> str: ...

    def power_watts(self) -> float | None:
        """Return the present power."""
        ...

    def energy_joules(self) -> float | None:
        """Return the energy since its server started."""
        ...


@dataclass(slots=True, eq=False)
class Gpu:
    """One GPU. `banked_joules` is what it burnt up to `since_seconds`, when it last changed hands."""

    node: str
    index: int
    product: str
    idle_watts: float
    since_seconds: float
    banked_joules: float = 0.0
    owner: GpuOwner | None = None
    sharers: int = 1
    started: bool = False

    @property
    def uuid(self) -> str:
        """Return an identity that stays the same in every run."""
        return f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{self.index}.{self.node}.emulator.wattzoo.dev')}"

    def power_watts(self) -> float:
        """Return the present power."""
        watts = self.owner.power_watts() if self.owner else None
        return self.idle_watts if watts is None else watts / self.sharers

    def energy_joules(self, at_seconds: float) -> float:
        """Return the energy since the emulator started."""
        joules = self.owner.energy_joules() if self.owner else None
        if joules is None:
            return self.banked_joules + self.idle_watts * (at_seconds - self.since_seconds)
        return self.banked_joules + joules / self.sharers

    def settle(self, at_seconds: float) -> None:
        """Bank what was burnt so far: called before the owner, or what it burns, changes."""
        self.banked_joules, self.since_seconds = self.energy_joules(at_seconds), at_seconds


@dataclass(slots=True)
class GpuInventory:
    """All GPUs by node, in the order of their index."""

    nodes: dict[str, list[Gpu]] = field(default_factory=dict)

    def observe_node(self, node: Mapping[str, Any], at_seconds: float) -> None:
        """Take in a node; one that lost or gained GPUs keeps those it had."""
        name = node["metadata"]["name"]
        count = int(node.get("status", {}).get("capacity", {}).get(GPU_RESOURCE, 0))
        product = (node["metadata"].get("labels") or {}).get(PRODUCT_LABEL, "")
        gpus = self.nodes.setdefault(name, [])
        if count > len(gpus) and product not in KNOWN_ACCELERATORS:
            raise ValueError(f"node {name} has GPUs of the unknown product {product!r}")
        for index in range(len(gpus), count):
            gpus.append(Gpu(name, index, product, KNOWN_ACCELERATORS[product].idle_watts, at_seconds))

    def assign(self, node: str, count: int, owner: GpuOwner, at_seconds: float) -> tuple[Gpu, ...] | None:
        """Give the owner the first free GPUs of a node; None while there are not enough."""
        free = [gpu for gpu in self.nodes.get(node, ()) if gpu.owner is None][:count]
        if len(free) < count:
            return None
        for gpu in free:
            gpu.settle(at_seconds)
            gpu.owner, gpu.sharers = owner, count
        return tuple(free)

    def release(self, gpus: tuple[Gpu, ...], at_seconds: float) -> None:
        """Take the GPUs back."""
        for gpu in gpus:
            gpu.settle(at_seconds)
            gpu.owner = None
