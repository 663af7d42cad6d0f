"""Leader election against a Lease store with resource versions and a clock that only the test moves."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wattzoo.apply.lease import Elector
from wattzoo.errors import ApplyError, Conflict, Unreachable
from wattzoo.model import Manifest, Ref
from wattzoo.settings import LeaseSettings
from wattzoo.telemetry import Telemetry

START = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """Time, and the API server's one Lease."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lease: Manifest | None = None
        self.version = 0
        self.down = False
        self.writes: list[str] = []

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    async def get_lease(self, ref: Ref, timeout_seconds: float) -> Manifest | None:
        self._answer()
        return copy.deepcopy(self.lease)

    async def create_lease(self, ref: Ref, body: Manifest, timeout_seconds: float) -> Manifest:
        self._answer()
        if self.lease is not None:
            raise Conflict("exists")
        return self._store(body)

    async def update_lease(self, ref: Ref, body: Manifest, timeout_seconds: float) -> Manifest:
        self._answer()
        if self.lease is None or body["metadata"].get("resourceVersion") != str(self.version):
            raise Conflict("moved on")
        return self._store(body)

    def _answer(self) -> None:
        if self.down:
            raise Unreachable("down")

    def _store(self, body: Manifest) -> Manifest:
        self.version += 1
        self.writes.append(body["spec"]["holderIdentity"])
        self.lease = copy.deepcopy(body)
        self.lease["metadata"] |= {"resourceVersion": str(self.version), "uid": "u"}
        return copy.deepcopy(self.lease)

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        return dict(self.lease["spec"])


def candidate(world: World, identity: str, skew_seconds: float = 0.0) -> Elector:
    def now() -> datetime:
        return START + timedelta(seconds=world.now + skew_seconds)

    return Elector(
        world, LeaseSettings("ns", identity), Telemetry(), clock=lambda: world.now, now=now, sleep=world.sleep
    )


async def test_the_first_one_creates_the_lease_with_the_servers_time_format() -> None:
    world = World()
    elector = candidate(world, "a")
    before = elector.held
    await elector.acquire()
    assert (before, elector.held) == (False, True)
    assert world.spec == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-01-01T00:01:40.000000Z",
        "renewTime": "2026-01-01T00:01:40.000000Z",
        "leaseTransitions": 0,
    }


@pytest.mark.parametrize("skew_seconds", [0.0, 3600.0, -3600.0])
async def test_a_standby_waits_a_full_duration_by_its_own_clock(skew_seconds: float) -> None:
    world = World()
    await candidate(world, "a").acquire()
    world.now += 12.0  # silence before the standby looks for the first time does not count
    started = world.now
    standby = candidate(world, "b", skew_seconds)
    await standby.acquire()
    assert 15.0 <= world.now - started <= 15.0 + 2.0
    assert (world.spec["holderIdentity"], world.spec["leaseTransitions"]) == ("b", 1)


async def test_a_renewing_leader_is_never_replaced() -> None:
    world = World()
    leader, standby = candidate(world, "a"), candidate(world, "b")
    await leader.acquire()
    holding = asyncio.create_task(leader.hold())
    waiting = asyncio.create_task(standby.acquire())
    while world.now < 300.0:
        await asyncio.sleep(0)
    assert leader.held
    assert not waiting.done()
    assert set(world.writes) == {"a"}
    for task in (holding, waiting):
        task.cancel()


async def test_a_leader_that_cannot_renew_stops_before_anyone_may_take_over() -> None:
    world = World()
    leader = candidate(world, "a")
    await leader.acquire()
    acquired = world.now
    world.down = True
    await leader.hold()
    assert not leader.held
    assert 10.0 <= world.now - acquired < 15.0


async def test_a_leader_that_slept_knows_at_once_and_does_not_write() -> None:
    world = World()
    leader = candidate(world, "a")
    await leader.acquire()
    world.now += 60.0
    assert not leader.held
    await candidate(world, "b").acquire()
    writes = len(world.writes)
    await leader.hold()
    assert len(world.writes) == writes


async def test_a_short_outage_is_survived() -> None:
    world = World()
    leader = candidate(world, "a")
    await leader.acquire()
    holding = asyncio.create_task(leader.hold())
    world.down, until = True, world.now + 6.0
    while world.now < until:
        await asyncio.sleep(0)
    world.down = False
    while world.now < until + 60.0:
        await asyncio.sleep(0)
    assert leader.held
    assert not holding.done()
    holding.cancel()


async def test_release_lets_the_next_one_in_at_once() -> None:
    world = World()
    leader = candidate(world, "a")
    await leader.acquire()
    await leader.release()
    assert not leader.held
    assert (world.spec["holderIdentity"], world.spec["leaseDurationSeconds"]) == ("", 1)
    before = world.now
    await candidate(world, "b").acquire()
    assert world.now == before


async def test_release_succeeds_beside_a_last_renewal_and_never_takes_anothers_lease() -> None:
    world = World()
    leader = candidate(world, "a")
    await leader.acquire()
    world._store({"metadata": {}, "spec": {**world.spec, "renewTime": "later"}})
    await leader.release()
    assert world.spec["holderIdentity"] == ""
    again = candidate(world, "a")
    await again.acquire()
    world._store({"metadata": {}, "spec": {**world.spec, "holderIdentity": "b"}})
    await again.release()
    assert world.spec["holderIdentity"] == "b"


async def test_release_of_a_lost_lease_writes_nothing() -> None:
    world = World()
    leader = candidate(world, "a")
    await leader.acquire()
    world.now += 11.0
    writes = len(world.writes)
    await leader.release()
    assert len(world.writes) == writes


async def test_of_two_who_try_at_once_one_wins() -> None:
    world = World()
    electors = [candidate(world, name) for name in "ab"]
    wins = [await elector._try() for elector in electors]
    assert wins == [True, False]
    assert isinstance(Conflict("x"), ApplyError)
