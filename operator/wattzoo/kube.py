"""The one road to the API server: raw JSON through `kubernetes.aio`, for who reads (observe) and who writes (apply).

Objects stay plain dicts: typed decoding costs twelve times as much and loses fields that a newer server sends. This
module knows paths, credentials and failures; it decides nothing and calls no writing verb itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from wattzoo.model import Kind, Manifest, Ref

KUBECONFIG_VARIABLE = "KUBECONFIG"
REQUEST_TIMEOUT_SECONDS = 10.0
PAGE_SIZE = 500
RECONNECT_INTERVAL_SECONDS = 5.0
NO_ANSWER = 0
"""Status of a call that got no answer: connection refused, reset or timed out."""
UNAUTHORIZED, NOT_FOUND, GONE = 401, 404, 410


@dataclass(frozen=True, slots=True)
class Resource:
    """Where a kind lives in the API."""

    api_version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of a collection (`name` empty) or of one object."""
        root = "/apis/" if "/" in self.api_version else "/api/"
        parts = [root + self.api_version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


RESOURCES: Mapping[Kind, Resource] = {
    Kind.ACCELERATOR_POOL: Resource("wattzoo.dev/v1alpha1", "acceleratorpools", namespaced=False),
    Kind.MODEL_POOL: Resource("wattzoo.dev/v1alpha1", "modelpools"),
    Kind.MODEL_PROFILE: Resource("wattzoo.dev/v1alpha1", "modelprofiles"),
    Kind.LLM_SERVICE: Resource("wattzoo.dev/v1alpha1", "llmservices"),
    Kind.DEPLOYMENT: Resource("apps/v1", "deployments"),
    Kind.SERVICE: Resource("v1", "services"),
    Kind.POD_DISRUPTION_BUDGET: Resource("policy/v1", "poddisruptionbudgets"),
    Kind.HTTP_ROUTE: Resource("gateway.networking.k8s.io/v1", "httproutes"),
    Kind.POD: Resource("v1", "pods"),
    Kind.NODE: Resource("v1", "nodes", namespaced=False),
}


class ApiFailure(Exception):  # noqa: N818 - what the API server said, not yet an error of ours
    """A call that did not succeed. `status` 0 means that there was no answer."""

    def __init__(self, status: int, message: str, causes: Sequence[str] = (), retry_after_seconds: float = 0.0) -> None:
        """`causes` are the reasons in `details.causes` of the server's Status."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.causes = tuple(causes)
        self.retry_after_seconds = retry_after_seconds


class Transport:
    """A connection to one API server that survives rotated tokens and authorities.

    In a pod the token file is read again each minute. Beyond that, a 401 or a failed TLS handshake makes the next call
    load the credentials anew, at most every few seconds.
    """

    def __init__(self) -> None:
        self._client: ApiClient | None = None
        self._loaded_at_seconds = -RECONNECT_INTERVAL_SECONDS
        self._stale = False
        self._lock = asyncio.Lock()

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Manifest | None = None,
        content_type: str = "application/json",
        timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
    ) -> Manifest:
        """Do one request and return the decoded answer; raises ApiFailure for everything else."""
        client = await self._connected()
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            answer, _, _ = await client.call_api(
                path,
                method,
                query_params=list(query),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                response_types_map={200: "object", 201: "object", 202: "object"},
                _request_timeout=timeout_seconds,
            )
        except ApiException as error:
            self._stale = self._stale or error.status == UNAUTHORIZED
            raise _as_failure(error) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._stale = self._stale or isinstance(error, aiohttp.ClientSSLError | ssl.SSLError)
            raise ApiFailure(NO_ANSWER, f"{method} {path}: {type(error).__name__}: {error}") from error
        except ConfigException as error:
            raise ApiFailure(NO_ANSWER, f"credentials: {error}") from error
        if not isinstance(answer, dict):
            raise ApiFailure(NO_ANSWER, f"{method} {path}: the answer is not an object")
        return answer

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _connected(self) -> ApiClient:
        async with self._lock:
            now = time.monotonic()
            if self._client is not None and (
                not self._stale or now - self._loaded_at_seconds < RECONNECT_INTERVAL_SECONDS
            ):
                return self._client
            fresh = ApiClient(await load_configuration())
            if self._client is not None:
                await self._client.close()
            self._client, self._stale, self._loaded_at_seconds = fresh, False, now
            return fresh


async def load_configuration() -> Configuration:
    """Credentials from KUBECONFIG when that is set, else the pod's service account; raises ApiFailure."""
    configuration = Configuration()
    try:
        if os.environ.get(KUBECONFIG_VARIABLE):
            await load_kube_config(config_file=os.environ[KUBECONFIG_VARIABLE], client_configuration=configuration)
        else:
            load_incluster_config(client_configuration=configuration)
    except (ConfigException, OSError) as error:
        raise ApiFailure(NO_ANSWER, f"credentials: {error}") from error
    return configuration


class Reader:
    """Reads of the cluster: single objects, and lists in pages."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(self, kind: Kind, ref: Ref) -> Manifest | None:
        """One object, or None when there is none; raises ApiFailure."""
        try:
            return await self._transport.call("GET", RESOURCES[kind].path(ref.namespace, ref.name))
        except ApiFailure as failure:
            if failure.status == NOT_FOUND:
                return None
            raise

    async def list(self, kind: Kind, namespace: str = "", selector: str = "") -> Sequence[Manifest]:
        """All objects of a kind, in every namespace when `namespace` is empty; raises ApiFailure.

        When a page's token expires the list starts once more, so that a result is never half of one moment.
        """
        for attempt in (1, 2):
            try:
                return [item async for item in self._pages(kind, namespace, selector)]
            except ApiFailure as failure:
                if failure.status != GONE or attempt == 2:
                    raise
        raise AssertionError("unreachable")

    async def _pages(self, kind: Kind, namespace: str, selector: str) -> AsyncIterator[Manifest]:
        resource, token = RESOURCES[kind], ""
        while True:
            query = [("limit", str(PAGE_SIZE))]
            query += [("labelSelector", selector)] if selector else []
            query += [("continue", token)] if token else []
            page = await self._transport.call("GET", resource.path(namespace), query=query)
            for item in page.get("items") or ():
                yield {"apiVersion": resource.api_version, "kind": str(kind), **item}
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return


def _as_failure(error: ApiException) -> ApiFailure:
    """What the server's Status object says, with the HTTP reason as a fallback."""
    body: Any = None
    try:
        body = json.loads(error.body) if error.body else None
    except ValueError:
        body = None
    status = body if isinstance(body, dict) else {}
    causes = [str(cause.get("reason", "")) for cause in (status.get("details") or {}).get("causes") or ()]
    retry_after = str((error.headers or {}).get("Retry-After", ""))
    return ApiFailure(
        int(error.status or NO_ANSWER),
        str(status.get("message") or error.reason or error.body or "no reason given")[:1000],
        causes,
        float(retry_after) if retry_after.isdigit() else 0.0,
    )
