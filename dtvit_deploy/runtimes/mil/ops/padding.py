"""How convolution and pooling pad."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtvit_deploy.artifacts.signature import MOST_VALUES
from dtvit_deploy.runtimes.mil.call import Call

PAD_TYPES = ("valid", "same", "same_lower", "custom")

Pads = list[tuple[int, int]]
"""Before and after, by spatial axis."""


def window_pads(call: Call, sizes: Sequence[int], window: Sequence[int], strides: Sequence[int]) -> Pads:
    """What ``pad_type`` and ``pad`` come to.

    ``same`` pads so that the answer has ⌈size / stride⌉ places, the odd one after; ``same_lower`` the odd one before. That is how the
    reference infers shapes, and TensorFlow's ``SAME``, which coremltools translates to it as it is; the formula in the documentation of
    ``conv``, which knows no stride, contradicts both.

    Args:
        call: the operator.
        sizes: of the input's spatial axes.
        window: of the kernel, dilation included.
        strides: of the window.
    """
    kind = call.one_of("pad_type", PAD_TYPES, "valid")
    if kind == "valid":
        return [(0, 0) for _ in sizes]
    if kind == "custom":
        pad = call.value("pad", [0] * (2 * len(sizes)))
        if not isinstance(pad, list) or len(pad) != 2 * len(sizes) or min(pad) < 0:
            raise call.error(f"its pad is {pad} for {len(sizes)} axes")
        padded = [size + before + after for size, before, after in zip(sizes, pad[::2], pad[1::2], strict=True)]
        if math.prod(padded) > MOST_VALUES:
            raise call.error(f"its pad is {pad}, which makes {padded} of {list(sizes)}")
        return list(zip(pad[::2], pad[1::2], strict=True))
    pads = []
    for size, extent, stride in zip(sizes, window, strides, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + extent - size)
        less, more = total // 2, total - total // 2
        pads.append((less, more) if kind == "same" else (more, less))
    return pads


def symmetric(pads: Pads) -> bool:
    return all(before == after for before, after in pads)


def for_torch(pads: Pads) -> list[int]:
    """As :func:`torch.nn.functional.pad` wants them: the last axis first."""
    return [pad for pair in reversed(pads) for pad in pair]


def spatial(call: Call, parameter: str, axes: int, default: int) -> list[int]:
    """A parameter with a positive number for each spatial axis."""
    values = call.value(parameter, [default] * axes)
    if not isinstance(values, list) or len(values) != axes or min(values) < 1:
        raise call.error(f"its {parameter} is {values} for {axes} spatial axes")
    return values
