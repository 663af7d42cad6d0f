"""The bodies of OpenAI-compatible answers. Every token is the word `emulated`, so that nobody takes it for speech."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

WORD = " emulated"
DONE = b"data: [DONE]\n\n"


class BadRequestError(ValueError):
    """The body is not one that an OpenAI-compatible server takes; `status` is what it would answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Question:
    """What a request's body asks for; `max_tokens` None leaves the length to the model.

    `request_id` is the field of that name that vLLM takes: gateways may replace the header x-request-id, never a body.
    """

    chat: bool
    model: str
    request_id: str | None
    prompt_tokens_guess: int
    stream: bool
    include_usage: bool
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: how long it is and why it ends there."""

    answer_id: str
    created: int
    model: str
    prompt_tokens: int
    output_tokens: int
    finish_reason: str

    @property
    def usage(self) -> dict[str, int]:
        """Return the token counts as clients read them."""
        total = self.prompt_tokens + self.output_tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.output_tokens, "total_tokens": total}


def parse_question(body: bytes, *, chat: bool) -> Question:
    """Read a request's body; raises `BadRequestError` for what a real server would refuse."""
    try:
        wish = json.loads(body)
    except ValueError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(wish, dict) or not isinstance(wish.get("model"), str):
        raise BadRequestError("model is required")
    content = wish.get("messages") if chat else wish.get("prompt")
    if not content:
        raise BadRequestError("messages is required" if chat else "prompt is required")
    max_tokens = wish.get("max_completion_tokens", wish.get("max_tokens"))
    if max_tokens is not None and (not isinstance(max_tokens, int) or max_tokens < 1):
        raise BadRequestError("max_tokens must be a positive integer")
    options = wish.get("stream_options") or {}
    include_usage = bool(options.get("include_usage"))
    guess = max(1, len(json.dumps(content)) // 4)
    request_id = wish.get("request_id")
    if request_id is not None and not isinstance(request_id, str):
        raise BadRequestError("request_id must be a string")
    return Question(chat, wish["model"], request_id, guess, bool(wish.get("stream")), include_usage, max_tokens)


def error_body(message: str, status: int) -> dict[str, Any]:
    """Return an error as OpenAI-compatible servers write it."""
    return {"error": {"message": message, "type": "emulator_error", "code": status}}


def render_answer(reply: Reply, *, chat: bool) -> bytes:
    """Return the whole answer as one JSON document."""
    text = WORD * reply.output_tokens
    choice: dict[str, Any] = {"index": 0, "finish_reason": reply.finish_reason}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    kind = "chat.completion" if chat else "text_completion"
    return json.dumps(_frame(reply, kind, [choice]) | {"usage": reply.usage}).encode()


def render_chunk(reply: Reply, tokens: int, *, chat: bool, last: bool) -> bytes:
    """Return a server-sent event with that many new tokens."""
    text = WORD * tokens
    choice: dict[str, Any] = {"index": 0, "finish_reason": reply.finish_reason if last else None}
    choice |= {"delta": {"role": "assistant", "content": text}} if chat else {"text": text}
    return _event(_frame(reply, _chunk_kind(chat=chat), [choice]))


def render_usage(reply: Reply, *, chat: bool) -> bytes:
    """Return the event that carries `usage` and no choice, sent last when the client asked for it."""
    return _event(_frame(reply, _chunk_kind(chat=chat), []) | {"usage": reply.usage})


def _chunk_kind(*, chat: bool) -> str:
    return "chat.completion.chunk" if chat else "text_completion"


def _frame(reply: Reply, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": reply.answer_id,
        "object": kind,
        "created": reply.created,
        "model": reply.model,
        "system_fingerprint": "emulated",
        "choices": choices,
    }


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"
