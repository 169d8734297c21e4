"""Burst and sustained: what a device does in its first second, and what is left of that under a load that lasts.

A phone or a board without a fan is fastest before it is warm. Its figures of a few seconds are true, and mislead whoever runs it for
minutes; so the two are told apart, and neither is the p50 of all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Annotated

import msgspec

from dtvit_deploy.artifacts.bounds import Amount, Natural, unit
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency.percentiles import P50, fewest, nearest_rank

BURST_SECONDS = 1.0
SETTLED = 2 / 3
"""Share of the load after which a device is taken to have settled: what is left is as long as the thirds that drift is found in."""

LASTED = 0.9
"""Share of the load that was asked for from which it is one: the last sample of a slow candidate may be one of a round before the end."""


class Sustained(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A candidate under a load that lasted, all candidates of the run together.

    Attributes:
        asked_seconds, seconds: how long the load was to last, and how long it did.
        burst_ms: median of the samples that began within the first second of sampling, after warm-up; of the first eleven, where a second
            has fewer.
        burst_seconds: what those took.
        burst_samples, sustained_samples: how many samples either median is of.
        sustained_ms: median of the samples of the last third.
        ratio: sustained ÷ burst; None where it cannot be told.
        reason: why it cannot; empty where it is.
    """

    asked_seconds: Amount
    seconds: Amount
    burst_ms: Amount
    burst_seconds: Amount
    burst_samples: Natural
    sustained_ms: Amount
    sustained_samples: Natural
    ratio: Annotated[Amount, unit("1")] | None
    reason: str = ""

    def __str__(self) -> str:
        burst = f"{self.burst_ms:.4g} ms in the first {self.burst_seconds:.1f} s ({self.burst_samples:,} samples)"
        lasting = f"{self.sustained_ms:.4g} ms in the last third of {self.seconds:.0f} s ({self.sustained_samples:,} samples)"
        told = f"sustained ÷ burst not told: {self.reason}" if self.ratio is None else f"sustained ÷ burst {self.ratio:.3f}"
        return f"burst {burst}, sustained {lasting}: {told}"


def sustained(samples_ms: Sequence[float], stamps_s: Sequence[float], asked_seconds: float) -> Sustained:
    """Burst and sustained of samples in the order taken, one at least, and the seconds at which each began.

    Args:
        asked_seconds: how long the load was to last.

    Raises:
        InputError: it is not told when each began.
    """
    if len(stamps_s) != len(samples_ms):
        raise InputError(f"there are {len(samples_ms):,} latency samples, and the beginning of {len(stamps_s):,} is told")
    seconds = stamps_s[-1] + samples_ms[-1] / 1e3
    least = fewest(P50)
    early = min(max(bisect_left(stamps_s, BURST_SECONDS), least), len(samples_ms))
    late = min(bisect_left(stamps_s, SETTLED * seconds), len(samples_ms) - 1)
    burst, lasting = sorted(samples_ms[:early]), sorted(samples_ms[late:])
    burst_ms, sustained_ms = nearest_rank(burst, P50), nearest_rank(lasting, P50)
    few = min(len(burst), len(lasting))
    if seconds < asked_seconds * LASTED:
        reason = f"the load lasted {seconds:.0f} of {asked_seconds:.0f} s"
    elif few < least or late < early:
        reason = f"too few samples: {len(burst)} at the beginning and {len(lasting)} at the end, and a median needs {least} of its own"
    else:
        reason = "" if burst_ms > 0 else "the clock is too coarse"
    return Sustained(
        asked_seconds=asked_seconds,
        seconds=seconds,
        burst_ms=burst_ms,
        burst_seconds=stamps_s[early - 1] + samples_ms[early - 1] / 1e3,
        burst_samples=len(burst),
        sustained_ms=sustained_ms,
        sustained_samples=len(lasting),
        ratio=None if reason else sustained_ms / burst_ms,
        reason=reason,
    )
