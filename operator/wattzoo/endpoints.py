"""What Kubernetes and Prometheus ask this process: is it alive, is it useful, what does it count."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from wattzoo.settings import Address
from wattzoo.telemetry import Telemetry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Check = Callable[[], str]
"""Says what is wrong, or an empty text."""


class Endpoints:
    """The health and the metrics server of one process."""

    def __init__(self, telemetry: Telemetry, health: Address, metrics: Address, *, live: Check, ready: Check) -> None:
        self._telemetry = telemetry
        self._addresses = (health, metrics)
        self._live = live
        self._ready = ready
        self._runners: list[web.AppRunner] = []

    async def start(self) -> None:
        """Listen; raises OSError when an address is taken."""
        health, metrics = self._addresses
        probes = web.Application()
        probes.router.add_get("/livez", _probe(self._live))
        probes.router.add_get("/readyz", _probe(self._ready))
        exposition = web.Application()
        exposition.router.add_get("/metrics", self._render)
        for application, address in ((probes, health), (exposition, metrics)):
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            self._runners.append(runner)
            await web.TCPSite(runner, address.host, address.port).start()

    async def stop(self) -> None:
        """Stop listening."""
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def _render(self, _: web.Request) -> web.Response:
        return web.Response(body=self._telemetry.render(), headers={"Content-Type": CONTENT_TYPE})


def _probe(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        problem = check()
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

    return answer
