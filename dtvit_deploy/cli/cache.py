"""`dtvit-deploy cache`: what is kept of earlier work, and how it is let go."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from dtvit_deploy.cli import options as given
from dtvit_deploy.cli.failure import explained
from dtvit_deploy.errors import InputError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@explained
def cache(
    prune: Annotated[bool, typer.Option("--prune", help="Remove entries; all of them, or those of --older-than.")] = False,
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="Only what was not used for so long: 12h, 30d, 2w.", show_default=False)
    ] = None,
    as_json: given.Json = False,
) -> None:
    """Show what is kept of earlier work, by stage; with --prune, let it go: whoever needs it builds it again."""
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.cli import show
    from dtvit_deploy.report.figures import megabytes

    found, now = Cache.default(), time.time()
    before = now + 1 if older_than is None else now - _duration(older_than)
    entries = [entry for entry in (found.prune(before) if prune else found.held()) if entry.used < before]
    if as_json:
        show.as_json([{"name": one.name, "stage": one.stage, "bytes": one.size, "unused_s": round(now - one.used)} for one in entries])
        return
    stages = {entry.stage: [one for one in entries if one.stage == entry.stage] for entry in entries}
    body = [
        (stage, str(len(held)), megabytes(sum(one.size for one in held)), _since(now - max(one.used for one in held)))
        for stage, held in sorted(stages.items())
    ]
    title = f"{found.root}: {'removed' if prune else 'kept'}"
    show.rows(title, ("stage", "entries", "MB", "last used"), body, right=("entries", "MB", "last used"))
    show.console().say(f"{len(entries)} entries, {megabytes(sum(one.size for one in entries))} MB")


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if match is None:
        raise InputError(f"--older-than {text!r} is no time", remedy="write it like 12h, 30d or 2w")
    return int(match[1]) * _SECONDS[match[2]]


def _since(seconds: float) -> str:
    unit = next((unit for unit in ("d", "h", "m") if seconds >= _SECONDS[unit]), "s")
    return f"{seconds // _SECONDS[unit]:.0f} {unit} ago"
