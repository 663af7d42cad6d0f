"""The three calls that the emulator makes to the API server: list, watch and annotate a pod.

Plain aiohttp: the emulator reads a handful of kinds as raw dicts and needs no client library for that.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

log = logging.getLogger(__name__)
RETRY_SECONDS = 1.0
WATCH_SECONDS = 300

KubeObject = dict[str, Any]


class WatchKind(StrEnum):
    """SYNC carries a whole list and replaces what was known; the others carry one object."""

    SYNC = "SYNC"
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change of a kind, or its whole list."""

    kind: WatchKind
    objects: tuple[KubeObject, ...]


class ExpiredError(Exception):
    """The watch's resource version is too old (410): list again."""


def make_ssl_context(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    """Return the server's URL and a client context of the current context's certificates (files or inline data)."""
    config = yaml.safe_load(kubeconfig.read_text("utf-8"))
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]
    with tempfile.TemporaryDirectory() as folder:
        authority = _file(cluster, "certificate-authority", kubeconfig, Path(folder))
        certificate = _file(user, "client-certificate", kubeconfig, Path(folder))
        key = _file(user, "client-key", kubeconfig, Path(folder))
        ssl_context = ssl.create_default_context(cafile=str(authority))
        ssl_context.load_cert_chain(certificate, key)
    return str(cluster["server"]).rstrip("/"), ssl_context


def _named(entries: list[KubeObject], name: str) -> KubeObject:
    return next(entry for entry in entries if entry["name"] == name)


def _file(entry: KubeObject, name: str, kubeconfig: Path, folder: Path) -> Path:
    """Return the file of a kubeconfig entry; inline data is written into `folder`."""
    if name in entry:
        return kubeconfig.parent / str(entry[name])
    path = folder / name
    path.touch(mode=0o600)
    path.write_bytes(base64.b64decode(entry[f"{name}-data"]))
    return path


class KubeClient:
    """Lists, watches and annotates with the certificates of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self.server, self._ssl = make_ssl_context(kubeconfig)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._ssl, limit=0))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """Return the open session; entering the client opens it."""
        if self._session is None:
            raise RuntimeError("KubeClient is used as a context manager")
        return self._session

    async def watch(self, path: str) -> AsyncIterator[WatchEvent]:
        """Yield the list of `path`, then its changes, for ever; after an outage or an expired watch the list again."""
        while True:
            try:
                listed = await self._get(path)
                yield WatchEvent(WatchKind.SYNC, tuple(listed["items"]))
                version = listed["metadata"]["resourceVersion"]
                while True:
                    async for event in self._changes(path, version):
                        version = event.objects[0]["metadata"]["resourceVersion"]
                        yield event
            except (aiohttp.ClientError, TimeoutError, ExpiredError, json.JSONDecodeError) as error:
                log.info("watch of %s starts anew: %s", path, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def annotate_pod(self, namespace: str, name: str, uid: str, annotations: Mapping[str, str]) -> bool:
        """Set annotations on exactly this pod; False when it is gone or another of its name took its place."""
        body = {"metadata": {"uid": uid, "annotations": dict(annotations)}}
        url = f"{self.server}/api/v1/namespaces/{namespace}/pods/{name}"
        headers = {"Content-Type": "application/merge-patch+json"}
        timeout = aiohttp.ClientTimeout(total=10)
        async with self.session.patch(url, data=json.dumps(body), headers=headers, timeout=timeout) as response:
            if response.status in {404, 409}:
                return False
            response.raise_for_status()
            return True

    async def _get(self, path: str) -> KubeObject:
        async with self.session.get(self.server + path, timeout=aiohttp.ClientTimeout(total=30)) as response:
            response.raise_for_status()
            listed: KubeObject = await response.json()
            return listed

    async def _changes(self, path: str, version: str) -> AsyncIterator[WatchEvent]:
        """Yield the changes of one watch request, which the server ends after some minutes."""
        query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(WATCH_SECONDS)}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with self.session.get(self.server + path, params=query, timeout=timeout, read_bufsize=2**22) as response:
            if response.status == 410:
                raise ExpiredError
            response.raise_for_status()
            async for line in response.content:
                change = json.loads(line)
                if change["type"] == "ERROR":
                    raise ExpiredError(change["object"].get("message", ""))
                yield WatchEvent(WatchKind(change["type"]), (change["object"],))
