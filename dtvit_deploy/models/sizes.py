"""What every family of networks asks of an input size and of a number of classes."""

from __future__ import annotations

from dtvit_deploy.errors import InputError


def require_multiple(size: tuple[int, int], step: int, why: str) -> None:
    """Refuse a height or width that a network cannot divide into whole parts.

    Args:
        size: height and width of the input image, in pixels.
        step: that both must divide by.
        why: said of the network, before what it needs.

    Raises:
        InputError: one does not, or is less.
    """
    height, width = size
    if height < step or width < step or height % step or width % step:
        nearest = "×".join(str(max(step, round(side / step) * step)) for side in size)
        needs = f"{why} a height and width that divide by {step}"
        raise InputError(f"input size {height}×{width} cannot be used: {needs}", remedy=f"use {nearest}")


def require_classes(count: int) -> None:
    """Refuse a classifier without classes.

    Raises:
        InputError: there are none.
    """
    if count < 1:
        raise InputError(f"{count} classes asked for", remedy="give at least one class")
