"""Requests from end to end: planned, carried out, and what came of them put into place."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dtvit_deploy.artifacts.artifact import read_json
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.staging import staged
from dtvit_deploy.errors import DeployError, InputError
from dtvit_deploy.pipeline.elsewhere import measures_here
from dtvit_deploy.pipeline.material import class_map_of
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.reachable import require_reachable
from dtvit_deploy.plan.execute import Results, execute
from dtvit_deploy.plan.farm.pool import Farm
from dtvit_deploy.plan.graph import Plan
from dtvit_deploy.plan.placing import copy, place, raise_first
from dtvit_deploy.plan.pool import Pool, here, processors
from dtvit_deploy.plan.stages import REPORT, plan
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.report import remove_older
from dtvit_deploy.report.schema import Report


@dataclass(frozen=True)
class Request:
    """A recipe, and where what comes of it goes.

    Attributes:
        name: empty where there is only one.
        out: folder of the artefacts and the report.
    """

    name: str
    recipe: Recipe
    out: Path


def run(
    requests: Sequence[Request],
    cache: Cache,
    progress: Progress,
    *,
    layers: bool = True,
    workers: int | None = None,
    only: Sequence[str] = (),
    since: Sequence[str] = (),
    scheduler: str = "",
    insecure: bool = False,
    wait: bool = True,
) -> list[tuple[Request, Report]]:
    """Build everything that requests ask for, measure everything that their data allow, and hold it to their gates.

    A request's artefacts and its report go into its folder together, whether gates passed or not, since what missed the goal is what one
    wants to look at. What could not be built is a gate that failed, and so is a device that could not be measured on. Where nothing could
    be built, or a figure could not be taken here, nothing is put there; what was made is in the cache by then, and is not made again.

    Args:
        requests: what to build, on which data, and the gates.
        cache: holds what was made before.
        progress: told what is going on.
        layers: also walk the inner tensors.
        workers: processes that work side by side; one for each core where None, and none besides this one where 1.
        only: stages, by name or pattern; they and what they take are done, and nothing is put into place but what a report is of.
        since: stages that are done anew, and everything after them.
        scheduler: address of a Dask scheduler, whose workers do the stages; empty where this machine does.
        insecure: whether the way there may be without TLS, off this machine.
        wait: for a device that somebody else has.

    Returns:
        Those requests whose report was asked for, and the reports.

    Raises:
        InputError: a request, what it names, or a folder cannot be used; the results of the other requests are in their places by then.
        MissingError: something that is needed is not installed.
    """
    graph = planned(requests, layers=layers, only=only, scheduler=scheduler, wait=wait)
    with contextlib.ExitStack() as opened:
        for request in requests if not only else ():  # as early, so that an unusable folder is refused before a minute's work
            opened.enter_context(staged(request.out))
        anew = graph.after([name for pattern in since for name in graph.matching(pattern)])
        recipes = [request.recipe for request in requests]
        with _pool(graph, progress, workers, scheduler, insecure=insecure) as pool:
            results = execute(graph, recipes, cache, pool, progress, anew)
        if only:
            raise_first(graph, results, graph.stages)
        return _all_placed([request for request in requests if _stage(request, REPORT) in graph.stages], graph, results)


def _all_placed(requests: Sequence[Request], graph: Plan, results: Results) -> list[tuple[Request, Report]]:
    """Put what each request made into its place; then raise what one of them failed of."""
    reports, failures = list[tuple[Request, Report]](), list[DeployError]()
    for request in requests:
        try:
            reports.append((request, _placed(request, graph, results)))
        except DeployError as error:  # noqa: PERF203 a request each
            failures.append(error)
    if failures:
        raise failures[0]
    return reports


def _pool(
    graph: Plan, progress: Progress, workers: int | None, scheduler: str, *, insecure: bool
) -> contextlib.AbstractContextManager[Pool]:
    """Who does the stages."""
    if scheduler:
        if workers is not None:
            raise InputError("--workers are this machine's, and --scheduler has its own", remedy="leave one of the two out")
        return Farm(scheduler, graph, progress, insecure=insecure)
    return here(progress, min(workers or processors(), len(graph)))


def planned(requests: Sequence[Request], *, layers: bool = True, only: Sequence[str] = (), scheduler: str = "", wait: bool = True) -> Plan:
    """The plan of several requests, whose stages have the requests' names before their own, or a part of it. No device is reached for it.

    Raises:
        InputError: a request cannot be built at all, its data are not here, or there is no device or no stage of a name.
        MissingError: a package that it needs is not here.
    """
    graph = plan([(request.name, request.recipe) for request in requests], layers=layers, farm=scheduler, wait=wait)
    for request in requests:
        class_map_of(request.recipe)
        require_reachable(request.recipe, here=measures_here(request.recipe))
    if scheduler:
        graph = graph.without_helpers()  # what they leave behind, workers elsewhere would not find
    return graph.up_to([name for pattern in only for name in graph.matching(pattern)]) if only else graph


def _stage(request: Request, name: str) -> str:
    return f"{request.name}/{name}" if request.name else name


def _placed(request: Request, graph: Plan, results: Results) -> Report:
    """Put what a request made into its folder."""
    name = _stage(request, REPORT)
    if name not in results.folders:
        raise_first(graph, results, graph.taken_by([name]))
    made, written = results.folders[name], []
    with staged(request.out) as folder:
        place(results, graph.stages[name].wants, _stage(request, "ranges"), request.recipe, folder)
        for path in made.glob("report.*"):
            copy(path, folder / path.name)
            written.append(path.name)
    remove_older(request.out, tuple(written))
    report: Report = read_json(made / "report.json", Report)
    return report
