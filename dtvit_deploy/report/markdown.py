"""The report as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dtvit_deploy.report.content import Content, content
from dtvit_deploy.report.tables import WEB_PAGE, Column, Table

if TYPE_CHECKING:
    from dtvit_deploy.report.schema import Report

_VERDICT = {True: "✅ **PASS**", False: "❌ **FAIL**", None: "**NO VERDICT**"}
_ACTIVE = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown would act on; an underscore only at the edge of a word, so that names of nodes stay readable."""


def render_markdown(report: Report, said: Content | None = None) -> str:
    """The whole report, with every text in it escaped; equal reports give equal text.

    Args:
        said: the report's content, where it is at hand: its latency ratios take a second to make.
    """
    return in_markdown(said or content(report))


def in_markdown(found: Content) -> str:
    """A page's words and tables; pictures it has none."""
    lines = [f"# {escaped(found.title)}", ""]
    lines += [f"{_VERDICT[found.passed]}: {escaped(found.reason)}", ""] if found.reason else []
    for note in found.notes:
        lines += [f"> **Note:** {escaped(note)}", ""]
    for section in found.sections:
        lines += [f"## {section.title}", ""]
        for sentence in section.sentences:
            lines += [escaped(sentence), ""]
        for table in section.tables:
            if not table.long:
                lines += _table(table)
    lines.append(f"{escaped(found.created)} · {found.footer}")
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown and HTML leave alone, in a table's cell too."""
    entities = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A scheme that GitHub does not recognise is no link: a file name must not make one.
    return _ACTIVE.sub(r"\\\g<0>", entities).replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def _table(table: Table) -> list[str]:
    lines = [f"{escaped(table.caption)}", ""] if table.caption else []
    lines.append(_row([column.heading for column in table.columns]))
    lines.append("|" + "|".join(" ---: " if column.figures else " --- " for column in table.columns) + "|")
    lines += [_row([_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)], ready=True) for row in table.rows]
    return [*lines, ""]


def _cell(text: str, column: Column) -> str:
    if column.prose:  # every other part is the address of a page, which stays one
        return "".join(f"<{part}>" if index % 2 else escaped(part) for index, part in enumerate(WEB_PAGE.split(text)))
    return f"**{text}**" if text == "FAIL" else escaped(text)


def _row(cells: list[str], *, ready: bool = False) -> str:
    return "| " + " | ".join(cells if ready else map(escaped, cells)) + " |"
