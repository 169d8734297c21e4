"""A reference network to one exported program: the root that every artefact is derived from.

Tracing is the slow part of an export, and decomposing the trace is half of it. The ONNX exporter must decompose in any case, and hands
over the result: that decomposed program, whose node names are the tensor names of the graph, is what is kept and what torch answers with
(:func:`dtvit_deploy.export.onnx.translate.onnx_from_program`). Decomposing here too would double the time for names that match less often.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Interpreter
from torch.nn.utils import parametrize

from dtvit_deploy.artifacts.nodes import Node, NodeMap
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.outputs import flat
from dtvit_deploy.export.rewrites.editor import module_path
from dtvit_deploy.export.rewrites.rules import rewrite
from dtvit_deploy.models.factory import DTYPES
from dtvit_deploy.models.users_code import users_code
from dtvit_deploy.plural import counted
from dtvit_deploy.process.quiet import quiet

if TYPE_CHECKING:
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
    names, tensors = _outputs(reference)
    _require_deterministic(names, tensors, _outputs(reference)[1], reference.model)
    exported = _export(reference)
    rewrite(exported)
    _require_static_outputs(exported, names, reference.model)
    signature = Signature(
        tuple(_spec(name, tensor) for name, tensor in inputs.items()),
        tuple(_spec(name, tensor) for name, tensor in zip(names, tensors, strict=True)),
    )
    return Program(exported, signature, node_map(exported))


def save_program(program: Program, folder: Path) -> Path:
    """Write ``program.pt2``; equal programs give equal bytes."""
    path, content = folder / FILE, io.BytesIO()
    for node in program.exported.graph.nodes:
        for key in ("stack_trace", "from_node", "torch_fn"):  # they name files of this machine; a digest must not depend on those
            node.meta.pop(key, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        # Not to the path itself: torch's archive writer aborts the process on a full disk.
        torch.export.save(program.exported, content)
    path.write_bytes(content.getvalue())
    return path


def _spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _outputs(reference: Reference) -> tuple[tuple[str, ...], list[torch.Tensor]]:
    """Names of the outputs, and what the network itself answers to copies of its example inputs: it may work in place on them."""
    with users_code(f"{reference.model} fails when it is called again"), torch.no_grad(), _as_written():
        answer = reference.module(*(tensor.clone() for tensor in reference.inputs.values()))
    names, tensors = flat(answer, reference.model)
    tensors = [tensor.detach().clone() for tensor in tensors]  # the next call may write into what this one has returned
    if reference.output_names:
        if len(reference.output_names) != len(tensors):
            raise InputError(
                f"{len(reference.output_names)} output names were given ({', '.join(reference.output_names)}), but {reference.model}"
                f" returns {counted(len(tensors), 'tensor')} ({', '.join(names)})",
                remedy="name each of them with an --output of its own",
            )
        names = reference.output_names
    if odd := [
        f"{tensor.dtype} in {name!r}" for name, tensor in zip(names, tensors, strict=True) if _spec(name, tensor).dtype not in DTYPES
    ]:
        raise InputError(f"{reference.model} returns {', '.join(odd)}, which no artefact can", remedy=f"return {', '.join(DTYPES)}")
    clash = set(names) & set(reference.inputs)
    if clash or len(set(names)) < len(names) or "" in names:
        raise InputError(
            f"output names must be unique and differ from the inputs: {', '.join(map(repr, names))}",
            remedy="name the outputs with --output",
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
            moved = f" by up to {(one.double() - other.double()).abs().max():.3g}" if one.shape == other.shape else " in shape"
            raise InputError(
                f"{model} is not deterministic in eval: two runs of the same input differ{moved} in output {name!r}",
                remedy="remove what is random (dropout called with training=True, torch.rand, …); parity needs one right answer",
            )


def _require_static_outputs(exported: ExportedProgram, names: tuple[str, ...], model: str) -> None:
    """Refuse an output whose shape depends on the data: the example's own would be written down for every input."""
    sizes = [node for node in exported.graph.nodes if any(not isinstance(side, int) for side in getattr(node.meta.get("val"), "shape", ()))]
    ends = exported.graph_signature.user_outputs
    if odd := [name for name, end in zip(names, ends, strict=True) if end in {node.name for node in sizes}]:
        first = sizes[0]
        raise InputError(
            f"{model} cannot be exported as a static program: the shape of output {odd[0]!r} depends on the data, by"
            f" {first.name} in {module_path(first) or '(the network itself)'}",
            remedy="choose by data with torch.where, which keeps every value, or take a fixed number of the best (torch.topk)",
        )


def _export(reference: Reference) -> ExportedProgram:
    try:
        # Not what is an exception, which has a place in the user's code.
        failing = users_code(f"{reference.model} cannot be exported", passing=(Exception,))
        with quiet(), failing, torch.no_grad(), _as_written(), _answering_flat(reference) as module:
            return torch.export.export(module, tuple(tensor.clone() for tensor in reference.inputs.values()), strict=False)
    except InputError:
        raise
    except Exception as error:
        # torch.export raises many unrelated types (and subclasses of RuntimeError from three packages) for one situation.
        raise InputError(
            f"{reference.model} cannot be exported as a static program{place_of(error)}: {_summary(error)}",
            remedy="a branch, an index or a shape that depends on the data must go: use arithmetic (a mask times a value) or fixed sizes;"
            f"{_parametrized(reference.module)} --debug shows torch's whole explanation",
        ) from error


@contextlib.contextmanager
def _as_written() -> Iterator[None]:
    """The network by its own forward: torch's fast path for encoders, which no trace takes, answers padded places otherwise."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _answering_flat(reference: Reference) -> Iterator[nn.Module]:
    """The network while its forward returns a plain tuple: torch cannot write down every container.

    Not a module around it, whose name all paths would begin with.
    """
    module, own = reference.module, "forward" in vars(reference.module)
    forward = module.forward

    @functools.wraps(forward)  # the program's inputs are named after its parameters
    def flattened(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(flat(forward(*inputs), reference.model)[1])

    module.forward = flattened
    try:
        yield module
    finally:
        if own:
            module.forward = forward
        else:
            del module.forward


def _parametrized(module: nn.Module) -> str:
    """What to try besides where parametrizations, which are traced with the rest, may be what cannot be."""
    found = [(name, one) for name, one in module.named_modules() if parametrize.is_parametrized(one)]
    if not found:
        return ""
    name, one = found[0]
    assert isinstance(one.parametrizations, nn.ModuleDict)
    call = f"torch.nn.utils.parametrize.remove_parametrizations({name or 'network'}, {next(iter(one.parametrizations))!r})"
    return f" if a parametrization is in the way, call {call} in the factory;"


def _summary(error: Exception) -> str:
    return str(error).strip().split("\n\n")[0].replace("\n", " ")[:400] or type(error).__name__


def place_of(error: BaseException | None) -> str:
    """The innermost line of the user's own code: tracing runs that as it is, so it stands in the traceback, between torch's lines."""
    while error is not None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if _is_users(frame.filename):
                return f", because of line {frame.lineno} of {frame.filename} ({frame.line})"
        error = error.__cause__ or error.__context__
    return ""


def _is_users(file: str) -> bool:
    torchs, pythons = Path(torch.__file__).parent, Path(os.__file__).parent
    foreign = (torchs, torchs.with_name("sympy"), torchs.with_name("onnxscript"), Path(__file__).parent)
    if not Path(file).is_file() or any(folder in Path(file).parents for folder in foreign):
        return False
    return pythons not in Path(file).parents or "-packages" in file  # installed packages lie within Python's own folder


def node_map(exported: ExportedProgram) -> NodeMap:
    nodes = (
        Node(node.name, module_path(node), str(node.target), tuple(source.name for source in node.all_input_nodes))
        for node in exported.graph.nodes
        if node.op == "call_function"
    )
    return NodeMap(nodes, exported.graph_signature.user_outputs)


def _answer(exported: ExportedProgram, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Outputs of a program; its own ``module()`` would first rewrite the whole graph, which takes longer than the answer."""
    given, flat_inputs = iter(inputs), []
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            flat_inputs.append(next(given))
        elif spec.kind is InputKind.TOKEN:  # the order of calls that may raise, of an inverse say
            flat_inputs.append(torch.empty(0))
        else:
            held = exported.state_dict.get(spec.target)
            flat_inputs.append(exported.constants[spec.target] if held is None else held)
    with torch.no_grad():
        outputs = Interpreter(exported.graph_module).run(*flat_inputs)
    kept = exported.graph_signature.output_specs
    return tuple(tensor for tensor, spec in zip(outputs, kept, strict=True) if spec.kind is OutputKind.USER_OUTPUT)


def require_answers_as(program: Program, reference: Reference) -> None:
    """Refuse a program that answers the example inputs otherwise than the network, by more than a few units in the last place.

    To be asked of the program that is kept, which is the decomposed one, and of that one alone: what was wrong before it was decomposed
    is wrong afterwards.

    Raises:
        InputError: names the output, and by how much it moved.
    """
    eager = _outputs(reference)[1]
    answer = _answer(program.exported, tuple(tensor.clone() for tensor in reference.inputs.values()))
    for name, expected, got in zip((o.name for o in program.signature.outputs), eager, answer, strict=True):
        one, other = expected.detach().double().numpy(), got.detach().double().numpy()
        if not np.allclose(one, other, rtol=1e-5, atol=1e-6 * max(1.0, float(np.abs(one).max(initial=0.0)))):
            raise InputError(
                f"the exported program of {reference.model} answers differently from the network itself: output {name!r} moved by"
                f" {np.abs(one - other).max():.3g}",
                remedy="look for state that changes between calls, or a branch that the example input does not take",
            )
