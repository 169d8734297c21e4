"""Pictures of latency: how samples are spread, and what became of them while the machine was at work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtvit_deploy.harness.latency.sustained import SETTLED
from dtvit_deploy.report import figures
from dtvit_deploy.report.canvas import BLUE, GREY, INK, LARGEST, RED, Plot, name_rows, new_figure, short, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dtvit_deploy.harness.latency import Measurement, Sustained
    from dtvit_deploy.report.schema import Subject

MOST_DOTS = 600
"""Samples drawn one by one; of more, the range and the median of neighbours are drawn."""


def latency(pairs: Sequence[tuple[str, Subject]]) -> list[Plot]:
    timed = [(short(name, 34), subject.latency) for name, subject in pairs if subject.latency is not None and _drawable(subject.latency)]
    if not timed:
        return []
    figure = new_figure(0.9 + 0.42 * len(timed) + 1.15 * len(timed))
    grid = figure.add_gridspec(1 + len(timed), 1, height_ratios=[0.5 + 0.42 * len(timed), *[1.15] * len(timed)])
    _boxes(figure.add_subplot(grid[0]), timed)
    last = None
    for row, (name, one) in enumerate(timed, 1):
        last = figure.add_subplot(grid[row], sharex=last)
        _series(last, name, one)
        last.tick_params(labelbottom=row == len(timed))
    if last is not None:
        last.set_xlim(left=0, right=None if last.get_xlim()[1] > 0.1 else 1)
        last.set_xlabel("seconds since sampling began")
    caption = (
        "Above: each box holds the middle half of the samples, its line is p50, a diamond marks p90, whiskers reach from the minimum to"
        " p99, or to p90 or the maximum where samples are too few for it. Below: the samples in the order taken; a steady machine shows a"
        " level band around the dashed p50."
    )
    if any(one.sustained is not None for _, one in timed):
        caption += " Grey are the first second and the last third of a load that lasts, each with its own median."
    return [Plot(caption, svg_of(figure, "latency"))]


def _drawable(one: Measurement) -> bool:
    """Whether these are latencies: a report may come from anywhere, and an axis must not be asked for 1e308 ms."""
    return bool(one.samples_ms) and all(
        0 <= figure < LARGEST for figure in (*one.samples_ms, *one.stamps_s, one.p50, one.p90 or 0, _tail(one), one.min, *_parts(one))
    )


def _parts(one: Measurement) -> tuple[float, ...]:
    found = one.sustained
    return () if found is None else (found.seconds, found.burst_seconds, found.burst_ms, found.sustained_ms)


def _tail(one: Measurement) -> float:
    """How far up a picture follows the samples: to the highest percentile that there are enough of them for."""
    return next((figure for figure in (one.p99, one.p90) if figure is not None), one.max)


def _boxes(axes: Axes, timed: Sequence[tuple[str, Measurement]]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    fastest, slowest = min(one.p50 for _, one in timed), max(one.p50 for _, one in timed)
    right = max(max(_tail(one), one.p50) for _, one in timed) or 1.0
    if min(one.min for _, one in timed) > 0 and slowest > 20 * fastest:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(right=right * 2.5)
    else:
        axes.set_xlim(0, right * 1.3)
    for row, (_, one) in enumerate(timed):
        ordered = sorted(one.samples_ms)
        low, high = (ordered[-(-q * len(ordered) // 100) - 1] for q in (25, 75))  # nearest rank, as all percentiles here
        valid = one.status == "VALID"
        axes.plot([ordered[0], _tail(one)], [row, row], color=BLUE, linewidth=1.2, marker="|", markersize=9)
        axes.barh(row, high - low, left=low, height=0.5, facecolor="#cfe3f1", edgecolor=BLUE)
        axes.plot([one.p50, one.p50], [row - 0.25, row + 0.25], color=INK, linewidth=2)
        if one.p90 is not None:
            axes.plot(one.p90, row, marker="D", color=BLUE, markersize=3.5)
        text = f"p50 {figures.milliseconds(one.p50)}" + ("" if valid else "  INVALID")
        axes.annotate(text, (_tail(one), row), (8, 0), textcoords="offset points", va="center", color=INK if valid else RED)
    name_rows(axes, [name for name, _ in timed])
    axes.set_xlabel("ms for one inference")


def _series(axes: Axes, name: str, one: Measurement) -> None:
    samples = one.samples_ms
    stamps = one.stamps_s if len(one.stamps_s) == len(samples) else tuple(map(float, range(len(samples))))
    colour = BLUE if one.status == "VALID" else RED
    top = max(_tail(one) * 1.15, one.p50 * 1.3) or 1.0
    if len(samples) <= MOST_DOTS:
        inside = [(stamp, sample) for stamp, sample in zip(stamps, samples, strict=True) if sample <= top]
        axes.plot(
            [stamp for stamp, _ in inside], [sample for _, sample in inside], ".", color=colour, markersize=4, alpha=0.6, markeredgewidth=0
        )
    width = max(1, -(-len(samples) // (MOST_DOTS // 3 if len(samples) > MOST_DOTS else 30)))
    parts = [(stamps[at], sorted(samples[at : at + width])) for at in range(0, len(samples), width)]
    places = [place for place, _ in parts]
    if len(samples) > MOST_DOTS:
        axes.fill_between(
            places, [part[0] for _, part in parts], [min(part[-1], top) for _, part in parts], color=colour, alpha=0.25, linewidth=0
        )
    axes.plot(places, [min(part[(len(part) - 1) // 2], top) for _, part in parts], color=colour, linewidth=1.1)
    axes.axhline(one.p50, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    if one.sustained is not None:
        _burst_and_sustained(axes, one.sustained)
    bottom = min(samples)
    axes.set_ylim(max(0.0, bottom - 0.15 * (top - bottom)), top)
    axes.locator_params(axis="y", nbins=4)
    beyond = sum(sample > top for sample in samples)
    told = f"{len(samples):,} sample{'s' * (len(samples) > 1)}, {one.status}" + (
        f", {beyond} above the picture, at most {figures.milliseconds(one.max)} ms" * (beyond > 0)
    )
    if one.sustained is not None and one.sustained.ratio is not None:
        told += f", sustained ÷ burst {figures.ratio(one.sustained.ratio)}"
    axes.set_title(f"{short(name, 28)}: {told}", color=INK if one.status == "VALID" else RED)
    axes.set_ylabel("ms")


def _burst_and_sustained(axes: Axes, found: Sustained) -> None:
    """The two parts of a load that are set against each other, each with its median."""
    for begin, end, level in (
        (0.0, found.burst_seconds, found.burst_ms),
        (SETTLED * found.seconds, found.seconds, found.sustained_ms),
    ):
        axes.axvspan(begin, end, color=GREY, alpha=0.18, linewidth=0)
        axes.plot([begin, end], [level, level], color=INK, linewidth=2.2, solid_capstyle="butt")
