"""How a command ends that has a report: it is written, shown, and its verdict is the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dtvit_deploy.cli.failure import GATE_FAILED

if TYPE_CHECKING:
    from dtvit_deploy.report.schema import Report


def finish(report: Report, out: Path | None, as_json: bool) -> None:
    """Write a report into a folder, where one is given, and show it.

    Raises:
        SystemExit: a gate failed.
    """
    from dtvit_deploy.report import write_report

    if out is not None:
        write_report(report, out)
    finish_all([(report, out)], as_json)


def finish_all(reports: Sequence[tuple[Report, Path | None]], as_json: bool) -> None:
    """Show reports, each with the folder that it is in.

    Raises:
        SystemExit: a gate of one of them failed.
    """
    from dtvit_deploy.cli import show
    from dtvit_deploy.report import as_data

    if as_json:
        found = [as_data(report) for report, _ in reports]
        show.as_json(found[0] if len(found) == 1 else found)
    else:
        said: set[str] = set()
        for report, folder in reports:
            show.report(report, folder, said)
    if any(report.verdict is not None and not report.verdict.passed for report, _ in reports):
        raise SystemExit(GATE_FAILED)
