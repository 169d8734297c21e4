"""The devices of a request: reached while a command needs them, and asked before anything is judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dtvit_deploy.agent.sessions import OPENERS
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.devices.inventory import Device
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.figures import Figures, measure_options
from dtvit_deploy.pipeline.material import Material
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.recipe.devices import resolved
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.remote.place import Place
from dtvit_deploy.runtimes.pairing import Pairing, loading

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds


def measures_here(recipe: Recipe) -> bool:
    """Whether this machine is one of those that a request measures on."""
    return not recipe.device or any(device.address is None for device in resolved(recipe))


def devices_of(recipe: Recipe, folder: Path = Path()) -> tuple[Device, ...]:
    """The devices that a request measures on, without this machine; nothing is connected.

    Args:
        folder: in which an inventory may be; see `dtvit_deploy.devices.inventory.place`.

    Raises:
        InputError: there is none of a name, or the inventory is wrong.
    """
    return tuple(device for device in resolved(recipe, folder) if device.address is not None)


def runs_there(artifact: Artifact) -> bool:
    """Whether agents load artefacts of its format."""
    return any(name in OPENERS for name in loading(artifact.manifest.format))


@contextmanager
def reached_places(recipe: Recipe, progress: Progress, *, wait: bool = True) -> Iterator[tuple[Place, ...]]:
    """The devices that a request names, each reached once, and left at the end of the block.

    Raises:
        InputError: there is none of a name, or the inventory is wrong.
        MissingError: one of them cannot be reached.
    """
    devices = devices_of(recipe)
    with ExitStack() as stack:
        places = []
        for device in devices:
            progress.step(f"{device.name}: asking what it is")
            places.append(stack.enter_context(Place(device, progress.step, wait=wait)))
        yield tuple(places)


def asked_there(place: Place, artifacts: Sequence[Artifact], material: Material, recipe: Recipe, figures: Figures) -> tuple[Pairing, ...]:
    """Every artefact in a runtime of a device, which has answered to whatever is judged and measured by then.

    Raises:
        InputError: an artefact is of a format that no agent loads, or the device's answers are none.
        MissingError: the device lacks what is needed.
    """
    subjects = [(artifact, runtime) for artifact in artifacts for runtime in _runtimes(artifact, recipe, place)]
    timed = measure_options(recipe) if figures.latency else None
    runtimes = place.ask(subjects, _feeds(material, recipe, figures), threads=recipe.run.threads, timed=timed)
    asked = bool(recipe.run.runtimes)
    return tuple(
        Pairing(artifact, runtime, asked=asked, device=place.name) for (artifact, _), runtime in zip(subjects, runtimes, strict=True)
    )


def _runtimes(artifact: Artifact, recipe: Recipe, place: Place) -> list[str]:
    known = [name for name in loading(artifact.manifest.format) if name in OPENERS]
    asked = [name for name in recipe.run.runtimes if name in known]
    if not known:
        raise InputError(
            f"{artifact.name} cannot be run on {place.name}: the agent there loads artefacts in {' and '.join(OPENERS)}",
            remedy="give ONNX and OpenVINO artefacts with --device, and check the others on this machine",
        )
    return asked or known[:1]


def _feeds(material: Material, recipe: Recipe, figures: Figures) -> Iterator[Feeds]:
    """Whatever is fed by the figures that are wanted; every sample where accuracy is, at least one for a latency."""
    if figures.accuracy:
        yield from material.feeds()
    elif figures.parity:
        yield from material.subset(recipe.data.samples).feeds()
    else:
        yield from islice(material.feeds(), 1)
    if figures.parity and recipe.parity.adversarial:
        yield from material.adversarial().values()
