"""Engines that devices of the user's have built: asked for, kept under all that they depend on, and known again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact, load_artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.artifacts.target import Target
from dtvit_deploy.devices.examine import python_of, reached
from dtvit_deploy.devices.inventory import Device
from dtvit_deploy.devices.needs import require
from dtvit_deploy.devices.probe import probe
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.options import Flavour
from dtvit_deploy.formats.engine.passport import FORMATS
from dtvit_deploy.pipeline.elsewhere import devices_of
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.trust import BUILT_THERE, ENGINE_THERE
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.remote.needed import TO_BUILD
from dtvit_deploy.remote.place import Place

JOB = FORMATS[Flavour.ON_DEVICE]


def builders(recipe: Recipe) -> dict[str, Device]:
    """The devices that are to build engines, by what tells them apart in the names of files.

    None where no engine is asked for, or in flavours that are built here alone.

    Raises:
        InputError: two of them would have one name.
    """
    if Target.TRT not in recipe.export.targets or not {Flavour.AUTO, Flavour.ON_DEVICE} & set(recipe.tensorrt.flavours):
        return {}
    found: dict[str, Device] = {}
    for device in devices_of(recipe):
        label = re.sub(r"[^A-Za-z0-9_-]+", ".", device.name.removeprefix("ssh://")).strip(".")
        if label in found:
            raise InputError(
                f"the engines of {found[label].name} and {device.name} would have one name", remedy="give the two names in devices.toml"
            )
        found[label] = device
    return found


def with_jobs(recipe: Recipe) -> Recipe:
    """The request with the jobs that its devices are to build."""
    flavours = recipe.tensorrt.flavours
    if not builders(recipe) or Flavour.ON_DEVICE in flavours:
        return recipe
    jobs = tuple(Flavour.ON_DEVICE if one is Flavour.AUTO else one for one in flavours)
    return msgspec.structs.replace(recipe, tensorrt=msgspec.structs.replace(recipe.tensorrt, flavours=jobs))


def require_builders(devices: Mapping[str, Device], progress: Progress) -> None:
    """Ask each device whether it could build: before minutes of work here, not after them.

    Raises:
        InputError: it does not say what it is.
        MissingError: it cannot be reached, or lacks what building takes.
    """
    for device in devices.values():
        progress.step(f"{device.name}: asking what it is")
        with reached(device) as transport:
            require(device.name, probe(transport, python_of(device)), TO_BUILD)


def engine_from(place: Place, job: Artifact, cache: Cache) -> Artifact:
    """The engine of a job by a device, which builds it only where it has not: for this job, with this TensorRT, driver and GPU.

    Raises:
        InputError, MissingError: as `Place.build`.
        LostError: likewise.
    """
    key = {
        "job": job.manifest.sha256,
        "device": [place.name, place.address, place.identity],
        "source": source_digest(__name__),
    }

    def build(folder: Path) -> None:
        place.build(job, folder / ENGINE_THERE)

    return load_artifact(cache.entry(BUILT_THERE, key, build) / ENGINE_THERE)
