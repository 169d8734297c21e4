"""Power monitors on boards: INA3221 as NVIDIA's Jetsons have it, and INA2xx.

Over hwmon (kernel: Documentation/hwmon/ina3221.rst, ina2xx.rst, ina238.rst; JetPack 5 and later), and in the layout of JetPack 4's driver
(NVIDIA Jetson Linux Developer Guide R32, *Power Management*: ``rail_name_N`` and ``in_powerN_input``, in mW, of an ``iio`` device).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dtvit_deploy.devices.files import between, folders, number, scaled, text
from dtvit_deploy.devices.state.source import Source, single

_MOST = 2e6
"""mW of no board."""
_TWO = re.compile(r"ina2[0-9]{2}|ina700|ina780")


def sources(root: Path) -> list[Source]:
    """Rails that have a name; what is not connected (``NC``), or switched off, is none."""
    found: list[Source] = []
    for folder in folders(root, "sys/class/hwmon/hwmon[0-9]*"):
        chip = text(folder / "name") or ""
        if chip == "ina3221":
            found += _three(root, folder)
        elif _TWO.fullmatch(chip) and number(folder / "power1_input") is not None:
            label = text(folder / "label") or text(folder / "in1_label") or f"{chip} {folder.name}"
            found.append(single(label, "power", (root, folder / "power1_input"), _microwatts(folder / "power1_input")))
    return [*found, *_iio(root)]


def _three(root: Path, folder: Path) -> list[Source]:
    found = []
    for channel in (1, 2, 3):
        label = named(text(folder / f"in{channel}_label"))
        if not label or text(folder / f"in{channel}_enable") == "0":
            continue
        file = folder / f"curr{channel}_input"
        if number(file) is not None:
            found.append(single(label, "power", (root, file), _volts_and_amperes(folder / f"in{channel}_input", file)))
    return found


def _iio(root: Path) -> list[Source]:
    found = []
    for file in folders(root, "sys/bus/i2c/drivers/ina3221x/*/iio:device*/in_power[0-9]_input"):
        channel = file.name[len("in_power")]
        label = named(text(file.with_name(f"rail_name_{channel}")))
        if label and number(file) is not None:
            found.append(single(label, "power", (root, file), _milliwatts(file)))
    return found


def named(label: str | None) -> str:
    """A rail's name; empty where the channel is connected to nothing."""
    return "" if label is None or label.upper() in ("", "NC", "N/C") else label


def milliwatts(millivolts: int | None, milliamperes: int | None) -> float | None:
    """Power of what was told of one channel; nothing where either is missing. A rail that a battery takes from is none that delivers."""
    if millivolts is None or milliamperes is None or millivolts <= 0 or milliamperes < 0:
        return None
    return between(millivolts * milliamperes / 1e3, 0, _MOST)


def _volts_and_amperes(volts: Path, amperes: Path) -> Callable[[], float | None]:
    return lambda: milliwatts(number(volts), number(amperes))


def _milliwatts(file: Path) -> Callable[[], float | None]:
    return lambda: between(number(file), 0, _MOST)


def _microwatts(file: Path) -> Callable[[], float | None]:
    return lambda: between(scaled(number(file), 1e-3), 0, _MOST)
