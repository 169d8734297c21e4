"""What the agent carries in msgspec's place does with every struct of the agent what msgspec does."""

from __future__ import annotations

import enum
import importlib
import json
import random
import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dtvit_deploy.agent.archive import agent_archive

BESIDES = {"Artifact", "Here"}
"""Structs that are never JSON: a path is in them, or a GPU."""
EACH = 60
"""Documents for each struct; most are changed somewhere."""
PROGRAM = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
import msgspec
assert msgspec.__file__.startswith(sys.argv[1]), msgspec.__file__
told = []
for module, name, document in json.load(sys.stdin):
    kind = getattr(importlib.import_module(module), name)
    try:
        value = msgspec.json.decode(document, type=kind)
    except msgspec.DecodeError:
        told.append(["refused", None])
    except Exception as error:
        told.append([type(error).__name__, str(error)])
    else:
        same = value == msgspec.convert(msgspec.to_builtins(value), kind) == msgspec.structs.replace(value)
        told.append([json.loads(msgspec.json.encode(value)), [same, repr(value)]])
print(json.dumps(told))
"""


def structs() -> list[tuple[str, str, Any]]:
    found = {}
    for name in agent_archive().modules:
        if name.endswith("__main__"):
            continue
        for each in vars(importlib.import_module(name)).values():
            if isinstance(each, type) and issubclass(each, msgspec.Struct) and each.__module__ == name and each.__name__ not in BESIDES:
                found[name, each.__name__] = each
    return [(module, name, kind) for (module, name), kind in sorted(found.items(), key=lambda pair: pair[0])]


STRUCTS = structs()


def document(kind: Any, rng: random.Random) -> Any:
    """Something that JSON has, and that the type most often takes."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return rng.choice([None, 1, "x", [1, {"a": 2.5}]])
    if origin is typing.Annotated:
        return bounded(inner[0], [each for each in inner[1:] if isinstance(each, msgspec.Meta)], rng)
    if origin in (typing.Union, types.UnionType):
        return document(rng.choice(inner), rng)
    if origin is typing.Literal:
        return rng.choice(inner)
    if origin is tuple:
        return (
            [document(inner[0], rng) for _ in range(rng.randrange(3))] if inner[-1] is Ellipsis else [document(one, rng) for one in inner]
        )
    if origin is dict:
        return {f"key {number}": document(inner[1], rng) for number in range(rng.randrange(3))}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return rng.choice(list(kind)).value
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {one.encode_name: one for one in msgspec.structs.fields(kind)}
        hints = typing.get_type_hints(kind, include_extras=True)
        config = kind.__struct_config__
        if config.array_like:
            return [document(hints[one.name], rng) for one in fields.values()]
        given = {name: document(hints[one.name], rng) for name, one in fields.items() if one.required or rng.random() < 0.7}
        return given if config.tag is None else {"type": config.tag, **given}
    return {int: rng.randint(-2, 1000), float: rng.choice([0.5, 3, 1e-9, 1e300]), str: rng.choice(["", "x", "é", "a\nb"]), bool: True}.get(
        kind
    )


def bounded(kind: Any, bounds: list[msgspec.Meta], rng: random.Random) -> Any:
    if typing.get_origin(kind) is tuple and any(bound.min_length for bound in bounds):
        return [document(typing.get_args(kind)[0], rng)]
    if any(bound.pattern for bound in bounds):
        return rng.choice(["a" * 64, "float32", "not it!"])
    if kind in (int, float):
        least = max((bound.ge for bound in bounds if bound.ge is not None), default=0)
        most = min((bound.le for bound in bounds if bound.le is not None), default=1000)
        return rng.choice([least, min(most, 7), most]) if kind is int else rng.choice([float(least), 0.25])
    return document(kind, rng)


def changed(value: Any, rng: random.Random) -> Any:
    """The same with something else somewhere."""
    if rng.random() < 0.3:
        return rng.choice([None, True, -1, 1.5, "text", [], {}, [1, 2], {"a": 1}, 10**30])
    if isinstance(value, dict) and value:
        name = rng.choice(list(value))
        if rng.random() < 0.3:
            return {**value, "no such field": 1}
        if rng.random() < 0.3:
            return {other: each for other, each in value.items() if other != name}
        return {**value, name: changed(value[name], rng)}
    if isinstance(value, list) and value:
        at = rng.randrange(len(value))
        return [*value[:at], changed(value[at], rng), *value[at + 1 :]]
    return rng.choice([None, "text", 7])


def documents() -> list[tuple[str, str, str]]:
    rng = random.Random(0)
    made = []
    for module, name, kind in STRUCTS:
        for number in range(EACH):
            value = document(kind, rng)
            made.append((module, name, json.dumps(value if number % 3 == 0 else changed(value, rng))))
        made += [(module, name, text) for text in ("", "nul", "{} {}", '{"a": NaN}', "[" * 2000)]
    return made


def outcome(module: str, name: str, text: str) -> Any:
    kind = getattr(importlib.import_module(module), name)
    try:
        value = msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError:  # which of both, where neither the text nor the value is right, depends on who looks first
        return ["refused", None]
    except Exception as error:
        return [type(error).__name__, str(error)]
    same = value == msgspec.convert(msgspec.to_builtins(value), kind) == msgspec.structs.replace(value)
    return [json.loads(msgspec.json.encode(value)), [same, repr(value)]]


def test_every_struct_of_the_agent_is_read_written_and_refused_alike(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    (tmp_path / "agent.zip").write_bytes(agent_archive().content)
    asked = documents()
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "agent.zip")]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    expected = [json.loads(json.dumps(outcome(*one))) for one in asked]
    differing = [(one, expect, found) for one, expect, found in zip(asked, expected, told, strict=True) if expect != found]
    assert differing[:3] == []
    read = sum(isinstance(one[1], list) for one in expected)
    assert 0.2 * len(expected) < read < 0.8 * len(expected)  # else nothing was compared


def test_the_archive_is_the_same_every_time_small_and_of_no_framework() -> None:
    again = subprocess.check_output(
        [sys.executable, "-c", "from dtvit_deploy.agent.archive import agent_archive; print(agent_archive().sha256)"], text=True
    )
    assert again.strip() == agent_archive().sha256
    assert len(agent_archive().content) < 650_000
    assert not [
        name for name in agent_archive().modules if name.startswith(("dtvit_deploy.cli", "dtvit_deploy.models", "dtvit_deploy.plan"))
    ]
