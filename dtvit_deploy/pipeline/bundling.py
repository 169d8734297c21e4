"""A bundle is made: what a device would be asked over a connection, in one job, since nobody can ask a second time."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dtvit_deploy.agent.sessions import PROFILING
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.job import Latency, Layers, MeasurePeaks, ProfileLayers
from dtvit_deploy.pipeline.bundle_request import Request, Wanted, encode_request, file_of, told_by
from dtvit_deploy.pipeline.compared import require_outputs
from dtvit_deploy.pipeline.elsewhere import feeds_for, runtimes_on
from dtvit_deploy.pipeline.figures import Figures, measure_options
from dtvit_deploy.pipeline.measure import LAYER_SAMPLES, Bench, Reference, inner_tensors
from dtvit_deploy.pipeline.opened import Opened
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.roofline import is_read
from dtvit_deploy.pipeline.scoring import require_scores
from dtvit_deploy.pipeline.taking import require_comparable
from dtvit_deploy.plural import counted
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.remote.asking import Asked, Asking, FeedSet, folder_for_blobs, offered
from dtvit_deploy.remote.bundle import folder_of, lines_of, write_bundle
from dtvit_deploy.remote.limits import require_askable
from dtvit_deploy.remote.request import ask_for

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Outputs

MOST_LAYERS = 256 << 20
"""Bytes of the reference's inner tensors in a bundle, if nobody asks for them: a network of this size has some tens of MB a sample."""
_DEVICE = "a device"


class Bundle(NamedTuple):
    """What was written.

    Attributes:
        archive: for the device.
        request: beside it; it stays here.
        there: the line that is called on the device.
        back: the file that is brought back, from where the archive was unpacked.
        told: what the archive asks for, in words.
        bytes: of the archive.
    """

    archive: Path
    request: Path
    there: str
    back: str
    told: str
    bytes: int


def bundle(given: Opened, recipe: Recipe, figures: Figures, out: Path | None, progress: Progress) -> Bundle:
    """Write the archive of one job that asks for whatever the figures are made of, and its request beside it.

    Args:
        given: artefacts, samples and reference.
        recipe: how figures are taken, and the gates that they will be held to.
        figures: that are wanted. Layers are left out where they are None and would make the archive large, and taken where they are True.
        out: of the archive; None names it after the job, in the working folder.
        progress: told what is going on.

    Raises:
        InputError: no figure is wanted, one cannot be made of these artefacts and samples, an artefact is of a format that no agent loads,
            or the archive cannot be written.
    """
    if not (figures.parity or figures.layers or figures.accuracy or figures.latency):
        raise InputError("a bundle that asks for nothing brings nothing back", remedy="leave out one of the --no-… flags")
    artifacts, material, program = given
    require_askable(artifacts, timed=figures.latency, threads=recipe.run.threads)
    recipe = told_by(recipe)
    bench = Bench(program, (), material, recipe.run.threads, progress, called_scores=recipe.parity.class_scores)
    require_comparable(program, artifacts, recipe)
    require_outputs(material.signature, recipe.parity.tolerance)
    if figures.accuracy:
        require_scores(bench)
    subjects = [(artifact, runtime) for artifact in artifacts for runtime in runtimes_on(_DEVICE, artifact, recipe, ())]
    with folder_for_blobs() as folder:
        asking = Asking(folder, token=f"bundle {figures.parity:d}{figures.accuracy:d}{figures.latency:d} {figures.layers}")
        timed = measure_options(recipe) if figures.latency else None
        vouched = {one.manifest.sha256 for one in artifacts if one.trusted}
        progress.step(f"packing {counted(len(artifacts), 'artefact')} and the samples")
        given_to = feeds_for(material, recipe, figures)
        locks = recipe.profile.lock_clocks
        fed = ask_for(asking, subjects, given_to, threads=recipe.run.threads, timed=timed, apart=True, vouched=vouched, lock_clocks=locks)
        layers = figures.layers
        if layers is None and not figures.parity:
            layers = False
        if layers is not False:
            layers = _with_layers(asking, subjects, bench, layers)
        if figures.latency:
            _with_profiles(asking, subjects, fed, recipe)
        asked = asking.asked
        told = _told(asked, len(fed.digests))
        archive = out if out is not None else Path(f"{folder_of(asked.identity)}.tar")
        request = Request(
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            job=asked.job,
            artefacts=tuple(artifact.path for artifact, _ in subjects),
            figures=Wanted(parity=figures.parity, layers=layers, accuracy=figures.accuracy, latency=figures.latency),
            recipe=recipe,
        )
        beside = file_of(asked.identity)
        write_bundle(asked, archive, {beside: encode_request(request, archive.parent)})
    there, back = lines_of(asked.identity, archive.name)
    return Bundle(archive, archive.parent / beside, there, back, told, archive.stat().st_size)


def _with_layers(asking: Asking, subjects: Sequence[tuple[Artifact, str]], bench: Bench, wanted: bool | None) -> bool | None:
    """Ask for the layers of every artefact that shows its own.

    Returns:
        ``wanted``; False where nobody asked and they would be large, or no artefact shows any.
    """
    nodes, some = bench.program.nodes, bench.material.subset(LAYER_SAMPLES)
    try:
        shown = [frozenset(offered(artifact, runtime)) for artifact, runtime in subjects]
    except MissingError as error:
        if wanted:
            raise
        bench.progress.step(f"layers are left out: {error}")
        return False
    taps = [tuple(node.name for node in nodes.nodes if node.name in names) for names in shown]
    if not any(taps):
        if wanted:
            raise InputError("none of these artefacts shows its inner tensors", remedy="leave --layers out")
        return False
    every = tuple(node.name for node in nodes.nodes if any(node.name in names for names in shown))
    reference = Reference(bench.program, bench.threads, (), taps=every).fp32
    feeds = list(some.feeds())
    tensors: list[Outputs] = []
    for feed in bench.progress.track(feeds, "inner tensors of the reference", len(feeds)):
        tensors.append(inner_tensors(reference.run(feed), every, bench))
        sizes = {names: sum(tensors[0][name].nbytes for name in names) * len(feeds) for names in set(taps)}
        if wanted is None and sum(sizes.values()) > MOST_LAYERS:
            bench.progress.step(
                f"layers are left out: the reference's inner tensors have {sum(sizes.values()) / 1e6:,.0f} MB"
                f" (--layers takes them along; up to {MOST_LAYERS / 1e6:,.0f} MB they come by themselves)"
            )
            return False
    fed = asking.feeds(feeds)
    for subject, names in enumerate(taps):
        if names:
            chosen = [{name: found[name] for name in (*names, *nodes.outputs)} for found in tensors]
            asking.layers(subject, fed, chosen, taps=names, nodes=nodes, threads=bench.threads)
    return wanted


def _with_profiles(asking: Asking, subjects: Sequence[tuple[Artifact, str]], fed: FeedSet, recipe: Recipe) -> None:
    """Ask, after all latencies, where the time goes and what the device can do, as far as the recipe wants it and something tells it."""
    for subject, (_, runtime) in enumerate(subjects):
        if recipe.profile.layer_times and runtime in PROFILING:
            asking.profile_layers(subject, fed, threads=recipe.run.threads)
    if recipe.profile.roofline and any(is_read(artifact) for artifact, _ in subjects):
        asking.measure_peaks(threads=recipe.run.threads)


def _told(asked: Asked, samples: int) -> str:
    """What a job asks for, for a person; inner tensors with their size, by which one may want to leave them out."""
    names = dict.fromkeys(subject.name for subject in asked.job.subjects)
    runtimes = dict.fromkeys(subject.runtime for subject in asked.job.subjects)
    reference = {blob for task in asked.job.tasks if isinstance(task, Layers) for blob in task.reference}
    size = sum(blob.bytes for blob in asked.job.blobs if blob.sha256 in reference)
    what = [f"answers to {counted(samples, 'feed')}"]
    what += [f"layers ({size / 1e6:,.1f} MB)"] if reference else []
    locks = any(isinstance(task, Latency) and task.lock_clocks for task in asked.job.tasks)
    latency = f"latency{' of locked clocks, for which run.sh is called by root' * locks}"
    kinds = {Latency: latency, ProfileLayers: "layer times", MeasurePeaks: "what the device can do"}
    what += [name for kind, name in kinds.items() if any(isinstance(task, kind) for task in asked.job.tasks)]
    return f"{counted(len(names), 'artefact')} in {' and '.join(runtimes)}: {', '.join(what)}"
