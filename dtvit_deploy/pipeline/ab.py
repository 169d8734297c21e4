"""Two artefacts against each other, side by side in several fresh processes: the composition behind ``ab``."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dtvit_deploy.artifacts.artifact import load_artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.devices.clocks.guard import give_back_left
from dtvit_deploy.devices.state.watcher import watching
from dtvit_deploy.errors import MissingError
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, stated
from dtvit_deploy.harness.latency.ab import BAND, SideBySide, require_enough, side_by_side
from dtvit_deploy.harness.state.judging import spoilt
from dtvit_deploy.pipeline.progress import Progress, Silent
from dtvit_deploy.pipeline.trust import with_trust
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
        invalid: why the device was not itself in one of the processes; empty where it was, in all of them.
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
    which it did makes the comparison INVALID. It is not left out: what is chosen afterwards is no longer what was asked for.

    Raises:
        InputError: there are fewer than five processes; an artefact is none, or does not run.
        MissingError: nothing here runs one of them at its own speed.
    """
    require_enough(processes, band)
    give_back_left()
    cache = Cache.default()
    one, two = (pairings((with_trust(load_artifact(path), cache, trust=trust),), timed=True)[0] for path in (a, b))
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
    outcome = side_by_side(measured, band=band)
    return Compared((one.name, two.name), answer.conditions, tuple(measured), outcome, tuple(invalid))


def _require_real(pairing: Pairing) -> None:
    if pairing.emulated:
        raise MissingError(
            f"the latency of {pairing.name} cannot be measured here: {why_emulated(pairing.artifact)}", remedy="measure on the device"
        )
