"""``package.module:factory``: a network of the user's own, with any number of named inputs."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.models.users_code import users_code

Examples: TypeAlias = Mapping[str, Tensor] | tuple[Tensor, ...]
"""Example inputs by the names of forward's parameters, or in their order."""

DTYPES = ("float32", "float16", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")

_RETURNS = "return a torch.nn.Module, or a pair of it and its example inputs (a dict by name, or a tuple)"


def network_from_factory(target: str, *, asked: Mapping[str, object], known: Mapping[str, object]) -> tuple[nn.Module, Examples | None]:
    """Import the module (the current folder counts, as for ``python -m``) and call the factory.

    Args:
        target: ``package.module:factory``.
        asked: options that the factory must accept by name, since the user gave them.
        known: the same from the checkpoint's metadata; passed where the factory's signature has them.

    Returns:
        What it made, on the CPU, in eval mode and FP32; and its example inputs if it gave some.

    Raises:
        InputError: any step fails; the user's own exception is chained.
        MissingError: the user's module imports something that is not installed.
    """
    name, _, attribute = target.partition(":")
    with _current_folder_importable():
        factory = _attribute(_module(name, target), attribute, target)
        arguments = _arguments(factory, target, asked, known)
        called = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        with users_code(f"{target} failed when it was called as {attribute}({called})"):
            made = factory(**arguments)
    examples: Any = None
    if isinstance(made, tuple) and len(made) == 2:
        made, examples = made
    if not isinstance(made, nn.Module):
        raise InputError(f"{target} returned {_kind(made)}, which is no network", remedy=_RETURNS)
    if examples is not None:
        examples = _examples(examples, target)
    return _ready(made, target), examples


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's module may have taken it out itself
            sys.path.remove(folder)


def _module(name: str, target: str) -> Any:
    try:
        with users_code(f"{name} was found, but importing it failed", passing=(ModuleNotFoundError, SystemExit)):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(missing + "."):
            hint = f"write {name.removesuffix('.py')}:{target.partition(':')[2]}" if name.endswith(".py") else "check the spelling"
            raise InputError(
                f"there is no module {missing!r} for {target}: it was looked for in the current folder and in what is installed",
                remedy=f"{hint}, or change to the folder that holds it",
            ) from error
        if missing.partition(".")[0] == name.partition(".")[0]:
            raise InputError(f"{name} was found, but it imports {missing}, which does not exist") from error
        raise MissingError(
            f"{name} was found, but it imports {missing}, which is not installed", remedy=f"install what provides {missing}"
        ) from error
    except SystemExit as error:
        raise InputError(
            f"{name} was found, but importing it failed: SystemExit: {error}",
            remedy='importing must only define things: put what runs behind `if __name__ == "__main__":`',
        ) from error


def _attribute(module: Any, attribute: str, target: str) -> Callable[..., Any]:
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            functions = sorted(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))
            raise InputError(
                f"{module.__name__} has no {attribute!r} (for {target})",
                remedy=f"it has {', '.join(functions[:20])}" if functions else "it defines no function or class",
            )
        found = getattr(found, part)
    if isinstance(found, nn.Module):
        raise InputError(f"{target} is a network, not a function that makes one", remedy="give a function that returns it")
    if not callable(found):
        raise InputError(f"{target} is {_kind(found)} and cannot be called", remedy=_RETURNS + ", from a function")
    return found  # type: ignore[no-any-return]


def _arguments(factory: Callable[..., Any], target: str, asked: Mapping[str, object], known: Mapping[str, object]) -> dict[str, object]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # some callables of compiled modules have no signature
        parameters = {}.values()
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    by_name = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if refused := [name for name in asked if name not in by_name and not open_ended]:
        raise InputError(
            f"{target} takes no {', '.join(refused)}; it takes {', '.join(sorted(by_name)) or 'no argument'}",
            remedy="leave that option out, or add the parameter to the factory",
        )
    arguments = {name: value for name, value in known.items() if name in by_name} | dict(asked)
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in arguments
    ]
    if needed:
        raise InputError(
            f"{target} cannot be called without {', '.join(needed)}",
            remedy="give these parameters defaults, or write a function without arguments that calls it",
        )
    return arguments


def _examples(examples: Any, target: str) -> Examples:
    values: Sequence[Any] = list(examples.values()) if isinstance(examples, Mapping) else examples
    wrong = [_kind(value) for value in values if not isinstance(value, Tensor)] if isinstance(values, (list, tuple)) else [_kind(values)]
    if wrong or not values or (isinstance(examples, Mapping) and not all(isinstance(name, str) for name in examples)):
        raise InputError(f"{target} returned example inputs that are not named tensors: {', '.join(wrong) or 'none'}", remedy=_RETURNS)
    if isinstance(examples, Mapping):
        return {name: value.detach().cpu() for name, value in examples.items()}
    return tuple(value.detach().cpu() for value in examples)


def _ready(module: nn.Module, target: str) -> nn.Module:
    tensors = [*module.parameters(), *module.buffers()]
    if any(nn.parameter.is_lazy(tensor) for tensor in tensors):
        raise InputError(f"{target} returned a network with lazy layers, of unknown sizes", remedy="call it once in the factory")
    if any(tensor.is_meta for tensor in tensors):
        raise InputError(f"{target} returned a network on the meta device, which has no weights", remedy="make it on the CPU")
    with users_code(f"{target} returned a network that cannot be put on the CPU, in FP32 and eval mode"):  # a graph module refuses eval()
        return module.cpu().float().eval()


def inputs_from_specs(specs: Sequence[TensorSpec], seed: int) -> dict[str, Tensor]:
    """Example inputs of those shapes: standard normal floats, zero integers (any vocabulary or index range has a zero).

    Raises:
        InputError: a name is given twice, or a type or a shape cannot be made.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs: dict[str, Tensor] = {}
    for spec in specs:
        if spec.name in inputs:
            raise InputError(f"the input {spec.name!r} was given twice")
        if spec.dtype not in DTYPES or any(side < 1 for side in spec.shape):
            raise InputError(
                f"the input {spec} cannot be made", remedy=f"every side is at least 1, and the type is one of {', '.join(DTYPES)}"
            )
        dtype: torch.dtype = getattr(torch, spec.dtype)
        floating = dtype.is_floating_point
        inputs[spec.name] = torch.randn(spec.shape, generator=generator).to(dtype) if floating else torch.zeros(spec.shape, dtype=dtype)
    return inputs


def in_order_of_forward(module: nn.Module, examples: Examples, model: str) -> dict[str, Tensor]:
    """Name the examples after forward's parameters and put them in that order, so that they can be passed by position.

    A single input is forward's first parameter, whatever it is called, and keeps that name.

    Raises:
        InputError: they are not the first parameters of forward: one is unknown, missing, skipped, or can only be passed by name.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes = f"forward takes ({', '.join(map(str, parameters))})"
    if not isinstance(examples, Mapping):
        names = [p.name for p in named] + [f"input_{index}" for index in range(len(named), len(examples))]
        examples = dict(zip(names, examples, strict=False))
    if len(examples) == 1 and named and (called := next(iter(examples))) not in [p.name for p in parameters]:
        in_order_of_forward(module, {named[0].name: examples[called]}, model)  # for what it may refuse
        return dict(examples)
    known = [p.name for p in named if p.name in examples]
    extra = [name for name in examples if name not in known]
    if extra and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise InputError(
            f"{model}: forward has no positional parameter for the input {', '.join(extra)}",
            remedy=f"{takes}; {_corrected(examples, named)}",
        )
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if unfed := [name for name in needed if name not in examples]:
        raise InputError(
            f"{model}: forward needs {', '.join(unfed)}, and no such input was given",
            remedy=f"{takes}; {_corrected(examples, named)}",
        )
    first = [p.name for p in named[: len(known)]]
    if known != first or (extra and len(known) < len(named)):
        skipped = [p.name for p in named if p.name not in examples]
        raise InputError(
            f"{model}: inputs are passed by position, and {', '.join(skipped)} would be skipped",
            remedy=f"{takes}; wrap the network in a module that takes exactly its inputs",
        )
    return {name: examples[name] for name in [*known, *extra]}


def _corrected(examples: Mapping[str, Tensor], named: Sequence[inspect.Parameter]) -> str:
    """The options as they would be right: those of unknown names under the names that are left over, in their order."""
    known = {p.name: p.default is not p.empty for p in named}
    left = iter([name for name in known if name not in examples])
    given = {name if name in known else next(left, ""): value for name, value in examples.items()}
    options = [
        f"--input {name}={_shape(given[name])}" if name in given else f"--input {name}=SHAPE"
        for name, optional in known.items()
        if name in given or not optional
    ]
    return "it would be " + " ".join(options) if options else "it takes none"


def _shape(value: Tensor) -> str:
    """A shape and a type as an option has them."""
    dtype = str(value.dtype).removeprefix("torch.")
    return "x".join(map(str, value.shape)) + ("" if dtype == "float32" else f":{dtype}")


def _kind(value: object) -> str:
    return f"a {type(value).__name__}" if value is not None else "None"
