"""Reports: data first (``report.json``), and the same figures as Markdown and as one HTML file made from it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from dtvit_deploy.report.schema import Report

JSON, MARKDOWN, HTML = "report.json", "report.md", "report.html"


def write_report(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write the report into a folder: the data, Markdown, and HTML where Jinja2 and matplotlib are installed. All or nothing.

    Without them the HTML of an older report is removed: it would be taken for this one's.

    Returns:
        What was written, the data first.

    Raises:
        InputError: the folder cannot be written.
    """
    from dtvit_deploy.artifacts.staging import staged

    with staged(folder) as stage:
        names = add_report(report, stage)
    remove_older(folder, names)
    return tuple(folder / name for name in names)


def add_report(report: Report, stage: Path) -> tuple[str, ...]:
    """Write the report's files among others that are staged with them; their names."""
    from dtvit_deploy.artifacts.artifact import encode_json
    from dtvit_deploy.errors import MissingError
    from dtvit_deploy.report.content import content
    from dtvit_deploy.report.html import render_html
    from dtvit_deploy.report.markdown import render_markdown

    said = content(report)
    files = {JSON: encode_json(as_data(report)), MARKDOWN: render_markdown(report, said).encode()}
    with contextlib.suppress(MissingError):  # the data are the report; pictures can be made of them later, and elsewhere
        files[HTML] = render_html(report, said).encode()
    for name, written in files.items():
        (stage / name).write_bytes(written)
    return tuple(files)


def remove_older(folder: Path, names: tuple[str, ...]) -> None:
    """Remove the HTML of an older report where the new one, with files of those names, has none."""
    if HTML not in names:
        with contextlib.suppress(OSError):
            (folder / HTML).unlink()


def as_data(report: object) -> Any:
    """A report, or another figure, as JSON can hold it and read it again.

    JSON has no infinity (an SQNR where nothing differs) and no NaN: both become the largest double, which every table and plot shows as ∞.
    A file name that is not UTF-8 has its odd bytes spelt out.
    """
    import msgspec

    return _as_data(msgspec.to_builtins(report))


def _as_data(value: Any) -> Any:
    from dtvit_deploy.report.figures import storable

    if isinstance(value, dict):
        return {_as_data(key): _as_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_data(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return storable(value) if isinstance(value, float) else value
