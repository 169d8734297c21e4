"""What a network returns, in whatever containers, as named tensors in a row: a file has outputs, and no containers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from dtvit_deploy.errors import InputError

CONTAINERS = "tensors, in tuples, lists, dicts, named tuples and dataclasses"


def flat(answer: object, model: str) -> tuple[tuple[str, ...], list[torch.Tensor]]:
    """Names and tensors of what a network returns.

    A lone tensor is ``output``. Keys and fields are names, places in tuples and lists are numbers, and those of containers in containers
    are joined: ``{"features": [p3, p4]}`` gives ``features_0`` and ``features_1``, and ``(y, (z,))`` ``output_0`` and ``output_1_0``.
    What is None, as fields that an answer leaves out are, is no output.

    Args:
        answer: of forward.
        model: whose it is, for the message.

    Raises:
        InputError: there is something else than tensors in it, or no tensor.
    """
    found = list(_leaves(answer, ()))
    odd = [f"a {type(value).__name__} in {_name(path)!r}" for path, value in found if not isinstance(value, torch.Tensor)]
    if odd or not found:
        what = f"{type(answer).__name__} with {', '.join(odd[:5])}" if odd and odd[0].partition(" in ")[2] != "'output'" else None
        raise InputError(
            f"{model} returns {what or _kind(answer)}; only {CONTAINERS}, can be exported",
            remedy="return tensors alone (torch.tensor(3) for a number), or wrap it in a module that does",
        )
    return tuple(_name(path) for path, _ in found), [value for _, value in found]


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        parts: Any = value.items()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = zip(value._fields, value, strict=True)
    elif isinstance(value, (tuple, list)):
        parts = enumerate(value)
    else:
        if value is not None:
            yield path, value
        return
    for key, part in parts:
        yield from _leaves(part, (*path, str(key)))


def _name(path: tuple[str, ...]) -> str:
    """Names begin with a letter: what is only numbered is an ``output``."""
    return "_".join(path if path and not path[0].isdecimal() else ("output", *path))


def _kind(answer: object) -> str:
    """What was returned that has no tensor in it."""
    return f"an empty {type(answer).__name__}" if isinstance(answer, (Mapping, tuple, list)) else type(answer).__name__
