"""How values are written on the command line that have no form of their own there: sizes, inputs, triples, tolerances."""

from __future__ import annotations

import enum
import math
import re

import typer

from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.artifacts.target import ALIASES, Target
from dtvit_deploy.errors import InputError


class Filter(enum.Enum):
    """Pillow's filters that images are resized with."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class ChannelOrder(enum.Enum):
    """The order of an image's channels in the array that a network is fed."""

    RGB = "rgb"
    BGR = "bgr"


class Quantizer(enum.Enum):
    """What makes an INT8 graph."""

    OURS = "ours"
    NNCF = "nncf"


class Ios(enum.Enum):
    """Releases of iOS that can be named."""

    IOS16 = "16"
    IOS17 = "17"
    IOS18 = "18"


def parse_target(text: str) -> Target:
    """A target by its name or by what people call it.

    Raises:
        typer.BadParameter: there is none of that name.
    """
    try:
        return Target(text)
    except ValueError as error:
        known = ", ".join(repr(str(target)) for target in Target)
        also = ", ".join(f"{alias!r} for {name!r}" for alias, name in ALIASES.items())
        raise typer.BadParameter(f"{text!r} is not one of {known} (and {also})") from error


def parse_input(text: str) -> TensorSpec:
    """``name=1x3x224x224:float32`` → its spec.

    Raises:
        InputError: it is written otherwise.
    """
    match = re.fullmatch(r"([A-Za-z_]\w*)=(\d{1,9}(?:[x×]\d{1,9})*)(?::(\w+))?", text)
    if match is None:
        # What exporters to a graph with a dynamic batch are given: -1, N or ? in the place of a size.
        dynamic = re.fullmatch(
            r"[A-Za-z_]\w*=(?:-1|\?|[A-Za-z_]\w*|\d{1,9})(?:[x×](?:-1|\?|[A-Za-z_][a-wyzA-Z_]*|\d{1,9}))*(?::\w+)?", text
        )
        why = "; every size is a number, the batch's too: shapes are static" if dynamic else ""
        raise InputError(f"--input {text!r} is not NAME=SHAPE[:TYPE]{why}", remedy="write it like image=1x3x224x224 or ids=1x16:int64")
    name, shape, dtype = match.groups()
    return TensorSpec(name, tuple(int(side) for side in re.split("[x×]", shape)), dtype or "float32")


def tolerances(given: list[str]) -> dict[str, float]:
    """``boxes=0.5`` → a tolerance by output.

    Raises:
        InputError: it is written otherwise, or an output has two.
    """
    found: dict[str, float] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            limit = float(number)
        except ValueError:
            limit = math.nan
        if not name or not 0 <= limit < math.inf:
            raise InputError(f"--tolerance {text!r} is not OUTPUT=NUMBER", remedy="write it like boxes=0.5, with a number of at least 0")
        if name in found:
            raise InputError(f"two tolerances were given for {name!r}", remedy="give one")
        found[name] = limit
    return found


def capabilities(given: list[str]) -> list[str]:
    """Compute capabilities of GPUs, each once.

    Raises:
        InputError: one is not written as one.
    """
    if not all(re.fullmatch(r"[1-9]\d?\.\d", text) for text in given):
        raise InputError(f"--capability {' '.join(given)} is no list of compute capabilities", remedy="write each like 8.9")
    return list(dict.fromkeys(given))


def seed(number: int) -> int:
    """A seed that torch takes.

    Raises:
        InputError: it is larger.
    """
    if number >= 1 << 63:
        raise InputError(f"seed {number} asked for; it must be from 0 to 2⁶³ − 1", remedy="any number will do")
    return number


def size(option: str, text: str) -> tuple[int, int]:
    """``224x192``, or ``224`` for a square → height and width.

    Raises:
        InputError: it is written otherwise, or a side has no pixel.
    """
    match = re.fullmatch(r"(\d{1,9})(?:[x×](\d{1,9}))?", text)
    if match is None:
        raise InputError(f"{option} {text!r} is not HEIGHTxWIDTH", remedy="write it like 224x224")
    height, width = int(match[1]), int(match[2] or match[1])
    if not height or not width:
        raise InputError(f"{option} {height}×{width} asked for; both sides must be at least 1 pixel", remedy="write it like 224x224")
    return height, width


def triple(option: str, text: str) -> tuple[float, float, float]:
    """``0.485,0.456,0.406`` → three numbers.

    Raises:
        InputError: it is written otherwise.
    """
    try:
        first, second, third = map(float, text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text!r} is not three numbers", remedy="write it like 0.485,0.456,0.406") from error
    return first, second, third
