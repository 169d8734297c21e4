"""`dtvit-deploy device`: the devices that the user has."""

from __future__ import annotations

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
