"""Pictures of a report: latency, parity, accuracy, layers. What matters differs in shape as well as in colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtvit_deploy.report import figures, layer_times
from dtvit_deploy.report.canvas import BLUE, GREY, INK, RED, Decades, Plot, drawing, name_rows, new_figure, short, svg_of
from dtvit_deploy.report.int8_plots import int8
from dtvit_deploy.report.latency_plots import latency
from dtvit_deploy.report.state_plots import state
from dtvit_deploy.report.tables import labels

if TYPE_CHECKING:
    from dtvit_deploy.harness.layers import LayerReport
    from dtvit_deploy.harness.parity import Difference
    from dtvit_deploy.report.schema import Report, Subject

MOST_ROWS = 40
"""Rows of a parity plot for one subject: those that use most of their tolerance."""
MOST_NAMES = 45
"""Modules that are named on the axis; of more, only where a part of the network begins."""
FEWEST_NAMES = 12
"""Parts that must be named before smaller ones are left without a name."""


def draw(report: Report) -> dict[str, list[Plot]]:
    """Every picture that the report has figures for, by the key of its section.

    Raises:
        MissingError: matplotlib is not installed.
    """
    pairs = list(zip(labels(report.subjects), report.subjects, strict=True))
    with drawing():
        found = {
            "parity": _parity(pairs),
            "accuracy": _accuracy(pairs),
            "latency": latency(pairs),
            "state": state(pairs),
            "layer-times": layer_times.plots(pairs),
            "int8": int8(report, pairs),
            "layers": _layers(pairs),
        }
    return {key: plots for key, plots in found.items() if plots}


def _parity(pairs: Sequence[tuple[str, Subject]]) -> list[Plot]:
    from matplotlib.lines import Line2D

    # What is held to an SQNR has no tolerance to be drawn beside.
    held = [(name, [one for one in subject.parity if one.tolerance is not None]) for name, subject in pairs]
    shown = [(name, _closest(found)) for name, found in held if found]
    if not shown:
        return []
    counts = [len(found) for _, found in shown]
    figure = new_figure(0.8 + sum(0.24 * count + 0.38 for count in counts))
    grid = figure.add_gridspec(len(shown), 1, height_ratios=[0.24 * count + 0.38 for count in counts])
    decades = Decades.of([value for _, found in shown for one in found for value in (one.max_abs, one.tolerance or 0.0, one.floor or 0.0)])
    axes = None
    for row, (name, found) in enumerate(shown):
        axes = figure.add_subplot(grid[row])
        several = len({one.output for one in found}) > 1
        for place, one in enumerate(found):
            reached, allowed, floor = map(decades.place, (one.max_abs, one.tolerance or 0.0, one.floor or 0.0))
            shape, size, colour = ("o", 5.5, BLUE) if one.passed else ("X", 8, RED)
            axes.plot([reached, allowed], [place, place], color="#d1d5db", linewidth=1.5, zorder=1)
            axes.plot(floor, place, marker="o", markersize=5, markerfacecolor="white", markeredgecolor=GREY)
            axes.plot(allowed, place, marker="|", markersize=11, markeredgewidth=2, color=INK)
            axes.plot(reached, place, marker=shape, markersize=size, color=colour)
        name_rows(axes, [short(f"{one.output}, {one.feeds}" if several else one.feeds, 36) for one in found])
        decades.dress(axes, "x")
        axes.tick_params(labelbottom=row == len(shown) - 1)
        axes.set_title(short(name, 80))
    if axes is not None:
        axes.set_xlabel("|Δ| in the output's own units, logarithmic")
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=5.5, color=BLUE, label="max |Δ|, within"),
        Line2D([], [], linestyle="", marker="X", markersize=8, color=RED, label="max |Δ|, beyond"),
        Line2D([], [], linestyle="", marker="|", markersize=11, markeredgewidth=2, color=INK, label="tolerance"),
        Line2D([], [], linestyle="", marker="o", markersize=5, markerfacecolor="white", markeredgecolor=GREY, label="noise floor"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=4)
    caption = "The largest |Δ| for each group of feeds beside what it was allowed, and beside what the reference itself moves by."
    if any(len(subject.parity) > MOST_ROWS for _, subject in pairs):
        caption += f" Of each subject, those {MOST_ROWS} that failed or came closest to failing."
    return [Plot(caption, svg_of(figure, "parity"))]


def _closest(parity: Sequence[Difference]) -> list[Difference]:
    """Those that failed or used most of their tolerance, in the order of the table."""

    def used(one: Difference) -> tuple[bool, float]:
        return not one.passed, one.max_abs / one.tolerance if one.tolerance and one.tolerance < math.inf else 0.0

    kept = sorted(range(len(parity)), key=lambda index: used(parity[index]), reverse=True)[:MOST_ROWS]
    return [parity[index] for index in sorted(kept)]


def _accuracy(pairs: Sequence[tuple[str, Subject]]) -> list[Plot]:
    scored = [(short(name, 34), subject.accuracy) for name, subject in pairs if subject.accuracy is not None]
    panels = (
        ("top-1", [(one.top1, one.interval or ()) for _, one in scored]),
        ("agreement with the reference", [(one.agreement, one.agreement_interval or ()) for _, one in scored]),
    )
    drawn = [(title, shares) for title, shares in panels if any(value is not None for value, _ in shares)]
    if not drawn:
        return []
    figure = new_figure(0.9 + 0.32 * len(scored))
    for column, (title, shares) in enumerate(drawn):
        axes = figure.add_subplot(1, len(drawn), column + 1)
        lowest = 100.0
        for row, (value, span) in enumerate(shares):
            if value is None:
                continue
            low, middle, high = sorted(min(max(share, 0.0), 1.0) * 100 for share in (value, *(span or (value, value))))
            lowest = min(lowest, low)
            axes.plot([low, high], [row, row], color=BLUE, linewidth=2.2, alpha=0.55, solid_capstyle="butt")
            axes.plot(middle, row, "o", color=BLUE, markersize=6)
        name_rows(axes, [name for name, _ in scored])
        axes.tick_params(labelleft=column == 0)
        room = max((100 - lowest) * 0.08, 0.05)
        axes.set_xlim(lowest - room, 100 + room)
        axes.locator_params(axis="x", nbins=6)
        axes.set_title(title)
        axes.set_xlabel("%")
    return [Plot("A dot for the share, a bar for its 95 % Wilson interval. The axis does not begin at 0.", svg_of(figure, "accuracy"))]


def _layers(pairs: Sequence[tuple[str, Subject]]) -> list[Plot]:
    walked = [(name, subject.layers) for name, subject in pairs if subject.layers is not None and subject.layers.modules]
    return [_modules(name, found, f"layers{number}") for number, (name, found) in enumerate(walked)]


def _modules(name: str, found: LayerReport, prefix: str) -> Plot:
    modules = found.modules
    decades = Decades.of([value for one in modules for value in (one.error, one.floor)])
    figure = new_figure(3.9)
    axes = figure.add_subplot()
    few = len(modules) <= 100
    places = range(len(modules))
    errors = [decades.place(one.error) for one in modules]
    axes.plot(places, [decades.place(one.floor) for one in modules], color=GREY, linewidth=1.1, linestyle=(0, (4, 2)), label="noise floor")
    axes.plot(places, errors, color=BLUE, linewidth=1.1, marker="o" if few else "", markersize=3.5, label="error")
    suspects = [place for place in places if modules[place].suspect]
    if suspects:
        marker, size = ("X", 6) if few else (".", 4)
        colour, label = (RED, "suspect") if found.first is not None else (GREY, "above its floor")
        axes.plot(suspects, [errors[place] for place in suspects], marker, color=colour, markersize=size, label=label)
    origin = next((place for place in places if modules[place].module == found.first), None)
    decades.dress(axes, "y")
    if origin is not None:
        axes.axvline(origin, color=RED, linewidth=0.9, linestyle=":")
        side = "right" if origin > len(modules) / 2 else "left"
        axes.annotate(
            f"arises in {short(modules[origin].module, 48)}",
            (origin, 1.0), (-5 if side == "right" else 5, 4), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
            ha=side, va="bottom", color=RED, fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(-0.6, len(modules) - 0.4)
    named = _named([one.module for one in modules])
    marks, names = [place for place, _ in named], [short(module, 30) for _, module in named]
    axes.set_xticks(marks, names, rotation=55, ha="right", rotation_mode="anchor", fontsize=7)
    axes.set_ylabel("relative error")
    axes.set_xlabel("torch modules in the order of execution")
    figure.legend(loc="outside upper right", ncols=3)
    figure.suptitle(short(name, 60), x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    return Plot(f"{figures.plain(name)}: root mean square error of each module's tensors over their size.", svg_of(figure, prefix))


def _named(modules: Sequence[str]) -> list[tuple[int, str]]:
    """The modules to name on the axis: all, or where large parts of the network begin, then smaller ones, as names have room."""
    if len(modules) <= MOST_NAMES:
        return list(enumerate(modules))
    room = len(modules) / MOST_NAMES
    paths = [module.split(".") for module in modules]
    marks: list[int] = []
    deepest = 1
    for depth in range(1, 9):
        for place, path in enumerate(paths):
            begins = place == 0 or path[:depth] != paths[place - 1][:depth]
            if begins and all(abs(place - mark) >= room for mark in marks):
                marks.append(place)
                deepest = depth
        if len(marks) >= FEWEST_NAMES:
            break
    return [(place, ".".join(paths[place][:deepest])) for place in sorted(marks)]
