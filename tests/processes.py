"""Other processes, as the kernel tells of them; each may end between two looks, so that none of its files need be there."""

from __future__ import annotations

import os
from pathlib import Path


def lives(process: int) -> bool:
    """Whether it runs; one that has ended and was not waited for does not."""
    fields = _fields(process)
    return bool(fields) and fields[0] != "Z"


def seconds_of(process: int) -> float:
    """Of a processor, that it has taken so far; 0 where it is gone."""
    return sum(map(int, _fields(process)[11:13])) / os.sysconf("SC_CLK_TCK")


def _fields(process: int) -> list[str]:
    """Of its line, from its state on: the name before that may have spaces and brackets."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
