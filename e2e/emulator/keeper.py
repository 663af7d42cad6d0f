"""Keeps the fleet in step with the API server: four watches in, annotations out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import aiohttp

from e2e.emulator.engine import PlantClock
from e2e.emulator.fleet import Annotate, Fleet
from e2e.emulator.kube import KubeClient, WatchEvent

log = logging.getLogger(__name__)
TICK_SECONDS = 0.25
WATTZOO = "/apis/wattzoo.dev/v1alpha1"


async def keep_fleet(client: KubeClient, fleet: Fleet, clock: PlantClock) -> None:
    """Run until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(follow(client, "/api/v1/nodes", fleet.observe_nodes, clock))
        group.create_task(follow(client, f"{WATTZOO}/modelpools", fleet.observe_pools, clock))
        group.create_task(follow(client, f"{WATTZOO}/modelprofiles", fleet.observe_profiles, clock))
        group.create_task(follow(client, "/api/v1/pods", fleet.observe_pods, clock))
        group.create_task(annotate_due(client, fleet, clock))


async def follow(
    client: KubeClient, path: str, observe: Callable[[WatchEvent, float], None], clock: PlantClock
) -> None:
    """Feed one kind's changes to the fleet."""
    async for event in client.watch(path):
        observe(event, clock.now_seconds())


async def annotate_due(client: KubeClient, fleet: Fleet, clock: PlantClock) -> None:
    """Set what is due four times a second; a pod that could not be annotated comes up again by itself."""
    async with asyncio.TaskGroup() as group:
        while True:
            for wish in fleet.due(clock.now_seconds()):
                group.create_task(annotate(client, wish))
            await asyncio.sleep(TICK_SECONDS)


async def annotate(client: KubeClient, wish: Annotate) -> None:
    """Set one annotation; what the API server refuses is logged and asked for again later."""
    pod = wish.pod
    try:
        there = await client.annotate_pod(pod.namespace, pod.name, pod.uid, {wish.key: "true"})
        log.info("pod %s/%s: %s%s", pod.namespace, pod.name, wish.key, "" if there else " (it is gone)")
    except (aiohttp.ClientError, TimeoutError) as error:
        log.warning("pod %s/%s: %s not set: %s", pod.namespace, pod.name, wish.key, error)
