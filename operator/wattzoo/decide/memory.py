"""What the passes remember between ticks: frozen values that the reconciler holds and the pure stages replace.

Everything here can be lost. What must survive a restart is checkpointed in status (a policy's state, recent wishes of
replicas); the rest is measured again within a minute, and until then nothing shrinks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wattzoo.api.llm_service import LLMServiceSpec
from wattzoo.decide.counting import Counting, make_counting
from wattzoo.decide.shortage import Shortage
from wattzoo.decisions import Capacity, Finding, Latencies, MemberEnergy, ServiceDecision, ServiceLoad, VariantSignals
from wattzoo.model import Ref, VariantKey
from wattzoo_policies.placement.joint_demand import ServiceLoad as ExpectedLoad
from wattzoo_policies.placement.joint_state import JointState
from wattzoo_policies.protocols import PolicyState, Promise
from wattzoo_policies.signals import ReplicaHistory

STEP_SECONDS = 15.0
"""The longest step of forecasts; where pools are looked at more often, it is their interval."""


@dataclass(frozen=True, slots=True)
class MemberMemory:
    """Smoothed figures of one member.

    watts: all its pods. serving_watts: its warm pods. modelled_watts: what its profiles expect those to draw at their
    load; None without a profile.
    """

    at_seconds: float
    watts: float
    serving_watts: float
    modelled_watts: float | None
    served_rps: float
    input_tokens: float | None = None
    output_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class PoolEstimate:
    """What is known of a pool after one observation."""

    at_seconds: float
    signals: Mapping[VariantKey, VariantSignals] = field(default_factory=dict)
    capacities: Mapping[VariantKey, Capacity] = field(default_factory=dict)
    energy: Mapping[str, MemberEnergy] = field(default_factory=dict)
    loads: Mapping[Ref, ServiceLoad] = field(default_factory=dict)
    latencies: Mapping[Ref, Latencies] = field(default_factory=dict)
    accelerator_pools: Mapping[VariantKey, str | None] = field(default_factory=dict)
    problems: tuple[Finding, ...] = ()

    def capacity_rps(self) -> dict[VariantKey, float | None]:
        """What one replica of each variant carries."""
        return {key: capacity.rps for key, capacity in self.capacities.items()}


@dataclass(frozen=True, slots=True)
class ServiceForecast:
    """What one service may send, as of the last sample.

    next_ratio: what the coming interval's load of its group (the services that share members with it) rarely exceeds,
    over what is expected; None until enough was seen. care: how many times that error serving replicas keep free.
    group_rps: expected of the whole group in the coming interval. base_ratio: what the error is one of, over what is
    expected: more than 1 where load comes in bursts and their peak is believed, of which no care makes less.
    """

    load: ExpectedLoad
    next_ratio: float | None
    care: float
    group_rps: float
    base_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What a service's law asks for: shares by variant of sum 1.

    may_gain: whether the law can give back what it is given beyond. may_give: whether it holds more credit than it
    needs, and can do with less for a while.
    """

    split: Mapping[VariantKey, float]
    may_gain: bool
    may_give: bool = False


@dataclass(frozen=True, slots=True)
class ForecastMemory:
    """The forecasts of a pool's services, when they were last fed (None: never), and what they have learned so far.

    step_seconds: one sample of every rate in this time.
    """

    step_seconds: float = STEP_SECONDS
    at_seconds: float | None = None
    state: JointState = field(default_factory=JointState)
    services: Mapping[Ref, ServiceForecast] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """A pool between passes.

    rates: recent requests per second by service. first_at_seconds: when this process first saw it. pending: lower
    wishes of the last pass, which act only if the next one agrees. zero_since_seconds: since when no route sends
    anything to a variant. unused_since_seconds: the same for servers that left the spec. silent_since_seconds: since
    when each silent pod has been seen so. needs: (time, serving pods needed) of late by variant, for the live weights
    `packed_for`. shortages: variants whose accelerators do not come. forecasts: what its services may send. planned:
    replicas by variant that a joint plan leaves, empty without one; traffic moves within what they carry before the
    others go. asked: what the laws of its services asked for last.
    """

    first_at_seconds: float
    members: Mapping[str, MemberMemory] = field(default_factory=dict)
    rates: Mapping[Ref, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    history: ReplicaHistory = field(default_factory=ReplicaHistory)
    pending: Mapping[VariantKey, int] = field(default_factory=dict)
    retiring: frozenset[VariantKey] = frozenset()
    planned: Mapping[VariantKey, int] = field(default_factory=dict)
    asked: Mapping[Ref, Asked] = field(default_factory=dict)
    zero_since_seconds: Mapping[str, float] = field(default_factory=dict)
    unused_since_seconds: Mapping[Ref, float] = field(default_factory=dict)
    silent_since_seconds: Mapping[str, float] = field(default_factory=dict)
    needs: Mapping[VariantKey, tuple[tuple[float, int], ...]] = field(default_factory=dict)
    packed_for: Mapping[Ref, Mapping[VariantKey, int]] = field(default_factory=dict)
    shortages: Mapping[VariantKey, Shortage] = field(default_factory=dict)
    forecasts: ForecastMemory = field(default_factory=ForecastMemory)
    estimate: PoolEstimate | None = None
    decided_at_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ServiceMemory:
    """A service between passes.

    decided_for: the spec that `decision` answers.
    state: of the policy `policy`, with the samples up to observed_at_seconds. route_order and order_since_seconds: a
    change of the route's order resets the gateway's counters. live and live_since_seconds: shares are compared with
    weights only since those are in force. hold: this process found a route and no state to go on from, so the live
    weights stay until something is known. hold_until_seconds: after a restart they stay for one interval in any case.
    wished and sent: shares by member that the policy wished for and that the route had, averaged over some intervals.
    counting: requests at the gateway. unknown_since_seconds: since when, without a break, feedback could be read and
    what comes was not known. promise: what the policy said it can promise when it was last asked. lost: why
    this process could not go on from the stored state.
    """

    policy: str = ""
    state: PolicyState | None = None
    decision: ServiceDecision | None = None
    decided_at_seconds: float | None = None
    decided_for: LLMServiceSpec | None = None
    ready_members: frozenset[str] = frozenset()
    route_order: tuple[VariantKey, ...] = ()
    order_since_seconds: float | None = None
    live: tuple[int, ...] = ()
    live_since_seconds: float | None = None
    hold: bool = False
    hold_until_seconds: float | None = None
    wished: Mapping[str, float] = field(default_factory=dict)
    sent: Mapping[str, float] = field(default_factory=dict)
    counting: Counting = field(default_factory=lambda: make_counting(()))
    observed_at_seconds: float | None = None
    unknown_since_seconds: float | None = None
    promise: Promise | None = None
    lost: str = ""
