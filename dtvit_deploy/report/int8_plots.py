"""Pictures of INT8: whether the calibration settled, and what each module costs and gains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtvit_deploy.calibration.method import Method
from dtvit_deploy.calibration.ranges import ENOUGH
from dtvit_deploy.report import figures
from dtvit_deploy.report.canvas import BLUE, INK, LARGEST, RED, Decades, Plot, new_figure, short, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dtvit_deploy.calibration.ranges import Convergence
    from dtvit_deploy.harness.search import ModuleFigures, Search
    from dtvit_deploy.report.schema import Report, Subject

MOST_LABELLED = 6
"""Modules named in the picture: the noisiest."""
_LINES = {Method.MINMAX: ("#6b7280", "s"), Method.PERCENTILE: (BLUE, "o"), Method.ENTROPY: (RED, "X"), Method.MSE: ("#009e73", "D")}
"""Colour and shape of each method."""
_SIDES = ((0, -9), (9, 0), (-9, 0), (0, 9))
"""Where a number may stand beside its dot, in points."""


def int8(report: Report, pairs: Sequence[tuple[str, Subject]]) -> list[Plot]:
    plots = _convergence(report.calibration.convergence) if report.calibration is not None else []
    for number, (name, subject) in enumerate(pairs):
        if subject.search is not None:
            plots += _sensitivity(name, subject.search, f"search{number}")
    return plots


def _convergence(curve: Sequence[Convergence]) -> list[Plot]:
    # The last ranges are those that all are compared with.
    points = [point for point in curve[:-1] if point.images < LARGEST]
    if not points:
        return []
    decades = Decades.of([ENOUGH, *(point.of(method).p95 for point in points for method in Method)])
    figure = new_figure(2.9)
    axes = figure.add_subplot()
    places = [math.log2(point.images) for point in points]
    for method, (colour, shape) in _LINES.items():
        changes = [decades.place(point.of(method).p95) for point in points]
        axes.plot(places, changes, color=colour, marker=shape, markersize=5, linewidth=1.4, label=str(method))
    limit = decades.place(ENOUGH)
    axes.axhline(limit, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    # Under the left end of the line, where ranges have hardly ever settled yet.
    words = f"settled below {ENOUGH:.0%}"
    axes.annotate(words, (0, limit), (4, -4), xycoords=axes.get_yaxis_transform(), textcoords="offset points", va="top")
    axes.set_xticks(places, [short(f"{point.images:,}", 12) for point in points])
    decades.dress(axes, "y")
    axes.set_xlabel("images, logarithmic")
    axes.set_ylabel("relative change")
    figure.legend(loc="outside upper right", ncols=len(_LINES))
    count = short(f"{curve[-1].images:,}", 12)
    caption = f"How far the ranges still were from those of all {count} images: 95 % of the tensors were at least as close."
    return [Plot(caption, svg_of(figure, "convergence"))]


def _sensitivity(name: str, search: Search, prefix: str) -> list[Plot]:
    timed = [(one.gain_ms, one) for one in search.modules if one.gain_ms is not None and abs(one.gain_ms) < LARGEST]
    drawn = [(gain, one) for gain, one in timed if abs(one.sqnr) < LARGEST]
    if not drawn:
        return []
    figure = new_figure(3.9)
    grid = figure.add_gridspec(1, 2, width_ratios=[4, 1])
    axes = figure.add_subplot(grid[0])
    chosen = frozenset(search.in_float)
    for kept, fill, label in ((False, BLUE, "INT8"), (True, "white", "left in float")):
        dots = [(gain, one.sqnr) for gain, one in drawn if (one.module in chosen) == kept]
        if dots:
            axes.plot(*zip(*dots, strict=True), "o", markersize=6, markerfacecolor=fill, markeredgecolor=BLUE, alpha=0.85, label=label)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.margins(x=0.08, y=0.1)
    _label(axes, figure.add_subplot(grid[1]), sorted(drawn, key=lambda one: one[1].sqnr))
    axes.set_xlabel("gain in ms; left of the line INT8 is slower")
    axes.set_ylabel("SQNR in dB at the output")
    figure.legend(loc="outside upper right", ncols=2)
    figure.suptitle(short(name, 60), x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    absent = len(search.modules) - len(drawn)
    caption = (
        f"{figures.plain(name)}: a dot for each module when it alone is INT8. Low is noisy, right is worth it; hollow dots stay in float."
        + f" {absent} whose gain was not measured are not drawn." * (absent > 0)
    )
    return [Plot(caption, svg_of(figure, prefix))]


def _label(axes: Axes, key: Axes, ranked: Sequence[tuple[float, ModuleFigures]]) -> None:
    """Number the noisiest dots, and name the numbers beside the picture: dots lie too close together for names."""
    key.set_axis_off()
    key.text(0, 1, "the noisiest", va="top", fontweight="bold", transform=key.transAxes)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    wide, high = 500 / (right - left), 220 / (top - bottom)  # points for one unit, nearly
    taken = [(gain * wide, one.sqnr * high) for gain, one in ranked]
    for number, (gain, one) in enumerate(ranked[:MOST_LABELLED], 1):
        # On the side where the nearest dot or number is farthest away.
        free = max(_SIDES, key=lambda side: min(math.dist((gain * wide + side[0], one.sqnr * high + side[1]), other) for other in taken))
        taken.append((gain * wide + free[0], one.sqnr * high + free[1]))
        axes.annotate(str(number), (gain, one.sqnr), free, textcoords="offset points", ha="center", va="center", fontweight="bold")
        key.text(0, 1 - 0.085 * number, f"{number}  {short(one.module, 30)}", va="top", fontsize=7.5, transform=key.transAxes)
