"""Instant queries to Prometheus through prometheus-api-client, on a session that bounds what a question may cost.

The library brings neither a time limit nor a size limit, retries for seconds, reads a token once and drops warnings.
The session handed to it does better: one deadline for the whole answer, a cap on the decoded body, no redirects and no
proxies from the environment, the token file read for each request, and warnings kept.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import requests
from prometheus_api_client import PrometheusConnect
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from wattzoo.errors import MetricsUnreachable, QueryRejected
from wattzoo.settings import PrometheusSettings

CHUNK_BYTES = 64 * 1024
MAX_ERROR_TEXT = 300
OK, BAD_REQUEST, UNPROCESSABLE = 200, 400, 422
POOL_SIZE = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """What an instant query returned: the raw result (a list, or `[time, value]` of a scalar) and the warnings."""

    result: Sequence[Any]
    warnings: tuple[str, ...]


class PrometheusReader:
    """Asks one Prometheus; synchronous and thread-safe, so that the observer asks from threads."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._timeout_seconds = settings.timeout_seconds
        self._session = BoundedSession(settings)
        url = settings.url.rstrip("/")
        self._connection = PrometheusConnect(url=url, session=self._session, method="POST")
        self._session.mount(url, HTTPAdapter(pool_maxsize=POOL_SIZE, max_retries=0))

    def query(self, promql: str, at_seconds: float | None = None) -> Answer:
        """Evaluate at a time of Prometheus' clock (now when None); raises MetricsUnreachable or QueryRejected."""
        params = {"timeout": f"{self._timeout_seconds:g}s"}
        if at_seconds is not None:
            params["time"] = f"{at_seconds:.3f}"
        try:
            result = self._connection.custom_query(promql, params=params)
        except requests.RequestException as error:
            raise MetricsUnreachable(f"{type(error).__name__}: {error}"[:MAX_ERROR_TEXT]) from error
        return Answer(result, self._session.take_warnings())

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()


class BoundedSession(requests.Session):
    """A session whose every answer is complete within a deadline and a size, or an error."""

    def __init__(self, settings: PrometheusSettings) -> None:
        super().__init__()
        self.trust_env = False
        self.verify = str(settings.ca_file) if settings.ca_file is not None else True
        self._settings = settings
        self._local = threading.local()

    def request(self, method: str | bytes, url: str | bytes, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """Send a query in the body and read the whole answer; raises our errors and requests' own."""
        deadline = time.monotonic() + self._settings.timeout_seconds
        headers = {**(kwargs.get("headers") or {}), **self._authorization()}
        response = super().request(
            method,
            url,
            data=kwargs.get("params"),
            headers=headers,
            verify=self.verify,
            timeout=self._settings.timeout_seconds,
            allow_redirects=False,
            stream=True,
        )
        with response:
            body = self._read(response, deadline)
        payload = _decode(response.status_code, body)
        self._local.warnings = tuple(str(text)[:MAX_ERROR_TEXT] for text in payload.get("warnings") or ())
        return _Decoded(response, payload)

    def take_warnings(self) -> tuple[str, ...]:
        """The warnings of this thread's last answer."""
        warnings = cast("tuple[str, ...]", getattr(self._local, "warnings", ()))
        self._local.warnings = ()
        return warnings

    def _authorization(self) -> dict[str, str]:
        """The token as the file holds it now: it is rotated under a running process."""
        if self._settings.token_file is None:
            return {}
        try:
            token = self._settings.token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise MetricsUnreachable(f"token file: {error}") from error
        return {"Authorization": f"Bearer {token}"}

    def _read(self, response: requests.Response, deadline: float) -> bytes:
        """The decoded body. `read1` returns what has come; `iter_content` would wait for a full chunk."""
        body = bytearray()
        while chunk := _read_some(response):
            body += chunk
            if len(body) > self._settings.max_body_bytes:
                raise QueryRejected(f"the answer is larger than {self._settings.max_body_bytes} bytes")
            if time.monotonic() > deadline:
                raise MetricsUnreachable(f"the answer took longer than {self._settings.timeout_seconds:g} s")
        return bytes(body)


def _read_some(response: requests.Response) -> bytes:
    try:
        return cast("bytes", response.raw.read1(CHUNK_BYTES, decode_content=True))
    except (HTTPError, OSError) as error:
        raise MetricsUnreachable(f"{type(error).__name__}: {error}"[:MAX_ERROR_TEXT]) from error


class _Decoded(requests.Response):
    """A response whose body was read and decoded once."""

    def __init__(self, response: requests.Response, payload: Mapping[str, Any]) -> None:
        super().__init__()
        self.__dict__.update(response.__dict__)
        self._payload = payload

    def json(self, **_: Any) -> Any:
        return self._payload


def _decode(status: int, body: bytes) -> Mapping[str, Any]:
    """The decoded answer of a successful query; raises MetricsUnreachable or QueryRejected with Prometheus' words."""
    payload: Any = None
    try:
        payload = json.loads(body)
    except ValueError:
        payload = None
    if status == OK and isinstance(payload, dict) and isinstance(payload.get("data"), dict):
        return payload
    text = payload.get("error") if isinstance(payload, dict) else body[:MAX_ERROR_TEXT].decode("utf-8", "replace")
    message = f"HTTP {status}: {str(text)[:MAX_ERROR_TEXT]}"
    if status in {BAD_REQUEST, UNPROCESSABLE}:
        raise QueryRejected(message)
    raise MetricsUnreachable(message)
