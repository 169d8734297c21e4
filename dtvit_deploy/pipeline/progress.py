"""How a long step tells that it is alive; who shows it is the command line's affair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """What the pipeline reports to."""

    def step(self, what: str) -> None:
        """A step begins that cannot say how far it is."""
        ...

    def track(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        """Pass items on, and show how many of ``total`` went by."""
        ...


class Silent:
    """Shows nothing."""

    def step(self, what: str) -> None:
        del what

    def track(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        del what, total
        yield from items
