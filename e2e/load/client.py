"""Sends one recorded request to an OpenAI-compatible endpoint and says what came of it. No retries: failures count."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import aiohttp

from e2e.load.schedule import Arrival

MEMBER_HEADER = "x-wattzoo-member"
SATISFIED_HEADER = "x-emulator-satisfied"
REQUEST_ID_HEADER = "x-request-id"


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What became of one request. Times in seconds since the run began; `code` is a status or the name of an error."""

    index: int
    t_scheduled: float
    t_sent: float
    namespace: str
    service: str
    request_id: str
    streaming: bool
    member: str | None
    code: str
    satisfied: bool | None
    feedback: bool
    latency_seconds: float
    first_token_seconds: float | None
    output_tokens: int | None
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Return whether the user did not get a whole answer."""
        return self.code != "200"


@dataclass(slots=True)
class Answer:
    """The parts of an answer as they come in."""

    code: str = "error"
    member: str | None = None
    satisfied: bool | None = None
    first_token_at: float | None = None
    output_tokens: int | None = None
    error: str | None = None


class GatewayClient:
    """Talks to the gateway under each service's host name."""

    def __init__(
        self, session: aiohttp.ClientSession, gateway_url: str, served_model: str, origin_seconds: float
    ) -> None:
        self.session = session
        self.url = gateway_url.rstrip("/") + "/v1/chat/completions"
        self.served_model = served_model
        self.origin_seconds = origin_seconds

    async def send(self, arrival: Arrival) -> RequestRecord:
        """Send the request of `arrival` now and return its record; never raises for what the other side does."""
        answer = Answer()
        sent_at = time.monotonic()
        try:
            await self._exchange(arrival, answer)
        except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError, KeyError, TypeError) as error:
            answer.code, answer.error = type(error).__name__, str(error)[:200]
        first = None if answer.first_token_at is None else answer.first_token_at - sent_at
        return RequestRecord(
            index=arrival.index,
            t_scheduled=round(arrival.at_seconds, 4),
            t_sent=round(sent_at - self.origin_seconds, 4),
            namespace=arrival.service.namespace,
            service=arrival.service.name,
            request_id=arrival.request_id,
            streaming=arrival.streaming,
            member=answer.member,
            code=answer.code,
            satisfied=answer.satisfied if answer.code == "200" else None,
            feedback=arrival.feedback,
            latency_seconds=round(time.monotonic() - sent_at, 4),
            first_token_seconds=None if first is None else round(first, 4),
            output_tokens=answer.output_tokens,
            error=answer.error,
        )

    async def _exchange(self, arrival: Arrival, answer: Answer) -> None:
        body: dict[str, object] = {
            "model": self.served_model,
            "request_id": arrival.request_id,
            "messages": [{"role": "user", "content": f"Recorded question {arrival.request_id}"}],
        }
        if arrival.streaming:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = {"Host": arrival.service.hostname, REQUEST_ID_HEADER: arrival.request_id}
        async with self.session.post(self.url, json=body, headers=headers) as response:
            answer.member = response.headers.get(MEMBER_HEADER)
            satisfied = response.headers.get(SATISFIED_HEADER)
            answer.satisfied = None if satisfied is None else satisfied == "1"
            if response.status != 200:
                answer.code, answer.error = str(response.status), (await response.text())[:200]
            elif arrival.streaming:
                await read_stream(response.content, answer)
            else:
                answer.output_tokens = (await response.json())["usage"]["completion_tokens"]
                answer.code = "200"


async def read_stream(content: aiohttp.StreamReader, answer: Answer) -> None:
    """Read server-sent events to the end; only `[DONE]` makes the answer whole."""
    tail = b""
    done = False
    async for piece in content.iter_any():
        if answer.first_token_at is None and b'"content"' in piece:
            answer.first_token_at = time.monotonic()
        tail = (tail + piece)[-600:]
        done = done or b"data: [DONE]" in tail
    if not done:
        answer.code, answer.error = "TruncatedStream", "the stream ended without [DONE]"
        return
    answer.code = "200"
    for line in tail.split(b"\n"):
        if line.startswith(b"data: {") and b'"usage"' in line:
            usage = json.loads(line[6:]).get("usage")
            answer.output_tokens = usage["completion_tokens"] if usage else None
