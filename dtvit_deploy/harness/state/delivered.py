"""Mean power that a rail delivered in each block, or why it is not known.

A rail is an instrument that nobody calibrated: a counter sleeps for a part of a second, a sensor tells its mean of two seconds, or what it
told before. The load is known, since blocks change it, and so an instrument that does not follow is seen by its own readings. What cannot
be right has no figure.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

from dtvit_deploy.harness.state.blocks import IDLE, Block
from dtvit_deploy.harness.state.record import REACH, Channel, Watched

SETTLING = 0.5
"""Seconds at the beginning of a block that do not count: a rail's own averaging still has what came before."""
FEWEST_READINGS = 3
MOST_MILLIWATTS = 2e6
"""What no rail delivers: a counter that rose faster began anew, or its wrap-around was missed."""
EVEN = 0.6
"""Least of a block's powers by a counter as a share of its greatest: below, it slept for a part of the time, or made up for that."""
LATE = 0.05
"""Share of a change of load that may come after settling; about so much of the energy would be missing."""
STILL = 0.25
"""Share of a change of load within which of its beginning a rail is still there."""
ASLEEP = 0.1
"""A rail that is at 0 for a moment is asleep where it otherwise delivers more than such a share of its most."""
_MOMENT = 0.05
"""Seconds between two readings, below which a counter may not have counted."""

Readings = list[tuple[float, float]]
"""Times and values, those that are known."""


def powers(watched: Watched, channel: Channel, blocks: Sequence[Block]) -> list[float | str]:
    """Mean power within each block in mW, or why it has none."""
    asleep = _asleep(watched, channel, blocks)
    return [asleep.get(at) or _power(watched, channel, block) for at, block in enumerate(blocks)]


def unfit(watched: Watched, channel: Channel, blocks: Sequence[Block]) -> str:
    """Why a rail says nothing of what blocks take, as it does not follow them; empty where it does."""
    if any(later <= earlier for earlier, later in pairwise(watched.times_s)):
        return "readings are not one after the other"
    known = [(at, value) for block in blocks for at, value in _within(watched, channel, block, 0.0)]
    if channel.kind == "energy":
        pairs = [(one, other) for (earlier, one), (later, other) in pairwise(known) if later - earlier > _MOMENT]
        if still := sum(one == other for one, other in pairs):
            return f"it stood still between {still} of {len(pairs)} readings: it sleeps, or counts more seldom than it is read"
    elif known and len({value for _, value in known}) == 1:
        return "it told the same all the time, busy or idle"
    elif stale := _stale(watched, channel, blocks):
        return f"it still told what it had told before {_settling(channel):.1f} s after {stale} changes between busy and idle"
    late = _late(watched, channel, blocks)
    return f"{late:.0%} of a change between busy and idle shows only after {_settling(channel):.1f} s" if late else ""


def _power(watched: Watched, channel: Channel, block: Block) -> float | str:
    known = _within(watched, channel, block)
    if len(known) < FEWEST_READINGS:
        return f"fewer than {FEWEST_READINGS} readings"
    first, after = _places(watched, block, _settling(channel))
    lasted = known[-1][0] - known[0][0]
    if len(known) < after - first:
        return "a reading is missing"
    if lasted <= 0:
        return "no time passed between its readings"
    if channel.kind == "power":
        return sum((one + other) / 2 * (later - earlier) for (earlier, one), (later, other) in pairwise(known)) / lasted
    rates = _rates(known, channel.limit)
    if len(rates) < len(known) - 1:
        return "it did not count onwards"
    if min(rate for _, rate, _ in rates) < EVEN * max(rate for _, rate, _ in rates):
        return "it counted unevenly, as one that sleeps in between"
    return sum(rate * seconds for _, rate, seconds in rates) / lasted


def _rates(known: Readings, largest: float | None) -> list[tuple[float, float, float]]:
    """Of a counter in µJ: the middle between two readings, mW there, and seconds; those that can be, over its end where it has one."""
    found = []
    for (earlier, one), (later, other) in pairwise(known):
        if other >= one:
            counted = other - one
        elif largest is not None and one <= largest:
            counted = other + largest - one
        else:
            continue
        seconds = later - earlier
        if seconds > 0 and counted / 1e3 <= MOST_MILLIWATTS * seconds:
            found.append(((earlier + later) / 2, counted / 1e3 / seconds, seconds))
    return found


def _asleep(watched: Watched, channel: Channel, blocks: Sequence[Block]) -> dict[int, str]:
    """Blocks in which a rail of power is at 0 for a moment, though it delivers in others of the same load."""
    if channel.kind != "power":
        return {}
    every = [[value for _, value in _within(watched, channel, block)] for block in blocks]
    most = max((value for values in every for value in values), default=0.0)
    alike: dict[int, list[float]] = {}
    for values, block in zip(every, blocks, strict=True):
        alike.setdefault(block.subject, []).extend(values)
    delivers = {subject for subject, values in alike.items() if values and statistics.median(values) > ASLEEP * most}
    return {at: "it said 0 between other readings" for at, block in enumerate(blocks) if 0 in every[at] and block.subject in delivers}


def _stale(watched: Watched, channel: Channel, blocks: Sequence[Block]) -> int:
    """Changes between busy and idle after which a rail, once settled, tells the last figure of before, or is still where it was then.

    The latter may be noise where it happens once.
    """
    same = near = 0
    for before, after in pairwise(blocks):
        if (before.subject == IDLE) == (after.subject == IDLE):
            continue
        old, new = _within(watched, channel, before, 0.0), _within(watched, channel, after)
        was, became = _halves(watched, channel, before), _halves(watched, channel, after)
        if old and new and old[-1][1] == new[0][1]:
            same += 1
        elif was and became and abs(new[0][1] - was[1]) < STILL * abs(became[1] - was[1]):
            near += 1
    return same + near if same or near > 1 else 0


def _late(watched: Watched, channel: Channel, blocks: Sequence[Block]) -> float:
    """The share of a change of load that comes in the second half of what has settled, upwards and downwards alike; 0 where it is small, or
    cannot be told from noise. What comes late only upwards or only downwards is the device's, whose clocks have their ways, too.
    """
    halves = [_halves(watched, channel, block) for block in blocks]
    changes: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for before, after in pairwise(halves):
        if before is not None and after is not None and after[1] != before[1]:
            step = after[1] - before[1]
            changes[step > 0].append((step, after[1] - after[0]))
    shares = []
    for found in changes.values():
        if len(found) < 2:
            return 0.0
        squares = sum(step * step for step, _ in found)
        share = sum(step * rest for step, rest in found) / squares
        noise = math.sqrt(sum((rest - share * step) ** 2 for step, rest in found) / (len(found) - 1) / squares)
        shares.append(share if share > max(LATE, 2 * noise) else 0.0)
    return min(shares)


def _halves(watched: Watched, channel: Channel, block: Block) -> tuple[float, float] | None:
    """Mean power in either half of a block, once settled."""
    known = _within(watched, channel, block)
    series = known if channel.kind == "power" else [(at, rate) for at, rate, _ in _rates(known, channel.limit)]
    middle = (block.began_s + _settling(channel) + block.ended_s) / 2
    first, second = ([value for at, value in series if (at < middle) == early] for early in (True, False))
    return (statistics.fmean(first), statistics.fmean(second)) if first and second else None


def _within(watched: Watched, channel: Channel, block: Block, settling: float | None = None) -> Readings:
    first, after = _places(watched, block, _settling(channel) if settling is None else settling)
    every = zip(watched.times_s[first:after], channel.values[first:after], strict=False)
    return [(at, value) for at, value in every if value is not None]


def _places(watched: Watched, block: Block, settling: float) -> tuple[int, int]:
    """Of the first reading in a block, once settled, and of the first after it."""
    return bisect_left(watched.times_s, block.began_s + settling), bisect_right(watched.times_s, block.ended_s)


def _settling(channel: Channel) -> float:
    return max(SETTLING, REACH.get(channel.source, 0.0))
