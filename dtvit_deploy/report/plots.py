"""Pictures of a report, each as the text of one SVG that can stand inside a page: no script, no outside file, no identifier twice.

Drawn on a canvas of their own with every setting fixed, so that neither the user's matplotlib configuration nor the time shows in
them: equal figures give equal bytes. Colours are Okabe and Ito's, and what matters differs in shape as well.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from dtvit_deploy.errors import MissingError
from dtvit_deploy.report import figures
from dtvit_deploy.report.content import labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dtvit_deploy.latency import Measurement
    from dtvit_deploy.report.schema import Report, Subject

WIDTH = 9.6
"""Inches, which a page shows over its whole width."""
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#6b7280"
MOST_ROWS = 40
"""Rows of a parity plot for one subject: those that use most of their tolerance."""
MOST_DOTS = 600
"""Samples drawn one by one; of more, the range and the median of neighbours are drawn."""
MOST_NAMES = 45
"""Modules that are named on the axis; of more, only where a part of the network begins."""
SMALLEST, LARGEST = 1e-30, 1e30
"""What lies beyond is drawn as 0 or ∞: no axis needs more decades."""
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#374151",
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.7,
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "text.color": "#111827",
    "text.parse_math": False,  # a name may hold a dollar
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: small, searchable, read aloud
    "svg.hashsalt": "dtvit-deploy",
}


class Plot(NamedTuple):
    """A picture: what it shows, in words, and its SVG."""

    caption: str
    svg: str


def draw(report: Report) -> dict[str, list[Plot]]:
    """Every picture that the report has figures for, by the key of its section.

    Raises:
        MissingError: matplotlib is not installed.
    """
    pairs = list(zip(labels(report.subjects), report.subjects, strict=True))
    with _drawing():
        found = {"latency": _latency(pairs), "parity": _parity(pairs), "accuracy": _accuracy(pairs), "layers": _layers(pairs)}
    return {key: plots for key, plots in found.items() if plots}


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    try:
        import matplotlib
        import matplotlib.backends.backend_svg
        import matplotlib.figure
    except ImportError as error:
        raise MissingError(f"the pictures of a report need matplotlib: {error}", remedy="pip install 'dtvit-deploy[report]'") from error
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a script that the font lacks; the page is shown in the reader's own font
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def _svg(figure: Figure, prefix: str) -> str:
    """The picture as an ``<svg>`` for the inside of a page, which scales with it; identifiers begin with ``prefix``."""
    written = io.BytesIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(written.getvalue())
    for parent in root.iter():
        for child in [child for child in parent if child.tag.endswith("}metadata")]:
            parent.remove(child)
    for element in root.iter():
        # HTML knows its own SVG: without name spaces the page names no address at all.
        element.tag = _local(element.tag)
        attributes = {_local(name): value for name, value in element.attrib.items()}
        element.attrib.clear()
        for name, value in attributes.items():
            if name == "id":
                value = f"{prefix}-{value}"
            elif name == "href":
                value = value.replace("#", f"#{prefix}-", 1)
            element.set(name, value.replace("url(#", f"url(#{prefix}-"))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.tail = None
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


class _Decades(NamedTuple):
    """A logarithmic axis with a place for 0 below its lowest decade and one for ∞ above its highest."""

    low: int
    high: int
    zero: bool
    endless: bool

    @classmethod
    def of(cls, values: Sequence[float]) -> _Decades:
        proper = [value for value in values if SMALLEST < value < LARGEST]
        low = math.floor(math.log10(min(proper, default=1e-3)))
        high = max(math.ceil(math.log10(max(proper, default=1e-3))), low + 1)
        return cls(low, high, any(value <= SMALLEST for value in values), any(not value < LARGEST for value in values))

    def place(self, value: float) -> float:
        """The exponent of ten, or that of the places for 0 and ∞."""
        if value <= SMALLEST:
            return self.low - 0.7
        return math.log10(value) if value < LARGEST else self.high + 0.7

    def dress(self, axes: Axes, which: str) -> None:
        """Set limits, ticks and their names on the ``x`` or the ``y`` axis, whose values are :meth:`place`."""
        step = max(1, math.ceil((self.high - self.low) / 9))
        ticks: list[tuple[float, str]] = [(exponent, _power(exponent)) for exponent in range(self.low, self.high + 1, step)]
        ticks = [(self.low - 0.7, "0")] * self.zero + ticks + [(self.high + 0.7, "∞")] * self.endless
        places, names = zip(*ticks, strict=True)
        axis: Any = getattr(axes, f"{which}axis")
        axis.set_ticks(places, names)
        getattr(axes, f"set_{which}lim")(self.low - (1.1 if self.zero else 0.15), self.high + (1.1 if self.endless else 0.15))


def _power(exponent: int) -> str:
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _short(name: str, longest: int) -> str:
    """The beginning and the end of a long name, which say most about a module's path."""
    name = figures.plain(name) or "(network)"
    front = longest // 3
    return name if len(name) <= longest else f"{name[:front]}…{name[front + 1 - longest :]}"


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a horizontal plot, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _latency(pairs: Sequence[tuple[str, Subject]]) -> list[Plot]:
    timed = [(_short(name, 34), subject.latency) for name, subject in pairs if subject.latency is not None and subject.latency.samples_ms]
    if not timed:
        return []
    figure = _figure(0.9 + 0.42 * len(timed) + 1.15 * len(timed))
    grid = figure.add_gridspec(1 + len(timed), 1, height_ratios=[0.5 + 0.42 * len(timed), *[1.15] * len(timed)])
    _boxes(figure.add_subplot(grid[0]), timed)
    last = None
    for row, (name, one) in enumerate(timed, 1):
        last = figure.add_subplot(grid[row], sharex=last)
        _series(last, name, one)
        last.tick_params(labelbottom=row == len(timed))
    if last is not None:
        last.set_xlabel("seconds since sampling began")
    caption = (
        "Above: each box holds the middle half of the samples, its line is p50, whiskers reach from the minimum to p99, a diamond marks"
        " p90. Below: the samples in the order taken; a steady machine shows a level band around the dashed p50."
    )
    return [Plot(caption, _svg(figure, "latency"))]


def _boxes(axes: Axes, timed: Sequence[tuple[str, Measurement]]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    boxes = []
    for _, one in timed:
        ordered = sorted(one.samples_ms)
        low, high = (ordered[-(-q * len(ordered) // 100) - 1] for q in (25, 75))  # nearest rank, as the percentiles in the table
        boxes.append({"med": one.p50, "q1": low, "q3": high, "whislo": ordered[0], "whishi": one.p99})
    medians = [one.p50 for _, one in timed]
    right = max(max(one.p99, one.p50) for _, one in timed) or 1.0
    if min(min(one.samples_ms) for _, one in timed) > 0 and max(medians) > 20 * min(medians):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(right=right * 2.5)
    else:
        axes.set_xlim(0, right * 1.3)
    style = {"boxprops": {"facecolor": "#cfe3f1", "edgecolor": BLUE}, "medianprops": {"color": "#111827", "linewidth": 1.8}}
    lines = {"whiskerprops": {"color": BLUE}, "capprops": {"color": BLUE}}
    axes.bxp(
        boxes, positions=range(len(timed)), orientation="horizontal", widths=0.5, showfliers=False, patch_artist=True, **style, **lines
    )
    for row, (_, one) in enumerate(timed):
        axes.plot(one.p90, row, marker="D", color=BLUE, markersize=3.5)
        valid = one.status == "VALID"
        text = f"p50 {figures.milliseconds(one.p50)}" + ("" if valid else "  INVALID")
        axes.annotate(text, (one.p99, row), (6, 0), textcoords="offset points", va="center", color="#111827" if valid else RED)
    _rows(axes, [name for name, _ in timed])
    axes.set_xlabel("ms for one inference")


def _series(axes: Axes, name: str, one: Measurement) -> None:
    samples = one.samples_ms
    stamps = one.stamps_s if len(one.stamps_s) == len(samples) else tuple(map(float, range(len(samples))))
    colour = BLUE if one.status == "VALID" else RED
    top = max(one.p99 * 1.15, one.p50 * 1.3) or 1.0
    if len(samples) <= MOST_DOTS:
        inside = [(stamp, sample) for stamp, sample in zip(stamps, samples, strict=True) if sample <= top]
        axes.plot(
            [stamp for stamp, _ in inside], [sample for _, sample in inside], ".", color=colour, markersize=3, alpha=0.6, markeredgewidth=0
        )
    width = max(1, -(-len(samples) // (MOST_DOTS // 3 if len(samples) > MOST_DOTS else 30)))
    parts = [(stamps[at], sorted(samples[at : at + width])) for at in range(0, len(samples), width)]
    places = [place for place, _ in parts]
    if len(samples) > MOST_DOTS:
        axes.fill_between(
            places, [part[0] for _, part in parts], [min(part[-1], top) for _, part in parts], color=colour, alpha=0.25, linewidth=0
        )
    axes.plot(places, [min(part[(len(part) - 1) // 2], top) for _, part in parts], color=colour, linewidth=1.1)
    axes.axhline(one.p50, color="#111827", linewidth=0.8, linestyle=(0, (4, 3)))
    bottom = min(samples)
    axes.set_ylim(max(0.0, bottom - 0.15 * (top - bottom)), top)
    axes.locator_params(axis="y", nbins=4)
    beyond = sum(sample > top for sample in samples)
    told = f"{len(samples):,} samples, {one.status}" + (
        f", {beyond} above the picture, at most {figures.milliseconds(one.max)} ms" * (beyond > 0)
    )
    axes.set_title(f"{name}: {told}", color="#111827" if one.status == "VALID" else RED)
    axes.set_ylabel("ms")


def _parity(pairs: Sequence[tuple[str, Subject]]) -> list[Plot]:
    from matplotlib.lines import Line2D

    shown: list[tuple[str, list[Any]]] = []
    for name, subject in pairs:
        used = sorted(subject.parity, key=lambda one: one.max_abs / one.tolerance if one.tolerance else math.inf, reverse=True)[:MOST_ROWS]
        if used:
            shown.append((name, [one for one in subject.parity if one in used]))
    if not shown:
        return []
    counts = [len(found) for _, found in shown]
    figure = _figure(0.8 + sum(0.24 * count + 0.38 for count in counts))
    grid = figure.add_gridspec(len(shown), 1, height_ratios=[0.24 * count + 0.38 for count in counts])
    decades = _Decades.of([value for _, found in shown for one in found for value in (one.max_abs, one.tolerance, one.floor)])
    axes = None
    for row, (name, found) in enumerate(shown):
        axes = figure.add_subplot(grid[row])
        several = len({one.output for one in found}) > 1
        for place, one in enumerate(found):
            reached, allowed, floor = map(decades.place, (one.max_abs, one.tolerance, one.floor))
            axes.plot([reached, allowed], [place, place], color="#d1d5db", linewidth=1.5, zorder=1)
            axes.plot(floor, place, marker="o", markersize=5, markerfacecolor="white", markeredgecolor=GREY)
            axes.plot(allowed, place, marker="|", markersize=11, markeredgewidth=2, color="#111827")
            axes.plot(
                reached, place, marker="o" if one.passed else "X", markersize=5.5 if one.passed else 8, color=BLUE if one.passed else RED
            )
        _rows(axes, [_short(f"{one.output}, {one.feeds}" if several else one.feeds, 36) for one in found])
        decades.dress(axes, "x")
        axes.tick_params(labelbottom=row == len(shown) - 1)
        axes.set_title(_short(name, 80))
    if axes is not None:
        axes.set_xlabel("|Δ| in the output's own units, logarithmic")
    marks = {"linestyle": "", "color": BLUE}
    handles = [
        Line2D([], [], **marks, marker="o", markersize=5.5, label="max |Δ|, within"),
        Line2D([], [], linestyle="", marker="X", markersize=8, color=RED, label="max |Δ|, beyond"),
        Line2D([], [], linestyle="", marker="|", markersize=11, markeredgewidth=2, color="#111827", label="tolerance"),
        Line2D([], [], linestyle="", marker="o", markersize=5, markerfacecolor="white", markeredgecolor=GREY, label="noise floor"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=4)
    return [
        Plot(
            "The largest |Δ| for each group of feeds beside what it was allowed, and beside what the reference itself moves by.",
            _svg(figure, "parity"),
        )
    ]


def _accuracy(pairs: Sequence[tuple[str, Subject]]) -> list[Plot]:
    scored = [(_short(name, 34), subject.accuracy) for name, subject in pairs if subject.accuracy is not None]
    panels = (
        ("top-1", [(name, one.top1, one.interval) for name, one in scored if one.top1 is not None]),
        (
            "agreement with the reference",
            [(name, one.agreement, one.agreement_interval) for name, one in scored if one.agreement is not None],
        ),
    )
    panels = tuple(panel for panel in panels if panel[1])
    if not panels:
        return []
    figure = _figure(0.9 + 0.32 * max(len(rows) for _, rows in panels))
    for column, (title, rows) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), column + 1)
        for row, (_, value, span) in enumerate(rows):
            low, high = span or (value, value)
            axes.plot([low * 100, high * 100], [row, row], color=BLUE, linewidth=2.2, alpha=0.55, solid_capstyle="butt")
            axes.plot(value * 100, row, "o", color=BLUE, markersize=6)
        _rows(axes, [name for name, _, _ in rows])
        lowest = min(min(value, *(span or (value,))) for _, value, span in rows) * 100
        room = max((100 - lowest) * 0.08, 0.05)
        axes.set_xlim(lowest - room, 100 + room)
        axes.locator_params(axis="x", nbins=6)
        axes.set_title(title)
        axes.set_xlabel("%")
    return [Plot("A dot for the share, a bar for its 95 % Wilson interval. The axis does not begin at 0.", _svg(figure, "accuracy"))]


def _layers(pairs: Sequence[tuple[str, Subject]]) -> list[Plot]:
    return [
        _modules(name, subject, number)
        for number, (name, subject) in enumerate(pairs)
        if subject.layers is not None and subject.layers.modules
    ]


def _modules(name: str, subject: Subject, number: int) -> Plot:
    found = subject.layers
    assert found is not None
    modules = found.modules
    decades = _Decades.of([value for one in modules for value in (one.error, one.floor)])
    figure = _figure(3.9)
    axes = figure.add_subplot()
    few = len(modules) <= 100
    places = range(len(modules))
    errors = [decades.place(one.error) for one in modules]
    axes.plot(places, [decades.place(one.floor) for one in modules], color=GREY, linewidth=1.1, linestyle=(0, (4, 2)), label="noise floor")
    axes.plot(places, errors, color=BLUE, linewidth=1.1, marker="o" if few else "", markersize=3.5, label="error")
    suspects = [place for place in places if modules[place].suspect]
    if suspects:
        axes.plot(suspects, [errors[place] for place in suspects], "X", color=RED, markersize=6 if few else 4.5, label="suspect")
    origin = next((place for place in places if modules[place].module == found.first), None)
    decades.dress(axes, "y")
    if origin is not None:
        axes.axvline(origin, color=RED, linewidth=0.9, linestyle=":")
        side = "right" if origin > len(modules) / 2 else "left"
        axes.annotate(
            f"arises in {_short(modules[origin].module, 48)}",
            (origin, 1.0), (-5 if side == "right" else 5, 4), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
            ha=side, va="bottom", color=RED, fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(-0.6, len(modules) - 0.4)
    named = places if len(modules) <= MOST_NAMES else _beginnings([one.module for one in modules])
    axes.set_xticks(
        list(named), [_short(modules[place].module, 30) for place in named], rotation=55, ha="right", rotation_mode="anchor", fontsize=7
    )
    axes.set_ylabel("relative error")
    axes.set_xlabel("torch modules in the order of execution")
    figure.legend(loc="outside upper right", ncols=3)
    figure.suptitle(_short(name, 60), x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    return Plot(f"{figures.plain(name)}: root mean square error of each module's tensors over their size.", _svg(figure, f"layers{number}"))


def _beginnings(modules: Sequence[str]) -> list[int]:
    """Where the leading part of the path changes, by as many parts as fit on the axis."""
    best: list[int] = []
    for depth in range(1, 5):
        heads = [module.split(".")[:depth] for module in modules]
        changes = [place for place in range(len(heads)) if place == 0 or heads[place] != heads[place - 1]]
        if len(changes) > MOST_NAMES:
            break
        best = changes
    step = -(-len(modules) // MOST_NAMES)
    return best or list(range(0, len(modules), step))
