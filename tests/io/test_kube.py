"""The road to the API server: paging, failures and fresh credentials, against a loopback server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from wattzoo import kube
from wattzoo.apply.client import Client, as_apply_error
from wattzoo.errors import ApplyError, Conflict, Denied, OwnershipConflict, Rejected, Unreachable
from wattzoo.kube import RESOURCES, ApiFailure, Reader, Resource, Transport
from wattzoo.model import EventNote, Kind, Ref

Respond = Callable[[web.Request], web.Response]


class Api:
    """An API server that answers each request by `respond` and remembers it."""

    def __init__(self) -> None:
        self.respond: Respond = lambda _: web.json_response({"items": []})
        self.seen: list[tuple[str, str, Any, str | None]] = []

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        body = json.loads(text) if text else None
        self.seen.append((request.method, request.path_qs, body, request.headers.get("Authorization")))
        return self.respond(request)


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    api = Api()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", api.handle)
    server = TestServer(application)
    await server.start_server()
    path = tmp_path / "kubeconfig"
    write_kubeconfig(path, str(server.make_url("")).rstrip("/"), "first")
    monkeypatch.setenv("KUBECONFIG", str(path))
    yield api
    await server.close()


def write_kubeconfig(path: Path, url: str, token: str) -> None:
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [context],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": token}}],
    }
    path.write_text(json.dumps(config))


@pytest.fixture
async def transport(api: Api) -> AsyncIterator[Transport]:
    transport = Transport()
    yield transport
    await transport.close()


def status(code: int, message: str, *causes: str, **headers: str) -> web.Response:
    details = {"causes": [{"reason": cause} for cause in causes]}
    return web.json_response({"kind": "Status", "message": message, "details": details}, status=code, headers=headers)


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        (RESOURCES[Kind.POD].path(), "/api/v1/pods"),
        (RESOURCES[Kind.DEPLOYMENT].path("n", "a"), "/apis/apps/v1/namespaces/n/deployments/a"),
        (RESOURCES[Kind.NODE].path("ignored"), "/api/v1/nodes"),
        (Resource("x/v1", "ys").path("n", "a", "status"), "/apis/x/v1/namespaces/n/ys/a/status"),
    ],
)
def test_paths(resource: str, path: str) -> None:
    assert resource == path


async def test_a_list_is_read_in_pages_with_the_selector_on_the_server(api: Api, transport: Transport) -> None:
    def respond(request: web.Request) -> web.Response:
        more = "" if "continue" in request.query else "next"
        return web.json_response({"items": [{"metadata": {"name": f"p{more}"}}], "metadata": {"continue": more}})

    api.respond = respond
    pods = await Reader(transport).list(Kind.POD, "n", "a=b")
    assert [(pod["kind"], pod["metadata"]["name"]) for pod in pods] == [("Pod", "pnext"), ("Pod", "p")]
    assert [path for _, path, _, _ in api.seen] == [
        "/api/v1/namespaces/n/pods?limit=500&labelSelector=a%3Db",
        "/api/v1/namespaces/n/pods?limit=500&labelSelector=a%3Db&continue=next",
    ]
    assert api.seen[0][3] == "Bearer first"


async def test_an_expired_page_starts_the_list_again_once(api: Api, transport: Transport) -> None:
    expired = {"next"}

    def respond(request: web.Request) -> web.Response:
        token = request.query.get("continue", "")
        if token in expired:
            expired.discard(token)
            return status(410, "expired")
        return web.json_response({"items": [{"metadata": {}}], "metadata": {"continue": "" if token else "next"}})

    api.respond = respond
    assert len(await Reader(transport).list(Kind.POD)) == 2
    assert len(api.seen) == 4


async def test_an_absent_object_is_none_and_others_are_failures(api: Api, transport: Transport) -> None:
    api.respond = lambda _: status(404, "no")
    assert await Reader(transport).get(Kind.SERVICE, Ref("n", "a")) is None
    api.respond = lambda _: status(429, "slow down", **{"Retry-After": "7"})
    with pytest.raises(ApiFailure) as failure:
        await Reader(transport).get(Kind.SERVICE, Ref("n", "a"))
    assert (failure.value.status, failure.value.message, failure.value.retry_after_seconds) == (429, "slow down", 7.0)


async def test_after_a_401_the_credentials_are_loaded_again(
    api: Api, transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "RECONNECT_INTERVAL_SECONDS", 0.0)

    def respond(request: web.Request) -> web.Response:
        good = request.headers["Authorization"] == "Bearer second"
        return web.json_response({"items": []}) if good else status(401, "Unauthorized")

    api.respond = respond
    reader = Reader(transport)
    with pytest.raises(ApiFailure):
        await reader.list(Kind.POD)
    path = tmp_path / "kubeconfig"
    url = json.loads(path.read_text())["clusters"][0]["cluster"]["server"]
    write_kubeconfig(path, url, "second")
    assert await reader.list(Kind.POD) == []


async def test_a_server_that_is_away_is_a_failure_without_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = Transport()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(ApiFailure, match="credentials"):
        await transport.call("GET", "/api")
    write_kubeconfig(tmp_path / "missing", "http://127.0.0.1:1", "t")
    with pytest.raises(ApiFailure) as failure:
        await transport.call("GET", "/api")
    assert failure.value.status == 0
    await transport.close()


async def test_what_the_writing_calls_send(api: Api, transport: Transport) -> None:
    api.respond = lambda _: web.json_response({"metadata": {}})
    client, ref = Client(transport), Ref("n", "a")
    await client.apply(Kind.DEPLOYMENT, ref, {"spec": {}}, subresource="status", force=False)
    await client.delete(Kind.SERVICE, ref, "uid", "7")
    await client.update_lease(ref, {"spec": {}}, 1.0)
    apply, delete, lease = api.seen
    path = "/apis/apps/v1/namespaces/n/deployments/a/status"
    assert apply[:3] == ("PATCH", f"{path}?fieldManager=wattzoo&force=false&fieldValidation=Strict", {"spec": {}})
    preconditions = {"uid": "uid", "resourceVersion": "7"}
    assert delete[2] == {"preconditions": preconditions, "propagationPolicy": "Background"}
    assert lease[:2] == ("PUT", "/apis/coordination.k8s.io/v1/namespaces/n/leases/a")


async def test_an_event_is_short_and_belongs_to_its_object(api: Api, transport: Transport) -> None:
    api.respond = lambda _: web.json_response({"metadata": {}})
    from datetime import UTC, datetime  # noqa: PLC0415

    note = EventNote(Kind.ACCELERATOR_POOL, Ref("", "h100"), "u", "Short", "x" * 5000, warning=True)
    await Client(transport).create_event(note, "me", datetime(2026, 1, 1, tzinfo=UTC))
    ((method, path, body, _),) = api.seen
    assert (method, path) == ("POST", "/api/v1/namespaces/default/events")
    assert (body["type"], len(body["message"]), body["firstTimestamp"]) == ("Warning", 1024, "2026-01-01T00:00:00Z")
    assert "namespace" not in body["involvedObject"]


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (ApiFailure(409, "moved on"), Conflict),
        (ApiFailure(409, "owned", ["FieldManagerConflict"]), OwnershipConflict),
        (ApiFailure(404, "gone"), Conflict),
        (ApiFailure(403, "no"), Denied),
        (ApiFailure(422, "bad"), Rejected),
        (ApiFailure(500, "failed to create typed patch object: .spec.x: field not declared in schema"), Rejected),
        (ApiFailure(500, "etcd is away"), Unreachable),
        (ApiFailure(429, "slow down", (), 3.0), Unreachable),
        (ApiFailure(401, "who"), Unreachable),
        (ApiFailure(0, "no answer"), Unreachable),
    ],
)
def test_what_a_failed_write_means(failure: ApiFailure, error: type[ApplyError]) -> None:
    found = as_apply_error(failure)
    assert type(found) is error
    assert getattr(found, "retry_after_seconds", 0.0) == failure.retry_after_seconds


def test_writing_verbs_are_in_one_module_only() -> None:
    source = Path(kube.__file__).parent
    writers = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        for verb in ('"PATCH"', '"POST"', '"PUT"', '"DELETE"')
        if verb in path.read_text()
    }
    assert writers == {"apply/client.py", "observe/prometheus.py"}  # the latter posts queries to Prometheus
