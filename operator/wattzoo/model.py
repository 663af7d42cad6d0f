"""What crosses the stages of the control loop: plain frozen data, so that every stage but observe and apply stays pure.

Kubernetes objects travel as raw dicts (typed decoding costs twelve times as much); only our own kinds are parsed, by
the stage that decides about them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

Made = TypeVar("Made")
Manifest: TypeAlias = dict[str, Any]
"""A Kubernetes object as the API server sends it."""

FIELD_MANAGER = "wattzoo"
"""Server-side apply manager of everything the operator writes."""

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_MODEL_POOL = "wattzoo.dev/model-pool"
LABEL_MEMBER = "wattzoo.dev/member"
LABEL_VARIANT = "wattzoo.dev/variant"
LABEL_ACCELERATOR_POOL = "wattzoo.dev/accelerator-pool"
LABEL_SERVING = "wattzoo.dev/serving"
LABEL_LLM_SERVICE = "wattzoo.dev/llmservice"
ANNOTATION_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
ANNOTATION_PAUSED = "wattzoo.dev/paused"
HEADER_MEMBER = "x-wattzoo-member"
SERVER_PORT = 8000
TOTAL_WEIGHT = 1_000_000
"""The integer weights of one HTTPRoute sum to this."""


class Signal(StrEnum):
    """Canonical names of the series in `TelemetrySnapshot.groups`, whatever the exporters call them.

    The metrics profile maps exporters' names to these and scales to these units. A histogram's buckets arrive as its
    cumulative `le` series under the one name. Labels stay as they are. A feedback series keeps its metric's own
    name as the label `__name__`.
    """

    REQUESTS_RUNNING = "requests_running"
    REQUESTS_WAITING = "requests_waiting"
    KV_CACHE_USAGE = "kv_cache_usage"
    PROMPT_TOKENS = "prompt_tokens"
    GENERATION_TOKENS = "generation_tokens"
    REQUESTS_SUCCEEDED = "requests_succeeded"
    TIME_TO_FIRST_TOKEN_SECONDS = "time_to_first_token_seconds"  # noqa: S105 - no password
    TIME_PER_OUTPUT_TOKEN_SECONDS = "time_per_output_token_seconds"  # noqa: S105 - no password
    POWER_WATTS = "power_watts"
    ENERGY_JOULES = "energy_joules"
    GATEWAY_REQUESTS = "gateway_requests"
    FEEDBACK = "feedback"


class Kind(StrEnum):
    """The kinds WattZoo reads or writes, by their Kubernetes names."""

    ACCELERATOR_POOL = "AcceleratorPool"
    MODEL_POOL = "ModelPool"
    MODEL_PROFILE = "ModelProfile"
    LLM_SERVICE = "LLMService"
    DEPLOYMENT = "Deployment"
    SERVICE = "Service"
    POD_DISRUPTION_BUDGET = "PodDisruptionBudget"
    HTTP_ROUTE = "HTTPRoute"
    POD = "Pod"
    NODE = "Node"


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Namespace and name of an object; the namespace of a cluster-scoped one is empty."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Derived:
    """What has been worked out of one snapshot, so that the passes that share it do not each do it again.

    A snapshot never changes, so what a pure function makes of it does not either; it is dropped with the snapshot.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` returned the first time that somebody asked by this key."""
        if key not in self._kept:
            self._kept[key] = make()
        made: Made = self._kept[key]
        return made


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """Everything of the API server that one pass reads, taken before it thinks."""

    accelerator_pools: Mapping[str, Manifest]
    model_pools: Mapping[Ref, Manifest]
    profiles: Mapping[Ref, Manifest]
    llm_services: Mapping[Ref, Manifest]
    deployments: Mapping[Ref, Manifest]
    services: Mapping[Ref, Manifest]
    disruption_budgets: Mapping[Ref, Manifest]
    routes: Mapping[Ref, Manifest]
    pods: Sequence[Manifest]
    nodes: Sequence[Manifest]
    unreadable: Mapping[Kind, str] = field(default_factory=dict)
    """Kinds that could not be listed, with the reason; their mappings are then empty and mean unknown, not absent."""
    derived: Derived = field(default_factory=Derived, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """One Prometheus sample; `at_seconds` is the sample's own time, so that its age is judged by Prometheus' clock."""

    value: float
    at_seconds: float


@dataclass(frozen=True, slots=True)
class Series:
    """One time series with its most recent samples, oldest first."""

    name: str
    labels: Mapping[str, str]
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class TelemetrySnapshot:
    """What Prometheus said in one tick: raw series, grouped by what they measure.

    A group that is missing from `groups` could not be read; its reason is in `problems`. An empty group was read and is
    empty: unknown, not zero.
    """

    at_seconds: float
    groups: Mapping[str, Sequence[Series]]
    """Keys: `engine_gauges`, `engine_counters`, `engine_latency`, `gpu_power`, `gpu_energy`, `gateway`, `feedback`."""
    problems: Mapping[str, str]
    derived: Derived = field(default_factory=Derived, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class TelemetryNeeds:
    """What the passes need to know besides what is always asked: feedback counters as (metric, namespace).

    feedback_window_seconds: at least that much of feedback, so that the rarest pass misses nothing between two looks.
    feedback_since_seconds: time of the oldest checkpoint, from which on a process that has just begun must know what
    every counter did; None without one.
    """

    feedback_metrics: frozenset[tuple[str, str]] = frozenset()
    window_seconds: float = 45.0
    feedback_window_seconds: float = 45.0
    feedback_since_seconds: float | None = None


class Change(StrEnum):
    """What the applier may do to an object."""

    APPLY = "Apply"
    DELETE = "Delete"


@dataclass(frozen=True, slots=True)
class Desired:
    """One object WattZoo wants: the fields it owns (server-side apply), and what it observed of it.

    `observed` is the live object or None for one that does not exist; the applier puts its resourceVersion and uid into
    the body, so that a stale writer conflicts instead of winning. `subresource` is `""`, `"scale"` or `"status"`.
    """

    kind: Kind
    ref: Ref
    body: Manifest
    observed: Manifest | None
    change: Change = Change.APPLY
    subresource: str = ""


class WriteState(StrEnum):
    """How one write ended."""

    UNCHANGED = "Unchanged"
    WRITTEN = "Written"
    CONFLICT = "Conflict"
    OWNERSHIP_CONFLICT = "OwnershipConflict"
    DENIED = "Denied"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The outcome of one `Desired`, with the API server's own words where it refused."""

    desired: Desired
    state: WriteState
    message: str = ""
    live: Manifest | None = None


@dataclass(frozen=True, slots=True)
class EventNote:
    """One Kubernetes Event on a transition: never per tick."""

    kind: Kind
    ref: Ref
    uid: str
    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True, order=True)
class VariantKey:
    """One variant of one member of a pool."""

    member: str
    variant: str

    def __str__(self) -> str:
        return f"{self.member}/{self.variant}"


class Backing(StrEnum):
    """What stands behind a variant: servers we render, a Deployment we adopt, or a Service we only send traffic to."""

    SERVER = "Server"
    WORKLOAD = "Workload"
    SERVICE = "Service"


@dataclass(frozen=True, slots=True)
class PodView:
    """What the passes need to know of one pod.

    `ready_since_seconds` is None while it is not ready; `waiting_since_seconds` is set while the scheduler has no node
    for it, with the scheduler's words in `waiting_message`. `placed_label` names its AcceleratorPool as its label does.
    """

    name: str
    accelerators: int
    ready_since_seconds: float | None = None
    terminating: bool = False
    serving: bool = True
    waiting_since_seconds: float | None = None
    waiting_message: str = ""
    placed_label: str = ""


@dataclass(frozen=True, slots=True)
class Accelerators:
    """What one replica is to hold, and of which AcceleratorPool."""

    pool: str | None
    count: int


@dataclass(frozen=True, slots=True)
class VariantState:
    """One variant as the API server shows it.

    `desired` is None when there is nothing to scale (a missing Deployment, or a Service that is not ours).
    `service` is the Service that carries its traffic and port its port; `service_exists` says whether it is there.
    `rolling` is set while its pods are being replaced by those of a newer template. `accelerator_pool` and
    `accelerators_per_replica` are the live template's; `asked` is set while the spec asks for more or for others.
    """

    key: VariantKey
    backing: Backing
    exists: bool
    desired: int | None
    pods: tuple[PodView, ...]
    service: str
    port: int
    service_exists: bool
    accelerator_pool: str | None
    accelerators_per_replica: int
    rolling: bool = False
    asked: Accelerators | None = None

    @property
    def ready(self) -> tuple[str, ...]:
        """Names of the pods that can take requests now or, silent, at once when they are woken."""
        return tuple(p.name for p in self.pods if p.ready_since_seconds is not None and not p.terminating)

    @property
    def serving(self) -> tuple[str, ...]:
        """Names of the ready pods that the Service selects."""
        return tuple(p.name for p in self.pods if p.name in self.ready and p.serving)

    @property
    def silent(self) -> tuple[str, ...]:
        """Names of the pods, ready or not, that the Service does not select."""
        return tuple(p.name for p in self.pods if not p.serving and not p.terminating)

    @property
    def starting(self) -> int:
        """Pods on their way to being ready, those without a node included."""
        return sum(1 for p in self.pods if p.ready_since_seconds is None and not p.terminating)

    @property
    def terminating(self) -> int:
        """Pods on their way out; their accelerators still count."""
        return sum(1 for p in self.pods if p.terminating)

    @property
    def usable(self) -> bool:
        """Whether traffic may be sent to it: ready pods, or for a Service that is not ours, that it exists."""
        if self.backing is Backing.SERVICE:
            return self.service_exists
        return self.service_exists and bool(self.serving)
