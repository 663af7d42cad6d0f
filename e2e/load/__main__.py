"""Command line of the load generator: `python -m e2e.load --gateway URL --table FILE --service NS/NAME=HOST:SHARE`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from pathlib import Path

from e2e.emulator.table import read_table
from e2e.load.recorder import Recorder
from e2e.load.runner import RunOptions, run_schedule
from e2e.load.schedule import LoadShape, RateStep, ServiceLoad, make_schedule, read_curve


def parse_service(text: str) -> ServiceLoad:
    """Read NAMESPACE/NAME=HOSTNAME[:SHARE]."""
    target, _, rest = text.partition("=")
    namespace, _, name = target.partition("/")
    hostname, _, share = rest.partition(":")
    if not (namespace and name and hostname):
        raise argparse.ArgumentTypeError(f"expected NAMESPACE/NAME=HOSTNAME[:SHARE], got {text!r}")
    return ServiceLoad(namespace, name, hostname, float(share) if share else 1.0)


def parse_step(text: str) -> RateStep:
    """Read AT_SECONDS:MULTIPLIER."""
    at_seconds, _, multiplier = text.partition(":")
    return RateStep(float(at_seconds), float(multiplier))


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m e2e.load", description=__doc__)
    add = parser.add_argument
    add("--gateway", required=True, help="URL of the gateway's listener")
    add("--table", required=True, type=Path, help="outcomes table (CSV, .gz allowed): its request ids are sent")
    add("--service", required=True, action="append", type=parse_service, help="NAMESPACE/NAME=HOSTNAME[:SHARE], repeat")
    add("--minutes", type=float, default=10.0, help="the day's curve is squeezed into this many minutes")
    add("--peak-rps", type=float, default=22.0, help="requests per second at the top of the curve, all services")
    add("--rates", type=Path, help="CSV with t_s, service, rate_norm; without it the rate is flat")
    add("--rates-service", default="m-large", help="which service of --rates")
    add("--rates-day", type=int, default=9, help="which day of --rates, 0-based")
    add("--step", action="append", default=[], type=parse_step, help="AT_SECONDS:MULTIPLIER of all rates, repeatable")
    add("--streaming-share", type=float, default=0.5)
    add("--feedback-share", type=float, default=1.0, help="share of answers whose outcome is reported")
    add("--seed", type=int, default=1)
    add("--model", default="chat", help="served model name put into every body")
    add("--output", type=Path, help="JSONL file, one record a request")
    add("--summary", type=Path, help="JSON file for the summary, which is also printed")
    add("--listen", default="10.96.255.1:9500", help="address of /metrics, /summary and /control")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the load; the exit code is 1 when a request failed."""
    args = parse_arguments(argv)
    curve = read_curve(args.rates, args.rates_service, args.rates_day) if args.rates else (1.0,)
    shape = LoadShape(
        60 * args.minutes, args.peak_rps, curve, tuple(args.step), args.streaming_share, args.feedback_share
    )
    table = read_table(args.table)
    request_ids = {service.name: table.ids_of(service.name) for service in args.service}
    schedule = make_schedule(shape, args.service, request_ids, args.seed)
    host, _, port = args.listen.rpartition(":")
    options = RunOptions(args.gateway, args.model, host, int(port))
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(args.output.open("w", encoding="utf-8")) if args.output else None
        recorder = Recorder(lines)
        asyncio.run(run_schedule(schedule, options, recorder))
    summary = json.dumps(recorder.summary(), indent=1)
    print(summary)
    if args.summary:
        args.summary.write_text(summary, "utf-8")
    return 1 if recorder.summary()["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
