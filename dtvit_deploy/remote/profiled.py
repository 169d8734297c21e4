"""What a device tells of an artefact's layers and of itself at full load, held to what can be, before a figure is made of it."""

from __future__ import annotations

import re

import msgspec

from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.formats.job.frames import ResultsError
from dtvit_deploy.formats.job.job import MeasurePeaks, ProfileLayers
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.formats.job.words import clean, shown
from dtvit_deploy.harness.roofline import Peak, Peaks
from dtvit_deploy.remote.asking import Asked
from dtvit_deploy.runtimes.carried_layers import layers_of
from dtvit_deploy.runtimes.layer_times import Told

_SIZE = re.compile(r"[0-9]{1,6}(×[0-9]{1,6}){2}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\+00:00")
_AGAIN = "have the device do the job again"


def layers_told(asked: Asked, results: Results, task: int) -> Told:
    """What a `ProfileLayers` found.

    Raises:
        InputError, MissingError: as it failed there.
        ResultsError: it is none.
    """
    assert isinstance(asked.job.tasks[task], ProfileLayers)
    try:
        return layers_of(results.part(task, 0))
    except ValueError as error:
        raise ResultsError(f"the layer times from the device are none: {shown(str(error))}", remedy=_AGAIN) from error


def peaks_told(asked: Asked, results: Results, task: int) -> Peaks:
    """What a `MeasurePeaks` found; by the device's own clock.

    Raises:
        InputError, MissingError: as it failed there.
        ResultsError: it is none.
    """
    one = asked.job.tasks[task]
    assert isinstance(one, MeasurePeaks)
    ((body, _),) = results.bodies(task)
    try:
        found = msgspec.convert(body.get("peaks"), Peaks)
        _require_sound(found, one.threads)
    except ValueError as error:
        raise ResultsError(f"what the device can do is not told: {shown(str(error))}", remedy=_AGAIN) from error
    named = (msgspec.structs.replace(each, runtime=clean(each.runtime)[:100]) for each in found.products)
    return msgspec.structs.replace(found, products=tuple(named))


def _require_sound(found: Peaks, threads: int) -> None:
    known = [one.value for one in Precision]
    told = [one.precision for one in found.products]
    if len(set(told)) != len(told) or not set(told) <= set(known):
        raise ValueError(f"its products are {', '.join(told)[:100]}, of {', '.join(known)} each once at most")
    if found.threads != threads:
        raise ValueError(f"it was measured with {found.threads} threads, and {threads} were asked for")
    if not _TIME.fullmatch(found.taken):
        raise ValueError(f"it was taken at {found.taken[:50]!r}")
    if not found.copy_gb_s or not all(map(_is_sound, found.products)):
        raise ValueError("a rate is none")


def _is_sound(one: Peak) -> bool:
    return 0 < one.median_gflops <= one.gflops and _SIZE.fullmatch(one.size) is not None
