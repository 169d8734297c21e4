"""How far a figure was proved."""

from __future__ import annotations

import enum


class Rung(enum.Enum):
    """The evidence ladder. Every figure names its rung, and never a higher one than was reached."""

    PREPARED = "prepared"
    """Written for a compiler that is not here: nothing has accepted it yet. A job for a Jetson; a Core ML package saved without a Mac."""
    BUILT = "built"
    """The vendor's compiler accepted it."""
    EMULATED = "emulated"
    """The artefact's own graph was evaluated in its own types by another engine on this machine."""
    EMULATED_PROCESSOR = "emulated processor"
    """The vendor's runtime ran it on a processor that is emulated: what it answers counts, and no time that it takes."""
    EXECUTED = "executed"
    """The vendor's runtime ran it on this machine."""
    ON_DEVICE = "on device"
    """It ran on the named device, whose state was recorded."""

    def __str__(self) -> str:
        return self.value
