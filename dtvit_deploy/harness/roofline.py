"""How much of what a machine can do an inference uses: its p50 beside the least time that the machine's own peaks allow for it.

The roofline of a whole network, after Williams, Waterman and Patterson (2009): arithmetic takes at least its operations by the peak of
the precision that they are in, memory at least the bytes that have to come from it by the bandwidth, and the network no less than the
greater of the two. Only what cannot be avoided is counted: operations of convolutions and matrix products; of bytes, the weights, inputs
and outputs once. What is left out (element-wise work, softmax, moving inner tensors) makes the bound lower and the share smaller, never
greater. Peaks are measured, by products of large matrices and by copying memory, so that a share says what such code would reach on this
machine, and not what its data sheet promises.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from dtvit_deploy.artifacts.bounds import Amount, Count, Milliseconds, Natural, unit

_Rate = Annotated[Amount, unit("10⁹ operations/s")]
WIDER = {"int8": ("fp16", "bf16", "fp32"), "fp16": ("fp32",), "bf16": ("fp32",), "fp32": ()}
"""By precision, in what its products can be computed too, without losing any of it."""


STEADY = 0.8
"""Share of the fastest run that the median reaches on a quiet machine; it was 0.98 and more there, and from 0.12 to 0.7 on a busy one."""


class Peak(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The greatest rate at which a product of two matrices was computed.

    Attributes:
        precision: of its factors.
        gflops: 10⁹ operations a second; a multiply–accumulate is two.
        runtime: by which that was reached, with its version.
        size: of the product, rows × depth × columns.
        median_gflops: of all its runs; much less than ``gflops`` tells of a machine that was busy with something else.
        runs: how many.
    """

    precision: str
    gflops: _Rate
    runtime: str
    size: str
    median_gflops: _Rate
    runs: Natural


class Peaks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a machine can do, with so many threads.

    Attributes:
        products: the best of each precision that something here computes in.
        copy_gb_s: 10⁹ bytes a second, read and written ones together, of copying memory.
        copy_mib: of what was copied.
        threads: of every product and copy.
        taken: UTC, ISO 8601.
    """

    products: tuple[Peak, ...]
    copy_gb_s: Annotated[Amount, unit("GB/s")]
    copy_mib: Annotated[Natural, unit("MiB")]
    threads: Natural
    taken: str

    @property
    def disturbed(self) -> bool:
        """Whether the machine had something else to do: of a quiet one, half of all runs are as fast as the fastest, nearly."""
        return any(one.median_gflops < STEADY * one.gflops for one in self.products)

    def of(self, precision: str) -> Peak | None:
        """The greatest rate for products of a precision, in it or in a wider one; None where none was measured."""
        able = (one for one in self.products if one.precision in (precision, *WIDER.get(precision, ())))
        return max(able, key=lambda one: one.gflops, default=None)


class Work(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one inference cannot do without.

    Attributes:
        macs: multiply–accumulates of convolutions and matrix products, by the precision of their factors.
        bytes: of weights, inputs and outputs.
    """

    macs: dict[str, Count]
    bytes: Annotated[Count, unit("byte")]


class Roof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The least time that a machine's peaks allow for some work.

    Attributes:
        arithmetic_ms: of all products, one after the other.
        memory_ms: of all bytes.
        work: that it is the least time of.
        peaks: by which it was found.
    """

    arithmetic_ms: Milliseconds
    memory_ms: Milliseconds
    work: Work
    peaks: Peaks

    @property
    def ms(self) -> float:
        return max(self.arithmetic_ms, self.memory_ms)

    @property
    def limit(self) -> Literal["arithmetic", "memory"]:
        """Which of the two allows no less."""
        return "arithmetic" if self.arithmetic_ms >= self.memory_ms else "memory"

    def share(self, p50_ms: float) -> float:
        """Of what the machine can do: 1 for a network that takes no longer than it must; more where a peak was measured too low."""
        return self.ms / p50_ms if p50_ms else math.inf


def roof(work: Work, peaks: Peaks) -> Roof | None:
    """The roof of some work; None where it has a product in a precision that nothing was measured in."""
    rates = {precision: peaks.of(precision) for precision, macs in work.macs.items() if macs}
    if not peaks.copy_gb_s or any(rate is None or not rate.gflops for rate in rates.values()):
        return None
    arithmetic = _milliseconds({precision: rate.gflops for precision, rate in rates.items() if rate is not None}, work.macs)
    return Roof(arithmetic_ms=arithmetic, memory_ms=work.bytes / peaks.copy_gb_s / 1e6, work=work, peaks=peaks)


def _milliseconds(gflops: Mapping[str, float], macs: Mapping[str, int]) -> float:
    return sum(2 * macs[precision] / rate / 1e6 for precision, rate in gflops.items())
