"""``dtvit-deploy ab``: whether one artefact is slower than another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtvit_deploy.cli import options as given
from dtvit_deploy.cli.failure import GATE_FAILED, explained

if TYPE_CHECKING:
    from dtvit_deploy.pipeline.ab import Compared

_SAID = {"slower": "B is slower", "faster": "B is faster", "alike": "B takes as long as A", "undecided": "undecided"}


@explained
def ab(
    a: Annotated[Path, typer.Argument(help="An artefact, with its manifest beside it.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Another one, or the same.", show_default=False)],
    processes: Annotated[int, typer.Option("--processes", min=5, help="Fresh processes, each with both.")] = 6,
    band: Annotated[float, typer.Option("--band", min=0, help="Share within which a difference is none; 0.005 is 0.5 %.")] = 0.005,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Least time for each in each process.")] = 3.0,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Least number of samples for each in each process, 64 or more.")] = 64,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Compute threads of one inference.")] = 1,
    trust: given.Trust = False,
    as_json: given.Json = False,
) -> None:
    """Whether artefact B is slower than A: interleaved, in several fresh processes. Fails where it is.

    And where the device held itself back in one of them, or a process has too few samples.
    """
    from dtvit_deploy.cli import show
    from dtvit_deploy.cli.progress import working
    from dtvit_deploy.harness.latency import MeasureOptions
    from dtvit_deploy.pipeline.ab import compare_side_by_side

    given.say_if_crowded(threads)
    usual = MeasureOptions()
    measuring = MeasureOptions(
        min_seconds=seconds,
        min_samples=samples,
        max_samples=max(samples, usual.max_samples),
        max_seconds=max(seconds, usual.max_seconds),
    )
    with working() as progress:
        found = compare_side_by_side(a, b, measuring, processes=processes, band=band, threads=threads, trust=trust, progress=progress)
    if as_json:
        show.as_json(found._asdict())
    else:
        _show(found)
    if found.invalid or found.outcome.found == "slower":
        raise SystemExit(GATE_FAILED)


def _show(found: Compared) -> None:
    from dtvit_deploy.cli import show
    from dtvit_deploy.harness.verdict import percent
    from dtvit_deploy.report.tables import listed

    out, outcome = show.console(), found.outcome
    body = [
        (
            str(number),
            f"{one.p50:.3f}",
            f"{two.p50:.3f}",
            f"{ratio:.4f}",
            "; ".join(f"{letter} {why}" for letter, why in (("A", one.why_invalid), ("B", two.why_invalid)) if why) or "VALID",
        )
        for number, ((one, two), ratio) in enumerate(zip(found.measured, outcome.processes, strict=True), 1)
    ]
    headings = ("process", "A p50 ms", "B p50 ms", "B ÷ A", "measured")
    show.rows("A and B side by side", headings, body, right=headings[:4])
    for letter, name, conditions in zip("AB", found.names, found.conditions, strict=True):
        out.say(f"{letter}: {name}: {listed(conditions)}", "dim")
    verdict = f"INVALID, else {_SAID[outcome.found]}" if found.invalid else _SAID[outcome.found]
    for reason in found.invalid:
        out.say(f"INVALID: {reason}", "red")
    more = "; more processes (--processes) or samples decide" if outcome.found == "undecided" else ""
    out.say(
        f"{verdict}: {outcome.growth}, 95 % interval over {len(outcome.processes)} processes; the band is ±{percent(outcome.band)}{more}"
    )
