"""Two artefacts against each other, side by side in several fresh processes: the composition behind ``ab``."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dtvit_deploy.artifacts.artifact import Artifact, load_artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.given import artifacts_in, is_plain_folder, named_artifacts
from dtvit_deploy.devices.clocks.guard import give_back_left
from dtvit_deploy.devices.state.watcher import watching
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, stated
from dtvit_deploy.harness.latency.ab import BAND, SideBySide, require_enough, require_enough_samples, side_by_side
from dtvit_deploy.harness.latency.measurement import TOO_FEW
from dtvit_deploy.harness.state.judging import spoilt
from dtvit_deploy.pipeline.progress import Progress, Silent
from dtvit_deploy.pipeline.trust import with_trust
from dtvit_deploy.plural import some
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.beside import beside
from dtvit_deploy.runtimes.pairing import Pairing, pairings
from dtvit_deploy.runtimes.registry import why_emulated

PROCESSES = 6
"""Even, so that either is loaded first as often as the other."""


class Compared(NamedTuple):
    """What became of two artefacts.

    Attributes:
        names: of A and B.
        conditions: that their sessions told, those of the last process.
        measured: A and B in each process.
        outcome: over all of them.
        invalid: why one of the processes counts for nothing: the device was not itself, or there are too few samples; empty where none is.
    """

    names: tuple[str, str]
    conditions: tuple[dict[str, str], dict[str, str]]
    measured: tuple[tuple[Measurement, Measurement], ...]
    outcome: SideBySide
    invalid: tuple[str, ...] = ()


def compare_side_by_side(
    a: Path,
    b: Path,
    measuring: MeasureOptions,
    *,
    processes: int = PROCESSES,
    band: float = BAND,
    threads: int = 1,
    trust: bool = False,
    progress: Progress | None = None,
) -> Compared:
    """Measure two artefacts, which may be one and the same, in the best runtimes that are here.

    A device that holds itself back does so to both, and not alike: what is bound by memory loses less by a lower clock. So one process in
    which it did makes the comparison INVALID, and so does one with too few samples. It is not left out: what is chosen afterwards is no
    longer what was asked for.

    Raises:
        InputError: there are fewer than five processes, or too few samples for a VALID one; an artefact is none, or does not run.
        MissingError: nothing here runs one of them at its own speed.
    """
    require_enough(processes, band)
    require_enough_samples(measuring.min_samples)
    give_back_left()
    cache = Cache.default()
    one, two = (pairings((with_trust(_artifact(path), cache, trust=trust),), timed=True)[0] for path in (a, b))
    for pairing in (one, two):
        _require_real(pairing)
    options = SessionOptions(threads=threads)
    for pairing in (one, two):
        with pairing.open(options):  # once here, where what is not trusted is tried within limits that a measuring process has not
            pass
    measured: list[tuple[Measurement, Measurement]] = []
    invalid: list[str] = []
    for number in (progress or Silent()).track(range(processes), "side by side in fresh processes", processes):
        with watching() as watch:
            answer = beside(one, two, options, measuring, last_first=number % 2 == 1)
            watch.sampled(answer.began, answer.ended)
            watched = watch.finished()
        first, second = (stated(each.summary(measuring), watched) for each in answer.samples)
        measured.append((first, second))
        state = watched if first.device is not None or second.device is not None else watched.of_processor
        invalid += [f"process {number + 1}: {reason}" for reason in spoilt(state)]
        for letter, one_of in zip("AB", (first, second), strict=True):
            invalid += [f"process {number + 1}: {letter}: {reason}" for reason in one_of.reasons if reason.startswith(TOO_FEW)]
    outcome = side_by_side(measured, band=band)
    return Compared((one.name, two.name), answer.conditions, tuple(measured), outcome, tuple(invalid))


def _artifact(path: Path) -> Artifact:
    """The artefact at a path; where that is the folder of an export, what is in it is named."""
    if is_plain_folder(path):
        inside = [one.name for one in artifacts_in(path)]
        raise InputError(
            f"{path} is a folder, and ab takes one artefact",
            remedy=f"give one of {some(inside)}" if inside else "give what `dtvit-deploy export` wrote",
        )
    return load_artifact(*named_artifacts([path]))


def _require_real(pairing: Pairing) -> None:
    if pairing.emulated:
        raise MissingError(
            f"the latency of {pairing.name} cannot be measured here: {why_emulated(pairing.artifact)}", remedy="measure on the device"
        )
