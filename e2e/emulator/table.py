"""What every member would answer to every request: the recorded outcomes that replace a model's weights.

The emulator serves from it and the load generator samples from it, so both ends speak of the same requests.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

REQUEST_COLUMN = "request_id"
PROMPT_COLUMN = "prompt_tokens"
SERVICE_COLUMN = "service"
TOKENS_SUFFIX = "_out_tokens"
CORRECT_SUFFIX = "_correct"
DEFAULT_PROMPT_TOKENS = 200


class TableError(ValueError):
    """The outcomes table cannot be read; the message says which file, row and column."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one member answers to one request; `known` is false for the hash-made default."""

    prompt_tokens: int
    output_tokens: int
    satisfied: bool
    known: bool


@dataclass(frozen=True, slots=True)
class OutcomeTable:
    """Recorded outcomes by request id and member; what it does not hold gets a default made by a hash."""

    prompts: Mapping[str, int]
    outcomes: Mapping[str, Mapping[str, tuple[int, bool]]]
    services: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Ids by service, where the file says which service a request belongs to."""

    @property
    def request_ids(self) -> tuple[str, ...]:
        """Return the ids in the order of the file."""
        return tuple(self.prompts)

    def ids_of(self, service: str) -> tuple[str, ...]:
        """Return the ids of one service's requests: all of them when the file does not tell services apart."""
        return self.services.get(service, ()) if self.services else self.request_ids

    @property
    def members(self) -> tuple[str, ...]:
        """Return the names of the members that the table knows."""
        return tuple(self.outcomes)

    def outcome(self, request_id: str, member: str, prompt_tokens_guess: int | None = None) -> Outcome:
        """Return the recorded outcome, or the same invented one each time for what was never recorded."""
        prompt_tokens = self.prompts.get(request_id)
        recorded = self.outcomes.get(member, {}).get(request_id)
        if prompt_tokens is not None and recorded is not None:
            return Outcome(prompt_tokens, recorded[0], recorded[1], known=True)
        if prompt_tokens is None:
            prompt_tokens = prompt_tokens_guess or DEFAULT_PROMPT_TOKENS
        digest = hashlib.blake2b(f"{request_id}\x00{member}".encode(), digest_size=4).digest()
        output_tokens = 64 + int.from_bytes(digest[:2], "big") % 256
        return Outcome(prompt_tokens, output_tokens, satisfied=digest[2] < 154, known=False)


EMPTY_TABLE = OutcomeTable({}, {})


def parse_table(lines: Iterable[str], source: str = "table") -> OutcomeTable:
    """Read the CSV text; a member is known when it has a column of output tokens and one of correctness."""
    rows = csv.DictReader(lines)
    header = tuple(rows.fieldnames or ())
    tokens, correct = _columns(header, TOKENS_SUFFIX), _columns(header, CORRECT_SUFFIX)
    if REQUEST_COLUMN not in header or PROMPT_COLUMN not in header or not tokens or tokens.keys() != correct.keys():
        raise TableError(f"{source}: needs {REQUEST_COLUMN}, {PROMPT_COLUMN} and for each member two columns: {header}")
    prompts: dict[str, int] = {}
    outcomes: dict[str, dict[str, tuple[int, bool]]] = {member: {} for member in tokens}
    services: dict[str, list[str]] = {}
    for number, row in enumerate(rows, start=2):
        request_id = row[REQUEST_COLUMN]
        try:
            prompts[request_id] = int(row[PROMPT_COLUMN])
            for member, column in tokens.items():
                outcomes[member][request_id] = (max(1, int(row[column])), bool(int(row[correct[member]])))
        except (TypeError, ValueError) as error:
            raise TableError(f"{source}: line {number}: {error}") from error
        if SERVICE_COLUMN in row:
            services.setdefault(row[SERVICE_COLUMN], []).append(request_id)
    return OutcomeTable(prompts, outcomes, {service: tuple(ids) for service, ids in services.items()})


def read_table(path: Path) -> OutcomeTable:
    """Read a table from `path`, compressed when the name ends in .gz."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            return parse_table(lines, path.name)
    return parse_table(io.StringIO(path.read_text("utf-8")), path.name)


def _columns(header: tuple[str, ...], suffix: str) -> dict[str, str]:
    """Return member -> column for the columns named MEMBER`suffix`."""
    return {name.removesuffix(suffix): name for name in header if name.endswith(suffix)}
