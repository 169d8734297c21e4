"""Attention drawn over the image, as in the paper's figures 1 and 4, torch and every artefact below each other.

Every number that a colour stands for is on torch's scale of the same panel, so that what differs from torch looks different.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from dtvit_deploy.harness.attention import STRONGEST, strengths, strongest, strongest_heads
from dtvit_deploy.report import figures
from dtvit_deploy.report.attention import Attention, Picture, picture_key
from dtvit_deploy.report.canvas import BLUE, RED, WIDTH, Plot, drawing, new_figure, short, svg_of
from dtvit_deploy.report.tables import labels_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.attention import AttentionMap
    from dtvit_deploy.harness.attention import Maps

    Pixels = NDArray[np.uint8]

_GAP, _TITLE, _HEADING = 0.05, 0.3, 0.22
"""Inches between panels, of a figure's title and of a subject's."""
PANEL = (WIDTH - _GAP) / (STRONGEST + 3) - _GAP
"""Inches of a panel's side: the image, all tokens, the strongest ones, and their mean stand beside each other."""
_ROW = PANEL + 0.2
"""Inches of a row of panels with their titles."""
SIDE = 112
"""Pixels of a panel's longer side: each image is in a page many times."""
DENSITY = 160
"""Pixels an inch of a PNG."""
_COLOURS, _GREY = "viridis", 0.4


def attention_plots(found: Attention) -> dict[str, list[Plot]]:
    """The pictures of a page, by the key of the image's section.

    Raises:
        MissingError: matplotlib is not installed.
    """
    with drawing():
        return {
            picture_key(number): [
                Plot(_caption(asked), svg_of(_figure(found, picture, asked), f"{picture_key(number)}-{kind}"))
                for kind, asked in enumerate(found.maps)
            ]
            for number, picture in enumerate(found.pictures)
        }


def attention_png(found: Attention) -> bytes:
    """The same pictures below each other, as one PNG.

    Raises:
        MissingError: matplotlib is not installed.
    """
    from PIL import Image

    with drawing():
        parts = [Image.open(io.BytesIO(_png(_figure(found, picture, asked)))) for picture in found.pictures for asked in found.maps]
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    written = io.BytesIO()
    sheet.save(written, "PNG")
    return written.getvalue()


def _png(figure: Figure) -> bytes:
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=DENSITY, facecolor="white", metadata={"Software": None})
    return written.getvalue()


def _caption(asked: AttentionMap) -> str:
    heads = f"its {STRONGEST} strongest heads" if asked.shape[0] > STRONGEST else "each head"
    key = f"The key token in {heads}, and over all of them" if asked.tokens > 1 else f"The class token in {heads}, and over all of them"
    scale = "Violet to yellow is torch's lowest to highest weight in the same panel; what lies beyond is drawn as those."
    if asked.tokens == 1:
        return f"{asked.name}: {asked.what}. {key}. {scale}"
    rows = "rows are parts of the image, columns are tokens"
    placed = ", the key token framed" if asked.token_grid else ""
    first = (
        f"Above: the image, how strong each token is{placed}, the maps of torch's {min(STRONGEST, asked.tokens)} strongest tokens over the"
        f" image (the mean of the heads){', and the mean of those maps' if _mean_tells(asked) else ''}. Below: all weights ({rows}). {key}."
    )
    return f"{asked.name}: {asked.what}. {first} {scale}"


def _figure(found: Attention, picture: Picture, asked: AttentionMap) -> Figure:
    """A map of an image, a band for each subject that gives it."""
    subjects = found.report.subjects
    names = labels_of([(one.name, one.file) for one in subjects])
    sights = {sight.subject: sight for sight in found.report.sights if (sight.image, sight.map) == (picture.name, asked.name)}
    shown = [(number, one[asked.name]) for number, one in enumerate(picture.maps) if asked.name in one]
    band = _HEADING + (1 if asked.tokens == 1 else 2) * _ROW
    height = _TITLE + len(shown) * band
    figure = new_figure(height)
    figure.set_layout_engine("none")  # every place is known, and to find dozens of them takes seconds
    grid = _Grid(figure, height)
    grid.say(short(f"{picture.name} · {asked.name}", 120), 0, size=9.5, weight="bold")
    backdrop, reference = _backdrop(picture.pixels), picture.maps[0][asked.name]
    for place, (number, maps) in enumerate(shown):
        top = _TITLE + place * band
        drift = f" · correlation {figures.cosine(sights[number].correlation)}" if number else ""
        told = f" · key token {sights[number].strongest[0]}" if asked.tokens > 1 else ""
        grid.say(short(f"{names[number]}{drift}{told}", 120), top, size=8)
        _band(grid, top + _HEADING, backdrop, reference, maps, asked)
    return figure


class _Grid:
    """Panels of a figure by column, and by inches from its top; all on one axes, whose units are inches: dozens of axes take seconds."""

    def __init__(self, figure: Figure, height: float) -> None:
        self.axes = figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(height, 0), autoscale_on=False)
        self.axes.set_axis_off()

    def say(self, text: str, top: float, *, size: float, weight: str = "normal") -> None:
        """A line of text."""
        self.axes.text(_GAP, top + 0.05, text, va="top", fontsize=size, fontweight=weight)

    def place(self, column: int, top: float, title: str, columns: int = 1) -> tuple[float, float, float]:
        """A panel with its title: left and upper edge, and its width; it is PANEL high."""
        left, width = _GAP + column * (PANEL + _GAP), columns * (PANEL + _GAP) - _GAP
        upper = top + _ROW - _GAP - PANEL
        self.axes.text(left + width / 2, upper - 0.02, title, ha="center", va="bottom", fontsize=6.5)
        return left, upper, width

    def show(self, pixels: Pixels, column: int, top: float, title: str, columns: int = 1) -> tuple[float, float, float, float]:
        """An image in the middle of a panel, or, over several columns, stretched: its left, right, lower and upper edge."""
        left, upper, width = self.place(column, top, title, columns)
        height, (rows, broad) = PANEL, pixels.shape[:2]
        if columns == 1:
            height, width = PANEL * min(1, rows / broad), PANEL * min(1, broad / rows)
            left, upper = left + (PANEL - width) / 2, upper + (PANEL - height) / 2
        extent = left, left + width, upper + height, upper
        self.axes.imshow(pixels, extent=extent, interpolation="nearest", aspect="auto")
        return extent


def _band(grid: _Grid, top: float, backdrop: Pixels, reference: Maps, maps: Maps, asked: AttentionMap) -> None:
    """The panels of one subject, each on torch's scale."""
    chosen = strongest(reference, asked)
    key, last = chosen[0], STRONGEST + 2
    ours, theirs = maps.mean(0), reference.mean(0)

    def overlay(column: int, values: NDArray[np.float64], scale: NDArray[np.float64], title: str) -> None:
        grid.show(overlaid(backdrop, values, *_ends(scale)), column, top, title)

    grid.show(backdrop, 0, top, "image")
    if asked.tokens > 1:
        _tokens(grid, top, backdrop, strengths(maps, asked), strengths(reference, asked), asked)
        for place, token in enumerate(chosen):
            overlay(2 + place, ours[token], theirs[token], f"token {token}")
        several = list(chosen)
        if _mean_tells(asked):
            overlay(last, ours[several].mean(0), theirs[several].mean(0), "mean")
        top += _ROW
        flat, scale = (each.reshape(len(each), -1).T for each in (ours, theirs))
        grid.show(coloured(flat, *_ends(scale)), 0, top, "parts × tokens", columns=2)
    for place, head in enumerate(strongest_heads(reference, key)):
        overlay(2 + place, maps[head, key], reference[head, key], f"head {head}")
    overlay(last, ours[key], theirs[key], "all heads")


def _mean_tells(asked: AttentionMap) -> bool:
    """Whether the strongest tokens' mean is a map at all: what a part of the image gives to all tokens is 1, wherever the part is."""
    return asked.asker == "tokens" or asked.tokens > STRONGEST


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    """The lowest and the highest that is a number; 0 and 0 where nothing is."""
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)


def _tokens(grid: _Grid, top: float, backdrop: Pixels, ours: NDArray[np.float64], theirs: NDArray[np.float64], asked: AttentionMap) -> None:
    """How strong each token is: where it has its place in the image, the key token framed, or as bars."""
    from matplotlib.patches import Rectangle

    if asked.token_grid is None:
        left, upper, width = grid.place(1, top, "tokens")
        unit = PANEL / (1.05 * max(float(theirs.max()), 1e-12))
        for place, value in enumerate(ours):
            height = min(PANEL, float(value) * unit)
            bar = (left + (place + 0.1) * width / len(ours), upper + PANEL - height)
            grid.axes.add_patch(Rectangle(bar, 0.8 * width / len(ours), height, color=BLUE, linewidth=0))
        return
    rows, columns = asked.token_grid
    left, right, lower, upper = grid.show(overlaid(backdrop, ours.reshape(rows, columns), *_ends(theirs), smooth=False), 1, top, "tokens")
    row, column = divmod(int(np.argmax(ours)), columns)
    side = (right - left) / columns, (lower - upper) / rows
    corner = left + column * side[0], upper + row * side[1]
    grid.axes.add_patch(Rectangle(corner, *side, fill=False, edgecolor=RED, linewidth=1.2))


def _backdrop(pixels: Pixels) -> Pixels:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image)


def coloured(values: NDArray[np.float64], low: float, high: float) -> Pixels:
    """(rows, columns) numbers as (rows, columns, 3) colours, from violet at ``low`` to yellow at ``high``; what is no number is black."""
    import matplotlib

    span = high - low
    place = (values - low) / span if span > 0 else np.zeros_like(values)
    found = matplotlib.colormaps[_COLOURS](np.clip(np.nan_to_num(place), 0, 1))[..., :3]
    found[~np.isfinite(values)] = 0
    pixels: Pixels = np.rint(found * 255).astype(np.uint8)
    return pixels


def overlaid(backdrop: Pixels, values: NDArray[np.float64], low: float, high: float, *, smooth: bool = True) -> Pixels:
    """A map of any size over an image of (height, width, 3), half transparent: as large as the image, and as bright as it is."""
    from PIL import Image

    height, width = backdrop.shape[:2]
    how = Image.Resampling.BILINEAR if smooth and np.isfinite(values).all() else Image.Resampling.NEAREST
    grown = np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, height), how), np.float64)
    grey = backdrop.astype(np.float64).mean(2, keepdims=True)
    mixed = _GREY * grey + (1 - _GREY) * coloured(grown, low, high)
    pixels: Pixels = np.rint(mixed).astype(np.uint8)
    return pixels
