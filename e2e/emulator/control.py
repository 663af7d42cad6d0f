"""The emulator's own pages: statistics and faults for tests and reports, GPU metrics and lag for Prometheus."""

from __future__ import annotations

from aiohttp import web

from e2e.emulator.engine import PlantClock
from e2e.emulator.exporter import render_gpu_metrics
from e2e.emulator.faults import FaultError
from e2e.emulator.fleet import Fleet
from e2e.emulator.stats import RunStats

LAG_METRIC = "wattzoo_emulator_lag_seconds"


def make_exporter_app(fleet: Fleet, stats: RunStats, clock: PlantClock) -> web.Application:
    """Return the application of the GPU exporter's port; it also exposes this process's lag."""

    async def metrics(_request: web.Request) -> web.Response:
        lines = render_gpu_metrics(fleet.inventory, fleet.faults, clock.now_seconds())
        lines += [*stats.lag.render(LAG_METRIC), ""]
        return web.Response(text="\n".join(lines), content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics)])
    return app


def make_control_app(fleet: Fleet, stats: RunStats, clock: PlantClock) -> web.Application:
    """Return the application with GET /stats, GET /faults, POST /faults."""

    async def show_stats(_request: web.Request) -> web.Response:
        now = clock.now_seconds()
        pods = tuple(fleet.pods.values())
        nodes = fleet.inventory.nodes
        body = stats.to_dict(pods, now) | {
            "pods": {f"{pod.namespace}/{pod.name}": pod.role.variant for pod in pods if pod.engine and pod.role},
            "gpu_joules": {name: sum(gpu.energy_joules(now) for gpu in gpus) for name, gpus in nodes.items() if gpus},
            "problems": fleet.problems(),
            "faults": fleet.faults.to_dict(),
        }
        return web.json_response(body)

    async def show_faults(_request: web.Request) -> web.Response:
        return web.json_response(fleet.faults.to_dict())

    async def set_faults(request: web.Request) -> web.Response:
        try:
            return web.json_response(fleet.faults.apply(await request.json()))
        except (FaultError, ValueError, AttributeError) as error:
            raise web.HTTPBadRequest(text=str(error)) from error

    app = web.Application()
    app.add_routes([web.get("/stats", show_stats), web.get("/faults", show_faults), web.post("/faults", set_faults)])
    return app
