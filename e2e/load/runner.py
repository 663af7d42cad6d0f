"""Runs a schedule against the gateway in real time, with its metrics and controls on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from prometheus_client import generate_latest

from e2e.load.client import GatewayClient
from e2e.load.recorder import Recorder
from e2e.load.schedule import Arrival

FLUSH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where to send, under which model name, where to serve metrics, and how long one request may take."""

    gateway_url: str
    served_model: str
    listen_host: str
    listen_port: int
    timeout_seconds: float = 300.0


async def run_schedule(schedule: Sequence[Arrival], options: RunOptions, recorder: Recorder) -> None:
    """Send every request of the schedule at its time and wait for the last answer.

    After SIGTERM or SIGINT nothing more is sent, but what was sent is still waited for and counted.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics = await serve_metrics(recorder, options.listen_host, options.listen_port)
    flusher = asyncio.create_task(flush_lines(recorder))
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=0)
    timeout = aiohttp.ClientTimeout(total=options.timeout_seconds)
    try:
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            origin = time.monotonic()
            recorder.started_unix_seconds = time.time()
            client = GatewayClient(session, options.gateway_url, options.served_model, origin)
            async with asyncio.TaskGroup() as group:
                for arrival in schedule:
                    if await stopped_before(stop, origin + arrival.at_seconds):
                        break
                    group.create_task(send_one(client, arrival, recorder))
    finally:
        flusher.cancel()
        if recorder.lines is not None:
            recorder.lines.flush()
        await metrics.cleanup()


async def stopped_before(stop: asyncio.Event, at_seconds: float) -> bool:
    """Wait until the monotonic clock shows `at_seconds`; returns early, and True, when told to stop."""
    delay = at_seconds - time.monotonic()
    if delay > 0 and not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), delay)
    return stop.is_set()


async def send_one(client: GatewayClient, arrival: Arrival, recorder: Recorder) -> None:
    """Send one request and record it."""
    with recorder.in_flight.track_inprogress():
        recorder.add(await client.send(arrival))


async def flush_lines(recorder: Recorder) -> None:
    """Write buffered records once a second, so that a killed run keeps what it measured."""
    while recorder.lines is not None:
        await asyncio.sleep(FLUSH_SECONDS)
        recorder.lines.flush()


async def serve_metrics(recorder: Recorder, host: str, port: int) -> web.AppRunner:
    """Serve GET /metrics, GET /summary and POST /control {"hide_feedback": bool}."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(recorder.registry), content_type="text/plain", charset="utf-8")

    async def summary(_request: web.Request) -> web.Response:
        return web.json_response(recorder.summary())

    async def control(request: web.Request) -> web.Response:
        wish = await request.json()
        if set(wish) != {"hide_feedback"} or not isinstance(wish["hide_feedback"], bool):
            raise web.HTTPBadRequest(text='the one control is {"hide_feedback": true | false}')
        recorder.hide_feedback = wish["hide_feedback"]
        return web.json_response(wish)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/summary", summary), web.post("/control", control)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
