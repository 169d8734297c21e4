"""``dtvit-deploy attention``: where the tokens of deployed artefacts look, drawn over images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtvit_deploy.cli import flags
from dtvit_deploy.cli import options as given
from dtvit_deploy.cli.failure import explained
from dtvit_deploy.cli.flag import requesting
from dtvit_deploy.errors import InputError
from dtvit_deploy.recipe.tables import Recipe

if TYPE_CHECKING:
    from dtvit_deploy.report.attention import Attention

PAGE, PICTURE = ".html", ".png"


@explained
@requesting(flags.DATA, flags.CLASS_MAP, flags.SAMPLES, *flags.RUNNING, *flags.NETWORK, builds=False)
def attention(
    recipe: Recipe,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE|ARTEFACT", help="Images to draw over, and artefacts of one export, or its folder.", show_default=False
        ),
    ],
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", "-o", help="A page (.html) or a picture (.png), repeatable.", show_default="attention.html"),
    ] = None,
    trust: given.Trust = False,
    as_json: given.Json = False,
) -> None:
    """Draw where the tokens of artefacts look, and how far that is from torch's attention: on --data, or else on those images."""
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.cli.progress import working
    from dtvit_deploy.pipeline.attention import look, told_apart
    from dtvit_deploy.recipe.reading import validated
    from dtvit_deploy.report.canvas import drawing

    given.say_if_crowded(recipe.run.threads)
    written = out or [Path(f"attention{PAGE}")]
    for path in written:
        if path.suffix.lower() not in (PAGE, PICTURE):
            raise InputError(f"{path} is neither a page nor a picture", remedy=f"give --out a name that ends in {PAGE} or {PICTURE}")
    asked = told_apart(paths)
    with drawing():  # what pictures need is missed now, not after minutes of work
        pass
    with working() as progress:
        found = look(asked, validated(recipe), Cache.default(), progress, trust=trust)
        for path in written:
            _write(found, path)
    _show(found, written, as_json=as_json)


def _write(found: Attention, path: Path) -> None:
    """Draw the page or the picture, whole or not at all."""
    from dtvit_deploy.artifacts.staging import replacing
    from dtvit_deploy.report.attention import attention_content
    from dtvit_deploy.report.attention_plots import attention_plots, attention_png
    from dtvit_deploy.report.html import in_html

    if path.suffix.lower() == PICTURE:
        content = attention_png(found)
    else:
        content = in_html(attention_content(found.report), attention_plots(found)).encode()
    with replacing(path) as part:
        part.write_bytes(content)


def _show(found: Attention, written: list[Path], *, as_json: bool) -> None:
    from dtvit_deploy.cli import show
    from dtvit_deploy.report import as_data
    from dtvit_deploy.report.attention import attention_content
    from dtvit_deploy.report.markdown import in_markdown

    if as_json:
        show.as_json(as_data(found.report))
        return
    out = show.console()
    for line in in_markdown(attention_content(found.report)).splitlines():
        out.say(line)
    out.say(f"drawn: {', '.join(map(str, written))}", "dim")
