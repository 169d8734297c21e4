"""Several devices asked the same, one by one: what one answers is told whatever becomes of the others, and then what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from dtvit_deploy.cli.progress import working
from dtvit_deploy.devices.inventory import FILE, Device, find
from dtvit_deploy.errors import DeployError
from dtvit_deploy.recipe.devices import defined
from dtvit_deploy.recipe.reading import requests

T = TypeVar("T")


def named(asked: Sequence[str], recipe: Path | None = None) -> list[Device]:
    """The devices that are meant, each once, in the order in which they were named.

    Args:
        asked: names, tags, addresses.
        recipe: a file that may define them, and whose inventory is looked into.

    Raises:
        InputError: there is none of a name, or the recipe cannot be read; then none is asked anything.
    """
    if recipe is None:
        return list({one.name: one for name in asked for one in find(name)}.values())
    request = requests(recipe, {}, {})[0][1]  # of several models each has the same devices
    own, inventory = defined(request, str(recipe)), request.run.inventory or recipe.parent / FILE
    return list({one.name: one for name in asked for one in find(name, inventory=inventory, defined=own)}.values())


def each(devices: Sequence[Device], doing: str, do: Callable[[Device], T]) -> tuple[dict[str, T], list[DeployError]]:
    """What came of it for each device, by name, and what went wrong with the others.

    Args:
        doing: for progress, before the device's name.
        do: asks one device.
    """
    found: dict[str, T] = {}
    failures = []
    with working() as progress:
        for device in devices:
            progress.step(f"{doing} {device.name}")
            try:
                found[device.name] = do(device)
            except DeployError as error:
                failures.append(error if str(error).startswith(device.name) else _named(error, device.name))
    return found, failures


def raise_all(failures: Sequence[DeployError]) -> None:
    """Raise what went wrong as one error, whose exit code is that of the first; nothing where nothing did.

    Raises:
        DeployError: of the kind of the first.
    """
    if len(failures) == 1:
        raise failures[0]
    if failures:
        remedies = dict.fromkeys(failure.remedy for failure in failures if failure.remedy)
        raise type(failures[0])("; ".join(map(str, failures)), remedy="; ".join(remedies) or None)


def _named(error: DeployError, name: str) -> DeployError:
    return type(error)(f"{name}: {error}", remedy=error.remedy)
