"""Where the time of each artefact goes: its slowest torch modules in a table and a picture, and every layer in report.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.nodes import NETWORK
from dtvit_deploy.harness.layer_times import NOBODY
from dtvit_deploy.report import figures
from dtvit_deploy.report.canvas import BLUE, GREY, INK, Plot, name_rows, new_figure, short, svg_of
from dtvit_deploy.report.tables import Section, Table, amounts, section, table, words

if TYPE_CHECKING:
    from dtvit_deploy.harness.layer_times import LayerTimes
    from dtvit_deploy.report.schema import Subject

_SLOWEST = 10
"""Layers of a table; the report's data has all."""


def layer_times(pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    """Tables of modules and of the slowest layers."""
    found = [(name, subject.layer_times, subject) for name, subject in pairs if subject.layer_times is not None]
    if not found:
        return None
    sentences = ["A runtime that tells of its layers is slower by that: these are shares of the time, and no latencies."]
    tables = list[Table]()
    for name, times, subject in found:
        p50 = "" if subject.latency is None else f" where its p50 is {figures.milliseconds(subject.latency.p50)} ms"
        sentences.append(
            f"{name}: {times.whole_ms:.2f} ms in {times.runs} profiled runs{p50}; its {len(times.layers)} layers have {times.ms:.2f} ms of"
            f" that, {times.attributed:.0%} of it by known nodes of the network."
        )
        rows = times.modules()
        tables.append(
            table(
                f"{name}: torch modules, without what other rows have",
                (
                    words("module", (one.module for one in rows)),
                    amounts("ms", (figures.milliseconds(one.ms) for one in rows)),
                    amounts("share", (f"{one.share:.1%}" for one in rows)),
                    amounts("layers", (str(one.layers) for one in rows)),
                ),
            )
        )
        tables.append(_slowest(name, times))
    return section("layer-times", "Where the time goes", sentences, tables)


def _slowest(name: str, times: LayerTimes) -> Table:
    rows = sorted(times.layers, key=lambda one: -one.ms)[:_SLOWEST]
    return table(
        f"{name}: the slowest layers",
        (
            words("layer", (one.name for one in rows)),
            words("type", (one.type for one in rows)),
            words("kernel", (one.kernel for one in rows)),
            words("unit", (one.unit for one in rows)),
            amounts("ms", (figures.milliseconds(one.ms) for one in rows)),
            words("torch module", (one.module or (NETWORK if one.node else NOBODY) for one in rows)),
        ),
        long=True,
    )


def plots(pairs: Sequence[tuple[str, Subject]]) -> list[Plot]:
    """Bars of the modules of each artefact, all on one axis of milliseconds."""
    found = [(name, subject.layer_times) for name, subject in pairs if subject.layer_times is not None and subject.layer_times.layers]
    if not found:
        return []
    rows = [times.modules() for _, times in found]
    heights = [0.19 * len(each) + 0.42 for each in rows]
    figure = new_figure(sum(heights) + 0.3)
    grid = figure.add_gridspec(len(found), 1, height_ratios=heights)
    longest = max(one.ms for each in rows for one in each) or 1.0
    for index, ((name, times), each) in enumerate(zip(found, rows, strict=True)):
        axes = figure.add_subplot(grid[index, 0])
        axes.barh(range(len(each)), [one.ms for one in each], height=0.7, color=[GREY if one.module == NOBODY else BLUE for one in each])
        for row, one in enumerate(each):
            axes.text(one.ms + longest * 0.008, row, f"{one.ms:.2f} ms, {one.share:.0%}", va="center", fontsize=7.5, color=INK)
        name_rows(axes, [short(one.module, 44) for one in each])
        axes.set_xlim(0, longest * 1.18)
        axes.set_title(f"{name}: {times.ms:.2f} ms in {len(times.layers)} layers")
        axes.tick_params(axis="x", labelbottom=index == len(found) - 1)
    axes.set_xlabel("ms of a profiled inference")
    return [
        Plot(
            "Where the time goes: torch modules by the time of their layers, as the runtime's own profile tells it",
            svg_of(figure, "layer-times"),
        )
    ]
