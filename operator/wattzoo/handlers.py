"""Watches, and nothing else: an event marks an object dirty and the loop does the rest.

Only `kopf.on.event` is used: kopf's change handlers, timers and daemons write annotations and finalizers into users'
objects. kopf runs in a thread with an event loop of its own, because on its way out it cancels every task that it did
not find when it started.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import kopf

from wattzoo.kube import KUBECONFIG_VARIABLE, RESOURCES
from wattzoo.model import LABEL_MODEL_POOL, Kind, Ref
from wattzoo.observe.cluster import OWN_KINDS, POD_SELECTOR

Mark = Callable[[Kind, Ref], None]

logger = logging.getLogger(__name__)


class Watcher:
    """kopf in a thread, watching our kinds everywhere served and our pods by a server-side label selector."""

    def __init__(self, mark: Mark, namespaces: Sequence[str], on_end: Callable[[], None]) -> None:
        """`mark` and `on_end` are called from the thread; `on_end` when kopf ends, wanted or not."""
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(mark, tuple(namespaces), on_end), name="kopf", daemon=True
        )

    def start(self) -> None:
        """Start watching; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Ask kopf to end; returns at once."""
        self._stop.set()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the end; says whether it came."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self, mark: Mark, namespaces: tuple[str, ...], on_end: Callable[[], None]) -> None:
        try:
            asyncio.run(
                kopf.operator(
                    registry=make_registry(mark),
                    settings=make_settings(),
                    clusterwide=not namespaces,
                    namespaces=namespaces,
                    standalone=True,
                    stop_flag=self._stop,
                    ready_flag=self._ready,
                )
            )
        except Exception:
            logger.exception("watching ended")
        finally:
            on_end()


def make_settings() -> kopf.OperatorSettings:
    """Settings without anything that writes or that needs rights beyond list and watch on what is watched."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.watching.label_selectors["pods"] = POD_SELECTOR
    return settings


def make_registry(mark: Mark) -> kopf.OperatorRegistry:
    """Event handlers for our four kinds and for our pods."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_login)
    for kind in OWN_KINDS:
        group, version = RESOURCES[kind].api_version.split("/")
        handler = make_handler(kind, mark)
        kopf.on.event(group, version, RESOURCES[kind].plural, id=f"mark-{kind.lower()}", registry=registry)(handler)
    kopf.on.event("", "v1", "pods", id="mark-pod", registry=registry)(make_handler(Kind.POD, mark))
    return registry


def make_handler(kind: Kind, mark: Mark) -> Callable[..., None]:
    """A handler that marks what an event is about, unless nothing changed that a pass would look at.

    Without that filter our own status writes would wake us: a pass for every checkpoint, and for ever.
    """
    seen: dict[str, str] = {}

    def on_event(event: Any, **_: Any) -> None:
        obj = event["object"]
        metadata = obj.get("metadata") or {}
        uid, content = str(metadata.get("uid")), fingerprint(kind, obj)
        if event["type"] == "DELETED":
            seen.pop(uid, None)
        elif seen.get(uid) == content:
            return
        else:
            seen[uid] = content
        namespace, name = str(metadata.get("namespace") or ""), str(metadata.get("name"))
        if kind is Kind.POD:
            pool = (metadata.get("labels") or {}).get(LABEL_MODEL_POOL)
            if pool:
                mark(Kind.MODEL_POOL, Ref(namespace, pool))
        else:
            mark(kind, Ref(namespace, name))

    return on_event


def fingerprint(kind: Kind, obj: Any) -> str:
    """What of an object can change the outcome of a pass: not its status, except a pod's."""
    metadata = obj.get("metadata") or {}
    facts: dict[str, Any] = {key: metadata.get(key) for key in ("generation", "deletionTimestamp", "labels")}
    if kind is Kind.POD:
        status = obj.get("status") or {}
        facts["phase"] = status.get("phase")
        facts["conditions"] = [
            [c.get("type"), c.get("status"), c.get("reason")] for c in status.get("conditions") or ()
        ]
        facts["node"] = (obj.get("spec") or {}).get("nodeName")
    else:
        facts["annotations"] = metadata.get("annotations")
    return json.dumps(facts, sort_keys=True, default=str)


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """The same credentials as for our own calls: KUBECONFIG when it is set, else the pod's service account."""
    if os.environ.get(KUBECONFIG_VARIABLE):
        return kopf.login_with_kubeconfig(**kwargs)
    found = kopf.login_with_service_account(**kwargs)
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if found is None or not host or not port:
        return found
    # By address like our other calls, not by name: watching then does not depend on the cluster's DNS.
    return dataclasses.replace(found, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")
