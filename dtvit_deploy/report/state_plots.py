"""The state of a device beside the samples that were taken in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dtvit_deploy.report.canvas import BLUE, GREY, INK, LARGEST, RED, Plot, new_figure, short, svg_of
from dtvit_deploy.report.device_state import grouped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dtvit_deploy.harness.latency import Measurement
    from dtvit_deploy.harness.state.record import Channel, Watched
    from dtvit_deploy.report.schema import Subject

PANELS = {"temperature": "°C", "clock": "MHz", "power": "W"}
MOST_LINES = 8
"""Series of a panel: those that move most."""
_COLOURS = (BLUE, RED, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK, GREY)
"""Okabe and Ito's."""
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
MOST_DOTS = 3000


def state(pairs: Sequence[tuple[str, Subject]]) -> list[Plot]:
    """For each device and each of its measurements that has a series: samples, temperatures, clocks and power on one axis of time."""
    found = []
    for number, (names, watched) in enumerate(grouped(pairs)):
        timed = [(name, subject.latency) for name, subject in pairs if name in names and subject.latency is not None]
        panels = {kind: _moving(watched, kind) for kind in PANELS}
        shown = [kind for kind, channels in panels.items() if channels]
        if not shown or not watched.times_s or not _sane(watched, [one for _, one in timed]):
            continue
        figure = new_figure(0.9 + 1.5 * (1 + len(shown)))
        grid = figure.add_gridspec(1 + len(shown), 1)
        axes = figure.add_subplot(grid[0])
        _samples(axes, timed)
        every = [axes]
        for row, kind in enumerate(shown, 1):
            every.append(figure.add_subplot(grid[row], sharex=axes))
            _lines(every[-1], watched, panels[kind], kind)
        for row, one in enumerate(every):
            _span(one, watched)
            one.tick_params(labelbottom=row == len(shown))
        every[-1].set_xlabel("seconds since sampling began")
        caption = (
            "Above: each sample over its candidate's p50. Below: what was read of the device meanwhile; grey is the time before and after"
            " sampling. A red line marks when the device held itself back."
        )
        found.append(Plot(caption, svg_of(figure, f"state{number}")))
    return found


def _sane(watched: Watched, timed: Sequence[Measurement]) -> bool:
    """Whether an axis can be asked for it: a report may come from anywhere."""
    values = [abs(value) for one in watched.channels if one.kind in PANELS for value in one.values if value is not None]
    stamps = [abs(at) for at in watched.times_s] + [stamp for one in timed for stamp in one.stamps_s]
    return (
        max(values, default=0.0) < 1e9
        and max(stamps, default=0.0) < 1e7
        and all(sample < LARGEST for one in timed for sample in one.samples_ms)
    )


def _moving(watched: Watched, kind: str) -> list[Channel]:
    """The channels of a kind that have two values or more, those that move most."""

    def range_of(channel: Channel) -> float:
        values = [value for value in channel.values if value is not None]
        return max(values) - min(values) if len(values) > 1 else -1.0

    channels = [one for one in watched.channels if one.kind == kind and range_of(one) >= 0]
    kept = sorted(channels, key=range_of, reverse=True)[:MOST_LINES]
    return [one for one in channels if one in kept]


def _samples(axes: Axes, timed: Sequence[tuple[str, Measurement]]) -> None:
    for index, (name, one) in enumerate(timed):
        if not one.p50 > 0 or len(one.stamps_s) != len(one.samples_ms):
            continue
        step = max(1, len(one.samples_ms) // MOST_DOTS)
        ratios = [sample / one.p50 for sample in one.samples_ms[::step]]
        axes.plot(
            one.stamps_s[::step], ratios, ".", markersize=2.5, alpha=0.5, markeredgewidth=0, color=_COLOURS[index % len(_COLOURS)],
            label=short(name, 30),
        )  # fmt: skip
    axes.axhline(1.0, color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
    axes.set_ylim(0.5, 2.0)
    axes.set_ylabel("÷ p50")
    _legend(axes)


def _lines(axes: Axes, watched: Watched, channels: Sequence[Channel], kind: str) -> None:
    scale: Callable[[float], float] = (lambda value: value / 1e3) if kind == "power" else (lambda value: value)
    for index, one in enumerate(channels):
        known = [(at, scale(value)) for at, value in zip(watched.times_s, one.values, strict=False) if value is not None]
        style = _DASHES[index // len(_COLOURS) % len(_DASHES)] if len(channels) > len(_COLOURS) else _DASHES[index % len(_DASHES)]
        axes.plot(
            [at for at, _ in known], [value for _, value in known], linewidth=1.2, linestyle=style, color=_COLOURS[index % len(_COLOURS)],
            label=short(one.name, 34),
        )  # fmt: skip
    axes.set_ylabel(PANELS[kind])
    axes.locator_params(axis="y", nbins=4)
    _legend(axes)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, markerscale=3)


def _span(axes: Axes, watched: Watched) -> None:
    first, last = min(watched.times_s, default=0.0), max(watched.times_s, default=watched.sampled_s)
    for left, right in ((first, 0.0), (watched.sampled_s, last)):
        if right > left:
            axes.axvspan(left, right, color="#f3f4f6", zorder=0)
    axes.set_xlim(min(first, 0.0), max(last, watched.sampled_s) or 1.0)
    for at in held_back_at(watched):
        axes.axvline(at, color=RED, linewidth=0.9, linestyle=":")


def held_back_at(watched: Watched) -> list[float]:
    """Moments at which a counter of throttling rose, or a flag of it went on."""
    found = set()
    for one in watched.channels:
        if not one.harm or one.kind not in ("events", "flag"):
            continue
        known = [(at, value) for at, value in zip(watched.times_s, one.values, strict=False) if value is not None]
        found |= {at for (_, before), (at, value) in itertools.pairwise(known) if value > before}
    return sorted(found)[:200]
