"""The devices that a user has: ``devices.toml``, where each has a name, and what is asked of one is asked of all that share a tag.

[[device]]
name = "orin-1"
address = "ssh://me@orin.lab"
tags = ["orin", "jetson"]
notes = "on the shelf, MAXN, fan at full speed"
python = "venv/bin/python"
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from dtvit_deploy.artifacts.toml_file import read_toml
from dtvit_deploy.artifacts.words import in_words
from dtvit_deploy.devices.address import Address, parse
from dtvit_deploy.errors import InputError

FILE = Path("devices.toml")
LOCAL = "local"
PYTHON = "python3"
"""What is looked for on a device that names no other."""
_NAME = re.compile(r"\w[\w.-]{0,63}")
_LONGEST = 1000
"""Letters of a note."""
_ADD = f"add it to {FILE} as `[[device]]` with a `name` and an `address`, or give an address: ssh://USER@HOST"


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device of the user's.

    Attributes:
        name: as it is asked for, and told in reports.
        address: how it is reached; None: it is this machine.
        tags: other names, which several devices may share.
        notes: the owner's, for people.
        python: the program there: a name that is looked for in its PATH, or a path, from the user's home there if it is relative.
        power_meter: what measures the power that it takes; empty where nothing does.
    """

    name: str
    address: Address | None
    tags: tuple[str, ...] = ()
    notes: str = ""
    python: str = PYTHON
    power_meter: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device as it stands in a file, with the meaning of `Device`."""

    name: str
    address: str
    tags: tuple[str, ...] = ()
    notes: str = ""
    python: str = PYTHON
    power_meter: str = ""


def is_name(text: str) -> bool:
    """Whether a device may be called so."""
    return _NAME.fullmatch(text) is not None


def place(folder: Path = Path(), inventory: Path | None = None) -> Path | None:
    """The inventory that holds for work in a folder: the one in it, else the user's own; None where there is neither.

    Args:
        inventory: a file in place of the one in the folder.

    Raises:
        InputError: the one in the folder is another user's: it would say which machine is meant by a name; or one of another name was
            named, and is not there.
    """
    beside = folder / FILE if inventory is None else inventory
    try:
        owner = beside.lstat().st_uid
    except OSError:
        if inventory is not None and inventory.name != str(FILE):  # it was named, and another file's device of that name is another machine
            raise InputError(f"there is no inventory at {inventory}", remedy="correct `inventory` of the recipe's [run]") from None
        base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
        try:
            own = Path(base, "dtvit-deploy", FILE).expanduser()
        except RuntimeError:  # a user without a home
            return None
        return own if own.is_file() else None
    if owner not in (os.geteuid(), 0):
        raise InputError(
            f"{beside} belongs to another user (number {owner}), and would say which machine is meant by a name",
            remedy="if you trust it, copy it; if not, work in another folder",
        )
    return beside


def read_inventory(path: Path) -> tuple[Device, ...]:
    """Read a file of devices.

    Raises:
        InputError: it cannot be read, a key or a value is wrong, or a name is not one device's alone; names the device.
    """
    raw = read_toml(path, "an inventory")
    entries = raw.pop("device", [])
    if raw or not isinstance(entries, list):
        unknown = ", ".join(raw) or "device"
        raise InputError(f"{path}: {unknown:.200} is not known", remedy="an inventory holds [[device]] tables and nothing else")
    devices = tuple(_device(path, number, entry) for number, entry in enumerate(entries, 1))
    require_distinct(devices, str(path))
    return devices


def require_distinct(devices: Sequence[Device], where: str) -> None:
    """Refuse a list in which a name is not one device's alone.

    Args:
        where: the list, for the message.

    Raises:
        InputError: names the device.
    """
    names = [device.name for device in devices]
    for device in devices:
        if names.count(device.name) > 1:
            raise InputError(
                f"{where}: several devices are called {device.name}", remedy="give each a name of its own, and all of them a tag"
            )
        if shared := [tag for tag in device.tags if tag in names and tag != device.name]:
            raise InputError(f"{where}: {shared[0]} is a tag of {device.name} and another device's name", remedy="rename one of them")


def find(asked: str, folder: Path = Path(), *, inventory: Path | None = None, defined: Sequence[Device] = ()) -> tuple[Device, ...]:
    """The devices that a user means: those of a request first, then those of the inventory, each in its order.

    Args:
        asked: ``local``, an address, or a device's name or tag. The address of a device that has a name means that device, with the Python
            and whatever else is said of it.
        folder: whose inventory is looked for: see `place`.
        inventory: a file in its place, as a recipe names one; the user's own where it is not there.
        defined: by the request itself; it takes the place of one of its name in the inventory.

    Raises:
        InputError: there is none of that name, the address or the inventory is wrong, or several devices have the address.
    """
    if asked == LOCAL:
        return (Device(name=LOCAL, address=None),)
    address = parse(asked) if "://" in asked or "@" in asked else None
    if found := tuple(device for device in defined if device.name == asked):
        return found  # whatever the inventory says, which need not be right
    if address is not None and any(device.address == address for device in defined):
        return (_at(address, defined, asked),)
    path, own = place(folder, inventory), {device.name for device in defined}
    listed = () if path is None else read_inventory(path)
    devices = (*defined, *(device for device in listed if device.name not in own))
    if address is not None:
        return (_at(address, devices, asked),)
    named = tuple(device for device in devices if device.name == asked)
    if found := named or tuple(device for device in devices if asked in device.tags):
        return found
    if path is None and not defined:
        where = f"{FILE}, neither here" if inventory is None else f"{inventory}, and no {FILE}"
        told = f"there is no device {asked!r:.100}: there is no {where} {'nor ' if inventory is None else ''}in your folder for settings"
    else:
        known = dict.fromkeys([device.name for device in devices] + [tag for device in devices for tag in device.tags])
        told = f"there is no device {asked!r:.100} in {path or 'the recipe'}; known there: {', '.join(known) or 'none'}"
    raise InputError(told, remedy=_ADD)


def _at(address: Address, devices: Sequence[Device], asked: str) -> Device:
    """The device that is there, or one that nobody has named."""
    there = [device for device in devices if device.address == address]
    if len(there) > 1:
        names = " and ".join(device.name for device in there)
        raise InputError(f"{asked!r:.100} is the address of {names}", remedy="say which by its name")
    return there[0] if there else Device(name=str(address), address=address)


def _device(path: Path, number: int, raw: Any) -> Device:
    called = f" ({raw['name']!r:.70})" if isinstance(raw, dict) and isinstance(raw.get("name"), str) else ""
    where = f"{path}: device {number}{called}"
    try:
        entry = msgspec.convert(raw, Entry)
    except msgspec.ValidationError as error:
        told, _, key = str(error).partition(" - at `$.")
        told = in_words(told[:1].lower() + told[1:])
        known = f"known keys: {', '.join(field.name for field in msgspec.structs.fields(Entry))}"
        raise InputError(f"{where}: {key.strip('`')}{': ' * bool(key)}{told}", remedy=known) from error
    return device_of(entry, where)


def device_of(entry: Entry, where: str) -> Device:
    """The device that an entry means.

    Args:
        where: it stands, for the message.

    Raises:
        InputError: a value is none; names the key.
    """
    for label in (entry.name, *entry.tags):
        if not is_name(label) or label == LOCAL:
            means = "means this machine" if label == LOCAL else "cannot be one"
            raise InputError(
                f"{where}: {label!r:.100} {means}",
                remedy="a name or a tag has letters, digits, `_`, `.` and `-`, and does not begin with a dash",
            )
    _require_text(where, "notes", entry.notes)
    _require_text(where, "power_meter", entry.power_meter)
    return Device(
        name=entry.name,
        address=_address(where, entry.address),
        tags=entry.tags,
        notes=entry.notes,
        python=_python(where, entry.python),
        power_meter=entry.power_meter,
    )


def _address(where: str, text: str) -> Address | None:
    if text == LOCAL:
        return None
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"{where}: address: {error}", remedy=error.remedy) from error


def _python(where: str, text: str) -> str:
    if not text or text.startswith(("-", "~")) or not text.isprintable() or len(text) > _LONGEST:
        raise InputError(
            f"{where}: python: {text!r:.100} is no program",
            remedy="give a name in the device's PATH, an absolute path, or one from the user's home there: venv/bin/python",
        )
    return text


def _require_text(where: str, key: str, text: str) -> None:
    if len(text) > _LONGEST:
        raise InputError(f"{where}: {key} is longer than {_LONGEST} letters", remedy="say it shorter")
