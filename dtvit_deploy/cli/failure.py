"""What a command does when it fails: one message and the documented exit code."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from dtvit_deploy.errors import DeployError

P = ParamSpec("P")
R = TypeVar("R")

GATE_FAILED = 1
INTERRUPTED = 130
"""What a shell reports of a process that Ctrl-C ended."""
debug = False
"""Set by ``--debug``: show the traceback of an expected failure too."""


def set_debug(on: bool) -> None:
    global debug  # the one setting of the process
    debug = on


def explained(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command: an expected failure becomes a message on standard error, and its exit code."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except DeployError as error:
            if debug:
                raise
            sys.stderr.write(f"error: {error}\n")
            if error.remedy:
                sys.stderr.write(f"  try: {error.remedy}\n")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; nothing was left half written\n")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output has seen enough. Standard output is gone: keep the interpreter from flushing it.
            sys.stdout = None
            raise typer.Exit(0) from None

    return wrapped


def terminate_cleanly() -> None:
    """SIGTERM as an exception, so that what is half written is removed on the way out."""

    def leave(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)
