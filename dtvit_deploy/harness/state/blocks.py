"""Blocks of one candidate's runs alone, between blocks in which nothing runs: what a rail delivers in them can be told apart.

Samples of a latency are interleaved run by run, milliseconds apart; a rail is read twice a second, and could not say whose energy it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec

from dtvit_deploy.artifacts.bounds import Amount, Count

IDLE = -1
ROUNDS = 5
"""Blocks of each candidate: so many say how far they lie apart."""


class Block(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs of one candidate, one after the other, or none.

    Attributes:
        subject: place of the candidate; `IDLE` where nothing ran.
        began_s, ended_s: in seconds since sampling of the latency began.
        runs: whole inferences.
    """

    subject: Annotated[int, msgspec.Meta(ge=IDLE, le=1000)]
    began_s: Amount
    ended_s: Amount
    runs: Count = 0

    @property
    def seconds(self) -> float:
        return self.ended_s - self.began_s


def take_blocks(
    runs: Sequence[Callable[[], object]],
    seconds: float,
    *,
    since: float,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
    rounds: int = ROUNDS,
) -> tuple[Block, ...]:
    """Run each candidate alone for a while, in turn and in reverse order every other round; a pause before each round and after the last.

    Args:
        runs: one inference each.
        seconds: of a block; an inference that has begun is ended.
        since: when sampling began, by the clock.
    """
    found: list[Block] = []

    def block(subject: int) -> None:
        began, count = clock(), 0
        if subject == IDLE:
            wait(seconds)
        else:
            while clock() - began < seconds:
                runs[subject]()
                count += 1
        found.append(Block(subject=subject, began_s=began - since, ended_s=clock() - since, runs=count))

    for turn in range(rounds):
        block(IDLE)
        for subject in sorted(range(len(runs)), reverse=turn % 2 == 1):
            block(subject)
    block(IDLE)
    return tuple(found)
