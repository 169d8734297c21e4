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
from dtvit_deploy.devices.examine import reached
from dtvit_deploy.devices.inventory import Device
from dtvit_deploy.devices.needs import require
from dtvit_deploy.devices.probe import probe
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.options import Flavour
from dtvit_deploy.formats.engine.passport import FORMATS
from dtvit_deploy.pipeline.elsewhere import remote_devices
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.trust import BUILT_THERE, ENGINE_THERE
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.remote.needed import TO_BUILD
from dtvit_deploy.remote.place import Place

JOB = FORMATS[Flavour.ON_DEVICE]


def builders(recipe: Recipe) -> dict[str, Device]:
    """The devices that are to build engines, by what tells them apart in the names of files; none where no engine is asked for.

    Raises:
        InputError: two of them would have one name.
    """
    if Target.TRT not in recipe.export.targets:
        return {}
    found: dict[str, Device] = {}
    for device in remote_devices(recipe):
        label = re.sub(r"[^A-Za-z0-9_-]+", ".", device.name.removeprefix("ssh://")).strip(".")
        if label in found:
            raise InputError(
                f"the engines of {found[label].name} and {device.name} would have one name", remedy="give the two names in devices.toml"
            )
        found[label] = device
    return found


def with_jobs(recipe: Recipe) -> Recipe:
    """The request with the jobs that its devices are to build.

    Raises:
        InputError: flavours are named, and jobs are not among them.
    """
    flavours = recipe.tensorrt.flavours
    if not builders(recipe) or Flavour.ON_DEVICE in flavours:
        return recipe
    if flavours != (Flavour.AUTO,):
        raise InputError(
            f"devices build what --flavour on-device makes, and {' and '.join(map(str, flavours))} was asked for",
            remedy="add --flavour on-device, or leave --device out (in a recipe: run.devices)",
        )
    return msgspec.structs.replace(recipe, tensorrt=msgspec.structs.replace(recipe.tensorrt, flavours=(Flavour.ON_DEVICE,)))


def require_builders(devices: Mapping[str, Device], progress: Progress) -> None:
    """Ask each device whether it could build: before minutes of work here, not after them.

    Raises:
        InputError: it does not say what it is.
        MissingError: it cannot be reached, or lacks what building takes.
    """
    for device in devices.values():
        progress.step(f"{device.name}: asking what it is")
        with reached(device) as transport:
            require(device.name, probe(transport, device.python), TO_BUILD)


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
