"""How a command ends that does not end well: one message, the documented exit code, and a traceback only where it helps.

It is told at the top only. What is raised passes through every ``with`` block on its way here, and those remove what is half written.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import IO, ParamSpec, TypeVar

from dtvit_deploy.errors import DeployError

P = ParamSpec("P")
R = TypeVar("R")

GATE_FAILED = 1
DEFECT = 70
"""The program itself is wrong (``EX_SOFTWARE``). Python's own code for that, 1, says here that a gate failed."""
debug = False
"""Set by ``--debug``: show the traceback of an expected failure too."""


class Ended(BaseException):
    """A request to end, as an exception. Not SystemExit: what runs a user's module takes that for the module's own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def set_debug(on: bool) -> None:
    global debug  # the one setting of the process
    debug = on


def explained(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command in `told`."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with told():
            return command(*args, **kwargs)

    return wrapped


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Whatever ends the block becomes a message on standard error and an exit code.

    Raises:
        SystemExit: with that code.
    """
    try:
        yield
        _flush()
    except DeployError as error:
        _say(f"error: {error}", f"  try: {error.remedy}" if error.remedy else "", traceback=debug)
        raise SystemExit(error.exit_code) from error
    except KeyboardInterrupt:
        _say("interrupted; nothing was left half written", traceback=debug)
        raise SystemExit(128 + signal.SIGINT) from None
    except Ended as request:
        _say(f"ended by {signal.Signals(request.number).name}; nothing was left half written", traceback=debug)
        raise SystemExit(128 + request.number) from None
    except (OSError, MemoryError) as error:  # the machine's: a full /tmp, a library that does not load, no descriptors left
        with contextlib.suppress(OSError):
            _flush()
        _say(f"error: {str(error) or 'out of memory'}", "" if debug else "  try: --debug, which shows where", traceback=debug)
        raise SystemExit(DeployError.exit_code) from error
    except Exception as error:
        _say("error: this is a defect of dtvit-deploy; please report it with the lines above", traceback=True)
        raise SystemExit(DEFECT) from error


def end_on_request() -> None:
    """A request to terminate, or a terminal that goes away, raises `Ended`, as Ctrl-C raises KeyboardInterrupt."""

    def leave(number: int, _: object) -> None:
        raise Ended(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, leave)


def end_at_once() -> None:
    """All is done and said: a signal now ends the process while it takes itself apart, without a traceback from somewhere in there."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def open_streams() -> None:
    """Make both standard streams take any text, also where the caller has closed them or chose an encoding that lacks a character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # opened now, or the first artefact that is opened gets the number of the stream
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 it stays open
        else:
            stream.reconfigure(errors="backslashreplace")


def discard(stream: IO[str]) -> None:
    """Send what is still to come nowhere: whoever read it has seen enough. What the command found still decides the exit code."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _flush() -> None:
    """Write out what is held back, or the interpreter does it later, and tells of what goes wrong in its own way."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except OSError:
        discard(sys.stdout)
        raise


def _say(*lines: str, traceback: bool) -> None:
    from dtvit_deploy.report.figures import plain

    try:
        if traceback:
            import traceback as tracebacks

            tracebacks.print_exc()
        for line in filter(None, lines):
            sys.stderr.write("\n".join(map(plain, line.split("\n"))) + "\n")
        sys.stderr.flush()
    except OSError:  # the exit code is all that is left to tell with
        discard(sys.stderr)
