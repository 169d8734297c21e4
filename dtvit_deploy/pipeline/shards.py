"""Samples cut into stretches that are computed apart and counted together."""

from __future__ import annotations

from itertools import pairwise


def cut(start: int, stop: int, many: int) -> list[tuple[int, int]]:
    """[start, stop) in at most so many stretches, whose lengths differ by one at most, in order; none is empty unless all is."""
    many = max(min(many, stop - start), 1)
    edges = [start + (stop - start) * index // many for index in range(many + 1)]
    return list(pairwise(edges))
