"""A request, from a recipe's file and from a command's flags: TOML and options become one struct, read strictly.

A key that is not known is refused: a misspelt gate would otherwise be a gate that is not there. Flags change what the file says. A file
that is in the working folder under the name `DEFAULT` is the request where no other is named.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from dtvit_deploy.artifacts.toml_file import read_toml
from dtvit_deploy.artifacts.words import in_words
from dtvit_deploy.devices.inventory import FILE as DEVICES
from dtvit_deploy.errors import InputError
from dtvit_deploy.recipe.devices import defined
from dtvit_deploy.recipe.tables import Recipe

DEFAULT = Path("dtvit-deploy.toml")
_RECIPE = "a recipe"
_MOVED = {
    "run.devices": ("devices are tables of their own", 'write [[device]] and, below it, `name = "…"`, for each of them'),
}
"""Keys that recipes had: what has become of each, and what to do."""


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        InputError: it cannot be read, is no TOML, has an unknown key or a wrong value; names the file and the key.
    """
    recipe = request(path, {}, {})
    if recipe.model.name is None and recipe.model.checkpoint is None:
        raise InputError(f"{path}: model: expected a `name` or a `checkpoint`, or both", remedy="say which network it is about")
    return recipe


def requests(path: Path, flags: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, Recipe]]:
    """What a file asks for of one network, or of several: with several ``[[model]]`` it is as many requests, which differ by that table.

    Args:
        path, flags, names: as of `request`.

    Returns:
        Each with its network's name, or its checkpoint's; without a name where there is only one.

    Raises:
        InputError: as of `request`; or two networks have one name.
    """
    raw = read_toml(path, _RECIPE)
    models = raw.get("model")
    if not isinstance(models, list):
        return [("", _request(raw, path, flags, names))]
    if not models:
        raise InputError(f"{path}: model: an empty list asks for nothing", remedy="say which network it is about")
    found = [_request(raw | {"model": model}, path, flags, names) for model in models]
    called = [one.model.checkpoint.stem if one.model.checkpoint else (one.model.name or "").replace(":", ".") for one in found]
    if repeated := sorted({name for name in called if called.count(name) > 1}):
        raise InputError(
            f"{path}: several models would be called {', '.join(repeated)}, after their checkpoints or names",
            remedy="give each another file",
        )
    return list(zip(called, found, strict=True))


def request(path: Path | None, flags: Mapping[str, Any], names: Mapping[str, str]) -> Recipe:
    """What a file asks for, changed by flags.

    What the file says of targets and precisions that flags narrow down to others is left aside.

    Args:
        path: of the file; its paths are relative to its folder. None asks for nothing.
        flags: values by dotted key, as TOML has them, but for paths, which are of `Path` and relative to the working folder.
        names: what people type for each of those keys, for messages.

    Raises:
        InputError: the file cannot be read or understood, or a value is wrong; names the key, or the flag.
    """
    return _request({} if path is None else read_toml(path, _RECIPE), path, flags, names)


def default() -> Path | None:
    """The file in the working folder that is the request where no other is named; None where there is none.

    Raises:
        InputError: it is another user's: it may name code that is run.
    """
    try:
        found = DEFAULT.lstat()
    except OSError:
        return None
    if found.st_uid not in (os.geteuid(), 0):
        raise InputError(
            f"{DEFAULT} belongs to another user (number {found.st_uid}), and may name code that is run",
            remedy=f"if you trust it, give it by -r {DEFAULT}; if not, work in another folder",
        )
    return DEFAULT if DEFAULT.is_file() else None


def _request(raw: dict[str, Any], path: Path | None, flags: Mapping[str, Any], names: Mapping[str, str]) -> Recipe:
    if isinstance(raw.get("model"), list):
        raise InputError(f"{path} is about several models, and this command about one", remedy=f"dtvit-deploy run {path} takes them all")
    _refuse_moved(raw, path)
    alone = copy.deepcopy(raw)
    if unknown := list(_unknown(raw, inspect.type_info(Recipe), "")):
        raise InputError(f"{path}: " + "; ".join(unknown), remedy="correct the spelling, or take it out")
    _leave_aside(raw, flags)
    for key, value in _with_definitions(raw, flags).items():
        *tables, last = key.split(".")
        table = raw
        for name in tables:
            inner = table.get(name)
            table[name] = table = dict(inner) if isinstance(inner, dict) else {}
        table[last] = value

    _find_devices_beside(raw, path)

    def joined(kind: type, value: Any) -> Any:
        if isinstance(value, Path):
            return value
        if kind is Path and isinstance(value, str):
            if not value or "\0" in value:
                raise ValueError(f"Expected a path, got {value!r}")
            return Path(value) if path is None else path.parent / value
        raise ValueError(f"Expected a path, got `{type(value).__name__}`")

    try:
        recipe: Recipe = msgspec.convert(raw, Recipe, dec_hook=joined)
    except (msgspec.MsgspecError, OverflowError) as error:
        raise _refused(error, path, {} if _is_wrong(alone, joined) else flags, names) from error
    defined(recipe, str(path or "the recipe"))
    return recipe


def validated(recipe: Recipe) -> Recipe:
    """A request that was made in Python, where nothing looks at what a field is given.

    Raises:
        InputError: a value is wrong; names the key.
    """
    try:
        found: Recipe = msgspec.convert(msgspec.to_builtins(recipe, enc_hook=str), Recipe, dec_hook=lambda kind, value: kind(value))
    except (msgspec.MsgspecError, OverflowError) as error:
        key, told = _explained(error)
        raise InputError(f"{key}: {told}" if key else told, remedy="correct the recipe") from error
    defined(found)
    return found


def _is_wrong(raw: dict[str, Any], joined: Callable[[type, Any], Any]) -> bool:
    """Whether what a file says is refused without any flag, so that no flag is to blame."""
    try:
        msgspec.convert(raw, Recipe, dec_hook=joined)
    except (msgspec.MsgspecError, OverflowError):
        return True
    return False


def _refused(error: Exception, path: Path | None, flags: Mapping[str, Any], names: Mapping[str, str]) -> InputError:
    key, told = _explained(error)
    for flag in flags:
        if f"{key}.".startswith((f"{flag}.", f"{flag}[")):
            given = flags[flag]
            words = " ".join(map(_typed, given)) if isinstance(given, list | tuple) else _typed(given)
            return InputError(f"{names.get(flag, flag)} {words}: {told}", remedy="correct it; --help says what it may be")
    table = [flag for flag in flags if flag.startswith(f"{key}.")]  # what does not go together
    if path is None or (table and key):
        return InputError(f"{', '.join(names.get(flag, flag) for flag in table) or key}: {told}", remedy="correct it, or leave it out")
    return InputError(f"{path}: {key}: {told}" if key else f"{path}: {told}", remedy="correct the recipe")


def _find_devices_beside(raw: dict[str, Any], path: Path | None) -> None:
    """Have the names of devices looked up beside the recipe that was given, as its paths are, from wherever it is called."""
    run = raw.get("run", {})
    if path is not None and path.parent != Path() and raw.get("device") and isinstance(run, dict) and "inventory" not in run:
        raw["run"] = {**run, "inventory": path.parent / DEVICES}


def _typed(value: Any) -> str:
    """A flag's value as one types it; where it is a table of a list, by its name."""
    return str(value.get("name", value) if isinstance(value, Mapping) else value)


def _refuse_moved(raw: Mapping[str, Any], path: Path | None) -> None:
    """Refuse keys that an earlier release knew, with what to write now."""
    for key, (told, remedy) in _MOVED.items():
        *tables, last = key.split(".")
        table: Any = raw
        for name in tables:
            table = table.get(name) if isinstance(table, Mapping) else None
        if isinstance(table, Mapping) and last in table:
            raise InputError(f"{path}: {key}: {told}", remedy=remedy)


def _with_definitions(raw: Mapping[str, Any], flags: Mapping[str, Any]) -> Mapping[str, Any]:
    """The flags, devices that they name by what the file defines: their list takes the place of the file's, which has the definitions."""
    asked, listed = flags.get("device"), raw.get("device")
    if asked is None or not isinstance(listed, list):
        return flags
    own = [one for one in listed if isinstance(one, dict) and "address" in one]
    meant: list[Any] = []
    for each in asked:
        tagged = [one for one in own if isinstance(one.get("tags"), list) and each["name"] in one["tags"]]
        found = [one for one in own if one.get("name") == each["name"]] or [*tagged, each]  # an inventory may know the tag, too
        meant += [one for one in found if one not in meant]
    return {**flags, "device": meant}


def _leave_aside(raw: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """Take out of a file what it says of targets and precisions that flags do not ask for."""
    targets, precisions = flags.get("export.targets"), flags.get("export.precisions")
    aside = [] if targets is None else [table for target, table in (("trt", "tensorrt"), ("coreml", "coreml")) if target not in targets]
    if precisions is not None and "int8" not in precisions:
        aside.append("int8")
    for table in aside:
        raw.pop(table, None)
    if targets is not None and "onnx" not in targets and isinstance(export := raw.get("export"), dict):
        raw["export"] = {key: value for key, value in export.items() if key != "cpu"}
    if precisions is not None and isinstance(gates := raw.get("gates"), dict):
        raw["gates"] = {key: value for key, value in gates.items() if key in precisions}


def _unknown(value: Any, kind: inspect.Type, where: str) -> Iterator[str]:
    """Every unknown key and choice, with those that are known; msgspec alone names the first, and nothing beside it."""
    if isinstance(kind, inspect.Metadata):  # an example beside the type
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from _unknown(value, one, where)
    elif isinstance(kind, inspect.VarTupleType) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, kind.item_type, f"{where}[{index}]")
    elif isinstance(kind, inspect.StructType) and isinstance(value, dict):
        known = {field.name: field.type for field in kind.fields}
        for key, inner in value.items():
            place = f"{where}.{key}" if where else key
            if key in known:
                yield from _unknown(inner, known[key], place)
            else:
                yield f"{place} is not known; known there: {', '.join(known)}"
    elif isinstance(kind, inspect.EnumType | inspect.LiteralType) and isinstance(value, str):
        choices = [one.value for one in kind.cls] if isinstance(kind, inspect.EnumType) else kind.values
        if value not in choices:
            yield f"{where} = {value!r} is not known; known there: {', '.join(map(str, choices))}"


def _explained(error: Exception) -> tuple[str, str]:
    """The key that msgspec names, ``model.seed``, and what is wrong with it: ``expected a whole number, got text``."""
    text, _, where = str(error).partition(" - at `$")
    text = in_words(text)
    return where.strip("`."), text[:1].lower() + text[1:]
