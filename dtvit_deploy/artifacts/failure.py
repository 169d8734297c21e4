"""Why an artefact has no figure, by one list of classes."""

from __future__ import annotations

import enum

import msgspec

from dtvit_deploy.errors import InputError


class FailureClass(enum.Enum):
    """What kind of failure it was."""

    CRASH = "crash"
    """The runtime ended its process, or failed in a way of its own."""
    OUT_OF_MEMORY = "out of memory"
    """No memory was to be had."""
    CORRUPT = "corrupt"
    """The artefact is not what its manifest says."""
    VERSION_MISMATCH = "version mismatch"
    """It is for another version of the runtime, or for another device."""
    TIMEOUT = "timeout"
    """It did not end within the time that is allowed."""
    REFUSED = "refused"
    """The runtime says that it cannot load or run it, and why."""
    MISSING = "missing"
    """The runtime, or something that it needs, is not there."""

    def __str__(self) -> str:
        return self.value


class Failure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why something was not measured.

    Attributes:
        kind: the class of the failure.
        stage: in which it arose: ``start`` is a process of its own that loads the artefact and runs it, ``load`` is the session that
            samples were to be taken of.
        message: what happened, in a sentence.
    """

    kind: FailureClass
    stage: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class FailedError(InputError):
    """An artefact failed, in a way that has a class."""

    def __init__(self, failure: Failure, *, remedy: str | None = None) -> None:
        super().__init__(failure.message, remedy=remedy)
        self.failure = failure
