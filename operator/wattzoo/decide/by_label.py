"""Finds things by labels without a look at all of them: a hundred services that each ask for theirs stay cheap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

Item = TypeVar("Item")


class LabelIndex(Generic[Item]):
    """Things by each of their labels; whatever is found keeps the order in which it was given."""

    def __init__(self, labelled: Iterable[tuple[Mapping[str, str], Item]]) -> None:
        """Take in things with their labels."""
        self._by_label: dict[tuple[str, str], list[tuple[Mapping[str, str], Item]]] = {}
        for own, item in labelled:
            for pair in own.items():
                self._by_label.setdefault(pair, []).append((own, item))

    def find(self, wanted: Mapping[str, str]) -> list[Item]:
        """Everything that carries all wanted labels; no label selects nothing."""
        rows = min((self._by_label.get(pair, []) for pair in wanted.items()), key=len, default=[])
        return [item for own, item in rows if all(own.get(label) == value for label, value in wanted.items())]
