"""What every kind of clocks is to whoever locks them: what it was is in its fields, which are on disk before anything is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

FOLDER = "run/dtvit-deploy"
"""Below the root; only root writes in it, since root gives back what stands in it. A reboot empties it, as it does the changes."""
AS_SHIPPED = "measure without --lock-clocks: the figure then is of clocks as shipped"


class Setting(Protocol):
    """Clocks of one kind: each is a struct that JSON holds, and none changes anything before `lock`."""

    @property
    def said(self) -> str:
        """How they are once they are locked, for a figure: ``2400 MHz, no turbo``."""
        ...

    def lock(self, root: Path) -> str:
        """Lock them and look whether they are; why they are not, in words, or nothing."""
        ...

    def moved(self, root: Path) -> list[str]:
        """What is no longer as it was locked."""
        ...

    def give_back(self, root: Path) -> list[str]:
        """Make everything as it was, however little of it was changed; what could not be, which is tried again by the next command."""
        ...
