"""Options that commands share and that are no part of a request: where results go, and whom to trust."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.recipe.tables import Recipe

Artefacts = Annotated[
    list[Path], typer.Argument(help="Artefacts of one export (each with its manifest beside it), or its folder.", show_default=False)
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Execute engines that were not built by you on this machine, which are native code, and load graphs untried."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON on standard output.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Build everything anew and keep nothing.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for a device that somebody else has.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes side by side.", show_default="at most one for each core")]
ReportFolder = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder for report.json, report.md and report.html.", show_default=False)
]
Layers = Annotated[
    bool | None,
    typer.Option("--layers/--no-layers", help="Walk the inner tensors and name the module where an error arises; by itself on a failure."),
]


def say_if_crowded(threads: int) -> None:
    """Say on standard error that more threads were asked for than can run at once.

    Raises:
        InputError: they are more than any machine like this one could start.
    """
    from dtvit_deploy.devices.local import cores, crowded, most_threads

    if threads > (most := most_threads()):
        raise InputError(
            f"{threads} threads were asked for, of at most {most} on this machine",
            remedy=f"this process may use {cores()} cores: give a thread to each of them, or 1",
        )
    if why := crowded(threads):
        from dtvit_deploy.cli.progress import Terminal

        Terminal().step(why)


def say_what_is_foreseen(recipe: Recipe, *, here: bool = True) -> None:
    """Say on standard error what is known of a request's latencies before one is taken.

    Raises:
        InputError: what it asks of them contradicts itself, or there is no device of a name.
    """
    from dtvit_deploy.cli.progress import Terminal
    from dtvit_deploy.pipeline.foreseen import foreseen

    for each in foreseen(recipe, here=here):
        Terminal().step(each)


@contextlib.contextmanager
def opened_cache(no_cache: bool) -> Iterator[Cache]:
    """The user's cache, or one that is thrown away afterwards."""
    import tempfile

    from dtvit_deploy.artifacts.cache import Cache

    if not no_cache:
        yield Cache.default()
        return
    with tempfile.TemporaryDirectory(prefix="dtvit-deploy-") as folder:
        yield Cache(Path(folder))
