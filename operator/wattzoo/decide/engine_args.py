"""What an engine's command line says about its batches: a profile alone does not know how a server was started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wattzoo.manifests import template_spec
from wattzoo.model import Manifest

MAX_SEQUENCES_FLAG = "--max-num-seqs"
MAX_BATCHED_TOKENS_FLAG = "--max-num-batched-tokens"


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Most sequences and most tokens of one batch; the defaults are vLLM's."""

    max_sequences: int = 256
    max_batched_tokens: int = 2048


def _read_flag(arguments: Sequence[str], flag: str, otherwise: int) -> int:
    """The positive number after `flag`, as `--flag N` or `--flag=N`; the last one counts, as in the engine."""
    found = otherwise
    for position, argument in enumerate(arguments):
        text = arguments[position + 1] if argument == flag and position + 1 < len(arguments) else ""
        if argument.startswith(f"{flag}="):
            text = argument.removeprefix(f"{flag}=")
        if text.isdigit() and int(text) > 0:
            found = int(text)
    return found


def read_engine_limits(arguments: Sequence[str]) -> EngineLimits:
    """Limits of an engine that is started with these arguments."""
    default = EngineLimits()
    return EngineLimits(
        _read_flag(arguments, MAX_SEQUENCES_FLAG, default.max_sequences),
        _read_flag(arguments, MAX_BATCHED_TOKENS_FLAG, default.max_batched_tokens),
    )


def adopted_arguments(deployment: Manifest | None) -> tuple[str, ...]:
    """Command and arguments of an adopted Deployment's first container."""
    containers = template_spec(deployment or {}).get("containers") or [{}]
    first = containers[0]
    return tuple(str(word) for word in (*(first.get("command") or ()), *(first.get("args") or ())))
