"""Reads request traces and recorded outcomes, and says in one sentence what is wrong with them.

A trace may hold millions of rows (a day at 40 requests/s has 3.5 million), so it is read in blocks and kept as four
plain columns; services become numbers on the way.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from wattzoo.cli.outcome_files import FileError, open_text, read_table

NUMBERS = ("t_s", "in_tokens", "out_tokens")
SERVICE = "service"
_WIDE = "correct_"
_BLOCK_ROWS = 50_000
_MAX_NAME = 130  # of a service with its namespace: two DNS labels

Block = tuple[NDArray[np.float64], NDArray[np.str_] | None]
"""Rows of (t_s, in_tokens, out_tokens) and their services, where the file names them."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of time, from 0; `service` counts in `services`. Every answer has a token at least."""

    at_seconds: NDArray[np.float64]
    input_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    service: NDArray[np.int64]
    services: tuple[str, ...]

    @property
    def length(self) -> int:
        """Return the number of requests."""
        return len(self.at_seconds)

    def means(self) -> dict[str, tuple[int, float, float]]:
        """Return by service that occurs its requests and its mean prompt and output tokens."""
        found = {}
        for number, name in enumerate(self.services):
            rows = self.service == number
            if rows.any():
                found[name] = (
                    int(rows.sum()),
                    float(self.input_tokens[rows].mean()),
                    float(self.output_tokens[rows].mean()),
                )
        return found


def read_trace(path: Path, services: Mapping[str, str], all_to: str | None = None) -> Trace:
    """Return the trace of a CSV (also .csv.gz) or Parquet file with t_s, in_tokens, out_tokens and maybe service.

    services: every name that the column may hold, with the service it means. all_to: the service that all requests
    go to, whatever the column says. Raises `FileError`.
    """
    targets = tuple(dict.fromkeys(services.values()))
    numbers, codes = [], []
    for block, names in _blocks(path, with_service=all_to is None):
        numbers.append(block)
        codes.append(_service_codes(path, names, len(block), services, targets, all_to))
    if not numbers:
        raise FileError(path, None, "the trace is empty: at least one request is needed")
    table, code = np.concatenate(numbers), np.concatenate(codes)
    _check_values(path, table)
    return Trace(table[:, 0] - table[0, 0], table[:, 1], np.maximum(1.0, table[:, 2]), code, targets)


def _service_codes(
    path: Path,
    names: NDArray[np.str_] | None,
    rows: int,
    services: Mapping[str, str],
    targets: Sequence[str],
    all_to: str | None,
) -> NDArray[np.int64]:
    if names is None:
        if all_to is None and len(targets) > 1:
            rule = f"is missing and there are several LLMServices ({', '.join(targets)}): name one with --service"
            raise FileError(path, SERVICE, rule)
        return np.full(rows, targets.index(all_to) if all_to is not None else 0)
    found, inverse = np.unique(names, return_inverse=True)
    unknown = sorted(set(found.tolist()) - set(services))
    if unknown:
        rule = f"there is no LLMService {unknown[0]!r}; there are {', '.join(targets)} (or send all to one: --service)"
        raise FileError(path, SERVICE, rule)
    codes = np.array([targets.index(services[str(name)]) for name in found], dtype=np.int64)
    return codes[inverse]


def _check_values(path: Path, table: NDArray[np.float64]) -> None:
    for column, (name, least) in enumerate((("t_s", -np.inf), ("in_tokens", 0.0), ("out_tokens", 0.0))):
        values = table[:, column]
        bad = ~(np.isfinite(values) & (values >= least))
        if bad.any():
            row = int(np.argmax(bad))
            rule = "must be a number" if least < 0.0 else "must be a number of at least 0"
            raise FileError(path, name, f"{rule}, not {values[row]:g} (row {row + 1})")
    falls = np.diff(table[:, 0]) < 0.0
    if falls.any():
        row = int(np.argmax(falls)) + 1
        rule = f"times must not fall: {table[row, 0]:g} (row {row + 1}) comes after {table[row - 1, 0]:g}"
        raise FileError(path, "t_s", rule)
    if not table[:, 2].any():
        raise FileError(path, "out_tokens", "no request has an output token")


def _blocks(path: Path, *, with_service: bool) -> Iterator[Block]:
    if not path.is_file():
        raise FileError(path, None, "there is no such file")
    if path.name.endswith((".csv", ".csv.gz")):
        with open_text(path) as file:
            try:
                yield from _csv_blocks(path, file, with_service=with_service)
            except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
                raise FileError(path, None, f"not a readable CSV file ({error})") from error
        return
    columns = read_table(path)
    _need(path, list(columns), NUMBERS)
    rows = len(columns["t_s"])
    for start in range(0, rows, _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        block = np.column_stack([_floats(path, name, columns[name][part]) for name in NUMBERS])
        names = columns[SERVICE][part].astype(str) if with_service and SERVICE in columns else None
        yield block, names


def _floats(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FileError(path, name, f"must hold numbers ({error})") from error


def _csv_blocks(path: Path, file: IO[str], *, with_service: bool) -> Iterator[Block]:
    header = next(csv.reader([file.readline()]), [])
    names = [name.strip() for name in header]
    if not any(names):
        raise FileError(path, None, "the file is empty: a header line is needed")
    _need(path, names, NUMBERS)
    named = with_service and SERVICE in names
    fields: list[tuple[str, type | str]] = [(name, float) for name in NUMBERS]
    fields += [(SERVICE, f"U{_MAX_NAME}")] if named else []
    places = tuple(names.index(name) for name, _ in fields)
    line = 2
    while lines := list(islice(file, _BLOCK_ROWS)):
        used = [text for text in lines if text.strip()]
        if used:
            table = _parse_lines(path, used, line, fields, places)
            block = np.column_stack([table[name] for name in NUMBERS])
            yield block, np.char.strip(table[SERVICE]) if named else None
        line += len(lines)


def _parse_lines(
    path: Path, lines: list[str], first: int, fields: list[tuple[str, type | str]], places: tuple[int, ...]
) -> NDArray[Any]:
    try:
        return np.loadtxt(lines, dtype=fields, delimiter=",", usecols=places, quotechar='"', comments=None, ndmin=1)
    except ValueError:
        for number, row in enumerate(csv.reader(lines), start=first):
            for (name, kind), place in zip(fields, places, strict=True):
                if place >= len(row):
                    raise FileError(path, name, f"line {number} has only {len(row)} fields") from None
                if kind is float and not _is_number(row[place]):
                    raise FileError(path, name, f"line {number}: {row[place]!r} is not a number") from None
        raise


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _need(path: Path, present: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        if name not in present:
            raise FileError(path, name, f"is missing; there are {', '.join(present)}")


def read_accuracies(path: Path, zoo: str | None = None) -> dict[str, float]:
    """Return the satisfied share by model, over the requests that have an outcome at every model.

    The schema is that of `wattzoo simulate control`, without joules: request_id, model, correct (zoo), or request_id
    and a column correct_MEMBER for each member. Raises `FileError`.
    """
    columns = read_table(path)
    _need(path, list(columns), ("request_id",))
    wide = [name for name in columns if name.startswith(_WIDE)]
    if "model" in columns:
        _need(path, list(columns), ("correct",))
        rows = _rows_of_zoo(path, columns, zoo)
        models, model = np.unique(columns["model"][rows].astype(str), return_inverse=True)
        ids, request = np.unique(columns["request_id"][rows].astype(str), return_inverse=True)
        table = np.full((len(ids), len(models)), np.nan)
        table[request, model] = _outcomes(path, "correct", columns["correct"][rows])
        names = [str(name) for name in models]
    elif wide:
        names = [name.removeprefix(_WIDE) for name in wide]
        table = np.column_stack([_outcomes(path, name, columns[name]) for name in wide])
    else:
        raise FileError(path, "model", "is missing (or give a column correct_MEMBER for each member)")
    complete = np.isfinite(table).all(1)
    if not complete.any():
        raise FileError(path, "request_id", "no request has an outcome at every model")
    return dict(zip(names, map(float, table[complete].mean(0)), strict=True))


def _rows_of_zoo(path: Path, columns: Mapping[str, NDArray[Any]], zoo: str | None) -> NDArray[np.bool_]:
    if "zoo" not in columns:
        return np.ones(len(columns["model"]), dtype=bool)
    zoos = sorted({str(name) for name in columns["zoo"]})
    if zoo is None and len(zoos) > 1:
        raise FileError(path, "zoo", f"holds {', '.join(zoos)}: choose one with --zoo")
    if zoo is not None and zoo not in zoos:
        raise FileError(path, "zoo", f"there is no zoo {zoo!r}; there are {', '.join(zoos)}")
    return np.asarray(columns["zoo"].astype(str) == (zoo or zoos[0]))


def _outcomes(path: Path, name: str, column: NDArray[Any]) -> NDArray[np.float64]:
    try:
        values = np.array([np.nan if cell is None or cell == "" else float(cell) for cell in column])
    except (TypeError, ValueError) as error:
        raise FileError(path, name, f"every outcome must be a number from 0 to 1 ({error})") from error
    bad = (values < 0.0) | (values > 1.0)
    if bad.any():
        row = int(np.argmax(bad))
        raise FileError(path, name, f"every outcome must lie between 0 and 1, not {values[row]:g} (row {row + 1})")
    return values


def match_members(path: Path, accuracies: Mapping[str, float], models: Mapping[str, str]) -> dict[str, float]:
    """Return the satisfied share of each member.

    models: by member the model that it loads. A row of the file means a member by its name, by its model, or by the
    last part of its model's path, however that is punctuated and whatever stands before it. Raises `FileError` for a
    member without outcomes.
    """
    found = {}
    for member, model in models.items():
        name = _find_model(accuracies, (member, member.rpartition("/")[2], model, model.rpartition("/")[2]))
        if name is None:
            rule = f"has no outcomes of member {member} ({model}); there are {', '.join(accuracies)}"
            raise FileError(path, "model", rule)
        found[member] = accuracies[name]
    return found


def _find_model(present: Mapping[str, float], wanted: Sequence[str]) -> str | None:
    """Return the one that is called so, else the only one whose spelled-out name ends like the last of `wanted`."""
    for name in wanted:
        if name in present:
            return name
    spelled = {name: re.sub(r"[^a-z0-9]+", "-", name.rpartition("/")[2].lower()) for name in (*present, wanted[-1])}
    end = spelled[wanted[-1]]
    alike = [name for name in present if spelled[name] == end or spelled[name].endswith(f"-{end}")]
    return alike[0] if len(alike) == 1 else None
