"""Which clocks of a machine are locked: those of every kind that it has."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dtvit_deploy.devices.clocks.cards import Card, cards
from dtvit_deploy.devices.clocks.jetson import Jetson, jetsons
from dtvit_deploy.devices.clocks.processor import Processor, policies, processors
from dtvit_deploy.devices.clocks.programs import path_of
from dtvit_deploy.devices.clocks.setting import AS_SHIPPED
from dtvit_deploy.devices.state.jetson import is_one
from dtvit_deploy.errors import MissingError
from dtvit_deploy.harness.state.record import CARD

Kept = Processor | Jetson | Card
"""Every `Setting` that there is: what a record may hold."""


class Wanted(NamedTuple):
    """What is to be locked, as it is now.

    Attributes:
        settings: in the order in which they are locked.
        others: what stays as it was shipped, in words.
    """

    settings: tuple[Kept, ...]
    others: tuple[str, ...] = ()

    @property
    def how(self) -> str:
        """What a figure says once all of it is locked: ``locked at 2400 MHz, no turbo``."""
        return "; ".join((f"locked at {'; '.join(one.said for one in self.settings)}", *self.others))


def has_any(root: Path) -> bool:
    """Whether a machine has clocks that could be asked for, found out without changing anything."""
    return is_one(root) or bool(policies(root)) or path_of(root, CARD) is not None


def wanted(root: Path) -> Wanted:
    """All clocks that can be locked. A Jetson's own program holds its processor, too.

    Raises:
        MissingError: there are none, or this machine does not let us.
    """
    if found := jetsons(root):
        return Wanted(tuple(found))
    processor, gpus = processors(root), cards(root)
    if not processor and not gpus.cards:
        raise MissingError(
            "clocks cannot be locked: there is no policy in /sys/devices/system/cpu/cpufreq, as in most virtual machines and containers,"
            " and no NVIDIA GPU that nvidia-smi could lock",
            remedy=AS_SHIPPED,
        )
    return Wanted((*processor, *gpus.cards), (*(() if processor else ("processor as shipped",)), *gpus.others))
