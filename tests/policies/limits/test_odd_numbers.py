"""The laws with numbers that nobody should hand them: huge, tiny, not a number. Unknown holds, nothing raises."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from wattzoo_policies.limits.replicas import decide_planned_replicas, decide_replicas
from wattzoo_policies.signals import ReplicaHistory, ReplicaPlan, ReplicaRequest, ServiceDemand, VariantDemand

POOL = "a"
CAP = 12
NUMBERS = st.one_of(
    st.none(), st.floats(0.0, 1e308), st.sampled_from([math.nan, math.inf, -1.0, 1e-308, 5e-324, 0.0, 1.0, 10.0])
)


@st.composite
def requests(draw: st.DrawFn) -> ReplicaRequest:
    """Up to three variants of two members and two services, on accelerators with a cap and without."""
    rows = []
    for index in range(draw(st.integers(1, 3))):
        current, least = draw(st.integers(0, 6)), draw(st.integers(0, 4))
        row = VariantDemand(
            variant=f"v{index}",
            member=draw(st.sampled_from(["m0", "m1"])),
            demand_rps=draw(NUMBERS),
            capacity_rps=draw(NUMBERS),
            current_replicas=current,
            ready_replicas=draw(st.integers(0, current)),
            min_replicas=least,
            max_replicas=least + draw(st.integers(0, 8)),
            accelerators_per_replica=draw(st.integers(1, 4)),
            accelerator_pool=draw(st.sampled_from([None, POOL])),
            terminating_replicas=draw(st.integers(0, 2)),
            start_joules=draw(NUMBERS),
            saved_watts=draw(NUMBERS),
            reachable_rps=draw(NUMBERS),
        )
        rows.append(row)
    members = (("m0",), ("m0", "m1"))
    services = [ServiceDemand(f"s{n}", members[n], draw(NUMBERS)) for n in range(draw(st.integers(0, 2)))]
    return ReplicaRequest(1000.0, tuple(rows), max_accelerators={POOL: CAP}, services=tuple(services))


def check(request: ReplicaRequest, plan: ReplicaPlan) -> None:
    held = wanted = 0
    for variant, entry in zip(request.variants, plan.variants, strict=True):
        if variant.demand_rps is None or not math.isfinite(variant.demand_rps):
            assert entry.replicas >= min(variant.current_replicas, variant.max_replicas)
        if variant.accelerator_pool == POOL:
            leaving = variant.terminating_replicas
            held += (variant.current_replicas + leaving) * variant.accelerators_per_replica
            wanted += (max(variant.current_replicas, entry.replicas) + leaving) * variant.accelerators_per_replica
    assert wanted <= max(held, CAP)


def make_history(request: ReplicaRequest) -> ReplicaHistory:
    return ReplicaHistory({variant.variant: ((0.0, 0),) for variant in request.variants})


@settings(max_examples=200)
@given(requests(), st.lists(st.integers(0, 10), min_size=3, max_size=3))
def test_a_plan_is_followed_whatever_the_numbers(request: ReplicaRequest, wishes: list[int]) -> None:
    planned = {variant.variant: wish for variant, wish in zip(request.variants, wishes, strict=False)}
    check(request, decide_planned_replicas(make_history(request), request, planned, 0.0)[1])


@settings(max_examples=200)
@given(requests())
def test_each_variant_follows_its_demand_whatever_the_numbers(request: ReplicaRequest) -> None:
    check(request, decide_replicas(make_history(request), request, 0.3, 0.0)[1])
