"""A flag that says what a key of a recipe says, and commands that take such flags and are given the request that they make."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from dtvit_deploy.recipe.reading import DEFAULT, default, request
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.recipe.writing import written


@dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        key: of the recipe, dotted.
        typed: what people type, the long form first.
        kind: what it is parsed as.
        help: what it means.
        read: what was parsed, as the recipe's file has it.
        shown: the default in ``--help``, where the recipe's own says it badly.
        least, most: of a number.
        parser: of text, where the type has none.
        metavar: what stands for the value in ``--help``.
    """

    key: str
    typed: tuple[str, ...]
    kind: Any
    help: str
    read: Callable[[Any], Any] = lambda value: value
    shown: str = ""
    least: float | None = None
    most: float | None = None
    parser: Callable[[str], Any] | None = None
    metavar: str | None = None

    @property
    def parameter(self) -> str:
        """Name of the command's parameter."""
        return self.key.replace(".", "__")

    @property
    def name(self) -> str:
        """What people call it."""
        return self.typed[0].partition("/")[0]

    def option(self) -> Any:
        """The annotation that typer reads."""
        usual = attrgetter(self.key)(Recipe())
        shown = self.shown or (False if usual in (None, "", (), False) else _words(usual))
        limits: dict[str, Any] = {"min": self.least, "max": self.most} if self.kind in (int, float) else {}
        more = {"parser": self.parser, "metavar": self.metavar}
        given = {name: value for name, value in (limits | more).items() if value is not None}
        return Annotated[self.kind | None, typer.Option(*self.typed, help=self.help, show_default=shown, **given)]


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(getattr(value, "value", value)).lower()


_File = Annotated[
    Path | None, typer.Option("--recipe", "-r", help="What is asked for, which flags change.", show_default=f"{DEFAULT}, where it is")
]
_AsRecipe = Annotated[bool, typer.Option("--as-recipe", help="Print the recipe that says what these flags do, and do nothing else.")]


_GIVEN = ("recipe", "said", "names")
"""Parameters of commands that these decorators fill in."""


def requesting(*flags: Flag, builds: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command that takes these flags, a recipe to begin with, and is given, as ``recipe``, the request that they make.

    Args:
        builds: whether it makes artefacts of the request's network. One that looks at artefacts made elsewhere takes no network from a file
            that merely lies beside them: what came with an artefact must not name the code that makes its reference again. Nor does it
            reach the devices of such a file, unless it is asked for them.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapped(*, recipe_file: Path | None, as_recipe: bool, **given: Any) -> None:
            asked, names = taken(flags, given)
            file, left_aside = recipe_file or default(), False
            recipe = request(file, asked, names)
            if recipe_file is None and file is not None and not builds:
                model = request(None, {key: value for key, value in asked.items() if key.startswith("model.")}, names).model
                left_aside = bool(recipe.device) and "device" not in asked
                recipe = msgspec.structs.replace(recipe, model=model, device=() if left_aside else recipe.device)
            if as_recipe:
                typer.echo(written(recipe, Path()), nl=False)
                return
            if recipe_file is None and file is not None:
                aside = f"; on its devices by --device NAME, or by -r {file}" if left_aside else ""
                typer.echo(f"· asked by {file}, and by flags{aside}", err=True)
            command(recipe=recipe, **given)

        file = inspect.Parameter("recipe_file", inspect.Parameter.KEYWORD_ONLY, annotation=_File, default=None)
        shown = inspect.Parameter("as_recipe", inspect.Parameter.KEYWORD_ONLY, annotation=_AsRecipe, default=False)
        return with_flags(wrapped, command, flags, (file, shown))

    return decorate


def taking(*flags: Flag) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command that takes these flags and is given, as ``said`` and ``names``, their values by key and what was typed for each."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapped(**given: Any) -> None:
            said, names = taken(flags, given)
            command(said=said, names=names, **given)

        return with_flags(wrapped, command, flags)

    return decorate


def taken(flags: Iterable[Flag], given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Take a command's flags out of what it was called with: values by key, of those that were given, and what was typed for each.

    Raises:
        InputError: one is not written as it should be.
    """
    values = {flag: given.pop(flag.parameter) for flag in flags}
    said = {flag.key: flag.read(value) for flag, value in values.items() if value is not None and value != []}
    return said, {flag.key: flag.name for flag in flags}


def with_flags(
    wrapped: Callable[..., None], command: Callable[..., None], flags: Iterable[Flag], more: tuple[inspect.Parameter, ...] = ()
) -> Callable[..., None]:
    """``wrapped`` with the signature that typer makes a command line of: the command's own parameters but ``recipe``, and the flags."""
    own = [one for name, one in inspect.signature(command, eval_str=True).parameters.items() if name not in _GIVEN]
    options = [inspect.Parameter(one.parameter, inspect.Parameter.KEYWORD_ONLY, annotation=one.option(), default=None) for one in flags]
    arguments = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    every = [*(one for one in arguments if one.default is inspect.Parameter.empty), *options]
    every += [*(one for one in arguments if one.default is not inspect.Parameter.empty), *more]
    wrapped.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in every}
    return wrapped
