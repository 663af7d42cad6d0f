"""The HTTP side of every emulated model server: one listener for all pod IPs.

Which pod is meant follows from the address that the client connected to. Requests to an address that is no pod's are
cut, as are all connections of a pod that is gone; a client that leaves takes its request out of the batch.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from e2e.emulator.answers import (
    DONE,
    BadRequestError,
    Question,
    Reply,
    error_body,
    parse_question,
    render_answer,
    render_chunk,
    render_usage,
)
from e2e.emulator.engine import Engine, Ticket
from e2e.emulator.fleet import Fleet, PlayedPod
from e2e.emulator.roles import Role
from e2e.emulator.stats import RunStats
from e2e.emulator.table import Outcome, OutcomeTable
from e2e.emulator.vllm_metrics import render_vllm_metrics
from wattzoo_policies.sim.request import NotServingError, PlantRequest, RequestTooLargeError

SATISFIED_HEADER = "x-emulator-satisfied"
REQUEST_ID_HEADER = "x-request-id"
PodHandler = Callable[[web.Request, PlayedPod, Role, Engine], Awaitable[web.StreamResponse]]


class ModelServer:
    """Answers for every pod of the fleet. Completed tokens are sent at most every `flush_seconds`, and at the end."""

    def __init__(self, fleet: Fleet, table: OutcomeTable, stats: RunStats, flush_seconds: float) -> None:
        self.fleet = fleet
        self.table = table
        self.stats = stats
        self.flush_seconds = flush_seconds
        self._numbers = itertools.count(1)

    def make_app(self) -> web.Application:
        """Return the application with all routes of a model server."""
        app = web.Application(client_max_size=2**22)
        app.add_routes(
            [
                web.get("/health", self._of_pod(self._health)),
                web.get("/metrics", self._of_pod(self._metrics)),
                web.get("/v1/models", self._of_pod(self._models)),
                web.post("/v1/chat/completions", self._of_pod(self._chat)),
                web.post("/v1/completions", self._of_pod(self._complete)),
            ]
        )
        return app

    def _of_pod(self, handler: PodHandler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Wrap a handler so that it gets the pod that the client connected to, once its server runs."""

        async def handle(request: web.Request) -> web.StreamResponse:
            transport = request.transport
            if transport is None:
                return _cut(request)
            pod = self.fleet.by_address.get(transport.get_extra_info("sockname")[0])
            if pod is None or pod.engine is None or pod.role is None:
                return _cut(request)
            pod.connections.add(transport)
            return await handler(request, pod, pod.role, pod.engine)

        return handle

    async def _health(self, _request: web.Request, pod: PlayedPod, _role: Role, _engine: Engine) -> web.Response:
        return web.Response() if self.fleet.is_serving(pod) else web.Response(status=503)

    async def _metrics(self, _request: web.Request, pod: PlayedPod, role: Role, engine: Engine) -> web.Response:
        if role.variant in self.fleet.faults.fail_metrics:
            return web.Response(status=500)
        if not self.fleet.is_serving(pod):
            return web.Response(status=503)
        metrics, replica = engine.metrics(), engine.replica
        page = render_vllm_metrics(
            role.served_model or role.profile,
            metrics,
            replica.running_requests,
            replica.waiting_requests,
            replica.kv_usage(replica.now_seconds),
        )
        return web.Response(text=page, content_type="text/plain", charset="utf-8")

    async def _models(self, _request: web.Request, pod: PlayedPod, role: Role, _engine: Engine) -> web.Response:
        if not self.fleet.is_serving(pod):
            return web.Response(status=503)
        model = {"id": role.served_model or role.profile, "object": "model", "owned_by": "wattzoo-emulator"}
        return web.json_response({"object": "list", "data": [model]})

    async def _chat(self, request: web.Request, pod: PlayedPod, role: Role, engine: Engine) -> web.StreamResponse:
        return await self._generate(request, pod, role, engine, chat=True)

    async def _complete(self, request: web.Request, pod: PlayedPod, role: Role, engine: Engine) -> web.StreamResponse:
        return await self._generate(request, pod, role, engine, chat=False)

    async def _generate(
        self, request: web.Request, pod: PlayedPod, role: Role, engine: Engine, *, chat: bool
    ) -> web.StreamResponse:
        try:
            question = parse_question(await request.read(), chat=chat)
            if role.served_model not in {None, question.model}:
                raise BadRequestError(f"the model {question.model} does not exist", status=404)
            await self._suffer_faults(role)
            outcome, ticket, reply = self._admit(request, pod, role, engine, question)
        except BadRequestError as error:
            self.stats.refused += 1
            return web.json_response(error_body(str(error), error.status), status=error.status)
        headers = {SATISFIED_HEADER: str(int(outcome.satisfied))}
        try:
            if question.stream:
                response = await self._stream(request, ticket, reply, question, headers)
            else:
                response = await self._answer(request, ticket, reply, question, headers)
        finally:
            ticket.cancel()
        if ticket.event is not None and not ticket.lost:
            self.stats.complete(pod, request.host, ticket.event, satisfied=outcome.satisfied)
        return response

    async def _suffer_faults(self, role: Role) -> None:
        if role.variant in self.fleet.faults.fail_requests:
            raise BadRequestError("the fault fail_requests is on", status=500)
        if role.variant in self.fleet.faults.stall_requests:
            await asyncio.Event().wait()  # until the client leaves, which cancels this handler

    def _admit(
        self, request: web.Request, pod: PlayedPod, role: Role, engine: Engine, question: Question
    ) -> tuple[Outcome, Ticket, Reply]:
        """Give the request to the plant; raises `BadRequestError` when it takes none."""
        if not self.fleet.is_serving(pod):
            raise BadRequestError("the model is loading", status=503)
        number = next(self._numbers)
        request_id = question.request_id or request.headers.get(REQUEST_ID_HEADER) or f"unnamed-{number}"
        outcome = self.table.outcome(request_id, role.member, question.prompt_tokens_guess)
        self.stats.unknown_outcomes += not outcome.known
        tokens = min(outcome.output_tokens, question.max_tokens or outcome.output_tokens)
        reason = "length" if tokens < outcome.output_tokens else "stop"
        try:
            ticket = engine.submit(PlantRequest(request_id, outcome.prompt_tokens, tokens))
        except RequestTooLargeError as error:
            raise BadRequestError(str(error)) from error
        except NotServingError as error:
            raise BadRequestError(str(error), status=503) from error
        answer_id = f"{'chatcmpl' if question.chat else 'cmpl'}-emulated-{number}"
        return (
            outcome,
            ticket,
            Reply(answer_id, int(time.time()), question.model, outcome.prompt_tokens, tokens, reason),
        )

    async def _answer(
        self, request: web.Request, ticket: Ticket, reply: Reply, question: Question, headers: dict[str, str]
    ) -> web.StreamResponse:
        while not ticket.finished:
            await ticket.wait()
        if ticket.lost:
            return _cut(request)
        self._count_lag(ticket)
        body = render_answer(reply, chat=question.chat)
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def _stream(
        self, request: web.Request, ticket: Ticket, reply: Reply, question: Question, headers: dict[str, str]
    ) -> web.StreamResponse:
        """Send what was generated since the last flush; the last flush comes with the last token, however soon."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"} | headers
        )
        await ticket.wait()
        if not ticket.lost:
            await response.prepare(request)
            self._count_lag(ticket)
        sent = 0
        while not ticket.finished:
            tokens = ticket.tokens()
            if tokens > sent:
                await response.write(render_chunk(reply, tokens - sent, chat=question.chat, last=False))
                sent = tokens
            await ticket.wait(self.flush_seconds)
        if ticket.lost:
            return _cut(request, response)
        self._count_lag(ticket)
        end = render_chunk(reply, reply.output_tokens - sent, chat=question.chat, last=True)
        if question.include_usage:
            end += render_usage(reply, chat=question.chat)
        await response.write(end + DONE)
        await response.write_eof()
        return response

    def _count_lag(self, ticket: Ticket) -> None:
        if ticket.event is not None:
            self.stats.lag.add(ticket.engine.clock.now_seconds() - ticket.event.at_seconds)


def _cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Break the connection off, as a server that is not there (any more) does."""
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response(status=503)
