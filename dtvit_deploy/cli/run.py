"""`dtvit-deploy run`: everything that recipes ask for, as one plan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dtvit_deploy.cli import flags
from dtvit_deploy.cli import options as given
from dtvit_deploy.cli.failure import explained
from dtvit_deploy.cli.finish import finish_all
from dtvit_deploy.cli.flag import taking
from dtvit_deploy.errors import InputError
from dtvit_deploy.recipe.reading import DEFAULT, default, requests

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.plan.graph import Plan
    from dtvit_deploy.plan.run import Request


@explained
@taking(flags.DATA, flags.CLASS_MAP, flags.THREADS)
def run(
    said: dict[str, Any],
    names: dict[str, str],
    recipes: Annotated[
        list[Path] | None,
        typer.Argument(help="Recipes: model, data, targets, gates (TOML); several make one plan.", show_default=f"{DEFAULT}, where it is"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the artefacts and the report.")] = Path("out"),
    layers: Annotated[bool, typer.Option("--layers/--no-layers", help="Walk the inner tensors too.")] = True,
    workers: given.Workers = None,
    scheduler: Annotated[
        str, typer.Option("--scheduler", metavar="ADDRESS", help="Let the workers of this Dask scheduler do it (docs/farm.md).")
    ] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Reach the scheduler without TLS, on a network of your own.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the stages, and which of them are known already; do nothing.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Do this stage, by name or pattern, and what it takes. Repeatable.", show_default=False),
    ] = None,
    since: Annotated[
        list[str] | None, typer.Option("--from", help="Do this stage and all after it anew. Repeatable.", show_default=False)
    ] = None,
    wait: given.Wait = True,
    no_cache: given.NoCache = False,
    as_json: given.Json = False,
) -> None:
    """Do everything a recipe asks for: export, verify, evaluate, profile, one verdict, one report."""
    from dtvit_deploy.cli import show
    from dtvit_deploy.cli.progress import working
    from dtvit_deploy.plan.farm.address import require_safe
    from dtvit_deploy.plan.run import planned
    from dtvit_deploy.plan.run import run as carried_out

    if scheduler:
        require_safe(scheduler, insecure=insecure)
        if workers is not None:
            raise InputError("--workers are this machine's, and --scheduler has its own", remedy="leave one of the two out")
    elif insecure:
        raise InputError("--insecure says how --scheduler may be reached, and there is none", remedy="leave it out")
    asked = _requests(recipes or [default() or DEFAULT], said, names, out)
    for one in asked:
        given.say_if_crowded(one.recipe.run.threads)
        given.say_what_is_foreseen(one.recipe)
    with given.opened_cache(no_cache) as cache:
        if dry_run:
            graph = planned(asked, layers=layers, only=only or (), scheduler=scheduler)
            for pattern in since or ():
                graph.matching(pattern)
            _show(graph, cache, as_json=as_json)
            return
        with working() as progress:
            reports = carried_out(
                asked,
                cache,
                progress,
                layers=layers,
                workers=workers,
                only=only or (),
                since=since or (),
                scheduler=scheduler,
                insecure=insecure,
                wait=wait,
            )
    finish_all([(report, one.out) for one, report in reports], as_json)
    if only and not reports and not as_json:
        show.console().say("done, and kept in the cache: artefacts go into a folder with their report, or by `export`")


def _requests(recipes: Sequence[Path], said: dict[str, Any], names: dict[str, str], out: Path) -> list[Request]:
    """What files ask for; where that is more than one thing, each has a name, and a folder of that name.

    Raises:
        InputError: a file cannot be read, or two of them would share a folder.
    """
    from dtvit_deploy.plan.run import Request

    found, stems = [], [path.stem for path in recipes]
    for path in recipes:
        file = path.stem if stems.count(path.stem) == 1 else f"{path.absolute().parent.name}.{path.stem}"
        for name, recipe in requests(path, said, names):
            label = "/".join(part for part in (_plain(file) if recipes[1:] else "", _plain(name)) if part)
            found.append(Request(label, recipe, out / label))
    labels = [one.name.casefold() for one in found]  # as many a file system takes them
    if repeated := sorted({one.name for one in found if labels.count(one.name.casefold()) > 1}):
        raise InputError(f"several recipes would be called {', '.join(repeated)}, after their files", remedy="give each file another name")
    return found


def _plain(name: str) -> str:
    """A name as a folder's, within another: a network may be called anything."""
    return re.sub(r"[^\w.-]+", ".", name).strip(".")


def _show(graph: Plan, cache: Cache, *, as_json: bool) -> None:
    """The plan as a tree: each stage below the last one that it waits for, and whether its result is known.

    One that takes what several others made belongs to none of them, and names the first and the last.
    """
    from dtvit_deploy.cli import show
    from dtvit_deploy.plan.execute import states

    found = states(graph, cache)
    if as_json:
        show.as_json([{"stage": stage.name, "state": found[stage.name], "after": stage.before} for stage in graph])
        return
    console, depth = show.console(), dict[str, int]()
    for stage in graph:
        several = len(stage.wants) > 1
        depth[stage.name] = 1 if several else 1 + max((depth[name] for name in stage.before), default=-1)
        takes = f" · of {len(stage.wants)}, {stage.wants[0]} … {stage.wants[-1]}" if several else ""
        console.say(f"{'  ' * depth[stage.name]}{stage.name} · {found[stage.name]}{takes}", "dim" if found[stage.name] == "known" else "")
    count = sum(state == "known" for state in found.values())
    console.say(f"{len(graph)} stages, of which {count} are known")
    if "anew" in found.values():
        unseen = {"trace": "a network's own code", "asked": "a device"}
        what = [words for does, words in unseen.items() if any(one.does == does and found[one.name] == "anew" for one in graph)]
        console.say(f"anew: {' or '.join(what)} may have changed unseen; what follows is not done where the same comes of it")
