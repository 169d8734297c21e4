"""A reference network to one exported program: the root that every artefact is derived from.

The program is decomposed once (``run_decompositions({})``), because that is the form whose node names survive into ONNX, OpenVINO
and MIL alike. Stack traces are taken out of it: they name files of the machine that exported, and a digest must not depend on those.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.export import ExportedProgram

from dtvit_deploy.errors import InputError
from dtvit_deploy.nodes import Node, NodeMap
from dtvit_deploy.signature import Signature, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

    from dtvit_deploy.models.reference import Reference

FILE = "program.pt2"
"""torch names the archive's root after the file, so that one name is needed for equal bytes."""


@dataclass(frozen=True)
class Program:
    """An exported program and what is known of it.

    Attributes:
        exported: with the state of the reference network inside.
        signature: its inputs and outputs by the names that every artefact uses.
        nodes: every tensor, by name, with the torch module that made it.
    """

    exported: ExportedProgram
    signature: Signature
    nodes: NodeMap


def program_from_reference(reference: Reference) -> Program:
    """Export a reference network with its static input shapes.

    Raises:
        InputError: the network is not deterministic in eval, answers with NaN or with something else than named tensors, or
            cannot be exported (a branch on data, say); the message names the place in the user's code.
    """
    inputs = reference.inputs
    with torch.no_grad():
        first, second = (reference.module(*inputs.values()) for _ in range(2))
    names, tensors = _outputs(first, reference)
    _require_deterministic(names, tensors, _outputs(second, reference)[1], reference.model)
    exported = _export(reference)
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)
    signature = Signature(
        tuple(_spec(name, tensor) for name, tensor in inputs.items()),
        tuple(_spec(name, tensor) for name, tensor in zip(names, tensors, strict=True)),
    )
    program = Program(exported, signature, _node_map(exported))
    _require_same_answer(program, reference, tensors)
    return program


def save_program(program: Program, folder: Path) -> Path:
    """Write ``program.pt2``; equal programs give equal bytes."""
    path = folder / FILE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.export.save(program.exported, path)
    return path


def _spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _outputs(answer: object, reference: Reference) -> tuple[tuple[str, ...], list[torch.Tensor]]:
    """Names and tensors of what a network returns: a tensor, a tuple, a list, or a dict of tensors."""
    names: tuple[str, ...] = ()
    tensors: list[torch.Tensor] = []
    if isinstance(answer, torch.Tensor):
        names, tensors = ("output",), [answer]
    elif isinstance(answer, dict):
        names, tensors = tuple(map(str, answer)), list(answer.values())
    elif isinstance(answer, (tuple, list)):
        names, tensors = tuple(f"output_{index}" for index in range(len(answer))), list(answer)
    if not tensors or not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        raise InputError(
            f"{reference.model} returns {type(answer).__name__}; only a tensor, or a flat tuple or dict of tensors, can be exported",
            remedy="wrap it in a module that returns its tensors as a dict",
        )
    if reference.output_names:
        if len(reference.output_names) != len(tensors):
            raise InputError(
                f"{len(reference.output_names)} output names were given ({', '.join(reference.output_names)}), but {reference.model}"
                f" returns {len(tensors)} tensors ({', '.join(names)})"
            )
        names = reference.output_names
    clash = set(names) & set(reference.inputs)
    if clash or len(set(names)) < len(names):
        raise InputError(
            f"output names must be unique and differ from the inputs: {', '.join(names)}", remedy="name the outputs with --output"
        )
    return names, tensors


def _require_deterministic(names: tuple[str, ...], first: list[torch.Tensor], second: list[torch.Tensor], model: str) -> None:
    for name, one, other in zip(names, first, second, strict=True):
        if one.is_floating_point() and not torch.isfinite(one).all():
            raise InputError(
                f"{model} answers its example input with NaN or infinity in output {name!r}",
                remedy="check the checkpoint and the input's range; nothing could be compared with such a reference",
            )
        if one.shape != other.shape or not torch.equal(one, other):
            moved = f" by up to {(one - other).abs().max():.3g}" if one.shape == other.shape else " in shape"
            raise InputError(
                f"{model} is not deterministic in eval: two runs of the same input differ{moved} in output {name!r}",
                remedy="remove what is random (dropout called with training=True, torch.rand, …); parity needs one right answer",
            )


def _export(reference: Reference) -> ExportedProgram:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own deprecations; the user can do nothing about them
            exported = torch.export.export(reference.module, tuple(reference.inputs.values()), strict=False)
            decomposed: ExportedProgram = exported.run_decompositions({})
            return decomposed
    except Exception as error:
        # torch.export raises many unrelated types (and subclasses of RuntimeError from three packages) for one situation.
        raise InputError(
            f"{reference.model} cannot be exported as a static program: {_first_paragraph(error)}",
            remedy="a branch, an index or a shape that depends on the data must go: use torch.where, a mask, or fixed sizes;"
            " --debug shows torch's whole explanation",
        ) from error


def _first_paragraph(error: Exception) -> str:
    text = str(error).strip()
    lines = [line.strip() for line in text.splitlines()]
    place = next((line for line in reversed(lines) if line.startswith('File "') or " in forward" in line), "")
    summary = text.split("\n\n")[0].replace("\n", " ")
    return (summary[:400] or type(error).__name__) + (f" (at {place})" if place and place not in summary else "")


def _node_map(exported: ExportedProgram) -> NodeMap:
    def module(node: torch.fx.Node) -> str:
        stack = node.meta.get("nn_module_stack") or {}
        path = list(stack.values())[-1][0] if stack else ""
        return path.removeprefix("L['self'].").removeprefix("L__self__")

    nodes = (
        Node(node.name, module(node), str(node.target), tuple(source.name for source in node.all_input_nodes))
        for node in exported.graph.nodes
        if node.op == "call_function"
    )
    return NodeMap(nodes, exported.graph_signature.user_outputs)


def _require_same_answer(program: Program, reference: Reference, eager: list[torch.Tensor]) -> None:
    """The program must answer as the module does, bit for bit or within a few units in the last place."""
    with torch.no_grad():
        answer = program.exported.module(check_guards=False)(*reference.inputs.values())
    for name, expected, got in zip((o.name for o in program.signature.outputs), eager, _outputs(answer, reference)[1], strict=True):
        one, other = expected.double().numpy(), got.double().numpy()
        if not np.allclose(one, other, rtol=1e-5, atol=1e-6 * max(1.0, float(np.abs(one).max(initial=0.0)))):
            raise InputError(
                f"the exported program of {reference.model} answers differently from the network itself: output {name!r} moved by"
                f" {np.abs(one - other).max():.3g}",
                remedy="look for state that changes between calls, or a branch that the example input does not take",
            )
