"""The devices that a request names or defines: one of its own is held to what one of an inventory is held to."""

from __future__ import annotations

import msgspec

from dtvit_deploy.devices import inventory
from dtvit_deploy.errors import InputError
from dtvit_deploy.recipe.tables import Recipe


def defined(recipe: Recipe, where: str = "the recipe") -> tuple[inventory.Device, ...]:
    """The devices that a request defines: those with an address.

    Args:
        where: the request stands, for messages.

    Raises:
        InputError: a value is none, a name is not one device's alone, or what only a definition has stands without an address.
    """
    found = []
    for number, one in enumerate(recipe.device, 1):
        place = f"{where}: device {number} ({one.name!r:.70})"
        if one.address is not None:
            entry = inventory.Entry(**msgspec.structs.asdict(one) | {"address": one.address})
            found.append(inventory.device_of(entry, place))
            continue
        usual = type(one)(name=one.name)
        if aside := [name for name, value in msgspec.structs.asdict(one).items() if value != getattr(usual, name)]:
            raise InputError(
                f"{place}: {' and '.join(aside)} {'says' if len(aside) == 1 else 'say'} nothing without an address",
                remedy=f"add its `address`, or say it in {inventory.FILE}, and give its name alone here",
            )
    inventory.require_distinct(found, where)
    return tuple(found)


def resolved(recipe: Recipe) -> tuple[inventory.Device, ...]:
    """Every device that a request names, this machine among them, each once; none where it names none.

    Raises:
        InputError: there is none of a name, or the inventory is wrong.
    """
    own = defined(recipe)
    named = (inventory.find(one.name, inventory=recipe.run.inventory, defined=own) for one in recipe.device)
    return tuple({device.name: device for found in named for device in found}.values())
