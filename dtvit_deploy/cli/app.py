"""The commands. Each parses, calls one function of the pipeline, and prints what came of it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import dtvit_deploy
from dtvit_deploy.cli import options as given
from dtvit_deploy.cli.calibrate import calibrate
from dtvit_deploy.cli.doctor import doctor
from dtvit_deploy.cli.export import export
from dtvit_deploy.cli.failure import GATE_FAILED, explained, set_debug
from dtvit_deploy.cli.init import init

if TYPE_CHECKING:
    from dtvit_deploy.pipeline.check import Wants
    from dtvit_deploy.report.schema import Report

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
def models(as_json: given.Json = False) -> None:
    """List the reference networks: parameters and MACs, the paper's figures beside them."""
    from dtvit_deploy.cli import show
    from dtvit_deploy.models.registry import VARIANTS

    if as_json:
        show.as_json(list(VARIANTS.values()))
        return
    body = [
        (v.name, f"{v.params:,}", v.paper_params or "–", f"{v.macs:,}", v.paper_gflops or "–", v.description + ("" if v.reached else " *"))
        for v in VARIANTS.values()
    ]
    headings = ("name", "parameters", "paper, M", "MACs", "paper, G", "what it is")
    show.rows("DualToken-ViT at 224×224, 1000 classes", headings, body, right=headings[1:5])
    show.console().say("* no structure reaches the paper's figure; this is the nearest", "dim")


app.command()(export)
app.command()(calibrate)
app.command()(init)


def _check(
    command: str,
    artefacts: list[Path],
    data: Path | None,
    class_map: Path | None,
    wants: Wants,
    threads: int,
    runtimes: list[str] | None,
    model: str | None,
    checkpoint: Path | None,
    out: Path | None,
    as_json: bool,
    trust: bool,
) -> None:
    from dtvit_deploy.artifacts.artifact import load_artifact, named_artifacts
    from dtvit_deploy.artifacts.staging import staged
    from dtvit_deploy.cli.progress import working
    from dtvit_deploy.models.reference import ModelOptions
    from dtvit_deploy.pipeline.check import check
    from dtvit_deploy.pipeline.export import opened_cache
    from dtvit_deploy.pipeline.material import open_material, require_images
    from dtvit_deploy.pipeline.origin import reference_of
    from dtvit_deploy.pipeline.trust import with_trust

    artifacts = [load_artifact(path) for path in named_artifacts(artefacts)]
    # The report's folder is opened first, so that one that cannot be written is refused before minutes of measuring.
    with staged(out) if out is not None else nullcontext():
        with working() as progress, opened_cache(use=True) as cache:
            artifacts = [with_trust(artifact, cache, trust=trust) for artifact in artifacts]
            mapped = given.read_map(class_map)
            require_images(mapped, data)
            material = open_material(data, artifacts[0].manifest, mapped)
            program = reference_of(artifacts, cache, model, ModelOptions(checkpoint=checkpoint))
            report = check(command, program, artifacts, material, wants, threads=threads, runtimes=runtimes or (), progress=progress)
        _finish(report, out, as_json)


def _finish(report: Report, out: Path | None, as_json: bool, folder: Path | None = None) -> None:
    from dtvit_deploy.cli import show
    from dtvit_deploy.report import as_data, write_report

    if out is not None:
        write_report(report, out)
    if as_json:
        show.as_json(as_data(report))
    else:
        show.report(report, folder or out)
    if report.verdict is not None and not report.verdict.passed:
        raise SystemExit(GATE_FAILED)


@app.command()
@explained
def verify(
    artefacts: given.Artefacts,
    data: given.Data = None,
    class_map: given.ClassMap = None,
    samples: given.Samples = 64,
    layers: Annotated[
        bool | None,
        typer.Option(
            "--layers/--no-layers", help="Walk the inner tensors and name the module where an error arises; by itself on a failure."
        ),
    ] = None,
    adversarial: given.Adversarial = True,
    tolerance: given.Tolerances = None,
    threads: given.Threads = 1,
    runtime: given.Runtimes = None,
    model: given.Model = None,
    checkpoint: given.Checkpoint = None,
    arm64: given.Arm64 = False,
    trust: given.Trust = False,
    out: given.ReportFolder = None,
    as_json: given.Json = False,
) -> None:
    """Compare artefacts with torch: outputs, on real images and adversarial feeds, within a measured tolerance."""
    from dtvit_deploy.pipeline.check import Wants

    wants = Wants(parity=samples, adversarial=adversarial, tolerances=given.tolerances(tolerance), layers=layers, arm64=arm64)
    _check("verify", artefacts, data, class_map, wants, threads, runtime, model, checkpoint, out, as_json, trust)


@app.command()
@explained
def evaluate(
    artefacts: given.Artefacts,
    data: given.Data = None,
    class_map: given.ClassMap = None,
    threads: given.Threads = 1,
    runtime: given.Runtimes = None,
    model: given.Model = None,
    checkpoint: given.Checkpoint = None,
    trust: given.Trust = False,
    out: given.ReportFolder = None,
    as_json: given.Json = False,
) -> None:
    """Top-1, top-5 and agreement with torch, over every image of a class-folder tree."""
    from dtvit_deploy.errors import InputError
    from dtvit_deploy.pipeline.check import Wants

    if data is None:
        raise InputError("accuracy needs images", remedy="give --data a folder with one sub-folder for each class")
    _check("evaluate", artefacts, data, class_map, Wants(accuracy=True), threads, runtime, model, checkpoint, out, as_json, trust)


@app.command()
@explained
def profile(
    artefacts: given.Artefacts,
    data: given.Data = None,
    class_map: given.ClassMap = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Least time for each, or ten times that for all.")] = 3.0,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Least number of samples, for each; fewer than 64 are INVALID.")] = 64,
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph/--no-cuda-graph", help="On a GPU: launch all kernels of an inference at once.")
    ] = True,
    threads: given.Threads = 1,
    runtime: given.Runtimes = None,
    model: given.Model = None,
    checkpoint: given.Checkpoint = None,
    trust: given.Trust = False,
    out: given.ReportFolder = None,
    as_json: given.Json = False,
) -> None:
    """Latency, interleaved with torch in one run: percentiles, load time, memory, and whether the measurement is valid."""
    from dtvit_deploy.harness.latency import MeasureOptions
    from dtvit_deploy.pipeline.check import Wants

    wants = Wants(latency=MeasureOptions(min_seconds=seconds, min_samples=samples, max_seconds=max(300.0, seconds)), cuda_graph=cuda_graph)
    _check("profile", artefacts, data, class_map, wants, threads, runtime, model, checkpoint, out, as_json, trust)


@app.command()
@explained
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe: model, data, targets, gates (TOML).", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the artefacts and the report.")] = Path("out"),
    data: given.Data = None,
    class_map: given.ClassMap = None,
    layers: Annotated[bool, typer.Option("--layers/--no-layers", help="Walk the inner tensors too.")] = True,
    no_cache: given.NoCache = False,
    as_json: given.Json = False,
) -> None:
    """Do everything a recipe asks for: export, verify, evaluate, profile, one verdict, one report."""
    import msgspec

    from dtvit_deploy.cli.progress import working
    from dtvit_deploy.pipeline.export import opened_cache
    from dtvit_deploy.pipeline.run import run as run_recipe
    from dtvit_deploy.recipe import load_recipe

    asked = load_recipe(recipe)
    if data is not None:
        asked = msgspec.structs.replace(asked, data=msgspec.structs.replace(asked.data, evaluation=data))
    if class_map is not None:
        asked = msgspec.structs.replace(asked, data=msgspec.structs.replace(asked.data, class_map=class_map))
    given.say_if_crowded(asked.run.threads)
    with working() as progress, opened_cache(not no_cache) as cache:
        report = run_recipe(asked, out, cache, progress, layers=layers)
    _finish(report, None, as_json, folder=out)


@app.command()
@explained
def report(
    source: Annotated[Path, typer.Argument(help="A report.json, or its folder.", show_default=False)],
    out: given.ReportFolder = None,
    as_json: given.Json = False,
) -> None:
    """Show a report again; with --out, write it anew as JSON, Markdown and one-file HTML."""
    _finish(_read_report(source), out, as_json)


def _read_report(path: Path) -> Report:
    """A report, by its file or by the folder that it was written into."""
    from dtvit_deploy.artifacts.artifact import read_json
    from dtvit_deploy.errors import InputError
    from dtvit_deploy.report import JSON
    from dtvit_deploy.report.schema import SCHEMA, Report

    if path.is_dir():
        if not (path / JSON).is_file():
            raise InputError(f"the folder {path} has no {JSON}", remedy="give a folder that `run` or --out wrote a report into")
        path /= JSON
    found: Report = read_json(path, Report)
    if found.schema != SCHEMA:
        raise InputError(f"{path} has schema {found.schema}; this version reads schema {SCHEMA}", remedy="measure again")
    return found


@app.command()
@explained
def compare(
    before: Annotated[Path, typer.Argument(help="A report.json, or its folder.", show_default=False)],
    after: Annotated[Path, typer.Argument(help="A later report.json, or its folder.", show_default=False)],
    slower: Annotated[float, typer.Option("--slower", min=0, help="Share by which p50, in units of torch's, may grow.")] = 0.05,
    as_json: given.Json = False,
) -> None:
    """Compare two reports: what became slower, larger or less accurate. Fails on a regression."""
    from dtvit_deploy.cli import show
    from dtvit_deploy.report.compare import compare_reports

    found = compare_reports(_read_report(before), _read_report(after), slower=slower)
    if as_json:
        show.as_json(found)
    else:
        show.rows("before → after", ("subject", "figure", "before", "after", "change"), [row.cells() for row in found.rows])
        for each in found.not_compared:
            show.note(each, show.console(), "not compared:")
        show.verdict(found.verdict, show.console())
    if not found.verdict.passed:
        raise SystemExit(GATE_FAILED)


app.command()(doctor)
