"""Which variable of a program is which node of the exported program.

coremltools names what it translates after the node it translates it from, and then three things happen to that name. The pass to FP16
appends ``_cast_fp16``; an operator of the name of its own type is numbered from 0 (``linear`` becomes ``linear_0``, and the exported
program never numbers from 0); and of two variables of one name, the later gets ``_1`` and so on. These suffixes are taken off where what
is left can only be one variable.

A name alone can deceive: passes make operators of their own and call them ``transpose_7``, as a node may be called that was merged away.
Passes make operators that move values, so those are left out where they are named after their type. That costs nothing: such a node has
the values of its input. The parts of a split that coremltools numbered are left out as well: each is a node with another name.
"""

from __future__ import annotations

import re
from collections import defaultdict

from dtvit_deploy.formats.mlpackage.views import MOVED, node_of
from dtvit_deploy.runtimes.mil.ops import OPS
from dtvit_deploy.runtimes.mil.program import FLOATS, Operation, Program, Variable

_CAST = re.compile(r"_cast_fp(16|32)$")
_NUMBERED = re.compile(r"^(.+_\d+)_\d+$")


def tensors_by_node(program: Program) -> dict[str, str]:
    """The program's floating-point variables by the names of the nodes that they are, in the order of execution.

    Variables that the program gives back are left out; so are casts and quantisation, which no node of the exported program makes.
    """
    plain = {_CAST.sub("", node_of(output.name)) for operation in program.operations for output in operation.outputs}
    taken = plain | {_CAST.sub("", name) for name in program.constants}
    found: dict[str, list[str]] = defaultdict(list)
    for operation in program.operations:
        for output in operation.outputs:
            if output.type.dtype in FLOATS and output.name not in program.outputs and not _of_a_pass(operation, output):
                found[_node(node_of(output.name), taken)].append(output.name)
    ends = {variable.name for variable in program.inputs} | set(program.outputs)
    return {node: names[0] for node, names in found.items() if len(names) == 1 and node not in ends}


def _of_a_pass(operation: Operation, output: Variable) -> bool:
    """Whether no node, or a pass as likely as a node, made a variable."""
    if MOVED in output.name:
        return True
    if operation.type.startswith("constexpr_") or operation.type in ("cast", "quantize", "dequantize"):
        return True
    if len(operation.outputs) > 1 and operation.outputs[0].name.endswith("_0"):
        return True
    moves = operation.type in OPS and OPS[operation.type].exact
    return moves and re.match(rf"{operation.type}(_\d+)*(_cast_fp(16|32))?$", output.name) is not None


def _node(name: str, taken: set[str]) -> str:
    """The name without what coremltools appended.

    Where ``mul_3`` is there as well as ``mul_3_1``, either may be the node's, and both are called ``mul_3`` here: what has two variables
    is left out.
    """
    plain = _CAST.sub("", name)
    if (numbered := _NUMBERED.match(plain)) is not None:
        return numbered[1]
    unnumbered = plain.removesuffix("_0")
    return plain if unnumbered in taken else unnumbered
