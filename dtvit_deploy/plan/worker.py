"""A process that does stages, one after the other, as it is told on its standard input; what it says of them goes to its standard output.

Each line is JSON. What a network of the user's prints goes to standard error, out of the way.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.harness.accuracy import printable
from dtvit_deploy.process.ended import Ended
from dtvit_deploy.process.memory import ran_out, words

T = TypeVar("T")


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a worker's.

    Attributes:
        step: what it is doing now.
        result: where the result is; the stage is done.
        error, remedy, kind: why it failed, for the user, and what of our errors that was.
        defect: a traceback: the fault is this program's.
    """

    step: str = ""
    result: str = ""
    error: str = ""
    remedy: str | None = None
    kind: str = ""
    defect: str = ""


class Speaking:
    """Progress that is passed on."""

    def __init__(self, stream: int) -> None:
        self._stream = stream

    def say(self, said: Said) -> None:
        told = {name: printable(value) if isinstance(value, str) else value for name, value in msgspec.structs.asdict(said).items()}
        os.write(self._stream, msgspec.json.encode(Said(**told)) + b"\n")

    def step(self, what: str) -> None:
        self.say(Said(step=what))

    def track(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        if total > 1:
            self.step(f"{what}: {total}")
        yield from items


def serve() -> None:
    """Do stages until nobody is left to ask."""
    from dtvit_deploy.plan.performing import Order, perform

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal reaches every process; the one that asks ends this one
    speaking, asked = Speaking(os.dup(1)), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)  # where a user's code prints, each line at once: this process is killed when nobody needs it any more
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 what it asks of a person nobody answers, nor may it read our orders
        os.dup2(nothing.fileno(), 0)
    try:
        for line in asked:
            order = msgspec.json.decode(line, type=Order)
            # What is asked to end may end at once, but for what has begun something on a device, where that would go on.
            signal.signal(signal.SIGTERM, _end if order.stage.cost.device else signal.SIG_DFL)
            speaking.say(_done(functools.partial(perform, order, speaking)))
    except Ended:  # by now it was ended there
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _end(number: int, _: object) -> NoReturn:
    raise Ended(number)


def _done(work: Callable[[], Path]) -> Said:
    try:
        return Said(result=str(work()))
    except (InputError, MissingError) as error:
        return Said(error=str(error), remedy=error.remedy, kind="missing" if isinstance(error, MissingError) else "input")
    except DeployError as error:
        return Said(error=str(error), remedy=error.remedy, kind="other")
    except Exception as error:
        if ran_out(error):
            return Said(error=f"out of memory: {words(error)}", remedy="--workers 1, or a machine with more", kind="other")
        if isinstance(error, OSError):
            return Said(error=str(error), remedy="--workers 1 --debug, which shows where", kind="other")
        return Said(defect=traceback.format_exc())
