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


@device.command()
@explained
def clean(
    devices: Annotated[list[str], typer.Argument(help="An address, or a name or tag of devices.toml.", show_default=False)],
    recipe: Annotated[Path | None, typer.Option("--recipe", "-r", help="It defines some of them.", show_default=False)] = None,
    as_json: given.Json = False,
) -> None:
    """Remove what was left on devices: the agent, and what was sent there. Refused where a job goes on."""
    from dtvit_deploy.cli import show
    from dtvit_deploy.cli.progress import working
    from dtvit_deploy.devices.inventory import find
    from dtvit_deploy.recipe.devices import defined
    from dtvit_deploy.recipe.reading import load_recipe
    from dtvit_deploy.remote.place import cleaned
    from dtvit_deploy.report.figures import megabytes

    own = () if recipe is None else defined(load_recipe(recipe), str(recipe))
    freed = {}
    with working() as progress:
        for one in (one for asked in devices for one in find(asked, defined=own)):
            progress.step(f"cleaning {one.name}")
            freed[one.name] = cleaned(one)
    if as_json:
        show.as_json([{"device": name, "freed": count} for name, count in freed.items()])
        return
    for name, count in freed.items():
        show.console().say(f"{name}: {megabytes(count)} MB freed")
