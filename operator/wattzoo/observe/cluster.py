"""What the API server holds of everything that the passes read, by paged lists with server-side selectors.

A list that fails makes its kind unreadable, with the reason: its mapping is then empty and means unknown, so whoever
decides holds. Adopted Deployments and foreign Services carry no label of ours and are read by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wattzoo.kube import ApiFailure
from wattzoo.model import FIELD_MANAGER, LABEL_MANAGED_BY, LABEL_MODEL_POOL, ClusterSnapshot, Kind, Manifest, Ref
from wattzoo.telemetry import Telemetry

MANAGED_SELECTOR = f"{LABEL_MANAGED_BY}={FIELD_MANAGER}"
POD_SELECTOR = LABEL_MODEL_POOL
MAX_PARALLEL_READS = 8
OWN_KINDS = (Kind.ACCELERATOR_POOL, Kind.MODEL_POOL, Kind.MODEL_PROFILE, Kind.LLM_SERVICE)
MANAGED_KINDS = (Kind.DEPLOYMENT, Kind.SERVICE, Kind.POD_DISRUPTION_BUDGET, Kind.HTTP_ROUTE)


class ClusterSource(Protocol):
    """The part of `Reader` that is used here."""

    async def get(self, kind: Kind, ref: Ref) -> Manifest | None:
        """One object or None."""

    async def list(self, kind: Kind, namespace: str = "", selector: str = "") -> Sequence[Manifest]:
        """All objects of a kind."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """What came back for one kind: its objects, or why there are none."""

    items: Sequence[Manifest]
    problem: str = ""


class ClusterReader:
    """Reads snapshots of the namespaces that are served; no namespaces means all."""

    def __init__(self, source: ClusterSource, telemetry: Telemetry, namespaces: Sequence[str] = ()) -> None:
        self._source = source
        self._telemetry = telemetry
        self._namespaces = tuple(namespaces) or ("",)
        self._slots = asyncio.Semaphore(MAX_PARALLEL_READS)

    async def observe(self) -> ClusterSnapshot:
        """Read everything once; never raises for what the API server says."""
        own = await self._list_kinds(OWN_KINDS, "")
        managed, pods, nodes, adopted = await asyncio.gather(
            self._list_kinds(MANAGED_KINDS, MANAGED_SELECTOR),
            self._list(Kind.POD, POD_SELECTOR),
            self._list_nodes(own[Kind.ACCELERATOR_POOL].items),
            self._read_referenced(own[Kind.MODEL_POOL].items),
        )
        listings = {**own, **managed, Kind.POD: pods, Kind.NODE: nodes}
        for kind, listing in adopted.items():
            listings[kind] = _joined((listings[kind], listing))
        problems = {kind: listing.problem for kind, listing in listings.items() if listing.problem}
        for kind in problems:
            self._telemetry.unreadable.labels(str(kind)).inc()
        by_ref = {k: {} if k in problems else {_ref(o): o for o in v.items} for k, v in listings.items()}
        return ClusterSnapshot(
            accelerator_pools={ref.name: pool for ref, pool in by_ref[Kind.ACCELERATOR_POOL].items()},
            model_pools=by_ref[Kind.MODEL_POOL],
            profiles=by_ref[Kind.MODEL_PROFILE],
            llm_services=by_ref[Kind.LLM_SERVICE],
            deployments=by_ref[Kind.DEPLOYMENT],
            services=by_ref[Kind.SERVICE],
            disruption_budgets=by_ref[Kind.POD_DISRUPTION_BUDGET],
            routes=by_ref[Kind.HTTP_ROUTE],
            pods=tuple(by_ref[Kind.POD].values()),
            nodes=tuple(by_ref[Kind.NODE].values()),
            unreadable=problems,
        )

    async def _list_kinds(self, kinds: Sequence[Kind], selector: str) -> Mapping[Kind, _Listing]:
        listings = await asyncio.gather(*(self._list(kind, selector) for kind in kinds))
        return dict(zip(kinds, listings, strict=True))

    async def _list(self, kind: Kind, selector: str) -> _Listing:
        namespaces = ("",) if kind in {Kind.ACCELERATOR_POOL, Kind.NODE} else self._namespaces
        return _joined(await asyncio.gather(*(self._list_one(kind, ns, selector) for ns in namespaces)))

    async def _list_one(self, kind: Kind, namespace: str, selector: str) -> _Listing:
        return await self._read(self._source.list(kind, namespace, selector))

    async def _list_nodes(self, pools: Sequence[Manifest]) -> _Listing:
        """Nodes of every accelerator pool, by its selector; a pool without one selects no nodes."""
        selectors = {equality_selector((pool.get("spec") or {}).get("nodeSelector") or {}) for pool in pools} - {""}
        return _joined(await asyncio.gather(*(self._list_one(Kind.NODE, "", text) for text in sorted(selectors))))

    async def _read_referenced(self, pools: Sequence[Manifest]) -> Mapping[Kind, _Listing]:
        """Adopted Deployments with their pods, and Services that pools only send traffic to."""
        references = sorted({found for pool in pools for found in referenced(pool)})
        names = {kind: [ref for k, ref in references if k is kind] for kind in (Kind.DEPLOYMENT, Kind.SERVICE)}
        deployments, services = await asyncio.gather(
            *(self._get_all(kind, refs) for kind, refs in names.items()),
        )
        selected = [
            self._list_one(Kind.POD, _ref(deployment).namespace, text)
            for deployment in deployments.items
            if (text := render_selector((deployment.get("spec") or {}).get("selector") or {}))
        ]
        pods = _joined(await asyncio.gather(*selected))
        return {Kind.DEPLOYMENT: deployments, Kind.SERVICE: services, Kind.POD: pods}

    async def _get_all(self, kind: Kind, refs: Sequence[Ref]) -> _Listing:
        return _joined(await asyncio.gather(*(self._read(self._get_one(kind, ref)) for ref in refs)))

    async def _get_one(self, kind: Kind, ref: Ref) -> Sequence[Manifest]:
        found = await self._source.get(kind, ref)
        return [] if found is None else [found]

    async def _read(self, reading: Awaitable[Sequence[Manifest]]) -> _Listing:
        async with self._slots:
            try:
                return _Listing(await reading)
            except ApiFailure as failure:
                return _Listing((), failure.message)


def referenced(pool: Manifest) -> Iterator[tuple[Kind, Ref]]:
    """The Deployments and Services that a ModelPool names; tolerates an object of any shape."""
    namespace = str((pool.get("metadata") or {}).get("namespace") or "")
    for member in _dicts((pool.get("spec") or {}).get("members")):
        for variant in _dicts(member.get("variants")):
            for field, kind in (("workloadRef", Kind.DEPLOYMENT), ("serviceRef", Kind.SERVICE)):
                name = (variant.get(field) or {}).get("name")
                if isinstance(name, str) and name:
                    yield kind, Ref(namespace, name)


def equality_selector(labels: Mapping[str, str]) -> str:
    """`a=b,c=d`, sorted."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def render_selector(selector: Mapping[str, Any]) -> str:
    """A Deployment's selector as the API's `labelSelector` parameter; empty when it selects everything or nothing."""
    terms = [equality_selector(selector.get("matchLabels") or {})]
    for rule in _dicts(selector.get("matchExpressions")):
        key, values = rule.get("key"), ",".join(rule.get("values") or ())
        by_operator = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": f"{key}"}
        terms.append(by_operator.get(str(rule.get("operator")), f"!{key}"))
    return ",".join(term for term in terms if term)


def _joined(listings: Iterable[_Listing]) -> _Listing:
    """All objects of several listings, or the first problem: half a list is no list."""
    parts = list(listings)
    problem = next((part.problem for part in parts if part.problem), "")
    return _Listing((), problem) if problem else _Listing([item for part in parts for item in part.items])


def _dicts(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _ref(obj: Manifest) -> Ref:
    metadata = obj["metadata"]
    return Ref(metadata.get("namespace") or "", metadata["name"])
