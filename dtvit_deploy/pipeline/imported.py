"""A results file comes back, and becomes figures: by the code that judges a device which is reached, and held to what was asked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from dtvit_deploy.agent.archive import agent_archive
from dtvit_deploy.artifacts.artifact import Artifact, load_artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.devices.inventory import LOCAL, is_name
from dtvit_deploy.errors import DeployError, InputError
from dtvit_deploy.formats.job.job import Layers
from dtvit_deploy.harness.verdict import holds, verdict
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.bundle_request import Request, find_request
from dtvit_deploy.pipeline.check import judged
from dtvit_deploy.pipeline.elsewhere import feeds_for
from dtvit_deploy.pipeline.figures import Figures
from dtvit_deploy.pipeline.gates import gates_for
from dtvit_deploy.pipeline.opened import Opened, opened
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.taking import bench_around, require_comparable, require_timed, taken
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.remote.asking import Asked
from dtvit_deploy.remote.brought import Brought, layers_failed
from dtvit_deploy.remote.bundle import folder_of, job_answered, read_bundle_results
from dtvit_deploy.report.schema import Report
from dtvit_deploy.runtimes.pairing import Pairing

COMMAND = "bundle"
"""What reports of results call it, where they have more than one kind of figure."""
_NAMELESS = ("", LOCAL, "localhost", "localhost.localdomain", "none")


class Corrections(NamedTuple):
    """What has changed since a bundle was made, as the user says.

    Attributes:
        model: where the reference is not here any more, the network that it is made of again.
        data: where the samples are now.
        class_map: where that is now.
        layers: False leaves the walk through the layers out.
        name: of the device in reports; empty takes what it calls itself.
    """

    model: Model = Model()
    data: Path | None = None
    class_map: Path | None = None
    layers: bool | None = None
    name: str = ""


class Imported(NamedTuple):
    """What came of a results file: a report of its own, and the name of the device in it."""

    report: Report
    device: str


def imported(file: Path, source: Path | None, corrections: Corrections, cache: Cache, progress: Progress) -> Imported:
    """Judge the results of a bundle.

    Args:
        file: the results.
        source: the request, or its folder; None looks in the working folder, and beside the results.
        corrections: what has changed since.
        cache: of this machine, for the reference.
        progress: told what is read.

    Raises:
        InputError: the results are not whole, were altered, or are another bundle's; the request, artefacts or samples are not those of
            then; or nothing was answered.
        MissingError: nothing was answered, since something is missing there; or nothing but a latency is wanted of an emulated processor.
    """
    if corrections.name and (not is_name(corrections.name) or corrections.name == LOCAL):
        raise InputError(f"{corrections.name!r} is no name of a device", remedy="take letters, digits, `_`, `.` and `-`")
    beside = [file.parent, file.parent.parent]  # whoever carries a folder back may have the request in it
    place, request = find_request(job_answered(file), [source] if source is not None else [Path(), *beside])
    asked = Asked(request.job, {}, {})
    results = read_bundle_results(asked, file)
    brought = Brought(corrections.name or _called(results.device), asked, results)
    paths = [_artefact(path, place.parent) for path in request.artefacts]
    recipe = _corrected(request, corrections)
    names = ", ".join(dict.fromkeys(path.name for path in paths))
    progress.step(f"asked by {place}, of {names}; samples: {recipe.data.evaluation or 'noise'}")
    distinct = list(dict.fromkeys(paths))
    given = opened(list(map(load_artifact, distinct)), recipe, cache)
    by_path = dict(zip(distinct, given.artifacts, strict=True))
    figures = _figures(request, corrections.layers)
    return Imported(_judged(request, given, [by_path[path] for path in paths], brought, recipe, figures, progress), brought.name)


def _judged(
    request: Request,
    given: Opened,
    subjects: Sequence[Artifact],
    brought: Brought,
    recipe: Recipe,
    figures: Figures,
    progress: Progress,
) -> Report:
    """The report of whatever was answered; ``subjects`` are the artefacts of the job's subjects, in their order."""
    require_comparable(given.program, given.artifacts, recipe)
    failures = layers_failed(request.job, brought.results) if figures.layers is not False else []
    if failures:
        figures = dataclasses.replace(figures, layers=False)
    runtimes = brought.answered(subjects, feeds_for(given.material, recipe, figures), threads=recipe.run.threads)
    found = tuple(
        Pairing(artifact, runtime, asked=bool(recipe.run.runtimes), device=brought.name)
        for artifact, runtime in zip(subjects, runtimes, strict=True)
        if runtime is not None
    )
    unanswered = [*brought.unanswered, *(failures if request.figures.layers else [])]
    if not found:
        name, error = unanswered[0]
        raise type(error)(f"{brought.name} has answered nothing: {name}: {error}", remedy=error.remedy)
    bench = bench_around(given.program, found, given.material, recipe, progress)
    if figures.only_latency:
        require_timed(bench)
    held = msgspec.structs.replace(recipe, gates=gates_for(recipe.gates, figures))
    answered = {one.artifact.path: one.artifact for one in found}
    report = judged(_command(figures), bench, list(answered.values()), held, figures, taken(bench, held, figures))
    report = _of_device(report, brought.name, request, brought.results.device, unanswered)
    if not request.figures.layers:  # nobody asked for them: they would have said where what is wrong arises
        told = (f"on {brought.name}: {task}: {error}" for task, error in failures)
        report = msgspec.structs.replace(report, notes=(*report.notes, *told))
    return report


def _corrected(request: Request, corrections: Corrections) -> Recipe:
    recipe = request.recipe
    changes = {"evaluation": corrections.data, "class_map": corrections.class_map}
    data = msgspec.structs.replace(recipe.data, **{name: value for name, value in changes.items() if value is not None})
    if data.evaluation is not None and not data.evaluation.exists():
        raise InputError(
            f"the samples of the bundle were in {data.evaluation}, and are not there now", remedy="say where they are by --data"
        )
    return msgspec.structs.replace(recipe, data=data, model=corrections.model)


def _figures(request: Request, layers: bool | None) -> Figures:
    """What was wanted, with the layers that are wanted now.

    Raises:
        InputError: those of all artefacts are, and none were bundled.
    """
    if layers and not any(isinstance(task, Layers) for task in request.job.tasks):
        raise InputError("no inner tensors were bundled", remedy="make the bundle with --layers, and have it run again")
    return request.wanted if layers is None else dataclasses.replace(request.wanted, layers=layers)


def _artefact(path: Path, beside: Path) -> Path:
    """Where it was, or, if it was carried along, beside the request; what is in it is looked at later."""
    moved = beside / path.name
    return moved if not path.exists() and moved.exists() else path


def _called(facts: dict[str, str]) -> str:
    """A name made of what the device calls itself, of letters that a name may have."""
    for fact in ("host", "model"):
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", facts.get(fact, "")).strip("-._")[:64]
        if name.lower() not in _NAMELESS and is_name(name):
            return name
    return "device"


def _command(figures: Figures) -> str:
    """The command that would have taken these figures, where one would have."""
    kinds = {"verify": figures.parity or figures.layers, "evaluate": figures.accuracy, "profile": figures.latency}
    wanted = [name for name, is_wanted in kinds.items() if is_wanted]
    return wanted[0] if len(wanted) == 1 else COMMAND


def _of_device(report: Report, name: str, request: Request, facts: dict[str, str], unanswered: list[tuple[str, DeployError]]) -> Report:
    """The report, with whatever is about this device alone called so, and how its figures came here."""
    mine = {gate for subject in report.subjects if subject.verdict is not None for gate in subject.verdict.gates}
    gates = [
        gate if gate in mine else msgspec.structs.replace(gate, name=f"on {name}: {gate.name}")
        for gate in (report.verdict.gates if report.verdict is not None else ())
    ]
    for task, error in unanswered:
        gates.append(holds(f"on {name}: {task}", False, f"{error} (try: {error.remedy})" if error.remedy else str(error)))
    about = (
        ", ".join(filter(None, (facts.get(fact) for fact in ("host", "model", "processor", "system"))))
        or "a device that tells nothing of itself"
    )
    when = facts.get("time", "a time that it does not tell")
    bundle = f"{folder_of(request.identity)} of {request.created}"
    if re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\+00:00", when) and when < request.created:
        when += " (before the bundle was made: that clock is wrong)"
    notes = [f"on {name}: these figures came by a file, of {bundle}; run at {when} by the clock of {about}"]
    if request.job.agent != agent_archive().sha256:
        notes.append(f"on {name}: answered by the agent of another version of this package than the one that judges")
    device = {key: f"{value}; by a file, run at {when}" if key == f"on {name}" else value for key, value in report.device.items()}
    return msgspec.structs.replace(
        report, notes=(*report.notes, *notes), device=device, verdict=verdict(gates) if gates else report.verdict
    )
