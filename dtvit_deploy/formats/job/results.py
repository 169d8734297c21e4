"""What a results file says, held to the job that it answers, frame by frame and before anything of it is used.

A worker that was ended begins its task again: what came before that of the task does not count. A task counts when its ``done`` is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.expected import not_asked, parts_of, require_expected, require_whole
from dtvit_deploy.formats.job.frames import (
    MAGIC,
    CutOffError,
    Frame,
    ResultsError,
    read_frame,
    read_magic,
)
from dtvit_deploy.formats.job.job import Build, Job
from dtvit_deploy.formats.job.words import cleaned, text_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_BESIDES = 200_000
"""Frames that are no results: of progress, of waiting, of beginning again."""


@dataclass(kw_only=True)
class Outcome:
    """How far a task has come.

    Attributes:
        ended: ``done``, ``failed``, or empty.
        parts: where its frames are in the file.
        before, after: what the device said of itself.
        facts: conditions of its session.
        error: of a task that failed.
        size, content: bytes in the parts of what was built, and their digest.
        made: what the parts of it are (`dtvit_deploy.formats.job.made.Made`).
    """

    ended: str = ""
    parts: list[int] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    error: InputError | MissingError | None = None
    size: int = 0
    content: Any = field(default_factory=hashlib.sha256)
    made: Any = None


class Results:
    """The results of one job, in a file of this machine that grows with each frame.

    Args:
        job: that was asked.
        identity: the job's name, the digest of its JSON.
        file: where they are, or are to be put.
    """

    def __init__(self, job: Job, identity: str, file: BinaryIO) -> None:
        self.job, self.identity, self._file = job, identity, file
        self._forget()

    def begin(self, stream: BinaryIO | None = None) -> None:
        """Forget everything, and read the first line of another stream, or write it.

        Raises:
            ResultsError: it is another line.
        """
        if stream is not None:
            read_magic(stream)
        self._forget()
        self._file.truncate(0)
        self._take(MAGIC)

    def load(self) -> None:
        """Read what the file holds, as far as it is whole; what is accepted later follows that.

        Raises:
            CutOffError: it ends within a frame.
            ResultsError: it was altered, or answers another job.
        """
        self._forget()
        self._file.seek(0)
        read_magic(self._file)
        self._pass(MAGIC)
        while (frame := read_frame(self._file)) is not None:
            self._accept(frame)
            self._pass(frame.raw)

    def cut(self) -> None:
        """Take what is beyond the last whole frame from the file."""
        self._file.truncate(self.offset)

    def accept(self, frame: Frame) -> None:
        """Take the next frame, and write it.

        Raises:
            ResultsError: it does not follow what came before, or is no answer to what the job asks.
        """
        self._accept(frame)
        self._take(frame.raw)

    @property
    def end(self) -> dict[str, Any]:
        """What the last frame says of those before it."""
        return {"frames": self.frames, "sha256": self._digest.hexdigest()}

    def parts(self, task: int) -> Iterator[dict[str, NDArray[Any]]]:
        """The arrays of a task's results in their order, read one at a time.

        Raises:
            InputError, MissingError: as the task failed there.
            ResultsError: the task has not ended.
        """
        for frame in self._frames(task):
            yield frame.arrays()

    def bodies(self, task: int) -> Iterator[tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
        """As `parts`, each with what its frame says besides."""
        for frame in self._frames(task):
            yield frame.header.body, frame.arrays()

    def part(self, task: int, index: int) -> dict[str, NDArray[Any]]:
        """The arrays of one result."""
        return self._frame(self.require(task).parts[index]).arrays()

    def require(self, task: int) -> Outcome:
        """How a task ended, well.

        Raises:
            InputError, MissingError: as it failed there.
            ResultsError: it has not ended.
        """
        found = self.outcomes[task]
        if found.error is not None:
            raise found.error
        if found.ended != "done":
            raise ResultsError(f"the results lack the task {self.job.tasks[task].name!r}", remedy="have the device do the job again")
        return found

    @property
    def failed(self) -> bool:
        """Whether a task failed there."""
        return any(one.ended == "failed" for one in self.outcomes)

    def _frames(self, task: int) -> Iterator[Frame]:
        for offset in self.require(task).parts:
            yield self._frame(offset)

    def _frame(self, offset: int) -> Frame:
        self._file.seek(offset)
        frame = read_frame(self._file)
        if frame is None:
            raise CutOffError("the results lack what was read of them before", remedy="fetch them again")
        return frame

    def _forget(self) -> None:
        self.offset, self.frames, self.ended = 0, 0, False
        self.device: dict[str, str] = {}
        self.outcomes = [Outcome() for _ in self.job.tasks]
        self._digest = hashlib.sha256()
        self._open: int | None = None

    def _accept(self, frame: Frame) -> None:
        if self.ended:
            raise not_asked("something follows its end")
        if (frame.header.kind == "job") != (self.frames == 0):
            raise not_asked("it does not begin with the job that it answers")
        if self.frames > sum(map(parts_of, self.job.tasks)) + _MOST_BESIDES:
            raise not_asked("it has far more frames than there is to tell")
        self._check[frame.header.kind](self, frame)
        self.frames += 1

    def _take(self, content: bytes) -> None:
        self._file.seek(self.offset)
        self._file.write(content)
        self._file.flush()
        self._pass(content)

    def _pass(self, content: bytes) -> None:
        self._digest.update(content)
        self.offset += len(content)

    def _job(self, frame: Frame) -> None:
        body = frame.header.body
        if body.get("job") != self.identity:
            raise not_asked(f"it answers another job, {text_of(body.get('job'))[:16]}…, not {self.identity[:16]}…")
        self.device = _texts(body.get("device", {}))

    def _waiting(self, frame: Frame) -> None:
        pass

    def _begin(self, frame: Frame) -> None:
        task = self._task(frame, began=False)
        if self.outcomes[task].ended:
            raise not_asked(f"the task {self.job.tasks[task].name!r} has ended, and begins again")
        self._open = task
        self.outcomes[task] = Outcome(before=_texts(frame.header.body.get("state", {})))

    def _part(self, frame: Frame) -> None:
        task = self._task(frame)
        asked, parts = self.job.tasks[task], self.outcomes[task].parts
        if frame.header.index != len(parts) or len(parts) >= parts_of(asked):
            raise not_asked(f"{asked.name!r} has {parts_of(asked)} results, and number {frame.header.index} comes after {len(parts)}")
        require_expected(self.job, asked, len(parts), frame.header)
        frame.arrays()
        if isinstance(asked, Build):
            self.outcomes[task].size += len(frame.content)
            self.outcomes[task].content.update(frame.content)
        parts.append(self.offset)

    def _progress(self, frame: Frame) -> None:
        self._task(frame)
        fraction = frame.header.body.get("fraction")
        if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            raise not_asked("a part of a task that is done is no part of it")

    def _done(self, frame: Frame) -> None:
        task = self._task(frame)
        outcome, asked = self.outcomes[task], self.job.tasks[task]
        require_whole(asked, len(outcome.parts), outcome.size, outcome.content.hexdigest(), frame.header.body)
        outcome.ended, self._open, outcome.made = "done", None, frame.header.body.get("made")
        outcome.after = _texts(frame.header.body.get("state", {}))
        outcome.facts = _texts(frame.header.body.get("conditions", {}))

    def _failed(self, frame: Frame) -> None:
        task, body = self._task(frame), frame.header.body
        kind = MissingError if body.get("exit_code") == MissingError.exit_code else InputError
        message = text_of(body.get("message")) or "no reason is told"
        self.outcomes[task] = Outcome(ended="failed", error=kind(message, remedy=text_of(body.get("remedy")) or None))
        self._open = None

    def _end(self, frame: Frame) -> None:
        body = frame.header.body
        if body != self.end:
            raise not_asked("what its end says of it does not fit it")
        if missing := [task.name for task, one in zip(self.job.tasks, self.outcomes, strict=True) if not one.ended]:
            raise not_asked(f"it ends without {missing[0]!r}")
        self.ended = True

    def _task(self, frame: Frame, *, began: bool = True) -> int:
        """The task that a frame is about, which has to be the one that goes on where it should have begun."""
        task = frame.header.task
        if not 0 <= task < len(self.job.tasks) or (began and task != self._open):
            raise not_asked(f"a frame is about task {task}, which does not go on")
        return task

    _check: Mapping[str, Callable[[Results, Frame], None]] = {
        "job": _job,
        "waiting": _waiting,
        "begin": _begin,
        "part": _part,
        "progress": _progress,
        "done": _done,
        "failed": _failed,
        "end": _end,
    }


def read_results(job: Job, identity: str, file: BinaryIO) -> Results:
    """The results in a whole file, from a stick, say.

    Raises:
        ResultsError: they are not whole, were altered, or answer another job.
    """
    results = Results(job, identity, file)
    results.load()
    if not results.ended:
        raise CutOffError("the results end before their end", remedy="fetch the whole file from the device")
    return results


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise not_asked("what the device says of itself is no list of facts")
    return cleaned(value)
