"""Attention drawn over the image, as in the paper's figures 1 and 4, torch and every artefact below each other.

Every number that a colour stands for is on torch's scale of the same panel, so that what differs from torch looks different.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

import numpy as np

from dtvit_deploy.harness.attention import STRONGEST, strengths, strongest, strongest_heads
from dtvit_deploy.report import figures
from dtvit_deploy.report.attention import Attention, Picture, picture_key
from dtvit_deploy.report.canvas import Plot, drawing, new_figure, short, svg_of
from dtvit_deploy.report.tables import labels_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.attention import AttentionMap
    from dtvit_deploy.harness.attention import Maps

    Pixels = NDArray[np.uint8]

PANEL = 0.86
"""Inches of a panel's side, its title left out."""
SIDE = 112
"""Pixels of a panel's longer side: each image is in a page many times."""
DENSITY = 160
"""Pixels an inch of a PNG."""
_COLOURS, _GREY = "turbo", 0.45
_FRAME = "#ffffff"


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
    sheet.save(written, "PNG", optimize=True)
    return written.getvalue()


def _png(figure: Figure) -> bytes:
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=DENSITY, facecolor="white", metadata={"Software": None})
    return written.getvalue()


def _caption(asked: AttentionMap) -> str:
    heads = f"its {STRONGEST} strongest heads" if asked.shape[0] > STRONGEST else "each head"
    key = f"The key token in {heads}, and over all of them" if asked.tokens > 1 else f"The class token in {heads}, and over all of them"
    scale = "Blue to red is torch's lowest to highest weight in the same panel; what lies beyond is drawn as those."
    if asked.tokens == 1:
        return f"{asked.name}: {asked.what}. {key}. {scale}"
    rows = "rows are parts of the image, columns are tokens"
    placed = ", the key token framed" if asked.token_grid else ""
    first = (
        f"Above: the image, how strong each token is{placed}, the maps of torch's {min(STRONGEST, asked.tokens)} strongest tokens over the"
        f" image (the mean of the heads), and the mean of those maps. Below: all weights ({rows}). {key}."
    )
    return f"{asked.name}: {asked.what}. {first} {scale}"


def _figure(found: Attention, picture: Picture, asked: AttentionMap) -> Figure:
    subjects = found.report.subjects
    names = labels_of([(one.name, one.file) for one in subjects])
    correlations = {
        sight.subject: sight.correlation for sight in found.report.sights if (sight.image, sight.map) == (picture.name, asked.name)
    }
    shown = [(number, one[asked.name]) for number, one in enumerate(picture.maps) if asked.name in one]
    rows = 1 if asked.tokens == 1 else 2
    figure = new_figure(len(shown) * (rows * (PANEL + 0.16) + 0.24) + 0.3)
    figure.suptitle(short(f"{picture.name} · {asked.name}", 120), x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    parts = figure.subfigures(len(shown), 1, squeeze=False)[:, 0]
    backdrop, reference = _backdrop(picture.pixels), picture.maps[0][asked.name]
    for part, (number, maps) in zip(parts, shown, strict=True):
        drift = f" · correlation {figures.cosine(correlations.get(number))}" if number else ""
        key = strongest(maps, asked, 1)[0]
        told = f" · key token {key}" if asked.tokens > 1 else ""
        part.suptitle(short(f"{names[number]}{drift}{told}", 120), x=0.01, ha="left", fontsize=8)
        _rows(part, backdrop, reference, maps, asked)
    return figure


def _rows(part: SubFigure, backdrop: Pixels, reference: Maps, maps: Maps, asked: AttentionMap) -> None:
    """The panels of one subject, each on torch's scale."""
    columns = STRONGEST + 3
    rows = 1 if asked.tokens == 1 else 2
    axes = part.subplots(rows, columns, squeeze=False)
    for one in axes.ravel():
        one.set_axis_off()
    key = strongest(reference, asked, 1)[0]
    ours, theirs = maps.mean(0), reference.mean(0)
    _show(axes[0, 0], backdrop, "image")
    if rows == 2:
        _tokens(axes[0, 1], backdrop, maps, reference, asked)
        chosen = list(strongest(reference, asked))
        for axis, token in zip(axes[0, 2:-1], chosen, strict=False):
            _overlay(axis, backdrop, ours[token], theirs[token], f"token {token}")
        _overlay(axes[0, -1], backdrop, ours[chosen].mean(0), theirs[chosen].mean(0), "mean")
        _weights(axes[1, 0], ours, theirs)
    last = axes[-1]
    for axis, head in zip(last[2:-1], strongest_heads(reference, key), strict=False):
        _overlay(axis, backdrop, maps[head, key], reference[head, key], f"head {head}")
    _overlay(last[-1], backdrop, ours[key], theirs[key], "all heads")


def _show(axes: Axes, pixels: Pixels, title: str, aspect: Literal["equal", "auto"] = "equal") -> None:
    axes.set_title(title, fontsize=6.5, loc="center", fontweight="normal", pad=2)
    axes.imshow(pixels, interpolation="nearest", aspect=aspect)


def _overlay(axes: Axes, backdrop: Pixels, values: NDArray[np.float64], reference: NDArray[np.float64], title: str) -> None:
    _show(axes, overlaid(backdrop, values, float(np.nanmin(reference)), float(np.nanmax(reference))), title)


def _tokens(axes: Axes, backdrop: Pixels, maps: Maps, reference: Maps, asked: AttentionMap) -> None:
    """How strong each token is: where it has its place in the image, or as bars."""
    ours, theirs = strengths(maps, asked), strengths(reference, asked)
    if asked.token_grid is None:
        axes.set_axis_on()
        axes.set_title("tokens", fontsize=6.5, loc="center", fontweight="normal", pad=2)
        axes.bar(range(len(ours)), ours, color="#0072b2")
        axes.set_ylim(0, max(float(theirs.max()), 1e-12) * 1.05)
        axes.tick_params(labelleft=False, labelsize=5, length=0)
        axes.set_box_aspect(1)
        return
    rows, columns = asked.token_grid
    height, width = backdrop.shape[:2]
    pixels = overlaid(backdrop, ours.reshape(rows, columns), float(theirs.min()), float(theirs.max()), smooth=False)
    _show(axes, pixels, "tokens")
    row, column = divmod(strongest(maps, asked, 1)[0], columns)
    from matplotlib.patches import Rectangle

    side = width / columns, height / rows
    axes.add_patch(Rectangle((column * side[0] - 0.5, row * side[1] - 0.5), *side, fill=False, edgecolor=_FRAME, linewidth=1))


def _weights(axes: Axes, maps: NDArray[np.float64], reference: NDArray[np.float64]) -> None:
    """Every weight: a row for each part of the image, a column for each token."""
    flat, scale = (each.reshape(len(each), -1).T for each in (maps, reference))
    _show(axes, coloured(flat, float(np.nanmin(scale)), float(np.nanmax(scale))), "parts × tokens", aspect="auto")


def _backdrop(pixels: Pixels) -> Pixels:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image)


def coloured(values: NDArray[np.float64], low: float, high: float) -> Pixels:
    """(rows, columns) numbers as (rows, columns, 3) colours, from blue at ``low`` to red at ``high``; what is no number is black."""
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
