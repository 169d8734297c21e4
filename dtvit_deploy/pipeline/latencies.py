"""The latencies of a bench, with what is asked beside them: locked clocks, what this machine could do, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.devices.clocks.guard import give_back_left
from dtvit_deploy.devices.clocks.locking import locked
from dtvit_deploy.harness.roofline import Peaks
from dtvit_deploy.pipeline import timing
from dtvit_deploy.pipeline.figures import Measured, measure_options
from dtvit_deploy.pipeline.layer_times import NOT_TOLD, layer_times
from dtvit_deploy.pipeline.measure import Bench
from dtvit_deploy.pipeline.roofline import NO_ROOF, NOT_THERE, peaks_here, roof_of
from dtvit_deploy.recipe.judging import Profile
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.runtimes.base import Elsewhere
from dtvit_deploy.runtimes.pairing import Pairing


def latency_of(bench: Bench, recipe: Recipe) -> Measured:
    """How long every artefact takes, interleaved in one run.

    Raises:
        InputError, MissingError: clocks were to be locked and cannot be, or nothing could be measured.
    """
    give_back_left()
    asked = recipe.profile
    with _clocks(bench, asked) as how:
        able = (
            peaks_here(bench.threads, how, Cache.default(), bench.progress)
            if asked.roofline and any(map(_is_here, bench.pairings))
            else None
        )
        found = [_said(one, how) for one in zip(bench.everything, timing.latency(bench, measure_options(recipe)), strict=True)]
        if asked.layer_times:
            found[1:] = _with_layers(bench, found[1:])
    if able is not None:
        found[1:] = [_under_roof(pairing, one, able) for pairing, one in zip(bench.pairings, found[1:], strict=True)]
    return Measured(timed=tuple(found))


@contextmanager
def _clocks(bench: Bench, asked: Profile) -> Iterator[str]:
    """How the clocks are within the block; empty where they are as shipped."""
    if not asked.lock_clocks:
        yield ""
        return
    with locked() as how:
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
        layers = None if one.latency is None else layer_times(pairing, feed, bench.program.nodes, bench.threads)
        notes = (NOT_TOLD,) if layers is None and one.latency is not None else ()
        told.append(one._replace(layers=layers, notes=(*one.notes, *notes)))
    return told


def _under_roof(pairing: Pairing, one: timing.Timed, able: Peaks) -> timing.Timed:
    """With the roof of an artefact that this machine's processor has run; a device's peaks are not known here."""
    if one.latency is None:
        return one
    found = roof_of(pairing.artifact, able) if _is_here(pairing) else None
    why = () if found is not None else (NO_ROOF if _is_here(pairing) else NOT_THERE,)
    return one._replace(roof=found, notes=(*one.notes, *why))
