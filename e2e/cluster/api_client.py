"""A minimal API-server client for starting the cluster: kubectl spends a second of processor time per call."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from e2e.cluster.certificates import ADMIN
from e2e.cluster.errors import ComponentError

HOST, PORT = "10.96.255.1", 6443
CONFLICT = 409
PLURALS = {"GatewayClass": "gatewayclasses", "EnvoyProxy": "envoyproxies", "NetworkPolicy": "networkpolicies"}
POLICY_PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


def collection_path(manifest: dict[str, Any]) -> str:
    """The URL path of an object's collection, e.g. /apis/apps/v1/namespaces/x/deployments."""
    api_version, kind = manifest["apiVersion"], manifest["kind"]
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    namespace = manifest["metadata"].get("namespace")
    plural = (PLURALS | POLICY_PLURALS).get(kind, kind.lower() + "s")
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


class ApiClient:
    """Requests as the administrator, one connection each, so that threads may share it."""

    def __init__(self, certificates_dir: Path) -> None:
        self.context = ssl.create_default_context(cafile=str(certificates_dir / "ca.crt"))
        base = certificates_dir / ADMIN.file
        self.context.load_cert_chain(f"{base}.crt", f"{base}.key")

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """(HTTP status, decoded JSON or text)."""
        connection = http.client.HTTPSConnection(HOST, PORT, context=self.context, timeout=20)
        try:
            headers = {"Content-Type": "application/json", "Accept": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        return response.status, json.loads(text) if text.startswith("{") else text

    def get(self, path: str) -> Any | None:
        """The object, or None when there is none or the server does not answer (yet)."""
        try:
            status, answer = self.request("GET", path)
        except (OSError, http.client.HTTPException):
            return None
        return answer if status == http.HTTPStatus.OK else None

    def create(self, manifest: dict[str, Any], timeout_seconds: float = 15.0) -> None:
        """Create an object; one that exists already is left alone. Retries while the server says to come back."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            status, answer = self.request("POST", collection_path(manifest), manifest)
            if status < http.HTTPStatus.MULTIPLE_CHOICES or status == CONFLICT:
                return
            transient = status in {http.HTTPStatus.NOT_FOUND, http.HTTPStatus.TOO_MANY_REQUESTS} or status >= 500
            if not transient or time.monotonic() > deadline:
                name = manifest["metadata"]["name"]
                raise ComponentError(f"the API server refused {manifest['kind']} {name}: {status} {answer}")
            time.sleep(0.1)

    def create_all(self, manifests: Iterable[dict[str, Any]], at_once: int = 4) -> None:
        """Create many objects, a few at a time."""
        with ThreadPoolExecutor(at_once) as pool:
            for _ in pool.map(self.create, manifests):
                pass
