"""What was learnt of a load outlasts services that join and leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.policies.fluid.worlds import make_variant
from wattzoo_policies.capacity.model import LatencyTarget, RequestShape
from wattzoo_policies.placement.forecast import LoadMemory, observe_load
from wattzoo_policies.placement.joint_demand import follow_groups, group_services, observe_services
from wattzoo_policies.placement.joint_state import JointState
from wattzoo_policies.placement.signals import FleetObservation, FleetService

LEARNT = observe_load(observe_load(LoadMemory(), 4.0), 4.0)


def observe(rates: Mapping[str, float], members: Mapping[str, tuple[str, ...]] | None = None) -> FleetObservation:
    services = tuple(
        FleetService(
            name,
            0.5,
            (members or {}).get(name, ("small", "large")),
            LatencyTarget(),
            rate,
            RequestShape(10.0, 100.0),
            0.0,
            0.0,
            {},
        )
        for name, rate in rates.items()
    )
    return FleetObservation(0.0, 15.0, (), (make_variant("large"), make_variant("small")), services)


def follow(state: JointState, observation: FleetObservation) -> JointState:
    memories = observe_services(state, observation, 60.0)
    groups = group_services(observation, memories)
    return replace(follow_groups(state, observation, groups, memories), services=memories)


@pytest.fixture
def learnt() -> JointState:
    """Two services of 30/s and 10/s whose load has been 4."""
    state = follow(JointState(), observe({"b": 30.0, "c": 10.0}))
    return replace(state, loads={"b": LEARNT}, care={"b": 0.7})


def test_a_service_that_joins_in_front_takes_the_groups_load_with_it(learnt: JointState) -> None:
    """40/s become 60/s: a load of 6."""
    after = follow(learnt, observe({"a": 20.0, "b": 30.0, "c": 10.0}))
    assert after.groups == {"a": ("a", "b", "c")}
    assert after.loads["a"].loads == pytest.approx((6.0, 6.0))
    assert after.care == {"a": 0.7}


def test_when_the_first_leaves_the_others_go_on(learnt: JointState) -> None:
    """10/s of 40/s: a load of 1."""
    after = follow(learnt, observe({"c": 10.0}))
    assert after.loads["c"].level == pytest.approx(1.0)


def test_groups_that_part_go_on_each_with_its_share(learnt: JointState) -> None:
    after = follow(learnt, observe({"b": 30.0, "c": 10.0}, {"b": ("large",), "c": ("small",)}))
    assert after.loads["b"].level == pytest.approx(3.0)
    assert after.loads["c"].level == pytest.approx(1.0)


def test_without_a_change_nothing_changes_and_a_stranger_begins_anew(learnt: JointState) -> None:
    assert follow(learnt, observe({"b": 30.0, "c": 10.0})).loads == learnt.loads
    assert follow(learnt, observe({"d": 30.0})).loads == {}
