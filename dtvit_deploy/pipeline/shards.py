"""Samples cut into stretches that are computed apart and counted together: by whom is the caller's choice, what comes out is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeVar

from dtvit_deploy.errors import InputError

T = TypeVar("T")
R = TypeVar("R")


class Compute(Protocol):
    """Calls a function with each of some shards, anywhere and in any order, and gives the answers in the order of the shards.

    Function, shards and answers can be pickled, and to call twice with the same shard does no harm. `map` is one, and so is the method of
    that name of a pool of processes.
    """

    def __call__(self, function: Callable[[T], R], shards: Sequence[T], /) -> Iterable[R]: ...


def _here(function: Callable[[T], R], shards: Sequence[T], /) -> Iterable[R]:
    return map(function, shards)


@dataclass(frozen=True)
class Sharding:
    """Into how many shards samples are cut at most, and who computes them; by default this process, one after the other.

    Raises:
        InputError: there is less than one.
    """

    shards: int = 1
    compute: Compute = _here

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise InputError(f"{self.shards} shards were asked for", remedy="ask for at least 1")

    @property
    def whole(self) -> bool:
        """Whether nothing is cut and nobody else computes: a single pass, here."""
        return self.shards == 1 and self.compute is _here

    def cut(self, start: int, stop: int) -> list[tuple[int, int]]:
        """[start, stop) in stretches whose lengths differ by one at most, in order; none is empty unless all is."""
        many = max(min(self.shards, stop - start), 1)
        edges = [start + (stop - start) * index // many for index in range(many + 1)]
        return list(pairwise(edges))


WHOLE = Sharding()
