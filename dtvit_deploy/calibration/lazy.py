"""A sequence whose elements are made when they are asked for: there may be more of them than fit into the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class Lazy(Sequence[T]):
    """What a function gives for each of some numbers; it can be sent to another process where the function can.

    Args:
        make: called anew each time an element is asked for.
        numbers: one for each element; a range takes no memory.
    """

    def __init__(self, make: Callable[[int], T], numbers: Sequence[int]) -> None:
        self._make, self._numbers = make, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Lazy[T]: ...
    def __getitem__(self, index: int | slice) -> T | Lazy[T]:
        return Lazy(self._make, self._numbers[index]) if isinstance(index, slice) else self._make(self._numbers[index])
