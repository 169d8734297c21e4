"""The devices of a request: reached while a command needs them, and asked before anything is judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from dtvit_deploy.agent.sessions import MODULES, OPENERS
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.devices.inventory import Device, find
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.figures import Figures, measure_options
from dtvit_deploy.pipeline.material import Material
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.trust import runs_there
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.remote.place import Place
from dtvit_deploy.runtimes.pairing import Pairing, loading

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds


def measures_here(recipe: Recipe) -> bool:
    """Whether this machine is one of those that a request measures on."""
    return not recipe.run.devices or any(device.address is None for asked in recipe.run.devices for device in find(asked))


def remote_devices(recipe: Recipe) -> tuple[Device, ...]:
    """The devices of a request that are not this machine, each once.

    Raises:
        InputError: there is none of a name, or the inventory is wrong.
    """
    return tuple({one.name: one for asked in recipe.run.devices for one in find(asked) if one.address is not None}.values())


@contextmanager
def reached_places(recipe: Recipe, progress: Progress, *, wait: bool = True) -> Iterator[tuple[Place, ...]]:
    """The devices that a request names, each reached once, and left at the end of the block.

    Raises:
        InputError: there is none of a name, or the inventory is wrong.
        MissingError: one of them cannot be reached.
    """
    with ExitStack() as stack:
        places = []
        for device in remote_devices(recipe):
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
    vouched = {one.manifest.sha256 for one in artifacts if runs_there(one, place.name, place.address, Cache.default())}
    runtimes = place.ask(subjects, _feeds(material, recipe, figures), threads=recipe.run.threads, timed=timed, vouched=vouched)
    asked = bool(recipe.run.runtimes)
    return tuple(
        Pairing(artifact, runtime, asked=asked, device=place.name) for (artifact, _), runtime in zip(subjects, runtimes, strict=True)
    )


def _runtimes(artifact: Artifact, recipe: Recipe, place: Place) -> list[str]:
    """Those that were asked for, or the best one that the device has; where it has none, it is told which one it lacks."""
    loads = loading(artifact.manifest.format)
    known = [name for name in loads if name in OPENERS]
    asked = [name for name in recipe.run.runtimes if name in loads]
    if not known or set(asked) - set(known):
        what = f"cannot be run in {', '.join(name for name in asked if name not in known)}" if known else "cannot be run"
        to_build = artifact.manifest.format == "trtjob"
        raise InputError(
            f"{artifact.name} {what} on {place.name}: the agent there loads artefacts in {', '.join(OPENERS)}",
            remedy=f"have its engine built there, and give that: export -t trt --device {place.name}"
            if to_build
            else "give others with --device, and check this one on this machine",
        )
    return asked or [next((name for name in known if set(MODULES[name]) <= set(place.modules)), known[0])]


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
