"""How a command ends that does not end well: one message, the documented exit code, and a traceback only where it helps.

It is told at the top only. What is raised passes through every ``with`` block on its way here, and those remove what is half written.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, ParamSpec, TypeVar

from dtvit_deploy.cli import temporary
from dtvit_deploy.cli.insist import insist, may_say_the_last_word
from dtvit_deploy.errors import DeployError, MissingError
from dtvit_deploy.process import memory
from dtvit_deploy.process.ended import Ended
from dtvit_deploy.process.ending import remove_all

P = ParamSpec("P")
R = TypeVar("R")

GATE_FAILED = 1
ANSWERED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEFECT = 70
"""The program itself is wrong (``EX_SOFTWARE``). Python's own code for that, 1, says here that a gate failed."""
_LONGEST_WORD, _LONGEST_MESSAGE = 240, 4000
"""Characters. A name comes from a file that anybody may have written, and can be a megabyte; a path of that length is cut in its middle."""
_MORE_MEMORY = "raise the limit on memory (`ulimit -v`, the container's), end other programs, or use a machine with more"
debug = False
"""Set by ``--debug``: show the traceback of an expected failure too."""
requested = 0
"""The signal that asked to end; 0 where none did."""


def set_debug(on: bool) -> None:
    global debug  # the one setting of the process
    debug = on


def explained(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command in `told`, with a folder of its own for temporary files."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with told(of_a_recipe=_of_a_recipe(kwargs)), temporary.own_temporary_folder():
            return command(*args, **kwargs)

    return wrapped


@contextlib.contextmanager
def told(*, of_a_recipe: bool = False) -> Iterator[None]:
    """Whatever ends the block becomes a message on standard error and an exit code.

    Args:
        of_a_recipe: whether the request came from a file, so that flags in a message are told by its keys too.

    Raises:
        SystemExit: with that code.
    """
    try:
        yield
        sys.stdout.flush()
        if requested:  # a library took the exception for one of its own, and dropped it
            raise Ended(requested)
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise SystemExit(_tell(error, of_a_recipe=of_a_recipe)) from error


def _of_a_recipe(given: Mapping[str, Any]) -> bool:
    """Whether what a command was called with leaves the request, or what flags change, to a file."""
    from dtvit_deploy.recipe.reading import DEFAULT

    return "recipes" in given or given.get("recipe_file") is not None or ("recipe_file" in given and os.path.lexists(DEFAULT))


def _tell(error: BaseException, *, of_a_recipe: bool) -> int:
    """Write the message; the exit code."""
    if isinstance(error, KeyboardInterrupt | Ended) or requested:  # a library may have made something else of the request
        number = requested or signal.SIGINT
        if may_say_the_last_word():
            _say(_last_word(number), traceback=debug)
        return 128 + number
    if memory.ran_out(error) or (memory.at_the_limit() and not isinstance(error, DeployError)):
        said = memory.words(error) or str(error).partition("\n")[0]
        _say(f"error: out of memory{': ' + said if said else ''}", f"  try: {_MORE_MEMORY}", traceback=debug)
        return MissingError.exit_code if memory.while_loading(error) else DeployError.exit_code
    if isinstance(error, DeployError):
        remedies = [error.remedy, _MORE_MEMORY if memory.at_the_limit() else None]
        keys = _keys_of(error) if of_a_recipe else ""
        lines = [*(f"  try: {remedy}" for remedy in remedies if remedy), *([f"  in a recipe: {keys}"] if keys else [])]
        _say(f"error: {error}", *lines, traceback=debug)
        return error.exit_code
    if isinstance(error, OSError):  # the machine's: a full /tmp, a library that does not load, no descriptors left
        _say(f"error: {error}", "" if debug else "  try: --debug, which shows where", traceback=debug)
        return DeployError.exit_code
    _say("error: this is a defect of dtvit-deploy; please report it with the lines above", traceback=True)
    return DEFECT


def _keys_of(error: DeployError) -> str:
    """Of the flags in a message. The table of flags is there by now; this module is imported before anything else, to meet signals."""
    from dtvit_deploy.cli.keys import keys_of

    return keys_of(f"{error} {error.remedy or ''}")


def _last_word(number: int) -> str:
    what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    return f"{what}; nothing was left half written"


def end_on_request() -> None:
    """Ctrl-C, a request to terminate and a terminal that goes away become exceptions: KeyboardInterrupt, or `Ended`.

    Whoever starts a command may have it ignore the first (a shell, for what it puts in the background) and the last (nohup): that stays.
    A request to terminate is meant for this process alone, and is answered whatever was inherited.
    Where the main thread does not come to that within seconds, the process ends without (`dtvit_deploy.cli.insist`).
    """

    def end(number: int, _: object) -> NoReturn:
        global requested
        requested = number
        raise KeyboardInterrupt if number == signal.SIGINT else Ended(number)

    numbers = [each for each in ANSWERED if each == signal.SIGTERM or signal.getsignal(each) is not signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, end)
    os.register_at_fork(after_in_child=_let_go)
    insist(numbers, _last_word)
    sys.unraisablehook = _ask_again


def _let_go() -> None:
    """A library's forked child ends by a signal as any process does: it has no command to tell the end of."""
    for number in ANSWERED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _ask_again(lost: sys.UnraisableHookArgs) -> None:
    """An exception from a signal that came while a weak reference was let go, of which torch has thousands, is dropped: send it again."""
    if not issubclass(lost.exc_type, (KeyboardInterrupt, Ended)):
        sys.__unraisablehook__(lost)
        return
    import threading

    later = threading.Timer(0.01, os.kill, (os.getpid(), requested))
    later.daemon = True
    later.start()


def leave(code: int) -> NoReturn:
    """End the process here and now. All is written; to take a million objects of torch's apart first would take a second."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, KeyboardInterrupt, Ended):  # nobody reads, and somebody has waited long enough
            stream.flush()
    with contextlib.suppress(ValueError):  # only the main thread may
        for number in ANSWERED:
            signal.signal(number, signal.SIG_IGN)  # it ends already
    remove_all()  # where a request to end came between a block and what it does on its way out
    os._exit(code)


class _Unread(io.FileIO):
    """Where whoever reads has seen enough (``| head``), the rest goes nowhere. What the command found still decides the exit code."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return super().write(content)


def open_streams() -> None:
    """Make both standard streams take any text: closed by the caller, left by its reader, or in an encoding that lacks a character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # opened now, or the first artefact that is opened gets the number of the stream
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 it stays open
        else:
            raw = _Unread(stream.fileno(), "w", closefd=False)
            lines = stream.line_buffering or name == "stderr"
            opened = io.TextIOWrapper(io.BufferedWriter(raw), encoding=stream.encoding, errors="backslashreplace", line_buffering=lines)
            setattr(sys, name, opened)


def _cut(text: str) -> str:
    """A message without words that nobody could read, and of a length that fits a screen."""
    words = re.sub(
        rf"\S{{{_LONGEST_WORD + 1},}}", lambda word: f"{word[0][: _LONGEST_WORD // 2]}…{word[0][-_LONGEST_WORD // 2 :]}", text[: 1 << 20]
    )
    if len(words) <= _LONGEST_MESSAGE:
        return words
    return f"{words[:_LONGEST_MESSAGE]}… ({len(text) - _LONGEST_MESSAGE:,} more characters)"


def _say(*lines: str, traceback: bool) -> None:
    from dtvit_deploy.report.figures import plain

    try:
        if traceback:
            import traceback as tracebacks

            tracebacks.print_exc()
        for line in map(_cut, filter(None, lines)):
            sys.stderr.write("\n".join(map(plain, line.split("\n"))) + "\n")
        sys.stderr.flush()
    except OSError:  # a full disk; the exit code is all that is left to tell with
        pass
