"""`dtvit-deploy device`: the devices that the user has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtvit_deploy.cli import options as given
from dtvit_deploy.cli.failure import explained

device = typer.Typer(help="The devices of devices.toml.", no_args_is_help=True, rich_markup_mode=None)


@device.command("list")
@explained
def listed(as_json: given.Json = False) -> None:
    """List the devices of devices.toml, here or in the user's folder for settings; none of them is asked anything."""
    import msgspec

    from dtvit_deploy.cli import show
    from dtvit_deploy.devices.inventory import FILE, LOCAL, place, read_inventory

    path = place()
    devices = () if path is None else read_inventory(path)
    if as_json:
        show.as_json([{**msgspec.structs.asdict(one), "address": str(one.address or LOCAL)} for one in devices])
        return
    if path is None:
        show.console().say(f"there is no {FILE}, neither here nor in your folder for settings; any device is reached by ssh://USER@HOST")
        return
    body = [(one.name, str(one.address or LOCAL), ", ".join(one.tags), one.python, one.power_meter or "–", one.notes) for one in devices]
    show.rows(str(path), ("name", "address", "tags", "Python", "power meter", "notes"), body)


_Recipe = Annotated[Path | None, typer.Option("--recipe", "-r", help="It defines some of them.", show_default=False)]
_Devices = Annotated[list[str], typer.Argument(metavar="DEVICE", help="An address, or a name or tag of devices.toml.", show_default=False)]


@device.command()
@explained
def stop(devices: _Devices, recipe: _Recipe = None, as_json: given.Json = False) -> None:
    """End the jobs that go on on devices for this user, those of a command whose connection was lost, say; tells which."""
    from dtvit_deploy.cli import show
    from dtvit_deploy.cli.each_device import each, named, raise_all
    from dtvit_deploy.remote.place import stopped

    found, failures = each(named(devices, recipe), "ending what goes on on", stopped)
    if as_json:
        show.as_json([{"device": name, "ended": ended} for name, ended in found.items()])
    else:
        for name, ended in found.items():
            for one in ended:
                show.console().say(f"{name}: ended {one}")
            if not ended:
                show.console().say(f"{name}: no job of yours goes on there")
    raise_all(failures)


@device.command()
@explained
def clean(devices: _Devices, recipe: _Recipe = None, as_json: given.Json = False) -> None:
    """Remove what was left on devices: the agent, and what was sent there. Refused where a job goes on."""
    from dtvit_deploy.cli import show
    from dtvit_deploy.cli.each_device import each, named, raise_all
    from dtvit_deploy.remote.place import cleaned

    freed, failures = each(named(devices, recipe), "cleaning", cleaned)
    if as_json:
        show.as_json([{"device": name, "freed": count} for name, count in freed.items()])
    else:
        for name, count in freed.items():
            show.console().say(f"{name}: {count / 1e6:,.2f} MB freed")
    raise_all(failures)
