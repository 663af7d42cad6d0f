"""The HTTPRoute of an LLMService: one rule, one backendRef per variant in stable order, integer weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wattzoo.labels import owner_reference, route_labels
from wattzoo.model import HEADER_MEMBER, Manifest, VariantKey

NO_TIMEOUT = "0s"
"""A gateway's default (Envoy: 15 s) cuts long answers in the middle; how long one may take is the client's to say."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One backendRef: the Service of a variant and its weight."""

    key: VariantKey
    service: str
    port: int
    weight: int


def render_backend(backend: Backend) -> Manifest:
    """A backendRef whose filter tells the client who answered.

    Envoy Gateway makes one cluster per backendRef only when it carries a filter of its own; requests per variant are
    counted by those clusters.
    """
    header = {"name": HEADER_MEMBER, "value": backend.key.member}
    return {
        "group": "",
        "kind": "Service",
        "name": backend.service,
        "port": backend.port,
        "weight": backend.weight,
        "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [header]}}],
    }


def render_http_route(
    service: Manifest, pool: str, parents: Sequence[Manifest], hostnames: Sequence[str], backends: Sequence[Backend]
) -> Manifest:
    """The whole route (its lists are atomic, so it has one owner); `backends` must keep their order for ever.

    A gateway's counters name backends by index: a change of order is a reset of all of them.
    """
    spec: Manifest = {
        "parentRefs": [dict(parent) for parent in parents],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "timeouts": {"request": NO_TIMEOUT},
                "backendRefs": [render_backend(backend) for backend in backends],
            }
        ],
    }
    if hostnames:
        spec["hostnames"] = list(hostnames)
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": service["metadata"]["name"],
            "namespace": service["metadata"]["namespace"],
            "labels": route_labels(service["metadata"]["name"], pool),
            "ownerReferences": [owner_reference(service)],
        },
        "spec": spec,
    }
