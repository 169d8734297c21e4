"""A figure and the limit that it is beyond, in as many digits as tell them apart: "25 % (limit 25 %)" would explain nothing."""

from __future__ import annotations


def percents(figure: float, limit: float, *, signed: bool = False) -> tuple[str, str]:
    """Both as shares in per cent, ``25.2%`` and ``25%``: the limit as short as it is, the figure with as few decimals as tell it from that.

    Args:
        figure: what was found.
        limit: what it is compared with; where it has a sign, by its size.
        signed: whether the figure is written with its sign.
    """
    sign = "+" if signed else ""
    short = f"{limit * 100:.10g}%"
    for decimals in range(11):
        told = f"{figure:{sign}.{decimals}%}"
        if float(told[:-1].lstrip("+-")) != float(short[:-1]):
            break
    return told, short
