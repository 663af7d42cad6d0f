"""Command line of the emulator: `python -m e2e.emulator --kubeconfig FILE --table FILE`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from e2e.emulator.control import make_control_app, make_exporter_app
from e2e.emulator.engine import PlantClock
from e2e.emulator.faults import Faults
from e2e.emulator.fleet import Fleet
from e2e.emulator.keeper import keep_fleet
from e2e.emulator.kube import KubeClient
from e2e.emulator.profiles import EngineFactory
from e2e.emulator.server import ModelServer
from e2e.emulator.stats import LatencyBounds, RunStats
from e2e.emulator.table import EMPTY_TABLE, read_table

log = logging.getLogger("e2e.emulator")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m e2e.emulator", description=__doc__)
    add = parser.add_argument
    kubeconfig = os.environ.get("KUBECONFIG")
    add("--kubeconfig", type=Path, default=kubeconfig, required=kubeconfig is None, help="default: $KUBECONFIG")
    add("--table", type=Path, help="outcomes table (CSV, .gz allowed); without it all outcomes are made by a hash")
    add("--startup-scale", type=float, default=1.0, help="factor on the profiles' start-up seconds (and so joules)")
    add("--flush-seconds", type=float, default=0.2, help="time between flushes of a stream, at least .1")
    add("--drain-quiet-seconds", type=float, default=3.0, help="a deleted pod goes after this long without a request")
    add("--ttft-seconds", type=float, default=2.0, help="bound that time to first token is counted against")
    add("--tpot-seconds", type=float, default=0.06, help="bound that time per output token is counted against")
    add("--servers", default="0.0.0.0:8000", help="address of all model servers")
    add("--exporter", default="10.96.255.1:9400", help="address of the GPU exporter")
    add("--control", default="10.96.255.1:9401", help="address of /stats and /faults")
    add("--request-log", type=Path, help="JSONL file, one line a completed request, in the plant's times")
    args = parser.parse_args(argv)
    if args.flush_seconds < 0.1:
        parser.error("--flush-seconds must be at least 0.1")
    return args


@contextlib.asynccontextmanager
async def serve(app: web.Application, address: str) -> AsyncIterator[None]:
    """Serve an application; a client that leaves cancels its handler."""
    host, _, port = address.rpartition(":")
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5, keepalive_timeout=3600
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, int(port), backlog=1024).start()
        yield
    finally:
        await runner.cleanup()


async def run(args: argparse.Namespace) -> int:
    """Play pods until SIGTERM or SIGINT; returns 1 when the run is invalid."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    clock = PlantClock(loop)
    table = read_table(args.table) if args.table else EMPTY_TABLE
    gc.freeze()  # the table never goes; walking it in each collection would show as lag
    async with contextlib.AsyncExitStack() as stack:
        lines = (
            stack.enter_context(args.request_log.open("w", encoding="utf-8", buffering=1)) if args.request_log else None
        )
        stats = RunStats(LatencyBounds(args.ttft_seconds, args.tpot_seconds), lines)
        factory = EngineFactory(clock, args.startup_scale)
        fleet = Fleet(factory.make_engine, Faults(), args.drain_quiet_seconds)
        fleet.on_gone = stats.retire
        client = await stack.enter_async_context(KubeClient(args.kubeconfig))
        await stack.enter_async_context(
            serve(ModelServer(fleet, table, stats, args.flush_seconds).make_app(), args.servers)
        )
        await stack.enter_async_context(serve(make_exporter_app(fleet, stats, clock), args.exporter))
        await stack.enter_async_context(serve(make_control_app(fleet, stats, clock), args.control))
        log.info("playing pods for %s, table of %d requests", client.server, len(table.prompts))
        keeper = asyncio.create_task(keep_fleet(client, fleet, clock))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({keeper, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
        log.info("%s", stats.to_dict(tuple(fleet.pods.values()), clock.now_seconds())["verdict"])
    return 0 if stats.lag.valid else 1


def main(argv: list[str] | None = None) -> int:
    """Run the emulator."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    return asyncio.run(run(parse_arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())
