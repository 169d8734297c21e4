"""The devices of a request: reached while a command needs them, and asked before anything is judged."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dtvit_deploy.agent.sessions import OPENERS
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.devices.inventory import Device
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.pipeline.figures import Figures, measure_options
from dtvit_deploy.pipeline.material import Material
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.trust import runs_there
from dtvit_deploy.recipe.devices import resolved
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.remote.limits import require_room_here
from dtvit_deploy.remote.place import Place
from dtvit_deploy.runtimes.cold import MODULES
from dtvit_deploy.runtimes.pairing import Pairing, loading

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, TensorSpec

EMULATED = "emulated, at a speed that is not the device's; a figure needs the device"
SAMPLES = "the samples for a device, and its answers,"
_MEMBER = 512
"""Bytes around an array where it is sent, about: its header, and its place in two lists."""


class Moved(NamedTuple):
    """Bytes of what is fed, as it is sent, and of what one artefact in one runtime answers to it."""

    fed: int
    answered: int

    def at_once(self, subjects: int) -> int:
        """On this machine: what is fed, to one device after the other, and the answers of all."""
        return self.fed + subjects * self.answered


def measures_here(recipe: Recipe) -> bool:
    """Whether this machine is one of those that a request measures on."""
    return not recipe.device or any(device.address is None for device in resolved(recipe))


def devices_of(recipe: Recipe) -> tuple[Device, ...]:
    """The devices of a request that are not this machine, each once; nothing is connected.

    Raises:
        InputError: there is none of a name, or the inventory is wrong.
    """
    return tuple(device for device in resolved(recipe) if device.address is not None)


def runs_on(artifact: Artifact, place: Place) -> bool:
    """Whether an artefact of a whole run is meant for a device: packages are for Macs, engines that were compiled here for this GPU."""
    kind = artifact.manifest.format
    if kind in ("trt", "rtx") or (kind == "mlpackage" and place.facts.system != "Darwin"):
        return False
    return any(name in OPENERS for name in loading(kind))


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
    subjects = subjects_there(place, artifacts, recipe)
    timed = measure_options(recipe) if figures.latency else None
    require_room_here(moved(material, recipe, figures).at_once(len(subjects)), SAMPLES)
    vouched = {one.manifest.sha256 for one in artifacts if runs_there(one, place.name, place.address, Cache.default())}
    feeds, locks = feeds_for(material, recipe, figures), recipe.profile.lock_clocks
    runtimes = place.ask(subjects, feeds, threads=recipe.run.threads, timed=timed, vouched=vouched, lock_clocks=locks)
    asked = bool(recipe.run.runtimes)
    return tuple(
        Pairing(artifact, runtime, asked=asked, device=place.name) for (artifact, _), runtime in zip(subjects, runtimes, strict=True)
    )


def no_time(names: Sequence[str], reasons: Sequence[str]) -> MissingError:
    """Of a latency that nothing at hand would tell."""
    return MissingError(
        f"the latency of {', '.join(names)} cannot be measured here: {EMULATED} ({'; '.join(dict.fromkeys(reasons))})",
        remedy="profile on the device; verify and evaluate work here",
    )


def subjects_there(place: Place, artifacts: Sequence[Artifact], recipe: Recipe) -> list[tuple[Artifact, str]]:
    """Every artefact in each of the runtimes that it is loaded in on a device.

    Raises:
        InputError: an artefact is of a format that no agent loads; or a runtime that was asked for is none of an agent's, or loads none of
            the artefacts, where there is no other machine that it could be meant for.
    """
    found = [(artifact, runtime) for artifact in artifacts for runtime in runtimes_on(place.name, artifact, recipe, place.modules)]
    used = {runtime for _, runtime in found}
    if unused := [name for name in recipe.run.runtimes if name not in used and not measures_here(recipe)]:
        raise InputError(
            f"the runtime {unused[0]} loads none of {', '.join(artifact.name for artifact in artifacts)} on {place.name}",
            remedy=f"runtimes of the agent there: {', '.join(OPENERS)}",
        )
    return found


def moved(material: Material, recipe: Recipe, figures: Figures) -> Moved:
    """How much goes to a device and comes back, short of making any of it."""
    samples = len(material) if figures.accuracy else min(recipe.data.samples, len(material)) if figures.parity else 1
    samples += len(material.adversarial()) if figures.parity and recipe.parity.adversarial else 0
    inputs, outputs = (sum(map(_bytes_of, specs)) for specs in (material.signature.inputs, material.signature.outputs))
    return Moved(fed=samples * inputs, answered=samples * outputs)


def _bytes_of(spec: TensorSpec) -> int:
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize + _MEMBER


def runtimes_on(device: str, artifact: Artifact, recipe: Recipe, modules: Collection[str]) -> list[str]:
    """Names of the runtimes that an artefact is asked for in, or else of the best that a device has; of that which it lacks, if of none.

    Args:
        device: for messages.
        modules: what its Python has of what runtimes need; empty where nobody knows.

    Raises:
        InputError: no agent loads it, or not in the runtimes that were asked for.
    """
    loads = loading(artifact.manifest.format)
    known = [name for name in loads if name in OPENERS]
    asked = [name for name in recipe.run.runtimes if name in loads]
    if not known or set(asked) - set(known):
        what = f"cannot be run in {', '.join(name for name in asked if name not in known)}" if known else "cannot be run"
        to_build = artifact.manifest.format == "trtjob"
        raise InputError(
            f"{artifact.name} {what} on {device}: the agent there loads artefacts in {', '.join(OPENERS)}",
            remedy=f"have its engine built there, and give that: export -t trt --device {device}"
            if to_build
            else "give others with --device, and check this one on this machine",
        )
    return asked or [next((name for name in known if set(MODULES[name]) <= set(modules)), known[0])]


def feeds_for(material: Material, recipe: Recipe, figures: Figures) -> Iterator[Feeds]:
    """Whatever is fed by the figures that are wanted; every sample where accuracy is, at least one for a latency."""
    if figures.accuracy:
        yield from material.feeds()
    elif figures.parity:
        yield from material.subset(recipe.data.samples).feeds()
    else:
        yield from islice(material.feeds(), 1)
    if figures.parity and recipe.parity.adversarial:
        yield from material.adversarial().values()
