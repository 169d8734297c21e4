"""`dtvit-deploy report`: a report shown again, and the results of a bundle made one."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dtvit_deploy.cli import flags
from dtvit_deploy.cli import options as given
from dtvit_deploy.cli.failure import explained
from dtvit_deploy.cli.finish import finish
from dtvit_deploy.cli.flag import taking
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from dtvit_deploy.report.schema import Report


@explained
@taking(flags.DATA, flags.CLASS_MAP, *flags.NETWORK)
def report(
    said: dict[str, Any],
    names: dict[str, str],
    source: Annotated[
        Path | None,
        typer.Argument(help="A report.json, or its folder; with --import, a bundle's request, or its folder.", show_default=False),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--import", help="Judge what a bundle's device wrote, and put it into the report of --out.", show_default=False),
    ] = None,
    device: Annotated[
        str, typer.Option("--device-name", help="Of --import: what reports call the device.", show_default="what it calls itself")
    ] = "",
    layers: Annotated[
        bool | None, typer.Option("--layers/--no-layers", help="Of --import: compare inner tensors.", show_default="as bundled")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema that every report.json keeps to.")] = False,
    out: given.ReportFolder = None,
    as_json: given.Json = False,
) -> None:
    """Show a report again, written anew with --out; or, with --import, the figures of a device that nobody can reach.

    Flags of samples and network are of --import: for what is elsewhere now than when the bundle was made.
    """
    if schema:
        others = [(source, str(source)), (results, "--import"), (out, "--out")]
        if aside := ", ".join(
            [*(name for value, name in others if value is not None), *filter(None, [_given(said, names, device, layers)])]
        ):
            raise InputError(f"--schema prints that of every report, and beside it was given: {aside}", remedy="give --schema by itself")
        print_schema()
        return
    if results is None:
        if source is None:
            raise InputError(
                "there is nothing to show", remedy="give a report.json, or its folder; or --import what a bundle's device wrote"
            )
        if aside := _given(said, names, device, layers):
            raise InputError(
                f"{aside}: about results that are imported, and a report is only shown",
                remedy="leave it out; or give the results by --import",
            )
        finish(read_report(source), out, as_json)
        return
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.artifacts.staging import staged
    from dtvit_deploy.cli.progress import working
    from dtvit_deploy.pipeline.imported import Corrections, imported
    from dtvit_deploy.recipe.reading import request
    from dtvit_deploy.report import JSON
    from dtvit_deploy.report.merging import merged

    recipe = request(None, said, names)
    corrections = Corrections(recipe.model, recipe.data.evaluation, recipe.data.class_map, layers, device)
    before = read_report(out) if out is not None and (out / JSON).is_file() else None
    # The report's folder is opened first, so that one that cannot be written is refused before minutes of judging.
    with staged(out) if out is not None else nullcontext():
        with working() as progress:
            found = imported(results, source, corrections, Cache.default(), progress)
        finish(found.report if before is None else merged(before, found.report, found.device), out, as_json)


def _given(said: dict[str, Any], names: dict[str, str], device: str, layers: bool | None) -> str:
    """What was typed of the flags that are of --import."""
    walked = [] if layers is None else ["--layers" if layers else "--no-layers"]
    return ", ".join([*(names[key] for key in said), *(["--device-name"] if device else []), *walked])


def print_schema() -> None:
    from dtvit_deploy.cli import show
    from dtvit_deploy.report.reference import json_schema

    show.as_json(json_schema())


def read_report(path: Path) -> Report:
    """A report, by its file or by the folder that it was written into.

    Raises:
        InputError: it cannot be read, is none, of another schema, or contradicts itself.
    """
    from msgspec import defstruct

    from dtvit_deploy.artifacts.artifact import read_json
    from dtvit_deploy.artifacts.given import MANIFEST, kind_of_json
    from dtvit_deploy.report import JSON
    from dtvit_deploy.report.contradictions import require_consistent
    from dtvit_deploy.report.schema import SCHEMA, Report

    if not os.path.lexists(path):
        raise InputError(f"there is no report at {path}", remedy="give a report.json, or the folder that it was written into")
    if path.is_dir():
        if not (path / JSON).is_file():
            raise InputError(f"the folder {path} has no {JSON}", remedy="give a folder that `run` or --out wrote a report into")
        path /= JSON
    if kind_of_json(path) == MANIFEST:
        raise InputError(
            f"{path} is not a report: it is an artefact's manifest",
            remedy="give a report.json, or its folder; verify, evaluate and profile write one with --out",
        )
    # By itself, since what else another schema has is not known.
    schema = read_json(path, defstruct("Report", [("schema", int | None, None)])).schema
    if schema is None:
        raise InputError(f"{path} is not a report: it does not say of which schema it is", remedy="measure again")
    if schema != SCHEMA:
        raise InputError(
            f"{path} has schema {schema}; this version reads schema {SCHEMA}",
            remedy="update dtvit-deploy" if schema > SCHEMA else "measure again",
        )
    found: Report = read_json(path, Report)
    require_consistent(path, found)
    return found
