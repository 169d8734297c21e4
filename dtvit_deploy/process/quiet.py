"""Hold back what torch and its exporters print on the way: what a person must know, this package says once."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Neither printed lines, nor log messages, nor warnings while in the block, which is given the warnings.

    torch prints whole graphs when an export fails; coremltools regrets the compiled parts that only macOS has.
    """
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(record=True) as caught,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("always")
            yield caught
    finally:
        logging.disable(level)
