"""How each write ends, and what is sent when: against a client that records and answers what the test says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from wattzoo.apply.applier import MAX_DELAY_SECONDS, Applier
from wattzoo.errors import ApplyError, Conflict, Denied, OwnershipConflict, Rejected, Unreachable
from wattzoo.model import Change, Desired, Kind, Manifest, Ref, WriteState
from wattzoo.telemetry import Telemetry

REF = Ref("n", "a")
OWNER = [{"uid": "pool", "kind": "ModelPool", "name": "p"}]


@dataclass
class FakeClient:
    live: Manifest | None = None
    error: ApplyError | None = None
    answer: Manifest | None = None
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    async def get(self, kind: Kind, ref: Ref) -> Manifest | None:
        self.calls.append(("get", kind, ref))
        return self.live

    async def apply(self, kind: Kind, ref: Ref, body: Manifest, *, subresource: str = "", force: bool) -> Manifest:
        self.calls.append(("apply", body, subresource, force))
        if self.error is not None:
            raise self.error
        return self.answer or {**body, "metadata": {**body["metadata"], "resourceVersion": "8"}}

    async def delete(self, kind: Kind, ref: Ref, uid: str, resource_version: str) -> None:
        self.calls.append(("delete", uid, resource_version))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def wanted(replicas: int, observed: Manifest | None = None, **more: Any) -> Desired:
    body = {"metadata": {"ownerReferences": OWNER}, "spec": {"replicas": replicas, "paused": None}}
    return Desired(Kind.DEPLOYMENT, REF, body, observed, **more)


def live(replicas: int, version: str = "7", owners: object = OWNER) -> Manifest:
    metadata = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": version, "ownerReferences": owners}
    return {"metadata": metadata, "spec": {"replicas": replicas}}


def make(client: FakeClient, *, held: bool = True) -> tuple[Applier, Clock, list[Desired], Telemetry]:
    clock, conflicts, telemetry = Clock(), list[Desired](), Telemetry()
    applier = Applier(client, telemetry, may_write=lambda: held, clock=clock, on_conflict=conflicts.append)
    return applier, clock, conflicts, telemetry


async def test_nothing_is_sent_when_nothing_differs() -> None:
    client = FakeClient()
    applier, *_ = make(client)
    (result,) = await applier.apply([wanted(2, live(2))])
    assert (result.state, client.calls) == (WriteState.UNCHANGED, [])


async def test_a_write_carries_what_was_observed_and_takes_fields_of_our_own_objects() -> None:
    client = FakeClient()
    applier, _, _, telemetry = make(client)
    (result,) = await applier.apply([wanted(3, live(2))])
    ((_, body, subresource, force),) = client.calls
    assert body == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "a",
            "namespace": "n",
            "uid": "u",
            "resourceVersion": "7",
            "ownerReferences": OWNER,
        },
        "spec": {"replicas": 3},
    }
    assert (subresource, force, result.state) == ("", True, WriteState.WRITTEN)
    assert telemetry.registry.get_sample_value(
        "wattzoo_writes_total", {"kind": "Deployment", "subresource": "", "outcome": "Written"}
    )


async def test_a_new_object_is_looked_for_first_and_carries_no_version() -> None:
    client = FakeClient(live=None)
    applier, *_ = make(client)
    (result,) = await applier.apply([wanted(1)])
    assert [call[0] for call in client.calls] == ["get", "apply"]
    assert not {"uid", "resourceVersion"} & set(client.calls[1][1]["metadata"])
    assert result.state is WriteState.WRITTEN


async def test_a_stranger_of_the_same_name_is_left_alone() -> None:
    client = FakeClient(live=live(9, owners=[]))
    applier, *_ = make(client)
    (result,) = await applier.apply([wanted(1)])
    assert (result.state, [call[0] for call in client.calls]) == (WriteState.OWNERSHIP_CONFLICT, ["get"])


async def test_an_adopted_workload_is_scaled_without_force() -> None:
    client = FakeClient(error=OwnershipConflict("conflict with hpa"))
    applier, *_ = make(client)
    body = {"spec": {"replicas": 3}}
    (result,) = await applier.apply([Desired(Kind.DEPLOYMENT, REF, body, live(2, owners=[]), subresource="scale")])
    ((_, sent, subresource, force),) = client.calls
    assert (sent["kind"], sent["spec"], subresource, force) == ("Deployment", {"replicas": 3}, "", False)
    assert (result.state, result.message) == (WriteState.OWNERSHIP_CONFLICT, "conflict with hpa")


async def test_a_status_is_forced_and_an_object_that_is_gone_gets_none() -> None:
    client = FakeClient()
    applier, *_ = make(client)
    status = Desired(
        Kind.MODEL_POOL, REF, {"status": {"x": 1}}, {**live(0, owners=[]), "status": {}}, subresource="status"
    )
    gone = replace(status, observed=None)
    first, second = await applier.apply([status, gone])
    assert client.calls[0][2:] == ("status", True)
    assert (first.state, second.state) == (WriteState.WRITTEN, WriteState.CONFLICT)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Denied("no"), WriteState.DENIED),
        (Rejected("no"), WriteState.DENIED),
        (Unreachable("no"), WriteState.FAILED),
        (OwnershipConflict("no"), WriteState.OWNERSHIP_CONFLICT),
    ],
)
async def test_a_failure_is_not_repeated_before_its_delay(error: ApplyError, state: WriteState) -> None:
    client = FakeClient(error=error)
    applier, clock, *_ = make(client)
    states = []
    for now in (0.0, 0.9, 1.1, 2.9, 3.2):
        clock.now = now
        states += [result.state for result in await applier.apply([wanted(3, live(2))])]
    assert states == [state] * 5
    assert len(client.calls) == 3  # at 0, after 1 s, after 2 s more


async def test_delays_grow_to_a_minute_and_honour_the_server() -> None:
    error = Unreachable("busy")
    error.retry_after_seconds = 30.0
    client = FakeClient(error=error)
    applier, clock, *_ = make(client)
    await applier.apply([wanted(3, live(2))])
    clock.now = 29.0
    await applier.apply([wanted(3, live(2))])
    assert len(client.calls) == 1
    for _ in range(20):
        clock.now += MAX_DELAY_SECONDS
        await applier.apply([wanted(3, live(2))])
    assert len(client.calls) == 21


async def test_a_refused_body_does_not_hold_up_another_one() -> None:
    client = FakeClient(error=Denied("no"))
    applier, *_ = make(client)
    await applier.apply([wanted(3, live(2)), wanted(4, live(2))])
    assert len(client.calls) == 2


async def test_a_conflict_is_told_and_tried_again_at_once() -> None:
    client = FakeClient(error=Conflict("moved on"))
    applier, _, conflicts, _ = make(client)
    first = wanted(3, live(2))
    (result,) = await applier.apply([first])
    client.error = None
    (again,) = await applier.apply([wanted(3, live(2, version="9"))])
    assert (result.state, conflicts, again.state) == (WriteState.CONFLICT, [first], WriteState.WRITTEN)


async def test_an_apply_that_changed_nothing_is_not_sent_twice_until_the_object_changes() -> None:
    client = FakeClient(answer=live(2))
    applier, *_ = make(client)
    observed = live(2)
    observed["spec"]["list"] = [{"a": 1, "unknownDefault": True}]
    item = wanted(2, observed)
    item.body["spec"]["list"] = [{"a": 1}]
    states = [(await applier.apply([item]))[0].state for _ in range(3)]
    assert states == [WriteState.UNCHANGED] * 3
    assert len(client.calls) == 1
    observed["spec"]["list"][0]["a"] = 2
    await applier.apply([item])
    assert len(client.calls) == 2


async def test_deletion_is_of_the_observed_object_only() -> None:
    client = FakeClient()
    applier, *_ = make(client)
    terminating = live(1)
    terminating["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    items = [wanted(0, seen, change=Change.DELETE) for seen in (None, terminating, live(1))]
    results = await applier.apply(items)
    assert [result.state for result in results] == [WriteState.UNCHANGED, WriteState.UNCHANGED, WriteState.WRITTEN]
    assert client.calls == [("delete", "u", "7")]


async def test_without_the_lease_nothing_is_sent() -> None:
    client = FakeClient()
    applier, *_ = make(client, held=False)
    (result,) = await applier.apply([wanted(3, live(2))])
    assert (result.state, client.calls) == (WriteState.FAILED, [])
