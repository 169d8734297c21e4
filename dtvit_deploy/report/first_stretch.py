"""What a series was like when it began, so that a regression that creeps in is found where each single step is within the band.

The last runs move along with a latency that grows by a per cent a week, and their median is never far behind. The first runs stay where
they were. A step that was told, and stayed, is another beginning: it was told for as long as most of the last runs were older than it, and
is what the artefact takes since. What goes on growing while it is told has not come to an end, and is told on.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

STRETCH = 5
"""Runs that a series is said to begin with: few, since a creeping regression is in them too, and enough to know how far runs lie apart."""


def first_stretch(medians: Sequence[float], told: Sequence[bool], *, last: int, band: float) -> slice:
    """Where the first runs are since the latency changed for good; nowhere, where no run came after them.

    Args:
        medians: of runs of one artefact under the same conditions, the oldest first.
        told: of each, whether it was found slower when it was added.
        last: how many runs the newest is held against; a step is one that was told in more than half as many in a row, and stayed.
        band: share by which the later half of those may differ from the earlier one.
    """
    begin = in_a_row = 0
    needed = last // 2 + 1
    for place, slower in enumerate(told):
        in_a_row = in_a_row + 1 if slower else 0
        if in_a_row >= needed and _stayed(medians[place - needed + 1 : place + 1], band):
            begin = place - needed + 1
    return slice(begin, begin + STRETCH) if len(medians) > begin + STRETCH else slice(0)


def _stayed(medians: Sequence[float], band: float) -> bool:
    half = len(medians) // 2
    return not half or abs(statistics.median(medians[-half:]) / statistics.median(medians[:half]) - 1) <= band
