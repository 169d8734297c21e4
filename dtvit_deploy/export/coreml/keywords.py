"""Arguments that a program gives by name, and that coremltools' translation of the operator does not ask for.

Found in the translation's own code, release by release, so that one which loses an argument is noticed before anybody has written it into
the table (:mod:`dtvit_deploy.export.coreml.arguments`).
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import Node

HARMLESS: Mapping[str, str] = {
    "device": "a package has none",
    "layout": "a package has none",
    "memory_format": "a package has none",
    "pin_memory": "a package has none",
    "non_blocking": "nothing is copied",
    "requires_grad": "a package has no gradients",
    "sparse_grad": "a package has no gradients",
    "implicit": "it marks what torch itself inserted",
    "output_size": "every size is known",
    "path": "the order of products, not their sum",
    "out_int32": "integers are 32 bits wide in a package",
    "dtype": "operators that read the tensor make its type theirs; where they cannot, the table says",
    "sorter": "places are counted, in whatever order the sequence is",
    "min": "of what is asserted, and not computed",
    "max": "of what is asserted, and not computed",
}
"""Arguments by name that a translation may leave unread, and why that changes no answer."""


def unread(node: Node, known: set[str]) -> list[tuple[str, str, str]]:
    """Arguments given by name that the translation does not ask for, differ from their default, and may matter."""
    target: Any = node.target
    defaults = {argument.name: argument.default_value for argument in target._schema.arguments if argument.has_default_value()}
    given = {
        name: value
        for name, value in node.kwargs.items()
        if value is not None and value != defaults.get(name) and name not in known and name not in HARMLESS
    }
    read = keywords_read(target) if given else None
    if read is None:
        return []
    return [
        (name, f"does not read {name}={value}", "replace that operator in your network")
        for name, value in given.items()
        if name not in read
    ]


def keywords_read(target: Any) -> frozenset[str] | None:
    """Names of the arguments that the translation of an operator asks for by name; None where it has no translation."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
    from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind

    function = _TORCH_OPS_REGISTRY.get_func(sanitize_op_kind(target.name()))
    return None if function is None else frozenset(_asked(function.__code__))


def _asked(code: types.CodeType) -> set[str]:
    """Words among the constants of every function within that asks for arguments by name: more than are asked for, and never fewer."""
    found = {word for word in code.co_consts if isinstance(word, str)} if {"_get_kwinputs", "kwinputs"} & {*code.co_names} else set()
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            found |= _asked(inner)
    return found
