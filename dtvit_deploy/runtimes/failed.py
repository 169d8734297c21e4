"""The class of a failure: of an exception where it arose, and of a process by how it ended."""

from __future__ import annotations

import signal

from dtvit_deploy.artifacts.failure import FailedError, Failure, FailureClass
from dtvit_deploy.errors import CorruptError, InputError, MismatchError, MissingError
from dtvit_deploy.process.memory import ran_out, words

START, LOAD = "start", "load"
"""Stages."""


def of_error(error: Exception, stage: str) -> Failure:
    """What an exception is, that came as an artefact was loaded or run."""
    if isinstance(error, FailedError):
        return error.failure
    told = str(error) if isinstance(error, InputError | MissingError) else f"{type(error).__name__}: {error}"
    if ran_out(error):
        return Failure(kind=FailureClass.OUT_OF_MEMORY, stage=stage, message=words(error) or told)
    return Failure(kind=_class_of(error), stage=stage, message=told)


def _class_of(error: Exception) -> FailureClass:
    for cls, kind in (
        (CorruptError, FailureClass.CORRUPT),
        (MismatchError, FailureClass.VERSION_MISMATCH),
        (MissingError, FailureClass.MISSING),
        (ImportError, FailureClass.MISSING),
        (TimeoutError, FailureClass.TIMEOUT),
        (InputError, FailureClass.REFUSED),
    ):
        if isinstance(error, cls):
            return kind
    return FailureClass.CRASH


def of_process(doing: str, status: int, said: str, stage: str = START, *, starved: bool = False) -> Failure:
    """What the end of a process is that told nothing of an exception.

    Args:
        doing: what it could not do.
        status: its exit status; of a signal, its number with a minus.
        said: on its standard error.
        starved: whether the system ended processes meanwhile since memory ran out: by SIGKILL, which it then was.
    """
    last = (said.strip().splitlines() or ["no message"])[-1]
    if status >= 0:
        kind = FailureClass.OUT_OF_MEMORY if ran_out(RuntimeError(said)) else FailureClass.CRASH
        return Failure(kind=kind, stage=stage, message=f"{doing}: {last}")
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    if name == "SIGKILL" and starved:
        message = f"{doing}: the system ended it, since memory ran out"
        return Failure(kind=FailureClass.OUT_OF_MEMORY, stage=stage, message=message)
    kind = FailureClass.TIMEOUT if name == "SIGXCPU" else FailureClass.CRASH
    return Failure(kind=kind, stage=stage, message=f"{doing}: it was ended by {name}")


def timed_out(what: str, stage: str = START) -> Failure:
    """Something that took longer than it may."""
    return Failure(kind=FailureClass.TIMEOUT, stage=stage, message=what)
