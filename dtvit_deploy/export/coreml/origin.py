"""Where an operator of a MIL program comes from, node and torch module; and whose fault it is when coremltools fails at one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dtvit_deploy.errors import DeployError, InputError
from dtvit_deploy.formats.mlpackage.views import HALF, MOVED, node_of

if TYPE_CHECKING:
    import torch

    from dtvit_deploy.artifacts.nodes import NodeMap

WHOLE = "(the network itself)"


def number_of(op: Any) -> int | None:
    """The number of the node that an operator was made for; a package that was saved has none."""
    for source, data in op.scopes.items():
        if source.name == "EXIR_DEBUG_HANDLE" and data and data[0] is not None:
            return int(data[0])
    return None


def module_of(op: Any, nodes: NodeMap, made: Sequence[torch.fx.Node] = ()) -> str:
    """Path of the torch module that an operator is of, as a person would write it.

    Args:
        op: of a program that is being made, or of a saved one.
        nodes: of the exported program.
        made: the nodes by number, where operators still know theirs; else what an operator makes has its node's name.
    """
    number = number_of(op) if made else None
    name = made[number].name if number is not None else node_of(str(op.outputs[0].name).partition(MOVED)[0]).removesuffix(HALF)
    node = nodes.get(name)
    return node.module or WHOLE if node else WHOLE


@contextlib.contextmanager
def explained(action: str, remedy: str, nodes: NodeMap | None = None, made: Sequence[torch.fx.Node] = ()) -> Iterator[None]:
    """Whatever coremltools raises within the block, with the operator that it was at.

    Args:
        action: what it was to do, for "coremltools cannot …".
        remedy: what to do about an operator.
        nodes, made: as in :func:`module_of`.

    Raises:
        InputError: in place of it.
    """
    try:
        yield
    except DeployError:
        raise
    except Exception as error:  # of whatever type: translation functions and passes have no common one
        said = " ".join(str(error).split())[:300] or type(error).__name__
        at = _place(error, said, nodes, made)
        what = f"{remedy}; --debug shows coremltools' own lines" if at else "--debug shows where; other targets may take it: --target onnx"
        raise InputError(f"coremltools cannot {action} {at or 'the program'}: {said}", remedy=what) from error


def _place(error: Exception, said: str, nodes: NodeMap | None, made: Sequence[torch.fx.Node]) -> str:
    """The operator, and its torch module where that is known: coremltools' own frames hold what they were at."""
    frame, node, op = error.__traceback__, None, None
    while frame is not None:
        names = frame.tb_frame.f_locals
        if hasattr(names.get("node"), "kind") and hasattr(names["node"], "name"):
            node = names["node"]
        if isinstance(getattr(names.get("op"), "op_type", None), str) and names["op"].outputs:
            op = names["op"]
        frame = frame.tb_next
    unknown = re.search(r"Unsupported fx node (\w+), kind ([\w:]+)", said)
    if node is not None or unknown:
        name, kind = (node.name, node.kind) if node is not None else (unknown[1], unknown[2]) if unknown else ("", "")
        return f"{kind} ({name})" + (f" in {nodes.module_of(name)}" if nodes else "")
    if op is not None:
        return f"{op.op_type} ({op.outputs[0].name})" + (f" in {module_of(op, nodes, made)}" if nodes else "")
    return ""
