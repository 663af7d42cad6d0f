"""The pods that are played: from what the API server says to servers of the plant, and back to what it shall be told.

No I/O: events come in, annotations to be set come out.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from e2e.emulator.engine import Engine
from e2e.emulator.faults import Faults
from e2e.emulator.gpus import Gpu, GpuInventory
from e2e.emulator.kube import WatchEvent, WatchKind
from e2e.emulator.roles import Role, gpu_count, resolve_role

log = logging.getLogger(__name__)
LOADED = "emulator.wattzoo.dev/loaded"
DRAINED = "emulator.wattzoo.dev/drained"
ATTEMPT_SECONDS = 2.0

KubeObject = Mapping[str, Any]
EngineMaker = Callable[["PlayedPod", KubeObject], Engine]


class NotPlayableError(Exception):
    """A pod cannot be played yet; the message says what is in the way."""


@dataclass(slots=True, eq=False)
class PlayedPod:
    """One pod with GPUs. Without `engine` it is not played (yet): it is not running, or its profile is not known."""

    manifest: KubeObject
    gpu_wish: int
    gpus: tuple[Gpu, ...] = ()
    role: Role | None = None
    engine: Engine | None = None
    connections: weakref.WeakSet[asyncio.Transport] = field(default_factory=weakref.WeakSet)
    attempt_after_seconds: float = 0.0
    deleting_since_seconds: float | None = None
    problem: str | None = None

    @property
    def uid(self) -> str:
        """Return the pod's uid."""
        return str(self.manifest["metadata"]["uid"])

    @property
    def namespace(self) -> str:
        """Return the pod's namespace."""
        return str(self.manifest["metadata"]["namespace"])

    @property
    def name(self) -> str:
        """Return the pod's name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def address(self) -> str | None:
        """Return the pod's IP, None while it has none."""
        address: str | None = self.manifest.get("status", {}).get("podIP")
        return address

    @property
    def container(self) -> str:
        """Return the name of the container that holds the GPUs."""
        return next(
            (str(c["name"]) for c in self.manifest["spec"]["containers"] if gpu_count({"spec": {"containers": [c]}})),
            "server",
        )

    def annotated(self, key: str) -> bool:
        """Return whether the pod carries the annotation with the value true."""
        return (self.manifest["metadata"].get("annotations") or {}).get(key) == "true"

    def power_watts(self) -> float | None:
        """Return the present power of its GPUs, None before its server started."""
        return None if self.engine is None else self.engine.power_watts()

    def energy_joules(self) -> float | None:
        """Return the energy since its server started, None before."""
        return None if self.engine is None else self.engine.metrics().joules


@dataclass(frozen=True, slots=True)
class Annotate:
    """An annotation that the pod shall get (with the value true)."""

    pod: PlayedPod
    key: str


class Fleet:
    """All played pods, the GPUs they hold and the objects that say what they play."""

    def __init__(self, make_engine: EngineMaker, faults: Faults, drain_quiet_seconds: float) -> None:
        self.make_engine = make_engine
        self.faults = faults
        self.drain_quiet_seconds = drain_quiet_seconds
        self.inventory = GpuInventory()
        self.pods: dict[str, PlayedPod] = {}
        self.by_address: dict[str, PlayedPod] = {}
        self.pools: dict[tuple[str, str], KubeObject] = {}
        self.profiles: dict[tuple[str, str], KubeObject] = {}
        self.on_gone: Callable[[PlayedPod], None] = lambda _pod: None

    def observe_nodes(self, event: WatchEvent, at_seconds: float) -> None:
        """Take in nodes; a node that went keeps its GPUs, for its energy counters must not vanish."""
        if event.kind is not WatchKind.DELETED:
            for node in event.objects:
                self.inventory.observe_node(node, at_seconds)
        self._start_pending(at_seconds)

    def observe_pools(self, event: WatchEvent, at_seconds: float) -> None:
        """Take in ModelPools; one that adopts running pods tells which member and variant they are."""
        merge(self.pools, event)
        for pod in self.pods.values():
            role = resolve_role(pod.manifest, self.pools)
            if pod.role is not None and role is not None and role.profile == pod.role.profile:
                pod.role = role
        self._start_pending(at_seconds)

    def observe_profiles(self, event: WatchEvent, at_seconds: float) -> None:
        """Take in ModelProfiles; a running server keeps the profile it started with."""
        merge(self.profiles, event)
        self._start_pending(at_seconds)

    def observe_pods(self, event: WatchEvent, at_seconds: float) -> None:
        """Take in pods; one that is gone loses its connections and its GPUs."""
        if event.kind is WatchKind.SYNC:
            present = {pod["metadata"]["uid"] for pod in event.objects}
            for uid in [uid for uid in self.pods if uid not in present]:
                self._remove(uid, at_seconds)
        for manifest in sorted(event.objects, key=lambda pod: str(pod["metadata"]["creationTimestamp"])):
            if event.kind is WatchKind.DELETED:
                self._remove(manifest["metadata"]["uid"], at_seconds)
            else:
                self._observe_pod(manifest, at_seconds)
        self._start_pending(at_seconds)

    def is_serving(self, pod: PlayedPod) -> bool:
        """Return whether the pod's server answers: it has loaded and no fault keeps it loading."""
        if pod.engine is None or pod.role is None or not pod.engine.ready:
            return False
        return pod.annotated(LOADED) or pod.role.variant not in self.faults.freeze_loading

    def due(self, at_seconds: float) -> list[Annotate]:
        """Return the annotations that pods shall get now; each is asked for again until it is seen on the pod."""
        wishes: list[Annotate] = []
        for pod in self.pods.values():
            if pod.attempt_after_seconds > at_seconds:
                continue
            if pod.deleting_since_seconds is not None:
                if not pod.annotated(DRAINED) and self._drained(pod, at_seconds):
                    wishes.append(Annotate(pod, DRAINED))
            elif not pod.annotated(LOADED) and self.is_serving(pod):
                wishes.append(Annotate(pod, LOADED))
        for wish in wishes:
            wish.pod.attempt_after_seconds = at_seconds + ATTEMPT_SECONDS
        return wishes

    def problems(self) -> dict[str, str]:
        """Return why pods with GPUs are not played, by namespace/name."""
        return {f"{pod.namespace}/{pod.name}": pod.problem for pod in self.pods.values() if pod.problem}

    def _drained(self, pod: PlayedPod, at_seconds: float) -> bool:
        """Return whether nothing runs and nothing came lately; a gateway may send for a moment longer."""
        engine = pod.engine
        if engine is None or not engine.ready:
            return True
        quiet_since = max(engine.last_busy_seconds, pod.deleting_since_seconds or 0.0)
        return engine.open_requests == 0 and at_seconds - quiet_since >= self.drain_quiet_seconds

    def _observe_pod(self, manifest: KubeObject, at_seconds: float) -> None:
        uid = manifest["metadata"]["uid"]
        pod = self.pods.get(uid)
        if pod is not None:
            pod.manifest = manifest
        elif wish := gpu_count(manifest):
            pod = self.pods[uid] = PlayedPod(manifest, wish)
        if pod is None:
            return
        if pod.address:
            self.by_address[pod.address] = pod
        if manifest["metadata"].get("deletionTimestamp") and pod.deleting_since_seconds is None:
            pod.deleting_since_seconds = at_seconds

    def _remove(self, uid: str, at_seconds: float) -> None:
        pod = self.pods.pop(uid, None)
        if pod is None:
            return
        if pod.engine is not None:
            pod.engine.stop()
            self.on_gone(pod)
        self.inventory.release(pod.gpus, at_seconds)
        for connection in pod.connections:
            connection.abort()
        if pod.address and self.by_address.get(pod.address) is pod:
            del self.by_address[pod.address]

    def _start_pending(self, at_seconds: float) -> None:
        for pod in self.pods.values():
            if pod.engine is not None:
                continue
            problem = None
            try:
                self._start(pod, at_seconds)
            except NotPlayableError as error:
                problem = str(error)
                if problem != pod.problem:
                    log.debug("pod %s/%s: %s", pod.namespace, pod.name, problem)
            pod.problem = problem

    def _start(self, pod: PlayedPod, at_seconds: float) -> None:
        """Give the pod its GPUs and, once it runs and its profile is known, its server."""
        node = pod.manifest["spec"].get("nodeName")
        if node is None:
            raise NotPlayableError("it is not scheduled")
        if not pod.gpus:
            gpus = self.inventory.assign(node, pod.gpu_wish, pod, at_seconds)
            if gpus is None:
                raise NotPlayableError(f"node {node} has no {pod.gpu_wish} free GPUs")
            pod.gpus = gpus
        if pod.manifest.get("status", {}).get("phase") != "Running" or pod.address is None:
            raise NotPlayableError("it is not running")
        role, profile = self._role_and_profile(pod)
        try:
            engine = self.make_engine(pod, profile)
        except (ValueError, KeyError) as error:
            raise NotPlayableError(f"ModelProfile {role.profile} cannot be played: {error!r}") from error
        for gpu in pod.gpus:
            gpu.settle(at_seconds)
        pod.role, pod.engine = role, engine

    def _role_and_profile(self, pod: PlayedPod) -> tuple[Role, KubeObject]:
        role = resolve_role(pod.manifest, self.pools)
        if role is None:
            raise NotPlayableError("no ModelPool names its variant and no annotation names a ModelProfile")
        profile = self.profiles.get((pod.namespace, role.profile))
        if profile is None:
            raise NotPlayableError(f"ModelProfile {role.profile} is not there")
        return role, profile


def merge(known: dict[tuple[str, str], KubeObject], event: WatchEvent) -> None:
    """Fold an event into objects by namespace and name."""
    if event.kind is WatchKind.SYNC:
        known.clear()
    for item in event.objects:
        key = (item["metadata"]["namespace"], item["metadata"]["name"])
        if event.kind is WatchKind.DELETED:
            known.pop(key, None)
        else:
            known[key] = item
