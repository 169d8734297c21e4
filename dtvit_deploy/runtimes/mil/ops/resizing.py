"""Images at another size, over the last two axes: the nearest pixel, or between two of them.

Where each new pixel looks is the reference's documentation of ``resize_bilinear``, which lists the positions by ``sampling_mode``. For
the nearest pixel it says nothing; ``upsample_nearest_neighbor`` then looks at ⌊i·in/out⌋ and ``resize_nearest_neighbor`` at
⌊(i+½)·in/out⌋, as the TensorFlow operators do which coremltools translates to them; ``resize`` takes that from neither, and is
evaluated only where both agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dtvit_deploy.runtimes.mil.call import Bound, Call, op

Tensor = torch.Tensor


def _between(size: int, wanted: int, spacing: float, start: float) -> Tensor:
    """Positions from ``start`` on, within the image."""
    return (start + spacing * torch.arange(wanted, dtype=torch.float64)).clamp(0.0, size - 1.0)


def _align_corners(size: int, wanted: int) -> Tensor:
    return _between(size, wanted, (size - 1) / (wanted - 1), 0.0) if wanted > 1 else _between(size, 1, 0.0, (size - 1) / 2)


def _strict_align_corners(size: int, wanted: int) -> Tensor:
    return _between(size, wanted, (size - 1) / max(1, wanted - 1), 0.0)


def _offset_corners(size: int, wanted: int) -> Tensor:
    delta = max(1, size - 1) / wanted
    return _between(size, wanted, delta, 0.5 * delta)


POSITIONS: dict[str, Callable[[int, int], Tensor]] = {
    "STRICT_ALIGN_CORNERS": _strict_align_corners,
    "ALIGN_CORNERS": _align_corners,
    "DEFAULT": lambda size, wanted: _between(size, wanted, size / wanted, 0.0),
    "OFFSET_CORNERS": _offset_corners,
    "UNALIGN_CORNERS": lambda size, wanted: _between(size, wanted, size / wanted, 0.5 * size / wanted - 0.5),
}
"""Where the pixels of a row look in a row of another size."""


def _image(call: Call) -> tuple[int, int]:
    shape = call.shape("x")
    if len(shape) < 3 or not all(shape[-2:]):
        raise call.error(f"its input has the shape {shape}")
    return shape[-2], shape[-1]


def _scaled(call: Call) -> tuple[int, int]:
    """The size that factors come to, in FP32 as the reference has it: 1.4, which FP32 has only nearly, makes 14 of 10."""
    factors = (call.value("scale_factor_height", 1), call.value("scale_factor_width", 1))
    high, wide = (int(np.floor(np.float32(factor) * np.float32(size))) for size, factor in zip(_image(call), factors, strict=True))
    call.require_declared((*call.shape("x")[:-2], high, wide))
    if min(high, wide) < 1:
        raise call.error(f"its factors are {factors}")
    return high, wide


def _targeted(call: Call) -> tuple[int, int]:
    high, wide = call.value("target_size_height", 1), call.value("target_size_width", 1)
    if min(high, wide) < 1:
        raise call.error(f"its size is {high}×{wide}")
    call.require_declared((*call.shape("x")[:-2], high, wide))
    return high, wide


def _linear(call: Call, target: tuple[int, int], mode: str) -> Callable[[Tensor], Tensor]:
    """One axis after the other, each between its two nearest pixels."""
    along: list[tuple[int, Tensor, Tensor, Tensor]] = []
    for axis, size, wanted in zip((-2, -1), _image(call), target, strict=True):
        position = POSITIONS[mode](size, wanted)
        low = position.floor().long()
        share = (position - low).float().reshape(-1, *(1 for _ in range(-1 - axis)))
        along.append((axis, low, (low + 1).clamp(max=size - 1), share))

    def resized(x: Tensor) -> Tensor:
        for axis, low, high, share in along:
            x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
        return x

    return resized


def _nearest(call: Call, target: tuple[int, int], half: bool) -> Callable[[Tensor], Tensor]:
    sizes = _image(call)
    rows, columns = (
        ((2 * torch.arange(wanted) + half) * size).div(2 * wanted, rounding_mode="floor")
        for size, wanted in zip(sizes, target, strict=True)
    )
    return lambda x: x.index_select(-2, rows).index_select(-1, columns)


@op("upsample_bilinear")
def upsample_bilinear(call: Call) -> Bound:
    align = call.value("align_corners", True)
    half = call.value("half_pixel_centers", not align)
    if align and half:
        raise call.error("align_corners and half_pixel_centers exclude one another")
    mode = "STRICT_ALIGN_CORNERS" if align else "UNALIGN_CORNERS" if half else "DEFAULT"
    return call.on(_linear(call, _scaled(call), mode), "x")


@op("resize_bilinear")
def resize_bilinear(call: Call) -> Bound:
    return call.on(_linear(call, _targeted(call), call.one_of("sampling_mode", POSITIONS, "DEFAULT")), "x")


@op("upsample_nearest_neighbor", exact=True)
def upsample_nearest_neighbor(call: Call) -> Bound:
    return call.on(_nearest(call, _scaled(call), half=False), "x")


@op("resize_nearest_neighbor", exact=True)
def resize_nearest_neighbor(call: Call) -> Bound:
    return call.on(_nearest(call, _targeted(call), half=True), "x")


@op("resize")
def resize(call: Call) -> Bound:
    """The last ``resized_dims`` numbers of ``shape``, where 0 keeps a size; two axes are resized, or one if the other is kept."""
    given: Any = call.value("shape")
    count = call.value("resized_dims")
    if not 1 <= count <= min(2, len(given)):
        raise call.error(f"it resizes {count} axes to {given}")
    sizes = list(_image(call))
    sizes[2 - count :] = [wanted or size for wanted, size in zip(given[-count:], sizes[2 - count :], strict=True)]
    target = (sizes[0], sizes[1])
    call.require_declared((*call.shape("x")[:-2], *target))
    mode = call.one_of("sampling_mode", POSITIONS, "DEFAULT")
    if call.one_of("interpolation_mode", ("LINEAR", "NEAREST_NEIGHBOR"), "LINEAR") == "LINEAR":
        if call.output.dtype == "int32":
            raise call.error("between integers there is no documented rounding")
        return call.on(_linear(call, target, mode), "x")
    if mode not in ("DEFAULT", "UNALIGN_CORNERS") or any(wanted % size for wanted, size in zip(target, _image(call), strict=True)):
        raise call.error(f"the nearest pixel of {mode} is documented only for whole factors, and not for aligned corners")
    return call.on(_nearest(call, target, half=False), "x")
