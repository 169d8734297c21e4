"""The report as one HTML file: style and pictures inside, no script, nothing to fetch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING

from dtvit_deploy.errors import MissingError
from dtvit_deploy.report.content import Content, content
from dtvit_deploy.report.tables import WEB_PAGE

if TYPE_CHECKING:
    from dtvit_deploy.report.canvas import Plot
    from dtvit_deploy.report.schema import Report


def render_html(report: Report, said: Content | None = None) -> str:
    """The whole report; equal reports give equal text.

    Args:
        said: the report's content, where it is at hand.

    Raises:
        MissingError: Jinja2 or matplotlib is not installed.
    """
    from dtvit_deploy.report.plots import draw

    return in_html(said or content(report), draw(report))


def in_html(said: Content, pictures: Mapping[str, Sequence[Plot]]) -> str:
    """A page of words, tables and pictures, these by the key of their section.

    Raises:
        MissingError: Jinja2 is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise MissingError(f"a report in HTML needs Jinja2: {error}", remedy="pip install 'dtvit-deploy[report]'") from error

    folder = resources.files("dtvit_deploy.report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)

    def linked(text: str) -> Markup:
        parts = WEB_PAGE.split(text)  # every other one is the address of a page
        return Markup("").join(Markup('<a href="{0}">{0}</a>').format(part) if index % 2 else part for index, part in enumerate(parts))

    environment.filters["linked"] = linked
    template = environment.from_string(folder.joinpath("report.html.jinja").read_text("utf-8"))
    # These are trusted as they are: the style is ours, and the pictures were written by an XML serialiser.
    style = Markup(folder.joinpath("report.css").read_text("utf-8"))
    plots = {key: [(plot.caption, Markup(plot.svg)) for plot in found] for key, found in pictures.items()}
    return template.render(report=said, style=style, plots=plots) + "\n"
