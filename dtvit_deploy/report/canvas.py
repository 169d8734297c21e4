"""What pictures are drawn on: fixed settings, and an SVG that can stand inside a page: no script, no address, no identifier twice.

Neither the user's matplotlib configuration nor the time shows in them: equal figures give equal bytes.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.report import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.6
"""Inches, which a page shows over its whole width."""
BLUE, RED, GREY, INK = "#0072b2", "#d55e00", "#6b7280", "#111827"
"""The first two are Okabe and Ito's, told apart by every kind of eye."""
SMALLEST, LARGEST = 1e-30, 1e30
"""What lies beyond is drawn as 0 or ∞: no axis needs more decades."""
_URL = re.compile(r"url\(#([^)]*)\)")
_SETTINGS = "MPLCONFIGDIR"
_STYLE: dict[Any, Any] = {
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


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    try:
        with _alone():
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


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Import matplotlib without its folders in the user's home, and without another program that lists the system's fonts.

    Both are for the fonts of others, and pictures here have matplotlib's own. The list of those that it finds all the same takes seconds
    where there are thousands, and is kept beside our cache.
    """
    before, ask = os.environ.get(_SETTINGS), subprocess.check_output
    os.environ[_SETTINGS] = str(_folder())
    subprocess.check_output = _refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        subprocess.check_output = ask
        if before is None:
            del os.environ[_SETTINGS]
        else:
            os.environ[_SETTINGS] = before


def _folder() -> Path:
    try:
        folder = Cache.default().beside("matplotlib")
        if os.access(folder, os.W_OK):
            return folder
    except InputError:  # it cannot be written, others can write it, or the user has no home
        pass
    return Path(tempfile.mkdtemp(prefix="matplotlib-"))


def _refuse(*_: object, **__: object) -> bytes:
    raise FileNotFoundError("fonts of the system are not asked for")


def new_figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def svg_of(figure: Figure, prefix: str) -> str:
    """The picture as an ``<svg>`` for the inside of a page, which scales with it; identifiers begin with ``prefix``."""
    written = io.BytesIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(written.getvalue())
    for parent in root.iter():
        for child in [child for child in parent if child.tag.endswith("}metadata")]:
            parent.remove(child)
    called = _numbered(root, prefix)
    for element in root.iter():
        # HTML knows its own SVG: without name spaces the page names no address at all.
        element.tag = _local(element.tag)
        attributes = {_local(name): value for name, value in element.attrib.items()}
        element.attrib.clear()
        for name, value in attributes.items():
            if name == "id":
                value = called[value]
            elif name == "href" and value.startswith("#"):
                value = f"#{called[value[1:]]}"
            element.set(name, _URL.sub(lambda found: f"url(#{called[found[1]]})", value))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.tail = None
    return ElementTree.tostring(root, encoding="unicode")


def _numbered(root: ElementTree.Element, prefix: str) -> dict[str, str]:
    """A new name for each identifier: matplotlib's are hashes of numbers of which the last bit is another in every process."""
    found = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    return {name: f"{prefix}-{number}" for number, name in enumerate(dict.fromkeys(found))}


def _local(name: str) -> str:
    return name.rpartition("}")[2]


class Decades(NamedTuple):
    """A logarithmic axis with a place for 0 below its lowest decade and one for ∞ above its highest."""

    low: int
    high: int
    zero: bool
    endless: bool
    empty: bool
    """Nothing lies between 0 and ∞, so no decade is worth a name."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Decades:
        proper = [value for value in values if SMALLEST < value < LARGEST]
        low = math.floor(math.log10(min(proper, default=1.0)))
        high = max(math.ceil(math.log10(max(proper, default=1.0))), low + 1)
        zero, endless = any(value <= SMALLEST for value in values), any(not value < LARGEST for value in values)
        return cls(low, high, zero, endless, not proper)

    def place(self, value: float) -> float:
        """The exponent of ten, or that of the places for 0 and ∞."""
        if value <= SMALLEST:
            return self.low - 0.7
        return math.log10(value) if value < LARGEST else self.high + 0.7

    def dress(self, axes: Axes, which: str) -> None:
        """Set limits, ticks and their names on the ``x`` or the ``y`` axis, whose values are :meth:`place`."""
        step = max(1, math.ceil((self.high - self.low) / 9))
        decades = [(float(exponent), _power(exponent)) for exponent in range(self.low, self.high + 1, step)] * (not self.empty)
        ticks = [(self.low - 0.7, "0")] * self.zero + decades + [(self.high + 0.7, "∞")] * self.endless
        places, names = [place for place, _ in ticks], [name for _, name in ticks]
        axis: Any = getattr(axes, f"{which}axis")
        axis.set_ticks(places, names)
        getattr(axes, f"set_{which}lim")(self.low - (1.1 if self.zero else 0.15), self.high + (1.1 if self.endless else 0.15))


def _power(exponent: int) -> str:
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def short(name: str, longest: int) -> str:
    """The beginning and the end of a long name, which say most about a module's path."""
    name = figures.plain(name) or "(network)"
    front = longest // 3
    return name if len(name) <= longest else f"{name[:front]}…{name[front + 1 - longest :]}"


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a horizontal plot, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
