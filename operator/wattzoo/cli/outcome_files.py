"""Reads recorded outcomes and streams from Parquet or CSV files, and says in one sentence what is wrong with them.

Two shapes are understood: long, one row per request and member (request_id, model, correct, an energy column, maybe
zoo), and wide, one row per request with a column correct_MEMBER for each member. Everything is checked here, so that
the study behind it sees arrays only.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from wattzoo_policies.sim.stream import Zoo

MAX_MEMBERS = 20
_WIDE = "correct_"

Columns = Mapping[str, NDArray[Any]]


class FileError(ValueError):
    """A file cannot be used; the text names file, column and rule."""

    def __init__(self, path: Path, column: str | None, rule: str) -> None:
        where = f"{path}" if column is None else f"{path}, column {column}"
        super().__init__(f"{where}: {rule}")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A zoo, the request ids of its rows, and which energy column was taken."""

    zoo: Zoo
    request_ids: NDArray[Any]
    energy_column: str
    dropped: int


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A stream: seconds and rows of the zoo in order, and pool events as (request number, verb, member, other)."""

    at_seconds: NDArray[np.float64]
    rows: NDArray[np.int64]
    events: tuple[tuple[int, str, str, str], ...]


def read_table(path: Path) -> Columns:
    """Return the columns of a Parquet or CSV file."""
    if not path.is_file():
        raise FileError(path, None, "there is no such file")
    try:
        if path.name.endswith((".csv", ".csv.gz")):
            return _read_csv(path)
        import pyarrow.parquet  # noqa: PLC0415 - an extra: only this command reads Parquet
    except ImportError as error:
        raise FileError(path, None, "reading Parquet needs pyarrow: install wattzoo[simulate]") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise FileError(path, None, f"not a readable Parquet file ({str(error).splitlines()[0]})") from error
    return {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}


def open_text(path: Path) -> IO[str]:
    """Open a text file, a compressed one (.gz) too."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8")
    return path.open(newline="", encoding="utf-8")


def _read_csv(path: Path) -> Columns:
    with open_text(path) as file:
        reader = csv.reader(file)
        try:
            header = next(reader, None)
            rows = list(reader)
        except (csv.Error, UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
            raise FileError(path, None, f"not a readable CSV file ({error})") from error
    if not header:
        raise FileError(path, None, "the file is empty: a header line is needed")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise FileError(path, None, f"line {number} has {len(row)} fields, the header has {len(header)}")
    return {name: np.array([row[index] for row in rows], dtype=object) for index, name in enumerate(header)}


def read_outcomes(
    path: Path, zoo: str | None, energy_column: str | None, joules: Mapping[str, float], requests: Path | None
) -> Recorded:
    """Return the recorded zoo.

    joules: constant joules per request by member, instead of an energy column. requests: a file with request_id and
    category; without it all requests are of one group.
    """
    columns = read_table(path)
    _need(path, columns, ("request_id",))
    wide = [name for name in columns if name.startswith(_WIDE)]
    if "model" in columns:
        ids, members, outcomes, energy, used = _from_long(path, columns, zoo, energy_column, joules)
    elif len(wide) > 1:
        ids, members, outcomes, energy, used = _from_wide(path, columns, wide, energy_column, joules)
    else:
        raise FileError(path, "model", "is missing (or give a column correct_MEMBER for each member)")
    if len(members) > MAX_MEMBERS:
        raise FileError(path, "model", f"at most {MAX_MEMBERS} members can be compared, here are {len(members)}")
    complete = np.isfinite(outcomes).all(1)
    if not complete.any():
        raise FileError(path, "request_id", "no request has an outcome at every member")
    ids, outcomes, energy = ids[complete], outcomes[complete], energy[complete]
    group = _groups(requests, ids) if requests is not None else np.zeros(len(ids), dtype=np.int64)
    order = np.argsort(energy.mean(0), kind="stable")
    ranked = Zoo(tuple(members[n] for n in order), outcomes[:, order], energy[:, order], group)
    return Recorded(ranked, ids, used, int((~complete).sum()))


Shape = tuple[NDArray[Any], list[str], NDArray[np.float64], NDArray[np.float64], str]


def _from_long(
    path: Path, columns: Columns, zoo: str | None, energy_column: str | None, joules: Mapping[str, float]
) -> Shape:
    _need(path, columns, ("model", "correct"))
    if not len(columns["model"]):
        raise FileError(path, "model", "the file has no rows")
    rows = _rows_of_zoo(path, columns, zoo)
    models = columns["model"][rows].astype(str)
    ids, request = np.unique(columns["request_id"][rows].astype(str), return_inverse=True)
    members, member = np.unique(models, return_inverse=True)
    names = [str(name) for name in members]
    cell = request * len(names) + member
    if len(np.unique(cell)) < len(cell):
        raise FileError(path, "request_id", "a request has several rows for the same model")
    correct = _shares(path, "correct", columns["correct"][rows])
    used, energy = _long_energy(path, columns, rows, models, energy_column, joules)
    outcome_table, energy_table = np.full((2, len(ids) * len(names)), np.nan)
    outcome_table[cell], energy_table[cell] = correct, energy
    shape = (len(ids), len(names))
    return ids, names, outcome_table.reshape(shape), energy_table.reshape(shape), used


def _rows_of_zoo(path: Path, columns: Columns, zoo: str | None) -> NDArray[np.bool_]:
    if "zoo" not in columns:
        if zoo is not None:
            raise FileError(path, "zoo", f"is missing, so zoo {zoo!r} cannot be chosen")
        return np.ones(len(columns["model"]), dtype=bool)
    zoos = sorted({str(name) for name in columns["zoo"]})
    if zoo is None and len(zoos) > 1:
        raise FileError(path, "zoo", f"holds {', '.join(zoos)}: choose one with --zoo")
    if zoo is not None and zoo not in zoos:
        raise FileError(path, "zoo", f"there is no zoo {zoo!r}; there are {', '.join(zoos)}")
    return np.asarray(columns["zoo"].astype(str) == (zoo or zoos[0]))


def _long_energy(
    path: Path,
    columns: Columns,
    rows: NDArray[np.bool_],
    models: NDArray[Any],
    energy_column: str | None,
    joules: Mapping[str, float],
) -> tuple[str, NDArray[np.float64]]:
    if joules:
        _need_members(path, joules, sorted(set(models.tolist())))
        return "--joules", np.array([joules[name] for name in models])
    used = energy_column or _guess_energy_column(path, columns)
    _need(path, columns, (used,))
    return used, _energies(path, used, columns[used][rows])


def _guess_energy_column(path: Path, columns: Columns) -> str:
    for name in columns:
        if name.startswith(("energy", "joules", "cost")) and _numbers(columns[name]) is not None:
            return name
    raise FileError(path, None, "no column of numbers starts with energy, joules or cost: name it with --energy-column")


def _from_wide(
    path: Path, columns: Columns, wide: Sequence[str], energy_column: str | None, joules: Mapping[str, float]
) -> Shape:
    names = [name.removeprefix(_WIDE) for name in wide]
    ids = columns["request_id"].astype(str)
    if not len(ids):
        raise FileError(path, "request_id", "the file has no rows")
    if len(np.unique(ids)) < len(ids):
        raise FileError(path, "request_id", "the same request has several rows")
    outcomes = np.stack([_shares(path, name, columns[name]) for name in wide], axis=1)
    if joules:
        _need_members(path, joules, names)
        return ids, names, outcomes, np.tile([joules[name] for name in names], (len(ids), 1)), "--joules"
    if energy_column is None:
        raise FileError(path, None, "say what a request costs: --joules MEMBER=NUMBER or --energy-column PREFIX")
    used = [f"{energy_column}_{name}" for name in names]
    _need(path, columns, used)
    return ids, names, outcomes, np.stack([_energies(path, name, columns[name]) for name in used], 1), energy_column


def _groups(path: Path, ids: NDArray[Any]) -> NDArray[np.int64]:
    """Return each request's category as a number."""
    columns = read_table(path)
    _need(path, columns, ("request_id", "category"))
    known = dict(zip(columns["request_id"].astype(str), columns["category"].astype(str), strict=True))
    missing = next((name for name in ids if name not in known), None)
    if missing is not None:
        raise FileError(path, "request_id", f"request {missing} of the outcomes is not in it")
    _, group = np.unique([known[name] for name in ids], return_inverse=True)
    return group.astype(np.int64)


def read_stream(path: Path, recorded: Recorded) -> Arrivals:
    """Return the stream's times and rows; an event holds from the request in whose row it stands.

    pool_event is empty or one of `leave MEMBER`, `join MEMBER`, `swap MEMBER OTHER` (from here on the outcomes and
    joules of OTHER stand for MEMBER); several are separated by semicolons.
    """
    columns = read_table(path)
    _need(path, columns, ("t_s", "request_id"))
    if not len(columns["t_s"]):
        raise FileError(path, "t_s", "the stream is empty")
    at_seconds = _numbers(columns["t_s"])
    if at_seconds is None or not np.isfinite(at_seconds).all():
        raise FileError(path, "t_s", "every arrival must be a finite number of seconds")
    if (np.diff(at_seconds) < 0.0).any():
        raise FileError(path, "t_s", "arrivals must be in order of time")
    row_of = {name: row for row, name in enumerate(recorded.request_ids)}
    ids = columns["request_id"].astype(str)
    missing = next((name for name in ids if name not in row_of), None)
    if missing is not None:
        raise FileError(path, "request_id", f"request {missing} has no outcome at every member")
    events = _events(path, columns.get("pool_event"), recorded.zoo.members)
    return Arrivals(at_seconds, np.array([row_of[name] for name in ids], dtype=np.int64), events)


def _events(path: Path, column: NDArray[Any] | None, members: Sequence[str]) -> tuple[tuple[int, str, str, str], ...]:
    events = []
    for number, cell in enumerate([] if column is None else column):
        text = "" if cell is None or cell != cell else str(cell)  # noqa: PLR0124 - NaN is an empty cell
        for part in filter(None, (piece.strip() for piece in text.split(";"))):
            words = part.replace(":", " ").replace("=", " ").split()
            arity = {"leave": 2, "join": 2, "swap": 3}.get(words[0])
            if arity != len(words):
                rule = f"event {part!r} must be `leave MEMBER`, `join MEMBER` or `swap MEMBER OTHER`"
                raise FileError(path, "pool_event", rule)
            unknown = next((name for name in words[1:] if name not in members), None)
            if unknown is not None:
                raise FileError(path, "pool_event", f"unknown model {unknown!r}; there are {', '.join(members)}")
            events.append((number, words[0], words[1], words[-1]))
    return tuple(events)


def _need(path: Path, columns: Columns, names: Sequence[str]) -> None:
    for name in names:
        if name not in columns:
            raise FileError(path, name, f"is missing; there are {', '.join(columns)}")


def _need_members(path: Path, joules: Mapping[str, float], names: Sequence[str]) -> None:
    unknown = sorted(set(joules) - set(names))
    if unknown:
        raise FileError(path, "model", f"--joules names unknown model {unknown[0]!r}; there are {', '.join(names)}")
    missing = sorted(set(names) - set(joules))
    if missing:
        raise FileError(path, "model", f"--joules gives no joules for {', '.join(missing)}")


def _numbers(column: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return the column as floats, empty cells as NaN; `None` when it holds something else."""
    try:
        if column.dtype == object:
            return np.array([np.nan if cell is None or cell == "" else float(cell) for cell in column])
        return column.astype(float)
    except (TypeError, ValueError):
        return None


def _shares(path: Path, name: str, column: NDArray[Any]) -> NDArray[np.float64]:
    numbers = _numbers(column)
    if numbers is None:
        raise FileError(path, name, "every outcome must be a number from 0 to 1")
    bad = ~((numbers >= 0.0) & (numbers <= 1.0))
    if bad.any():
        first = int(np.argmax(bad))
        raise FileError(path, name, f"every outcome must lie between 0 and 1, not {column[first]} (row {first + 1})")
    return numbers


def _energies(path: Path, name: str, column: NDArray[Any]) -> NDArray[np.float64]:
    numbers = _numbers(column)
    if numbers is None:
        raise FileError(path, name, "joules must be numbers")
    bad = ~(np.isfinite(numbers) & (numbers > 0.0))
    if bad.any():
        first = int(np.argmax(bad))
        raise FileError(path, name, f"joules must be finite and positive, not {column[first]} (row {first + 1})")
    return numbers
