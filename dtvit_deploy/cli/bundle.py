"""`dtvit-deploy bundle`: one archive for a device that nobody can reach."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtvit_deploy.cli import flags
from dtvit_deploy.cli import options as given
from dtvit_deploy.cli.failure import explained
from dtvit_deploy.cli.flag import requesting
from dtvit_deploy.errors import InputError
from dtvit_deploy.recipe.tables import Recipe


@explained
@requesting(
    flags.DATA,
    flags.CLASS_MAP,
    flags.SAMPLES,
    flags.ADVERSARIAL,
    flags.TOLERANCE,
    flags.CLASS_SCORES,
    *flags.TIMES,
    *flags.RUNNING,
    *flags.NETWORK,
    builds=False,
)
def bundle(
    recipe: Recipe,
    artefacts: given.Artefacts,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The archive, a tar; its request goes beside it.", show_default="named after the job")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Have outputs answered that are compared with torch's.")] = True,
    evaluate: Annotated[
        bool, typer.Option("--evaluate/--no-evaluate", help="Take every image along, for top-1, top-5, agreement.")
    ] = False,
    profile: Annotated[bool, typer.Option("--profile/--no-profile", help="Have latency measured.")] = True,
    layers: Annotated[
        bool | None,
        typer.Option(
            "--layers/--no-layers", help="Have inner tensors compared.", show_default="those of failures, where the archive stays small"
        ),
    ] = None,
    trust: given.Trust = False,
    as_json: given.Json = False,
) -> None:
    """Write what a device is to answer into one archive, for one that nobody can reach; `report --import` judges what comes back."""
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.artifacts.staging import staged
    from dtvit_deploy.cli import show
    from dtvit_deploy.cli.progress import working
    from dtvit_deploy.pipeline.bundling import bundle as bundled
    from dtvit_deploy.pipeline.figures import Figures
    from dtvit_deploy.pipeline.opened import opened
    from dtvit_deploy.report.figures import megabytes

    if evaluate and recipe.data.evaluation is None:
        raise InputError("accuracy needs images", remedy="give --data a folder with one sub-folder for each class, or leave --evaluate out")
    given.say_if_crowded(recipe.run.threads)  # the reference has as many
    figures = Figures(parity=verify, layers=layers, accuracy=evaluate, latency=profile)
    if figures.latency:
        given.say_what_is_foreseen(recipe, here=False)
    # The archive's folder is opened first, so that one that cannot be written is refused before minutes of packing.
    with staged(out.parent if out is not None else Path()), working() as progress:
        made = bundled(opened(artefacts, recipe, Cache.default(), trust=trust), recipe, figures, out, progress)
    if as_json:
        show.as_json({name: str(value) if isinstance(value, Path) else value for name, value in made._asdict().items()})
        return
    out_of = show.console()
    out_of.say(f"{made.archive}: {made.told}; {megabytes(made.bytes)} MB")
    out_of.say(f"on the device: {made.there}")
    out_of.say(f"back here:     dtvit-deploy report --import {made.back} -o FOLDER   (by {made.request}, which stays here)")
