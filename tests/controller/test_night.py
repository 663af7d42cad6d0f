"""Nights at random: two jointly planned pools share accelerators while specs, pods, clocks and telemetry misbehave."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders import (
    NAMESPACE,
    START_SECONDS,
    make_accelerator_pool,
    make_llm_service,
    make_member,
    make_model_pool,
    make_profile,
    make_silence,
    make_variant,
)
from tests.controller.test_planning import Planned
from wattzoo.decide.caps import holdings
from wattzoo.decide.context import Specs, read_pools
from wattzoo.model import ANNOTATION_PAUSED, LABEL_SERVING, Kind, Manifest, Ref, Sample, TelemetrySnapshot
from wattzoo_policies.placement.problem import Plan

CAP = 6
OTHER = Ref(NAMESPACE, "other")
BLIND = frozenset({"silence", "spoil", "partial"})
Step = tuple[str, float, int]
"""What happens, requests/s of each service, and a number that says more."""


class Night(Planned):
    """Two pools under one cap; pods that go take two ticks to be gone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.leaving: dict[Ref, tuple[int, Manifest]] = {}
        self.solve = self.reconciler.planner._solve
        self.cap = CAP
        self.cluster.add(Kind.ACCELERATOR_POOL, make_accelerator_pool(maxAccelerators=CAP))
        members = [make_member("only", [make_variant(minReplicas=1)])]
        self.cluster.add(Kind.MODEL_POOL, make_model_pool("other", members=members, scaling={"planner": "Joint"}))
        second = make_llm_service("second", pool="other", safestMember="only", target_per_mille=500)
        self.cluster.add(Kind.LLM_SERVICE, second)

    def run_slowly(self, tick: int) -> None:
        before = dict(self.cluster.objects[Kind.POD])
        self.cluster.run_pods(START_SECONDS - 60.0)
        after = self.cluster.objects[Kind.POD]
        for ref, pod in before.items():
            if ref not in after and not pod["metadata"].get("deletionTimestamp"):
                gone = copy.deepcopy(pod)
                gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                gone["metadata"]["name"] += f"-gone{tick}"
                self.leaving[Ref(ref.namespace, gone["metadata"]["name"])] = (tick + 2, gone)
        self.leaving = {ref: row for ref, row in self.leaving.items() if row[0] > tick}
        for ref, (_, pod) in self.leaving.items():
            after[ref] = pod

    def both(self, rps: float) -> TelemetrySnapshot:
        parts = [self.traffic(rps, service=name) for name in ("chat", "second")]
        groups = {
            name: [*parts[0].groups[name], *(parts[1].groups[name] if name in {"gateway", "feedback"} else ())]
            for name in parts[0].groups
        }
        return TelemetrySnapshot(self.now + 15.0, groups, {})

    def edit(self, name: str, **spec: Any) -> None:
        raw = self.cluster.get(Kind.MODEL_POOL, name)
        raw["spec"] = copy.deepcopy({**raw["spec"], **spec})
        raw["metadata"]["generation"] += 1

    def variant(self, **changes: Any) -> None:
        self.edit("zoo")
        self.cluster.get(Kind.MODEL_POOL, "zoo")["spec"]["members"][1]["variants"][0].update(changes)

    def held(self) -> int:
        snapshot = self.cluster.snapshot()
        return sum(holdings(snapshot, read_pools(Specs(), snapshot)).get("h100", {}).values())

    def asked(self) -> dict[Ref, int]:
        return {ref: d["spec"]["replicas"] for ref, d in self.cluster.objects[Kind.DEPLOYMENT].items()}

    def awake(self) -> set[Ref]:
        pods = self.cluster.objects[Kind.POD].items()
        return {ref for ref, pod in pods if pod["metadata"]["labels"].get(LABEL_SERVING) == "true"}

    def scale(self, **scaling: Any) -> None:
        known = self.cluster.get(Kind.MODEL_POOL, "zoo")["spec"].get("scaling") or {}
        self.edit("zoo", scaling={**known, **scaling})

    def happen(self, event: str, number: int) -> None:
        """One event; those that are not here are the telemetry's."""
        odd = number % 2
        events: dict[str, Callable[[], object]] = {
            "restart": self.restart,
            "fail": lambda: setattr(self.reconciler.planner, "_solve", fail),
            "heal": lambda: setattr(self.reconciler.planner, "_solve", self.solve),
            "min": lambda: self.variant(minReplicas=number % 4, maxReplicas=8),
            "max": lambda: self.variant(minReplicas=0, maxReplicas=1 + number % 4),
            "shape": lambda: self.variant(acceleratorsPerReplica=1 + number % 3),
            "packing": lambda: self.scale(packing=("Enabled", "Disabled")[odd]),
            "planner": lambda: self.scale(planner=("Joint", "PerVariant")[odd]),
            "keda": lambda: self.scale(mode=("Act", "KEDAMetrics")[odd]),
            "mode": lambda: self.edit("zoo", mode=("Act", "Observe")[odd]),
            "pause": lambda: self.annotate({ANNOTATION_PAUSED: "true"} if odd else {}),
            "cap": lambda: self.limit(number),
            "remove": self.replace_other,
            "unready": lambda: self.stop(number % 3),
            "noprofile": lambda: self.cluster.objects[Kind.MODEL_PROFILE].pop(Ref(NAMESPACE, "slow"), None),
            "profile": lambda: self.cluster.add(Kind.MODEL_PROFILE, make_profile("slow", 400)),
            "hand": lambda: self.scale_by_hand(number % 3),
            "back": lambda: setattr(self, "now", self.now - 400.0),
            "forward": lambda: setattr(self, "now", self.now + 400.0),
        }
        events.get(event, lambda: None)()

    def annotate(self, annotations: dict[str, str]) -> None:
        self.cluster.get(Kind.MODEL_POOL, "other")["metadata"]["annotations"] = annotations

    def limit(self, cap: int) -> None:
        self.cap = cap
        raw = self.cluster.objects[Kind.ACCELERATOR_POOL][Ref("", "h100")]
        raw["spec"]["maxAccelerators"] = cap
        raw["metadata"]["generation"] += 1

    def replace_other(self) -> None:
        """The pool is deleted and made anew with another variant; its pods end in their own time."""
        meta = self.cluster.objects[Kind.MODEL_POOL].pop(OTHER)["metadata"]
        self.cluster.objects[Kind.DEPLOYMENT].pop(Ref(NAMESPACE, "other-only-h100"), None)
        members = [make_member("only", [make_variant("new", acceleratorPool="h100")])]
        self.cluster.add(Kind.MODEL_POOL, make_model_pool("other", members=members))
        self.cluster.get(Kind.MODEL_POOL, "other")["metadata"]["uid"] = f"{meta['uid']}-again"

    def stop(self, count: int) -> None:
        for pod in list(self.cluster.objects[Kind.POD].values())[:count]:
            pod["status"]["conditions"] = []

    def scale_by_hand(self, count: int) -> None:
        for deployment in list(self.cluster.objects[Kind.DEPLOYMENT].values())[:1]:
            deployment["spec"]["replicas"] = count

    def see(self, event: str, rps: float, number: int) -> TelemetrySnapshot:
        telemetry = self.both(rps)
        if event == "silence":
            return make_silence(self.now + 15.0)
        if event == "partial":
            return replace(telemetry, groups={**telemetry.groups, "engine_gauges": []})
        if event == "spoil":
            return spoil(telemetry, {"engine_gauges", "gateway"}, (math.nan, math.inf, 1e308, -1.0)[number % 4])
        return telemetry


def spoil(telemetry: TelemetrySnapshot, groups: set[str], value: float) -> TelemetrySnapshot:
    """The telemetry with a newest sample that cannot be."""
    spoiled = {
        name: [replace(s, samples=(*s.samples[:-1], Sample(value, s.samples[-1].at_seconds))) for s in series]
        for name, series in telemetry.groups.items()
        if name in groups
    }
    return replace(telemetry, groups={**telemetry.groups, **spoiled})


def fail(*_: Any, **__: Any) -> Plan:
    raise RuntimeError("the solver broke")


async def live(steps: list[Step]) -> None:
    """Six quiet ticks, then these; after each the promises hold."""
    world = Night()
    await world.tick()
    for tick, (event, rps, number) in enumerate([("none", 20.0, 0)] * 6 + steps):
        world.run_slowly(tick)
        world.cluster.accept_routes()
        world.happen(event, number)
        telemetry = world.see(event, rps, number)
        before, awake, held = world.asked(), world.awake(), world.held()
        await world.tick(telemetry)
        assert world.held() <= max(held, world.cap), (tick, event)
        if event in BLIND:
            after = world.asked()
            assert all(after.get(ref, count) >= count for ref, count in before.items()), (tick, event)
            assert awake <= world.awake(), (tick, event)
        for kind in (Kind.MODEL_POOL, Kind.LLM_SERVICE):
            for raw in world.cluster.objects[kind].values():
                reasons = {row["reason"] for row in (raw.get("status") or {}).get("conditions", ())}
                assert "InternalError" not in reasons, (tick, event)


EVENTS = [
    *sorted(BLIND),
    "none",
    "restart",
    "fail",
    "heal",
    "min",
    "max",
    "shape",
    "packing",
    "planner",
    "keda",
    "mode",
]
EVENTS += ["mode", "pause", "cap", "remove", "unready", "noprofile", "profile", "hand", "back", "forward"]
RATES = [0.0, 1.0, 4.0, 20.0, 80.0]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.sampled_from(RATES), st.integers(0, 8)), max_size=12))
def test_no_night_breaks_the_cap_or_lowers_anything_blindly(steps: list[Step]) -> None:
    asyncio.run(live(steps))
