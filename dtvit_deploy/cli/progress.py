"""What a person sees while a command works: each step, how far it is, how long it took; on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dtvit_deploy.cli.show import Stream
from dtvit_deploy.report.figures import plain

T = TypeVar("T")
SOON, LONG, MINUTE = 5, 10, 60
"""Seconds of work after which a step says how long it was, its end is worth a line, and a log hears of a bar again."""
HANDFUL = 8
"""Items that are done before one wonders; a stage of more is named where nobody sees a bar."""


class Terminal:
    """Progress for a person: a line for each step, and a bar where somebody watches."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = Stream(errors=True)
        self._clock, self._began = clock, clock()

    @property
    def seconds(self) -> int:
        """Whole seconds since the work began."""
        return int(self._clock() - self._began)

    def step(self, what: str) -> None:
        """Name what begins, and how long what was before it took altogether."""
        after = f" (after {_elapsed(self.seconds)})" if self.seconds >= SOON else ""
        self.console.say(f"· {what}{after}", "dim")

    def track(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        if not self.console.is_terminal and total > HANDFUL:
            self.step(f"{what}: {total}")
        named = TextColumn("· {task.description}", style="dim", markup=False)
        columns = (named, BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(plain(what), total=total)
            told = self.seconds
            for number, item in enumerate(items, 1):
                yield item
                bar.advance(task)
                if not self.console.is_terminal and self.seconds >= told + MINUTE and number < total:
                    told = self.seconds
                    self.step(f"{what}: {number} of {total}")


@contextlib.contextmanager
def working() -> Iterator[Terminal]:
    """Progress of what is done in the block. What prints there, a user's own network say, is sent to standard error, out of results."""
    terminal = Terminal()
    with contextlib.redirect_stdout(sys.stderr):
        yield terminal
    if terminal.seconds >= LONG:
        terminal.step("done")


def _elapsed(seconds: int) -> str:
    return f"{seconds} s" if seconds < 100 else f"{seconds // 60}:{seconds % 60:02} min"
