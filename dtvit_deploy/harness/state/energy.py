"""What one inference takes of a rail, beyond what the device takes when nothing runs.

Of a rail that counts energy, the difference of two readings is taken; of one that tells power, the area under its readings. A reading that
is missing makes a block's figure missing, and too few blocks make the energy unknown: no value is put in its place.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import msgspec

from dtvit_deploy.artifacts.bounds import Count, unit
from dtvit_deploy.harness.state.blocks import IDLE, Block
from dtvit_deploy.harness.state.delivered import powers, unfit
from dtvit_deploy.harness.state.record import Channel, Number, Watched

FEWEST_BLOCKS = 3
_STUDENT = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5 % quantile of Student's t, by degrees of freedom; those of more blocks than nine are less by little, and this errs towards wide."""


class Energy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Energy of one inference on one rail.

    Attributes:
        rail, source: which, and where it was read.
        millijoules: of one inference, what the idle device takes subtracted; the mean over blocks.
        low, high: 95 % interval of that mean (Student's t over blocks).
        busy_mw, idle_mw: mean power while it ran, and while nothing did.
        blocks, runs: how many blocks that is of, and inferences in them.
        method: how the rail's readings became energy.
    """

    rail: str
    source: str
    millijoules: Number
    low: Annotated[Number, unit("mJ")]
    high: Annotated[Number, unit("mJ")]
    busy_mw: Number
    idle_mw: Number
    blocks: Count
    runs: Count
    method: str

    def __str__(self) -> str:
        return f"{self.millijoules:.3g} mJ ({self.low:.3g}–{self.high:.3g}) on {self.rail}"


def energies(watched: Watched, blocks: Sequence[Block], subject: int) -> tuple[tuple[Energy, ...], tuple[str, ...]]:
    """What one inference of a candidate takes of each rail, the rail that delivers most first; and why there is none of a rail."""
    found, why = [], []
    for channel in watched.channels:
        if channel.kind not in ("energy", "power") or not blocks:
            continue
        one = _of_rail(watched, channel, blocks, subject)
        if isinstance(one, Energy):
            found.append(one)
        else:
            why.append(f"no energy of {channel.name}: {one} ({channel.source})")
    return tuple(sorted(found, key=lambda one: -one.millijoules)), tuple(why)


def _of_rail(watched: Watched, channel: Channel, blocks: Sequence[Block], subject: int) -> Energy | str:
    told = powers(watched, channel, blocks)
    known = [None if isinstance(power, str) else power for power in told]
    idle = [power for power, block in zip(known, blocks, strict=True) if block.subject == IDLE and power is not None]
    figures, busy, runs = [], [], 0
    for at, (power, block) in enumerate(zip(known, blocks, strict=True)):
        beside = _idle_beside(blocks, known, at)
        if block.subject != subject or not block.runs or power is None or beside is None:
            continue
        figures.append((power - beside) * block.seconds / block.runs)  # mW × s = mJ
        busy.append(power)
        runs += block.runs
    if why := unfit(watched, channel, blocks):
        return why
    if len(figures) < FEWEST_BLOCKS:
        reasons = Counter(power for power in told if isinstance(power, str)).most_common(1)
        common = "".join(f"; {why} in {count} of {len(blocks)}" for why, count in reasons)
        return f"only {len(figures)} blocks have a figure, and {FEWEST_BLOCKS} are needed{common}"
    mean = statistics.fmean(figures)
    freedom = min(len(figures) - 1, max(_STUDENT))
    half = _STUDENT[freedom] * statistics.stdev(figures) / math.sqrt(len(figures))
    if mean - half <= 0:
        return f"{mean:.3g} ± {half:.3g} mJ for an inference cannot be told from the idle device's"
    counted = channel.kind == "energy"
    return Energy(
        rail=channel.name,
        source=channel.source,
        millijoules=mean,
        low=mean - half,
        high=mean + half,
        busy_mw=statistics.fmean(busy),
        idle_mw=statistics.fmean(idle),
        blocks=len(figures),
        runs=runs,
        method=f"{'difference of a counter' if counted else 'area under readings of power'}, in blocks between idle ones",
    )


def _idle_beside(blocks: Sequence[Block], powers: Sequence[float | None], at: int) -> float | None:
    """Mean power of the idle blocks before and after one: what the device takes by itself changes as it warms."""
    before = next((at - back for back in range(1, at + 1) if blocks[at - back].subject == IDLE), None)
    after = next((next_ for next_ in range(at + 1, len(blocks)) if blocks[next_].subject == IDLE), None)
    if before is None or after is None:
        return None
    pair = [powers[before], powers[after]]
    known = [power for power in pair if power is not None]
    return statistics.fmean(known) if len(known) == len(pair) else None
