"""The commands. Each parses, calls one function of the pipeline, and prints what came of it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import dtvit_deploy
from dtvit_deploy.cli import flags
from dtvit_deploy.cli import options as given
from dtvit_deploy.cli.ab import ab
from dtvit_deploy.cli.attention import attention
from dtvit_deploy.cli.bundle import bundle
from dtvit_deploy.cli.cache import cache
from dtvit_deploy.cli.calibrate import calibrate
from dtvit_deploy.cli.device import device
from dtvit_deploy.cli.doctor import doctor
from dtvit_deploy.cli.export import export
from dtvit_deploy.cli.failure import GATE_FAILED, explained, set_debug
from dtvit_deploy.cli.finish import finish
from dtvit_deploy.cli.flag import requesting
from dtvit_deploy.cli.init import init
from dtvit_deploy.cli.report import read_report, report
from dtvit_deploy.cli.run import run
from dtvit_deploy.recipe.tables import Recipe

if TYPE_CHECKING:
    from dtvit_deploy.pipeline.figures import Figures

app = typer.Typer(
    name="dtvit-deploy",
    help="From a trained light vision transformer to artefacts for real devices, with proof that they answer the same.",
    epilog="Exit codes: 0 done and every gate passed; 1 a gate failed; 2 wrong input or options; 3 something needed is not here;"
    " 70 a defect of this program; 130, 143, 129 ended by Ctrl-C, SIGTERM, SIGHUP.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # loading Rich for --help would double its time
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dtvit-deploy {dtvit_deploy.__version__}")
        raise typer.Exit


@app.callback()
def top(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an expected failure too.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """From a trained light vision transformer to artefacts for real devices, with proof that they answer the same."""
    del version
    set_debug(debug)


@app.command()
@explained
def models(
    family: Annotated[str | None, typer.Argument(help="Whose networks are listed; the families themselves if none.")] = None,
    as_json: given.Json = False,
) -> None:
    """List the reference networks, family by family: parameters and MACs, the papers' figures beside them."""
    from dtvit_deploy.cli import show
    from dtvit_deploy.models import registry

    found = tuple(registry.VARIANTS.values()) if family is None else registry.family(family)
    if as_json:
        show.as_json(found)
        return
    if family is None:
        show.rows(
            "dtvit-deploy models FAMILY lists its networks",
            ("family", "networks", "parameters, M", "what it is"),
            _families(),
            right=("networks",),
        )
        return
    body = [
        (v.name, f"{v.params:,}", v.paper_params or "–", f"{v.macs:,}", v.paper_gflops or "–", v.description + ("" if v.reached else " *"))
        for v in found
    ]
    headings = ("name", "parameters", "paper, M", "MACs", "paper, G", "what it is")
    show.rows("networks at 224×224 unless said otherwise, 1000 classes", headings, body, right=headings[1:5])
    for v in found:
        if not v.reached:
            show.console().say(f"* {v.name}: {v.why}", "dim")


def _families() -> list[tuple[str, str, str, str]]:
    from dtvit_deploy.models.registry import FAMILIES, family

    rows = []
    for name, what in FAMILIES.items():
        sizes = [each.params / 1e6 for each in family(name)]
        rows.append((name, str(len(sizes)), f"{min(sizes):.1f} to {max(sizes):.1f}", what))
    return rows


app.command()(export)
app.command()(run)
app.command()(calibrate)
app.command()(init)


def _check(
    command: str, artefacts: list[Path], recipe: Recipe, figures: Figures, out: Path | None, *, as_json: bool, trust: bool, wait: bool
) -> None:
    from dtvit_deploy.api import checked
    from dtvit_deploy.artifacts.staging import staged
    from dtvit_deploy.cli.progress import working

    given.say_if_crowded(recipe.run.threads)
    if figures.latency:
        given.say_what_is_foreseen(recipe)
    # The report's folder is opened first, so that one that cannot be written is refused before minutes of measuring.
    with staged(out) if out is not None else nullcontext():
        with working() as progress:
            report = checked(command, artefacts, recipe, figures, progress, trust=trust, wait=wait)
        finish(report, out, as_json)


@app.command()
@explained
@requesting(
    flags.DATA,
    flags.CLASS_MAP,
    flags.SAMPLES,
    flags.ADVERSARIAL,
    flags.TOLERANCE,
    flags.CLASS_SCORES,
    *flags.MEASURING,
    *flags.NETWORK,
    flags.ARM64,
    builds=False,
)
def verify(
    recipe: Recipe,
    artefacts: given.Artefacts,
    layers: given.Layers = None,
    trust: given.Trust = False,
    wait: given.Wait = True,
    out: given.ReportFolder = None,
    as_json: given.Json = False,
) -> None:
    """Compare artefacts with torch: outputs, on real images and adversarial feeds, within a measured tolerance."""
    from dtvit_deploy.pipeline.figures import Figures

    _check("verify", artefacts, recipe, Figures(parity=True, layers=layers), out, as_json=as_json, trust=trust, wait=wait)


@app.command()
@explained
@requesting(flags.DATA, flags.CLASS_MAP, flags.CLASS_SCORES, *flags.MEASURING, *flags.NETWORK, builds=False)
def evaluate(
    recipe: Recipe,
    artefacts: given.Artefacts,
    trust: given.Trust = False,
    wait: given.Wait = True,
    out: given.ReportFolder = None,
    as_json: given.Json = False,
) -> None:
    """Top-1, top-5 and agreement with torch, over every image of a class-folder tree."""
    from dtvit_deploy.errors import InputError
    from dtvit_deploy.pipeline.figures import Figures

    if recipe.data.evaluation is None:
        raise InputError("accuracy needs images", remedy="give --data a folder with one sub-folder for each class")
    _check("evaluate", artefacts, recipe, Figures(accuracy=True), out, as_json=as_json, trust=trust, wait=wait)


@app.command()
@explained
@requesting(flags.DATA, flags.CLASS_MAP, *flags.PROFILE, *flags.MEASURING, *flags.NETWORK, builds=False)
def profile(
    recipe: Recipe,
    artefacts: given.Artefacts,
    trust: given.Trust = False,
    wait: given.Wait = True,
    out: given.ReportFolder = None,
    as_json: given.Json = False,
) -> None:
    """Latency, interleaved with torch in one run: percentiles, load time, memory, and whether the measurement is valid.

    Fails where no artefact's is.
    """
    from dtvit_deploy.pipeline.figures import Figures

    _check("profile", artefacts, recipe, Figures(latency=True), out, as_json=as_json, trust=trust, wait=wait)


app.command()(attention)
app.command()(bundle)
app.command()(report)


@app.command()
@explained
def compare(
    before: Annotated[Path, typer.Argument(help="A report.json, or its folder.", show_default=False)],
    after: Annotated[Path | None, typer.Argument(help="A later report.json, or its folder.", show_default=False)] = None,
    slower: Annotated[
        float | None,
        typer.Option(
            "--slower",
            min=0,
            help="Share by which p50 may grow, 0.02 for 2 %: by default that in units of torch's, else 0.05.",
            show_default=False,
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            "--history", help="Compare one report with the last of this series, a file of JSON lines, and add it.", show_default=False
        ),
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", min=1, help="Of --history: reports of the series to compare with.", show_default="10")
    ] = None,
    as_json: given.Json = False,
) -> None:
    """Compare two reports, or one with a series: what became slower, larger or less accurate. Fails on a regression."""
    from dtvit_deploy.cli import show
    from dtvit_deploy.errors import InputError
    from dtvit_deploy.harness.verdict import percent

    if (after is None) == (history is None):
        raise InputError(
            "compare takes two reports, or one and a series" + (", and both were given" if history else ""),
            remedy="give BEFORE and AFTER, or REPORT and --history FILE",
        )
    if last is not None and history is None:
        raise InputError("--last says how many reports of a series are compared with, and there is no series", remedy="give --history FILE")
    if slower is not None and not slower < 1:
        raise InputError(f"--slower {slower:g} is {percent(slower)}: it is a share", remedy="give less than 1: 0.2 is 20 %")
    added = 0
    if history is None:
        from dtvit_deploy.report.compare import compare_reports

        assert after is not None
        found = compare_reports(read_report(before), read_report(after), slower=slower)
    else:
        from dtvit_deploy.report.series import LAST
        from dtvit_deploy.report.series_file import compare_and_add

        found, added = compare_and_add(history, read_report(before), last=last or LAST, slower=slower)
    if as_json:
        show.as_json(found)
    else:
        show.rows("before → after", ("subject", "figure", "before", "after", "change"), [row.cells() for row in found.rows])
        for each in found.not_compared:
            show.note(each, show.console(), "not compared:")
        for each in found.undecided:
            show.note(each, show.console(), "undecided:")
        for each in found.notes:
            show.note(each, show.console())
        if history is not None:
            show.console().say(f"added to {history}: {added} of its artefacts" if added else f"in {history} already")
        show.verdict(found.verdict, show.console())
    if not found.verdict.passed:
        raise SystemExit(GATE_FAILED)


app.command()(ab)
app.command()(doctor)
app.command()(cache)
app.add_typer(device, name="device")
