"""Good samples with random damage, to ask the models and the API server the same question many times."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from tests.api.cases import good_samples

Path = tuple[str | int, ...]

VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 5, 10, 63, 64, 999, 1000, 1001, 3601, 65536, 10**6, 10**9 + 1, 10**12, 1.5),
    *("", "a", "A", "a b", "1", "a.b", "a/b", "a-", "-a", "é", "a\n", "a" * 63, "a" * 64, "a" * 254, "x" * 1025),
    *("64Gi", "8", "1e3", "-1", "0.5", "500m", "1.5Ti", "Act", "Observe", "MESSPlus", "Exists"),
    *("2026-01-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "--port", "-tp", "--served"),
    *([], [1], ["a"], ["a", "a"], [{}], [{"name": "a"}], [{"name": "a"}, {"name": "a"}]),
    *({}, {"name": "a"}, {"a": "b"}, {"names": ["a"]}),
)


def paths(value: Any, path: Path = ()) -> list[Path]:
    """Every path into plain data."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [*([path] if path else []), *(below for key, part in items for below in paths(part, (*path, key)))]


def at(value: Any, path: Path) -> Any:
    """The value at a path that exists."""
    for step in path:
        value = value[step]
    return value


def mutated_samples(seed: int, count: int) -> Iterator[dict[str, Any]]:
    """`count` good samples with one to three random changes below spec; most of them break a rule."""
    choice = random.Random(seed)
    samples = good_samples()
    for _ in range(count):
        manifest = copy.deepcopy(samples[choice.choice(list(samples))])
        for _ in range(choice.choice((1, 1, 1, 2, 3))):
            donor = copy.deepcopy(samples[choice.choice(list(samples))])
            _mutate(manifest, donor, choice)
        yield manifest


def _mutate(manifest: dict[str, Any], donor: dict[str, Any], choice: random.Random) -> None:
    """Replace, remove, repeat, transplant from another sample, or shift a number by one."""
    targets = [path for path in paths(manifest) if path[0] == "spec" and len(path) > 1]
    if not targets:
        return
    *way, last = choice.choice(targets)
    parent: Any = at(manifest, tuple(way))
    kind = choice.random()
    same_field = [path for path in paths(donor) if path[-1] == last]
    if kind < 0.4:
        parent[last] = copy.deepcopy(choice.choice(VALUES))
    elif kind < 0.55 and same_field:
        parent[last] = at(donor, choice.choice(same_field))
    elif kind < 0.75:
        del parent[last]
    elif isinstance(last, int):
        parent.append(copy.deepcopy(parent[last]))
    elif kind < 0.9:
        path = choice.choice([path for path in paths(donor) if isinstance(path[-1], str)])
        parent[path[-1]] = at(donor, path)
    elif isinstance(parent[last], int) and not isinstance(parent[last], bool):
        parent[last] += choice.choice((-1, 1))
