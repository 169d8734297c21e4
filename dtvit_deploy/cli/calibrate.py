"""`dtvit-deploy calibrate`: ranges of every tensor, and whether the images were enough."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtvit_deploy.cli import flags
from dtvit_deploy.cli import options as given
from dtvit_deploy.cli.failure import explained
from dtvit_deploy.cli.flag import requesting
from dtvit_deploy.recipe.tables import Recipe

if TYPE_CHECKING:
    from dtvit_deploy.calibration.method import Method
    from dtvit_deploy.calibration.ranges import RangeTable, TensorRange

WIDEST = 12
"""Rows of the table of tensors; the file has them all."""


@explained
@requesting(
    *flags.NETWORK,
    flags.CALIBRATION_DATA,
    flags.CLASS_MAP,
    *flags.OBSERVING,
    flags.EVALUATION,
    flags.THREADS,
    *flags.MODEL[len(flags.NETWORK) :],
    *flags.PREPROCESSING,
)
def calibrate(
    recipe: Recipe,
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the ranges.")] = Path("ranges.json"),
    no_cache: given.NoCache = False,
    as_json: given.Json = False,
) -> None:
    """Observe what every tensor reaches on real images: one range table for every backend. Goes on where it was interrupted."""
    from dtvit_deploy.cli.progress import working
    from dtvit_deploy.pipeline.calibrate import calibrate as calibrated
    from dtvit_deploy.pipeline.material import class_map_of

    given.say_if_crowded(recipe.run.threads)
    with working() as progress, given.opened_cache(no_cache) as cache:
        table = calibrated(recipe, out, cache, progress, class_map=class_map_of(recipe))
    if as_json:
        from dtvit_deploy.cli import show

        show.as_json(_summary(table, out))
    else:
        _show(table, out)


def _summary(table: RangeTable, out: Path) -> dict[str, object]:
    """What the table says of itself; the ranges are in the file."""
    return {
        "path": str(out),
        "sha256": table.sha256,
        "model": table.model,
        "source": table.source,
        "samples": len(table.samples),
        "synthetic": table.synthetic,
        "leaked": table.leaked,
        "tensors": len(table.tensors),
        "unbounded": table.unbounded,
        "convergence": table.convergence,
        "conclusion": table.conclusion(),
        "notes": table.notes,
    }


def _show(table: RangeTable, out: Path) -> None:
    from dtvit_deploy.cli import show

    _show_tensors(table)
    _show_methods(table)
    console = show.console()
    for note in table.notes:
        show.note(note, console)
    if table.unbounded:
        show.note(f"no range, since they reach infinity: {', '.join(table.unbounded)}", console)
    console.say(table.conclusion())
    console.say(f"{out}: SHA-256 {table.sha256[:16]}…", "dim")


def _show_tensors(table: RangeTable) -> None:
    """The widest tensors, and how much of what they reached each method keeps."""
    from dtvit_deploy.calibration.method import Method
    from dtvit_deploy.cli import show

    searched = list(Method)[1:]
    widest = sorted(table.tensors.items(), key=lambda item: item[1].minmax.low - item[1].minmax.high)[:WIDEST]
    body = [
        (
            name,
            tensor.module,
            f"{tensor.minmax.low:.3g} … {tensor.minmax.high:.3g}",
            *(f"{_kept(tensor, method):.0%}" for method in searched),
        )
        for name, tensor in widest
    ]
    shown = f"the widest {len(widest)} of {len(table.tensors)} tensors" if len(widest) < len(table.tensors) else "every tensor"
    title = f"{table.model}: {shown}, and what of it each method keeps"
    show.rows(title, ("tensor", "module", "min … max", *map(str, searched)), body, right=("min … max", *map(str, searched)))


def _show_methods(table: RangeTable) -> None:
    """What the methods clip, and how fast they settled."""
    from dtvit_deploy.calibration.method import Method
    from dtvit_deploy.cli import show
    from dtvit_deploy.report import figures

    tensors, methods = list(table.tensors.values()), [str(method) for method in Method]
    share = {method: [tensor.of(method).clipped for tensor in tensors] for method in Method}
    body = [
        ("values clipped, mean of the tensors", *(figures.share(statistics.fmean(share[method])) for method in Method)),
        ("values clipped, most of a tensor", *(figures.share(max(share[method])) for method in Method)),
        (
            "width kept, median of the tensors",
            *(f"{statistics.median(_kept(tensor, method) for tensor in tensors):.0%}" for method in Method),
        ),
    ]
    body += [
        (f"off by, after {point.images} of {len(table.samples)}", *(f"{at.median:.1%}, {at.p95:.1%}" for at in map(point.of, Method)))
        for point in table.convergence[:-1]
    ]
    title = f"methods, on {len(table.samples)} of {table.source} (off by: median and 95th percentile of the tensors)"
    show.rows(title, ("", *methods), body, right=methods)


def _kept(tensor: TensorRange, method: Method) -> float:
    """Width of a method's range, as a share of what the tensor reached."""
    whole, kept = (interval.high - interval.low for interval in (tensor.minmax, tensor.of(method)))
    return kept / whole if whole else 1.0
