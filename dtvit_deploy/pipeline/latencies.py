"""The latencies of a bench, with what is asked beside them: locked clocks, what the machine could do, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.devices.clocks.locking import held
from dtvit_deploy.harness.roofline import Peaks
from dtvit_deploy.pipeline import timing
from dtvit_deploy.pipeline.figures import Measured, measure_options
from dtvit_deploy.pipeline.layer_times import NOT_TOLD, layer_times
from dtvit_deploy.pipeline.measure import Bench
from dtvit_deploy.pipeline.peaks import peaks_here, peaks_there
from dtvit_deploy.pipeline.roofline import NO_ROOF, is_read, roof_of
from dtvit_deploy.recipe.judging import Profile
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.runtimes.base import Elsewhere
from dtvit_deploy.runtimes.pairing import Pairing


def latency_of(bench: Bench, recipe: Recipe) -> Measured:
    """How long every artefact takes, interleaved in one run.

    Raises:
        InputError, MissingError: clocks were to be locked and cannot be, or nothing could be measured.
    """
    asked = recipe.profile
    with _clocks(bench, asked) as how:
        found = [_said(one, how) for one in zip(bench.everything, timing.latency(bench, measure_options(recipe)), strict=True)]
        if asked.layer_times:
            found[1:] = _with_layers(bench, found[1:])
        if asked.roofline:  # after all latencies: a machine that was at full load is not the one that a first start finds
            found[1:] = _under_roofs(bench, found[1:], how)
    return Measured(timed=tuple(found))


@contextmanager
def _clocks(bench: Bench, asked: Profile) -> Iterator[str]:
    """How the clocks of this machine are within the block, where anything is measured on it; empty where they are as shipped."""
    here = any(not one.emulated and _is_here(one) for one in bench.pairings)
    with held(asked.lock_clocks and here) as how:
        if asked.lock_clocks and here:
            bench.progress.step(f"clocks {how}")
        yield how


def _said(of: tuple[Pairing, timing.Timed], how: str) -> timing.Timed:
    pairing, one = of
    if not how or one.latency is None or not _is_here(pairing):
        return one
    return one._replace(latency=msgspec.structs.replace(one.latency, conditions=one.latency.conditions | {"clocks": how}))


def _is_here(pairing: Pairing) -> bool:
    return pairing.runtime.rung is not Rung.ON_DEVICE and not isinstance(pairing.runtime, Elsewhere)


def _with_layers(bench: Bench, found: list[timing.Timed]) -> list[timing.Timed]:
    """In sessions of their own, after all latencies: a profile slows what it looks at."""
    feed = next(iter(bench.material.feeds()))
    told = []
    for pairing, one in bench.progress.track(zip(bench.pairings, found, strict=True), "profiling layers", len(found)):
        layers, why = None, NOT_TOLD
        if one.latency is not None:
            try:
                layers = layer_times(pairing, feed, bench.program.nodes, bench.threads)
            except Exception as error:  # of whatever class a vendor's is: the latency was taken, and is not lost to it
                why = f"where its time goes was not found: {_first_line(error)}"
        notes = (why,) if layers is None and one.latency is not None else ()
        told.append(one._replace(layers=layers, notes=(*one.notes, *notes)))
    return told


def _under_roofs(bench: Bench, found: list[timing.Timed], clocks: str) -> list[timing.Timed]:
    """With the roof of each artefact that a processor has run, here or on a device; each machine's peaks are asked for once."""
    able: dict[str, Peaks | str] = {}
    told = []
    for pairing, one in zip(bench.pairings, found, strict=True):
        if one.latency is None:
            told.append(one)
            continue
        roof, why = None, NO_ROOF
        try:
            if is_read(pairing.artifact):
                if pairing.device not in able:
                    able[pairing.device] = _peaks_of(pairing, bench, clocks)
                peaks = able[pairing.device]
                roof, why = (None, peaks) if isinstance(peaks, str) else (roof_of(pairing.artifact, peaks), why)
        except Exception as error:  # as above
            why = f"what it has to do was not counted: {_first_line(error)}"
        told.append(one._replace(roof=roof, notes=(*one.notes, *(() if roof is not None else (why,)))))
    return told


def _peaks_of(pairing: Pairing, bench: Bench, clocks: str) -> Peaks | str:
    """What the machine can do that has run an artefact; why that is not known, if not."""
    runtime, cache = pairing.runtime, Cache.default()
    try:
        if isinstance(runtime, Elsewhere):
            return peaks_there(pairing.device, runtime, bench.threads, cache, bench.progress)
        return peaks_here(bench.threads, clocks, cache, bench.progress)
    except Exception as error:  # as above
        return f"what {pairing.device or 'this machine'} can do was not measured: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    """Of what an exception says, or its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
