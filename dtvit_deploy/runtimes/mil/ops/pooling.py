"""Average and maximum over windows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from dtvit_deploy.runtimes.mil.call import Bound, Call, op
from dtvit_deploy.runtimes.mil.ops.padding import for_torch, spatial, symmetric, window_pads

Tensor = torch.Tensor

AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
MAXIMUM: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


class _Window:
    """What both operators have: a window, its strides, and what it may see beyond the edges.

    With ``ceil_mode`` the last window may begin inside and end outside, as torch's does, to which the reference refers; torch's pads
    are at most half a window, and the reference's then symmetric.
    """

    def __init__(self, call: Call) -> None:
        sizes = call.shape("x")[2:]
        if len(sizes) not in AVERAGE:
            raise call.error(f"its input has {len(sizes)} spatial axes")
        self.axes = len(sizes)
        self.kernel = spatial(call, "kernel_sizes", self.axes, 1)
        self.strides = spatial(call, "strides", self.axes, 1)
        self.ceil: bool = call.value("ceil_mode", False)
        pads = window_pads(call, sizes, self.kernel, self.strides)
        self.padding = [before for before, _ in pads]
        self.plain = symmetric(pads) and all(2 * pad <= size for pad, size in zip(self.padding, self.kernel, strict=True))
        self.around = for_torch(pads)
        if self.ceil and not self.plain:
            raise call.error("ceil_mode needs padding that is symmetric and at most half a window")


@op("max_pool")
def max_pool(call: Call) -> Bound:
    """Padding is never the maximum."""
    w = _Window(call)
    pool = MAXIMUM[w.axes]
    if w.plain:
        return call.on(lambda x: pool(x, w.kernel, w.strides, w.padding, ceil_mode=w.ceil), "x")
    return call.on(lambda x: pool(F.pad(x, w.around, value=-torch.inf), w.kernel, w.strides), "x")


@op("avg_pool")
def avg_pool(call: Call) -> Bound:
    w = _Window(call)
    excluded = call.value("exclude_padding_from_average", False)
    pool = AVERAGE[w.axes]
    if w.plain:
        return call.on(lambda x: pool(x, w.kernel, w.strides, w.padding, w.ceil, not excluded), "x")
    if not excluded:
        return call.on(lambda x: pool(F.pad(x, w.around), w.kernel, w.strides), "x")
    inside = pool(F.pad(torch.ones(1, 1, *call.shape("x")[2:]), w.around), w.kernel, w.strides)
    return call.on(lambda x: pool(F.pad(x, w.around), w.kernel, w.strides) / inside, "x")
