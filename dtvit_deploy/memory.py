"""Whether memory ran out: libraries say so in a class or in words of their own, often as if something else were wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SAID = re.compile(
    r"bad.?alloc|(?:cannot|can't|could not|failed to|unable to) (?:re)?alloc|(?:not enough|out of|insufficient) memory"
    r"|failed to map segment|could not create a memory|can't start new thread",
    re.IGNORECASE,
)
"""Of C++, of the C library, of the dynamic loader, of NumPy, torch, ONNX Runtime and oneDNN; a thread that cannot start lacks its stack."""


def ran_out(error: BaseException) -> bool:
    """Whether an exception, or one that it came from, tells that no memory was to be had."""
    return any(isinstance(one, MemoryError) or _SAID.search(str(one)) for one in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
