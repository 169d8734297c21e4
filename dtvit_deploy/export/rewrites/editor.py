"""Writing into the graph of an exported program: nodes, constants, and what a node was called with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch._guards import detect_fake_mode
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, InputSpec, OutputSpec, TensorArgument
from torch.fx import Node

CARRIED = ("nn_module_stack", "stack_trace")
"""What a new node takes over from the one in whose place it stands: the torch module and the line that it comes from."""


class Editor:
    """Changes one program in place; every node that it adds knows its type and shape, and its torch module."""

    def __init__(self, exported: ExportedProgram) -> None:
        self.exported = exported
        self.graph = exported.graph_module.graph
        values = [node.meta["val"] for node in self.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
        self.fake: Any = detect_fake_mode(values)
        self._like: Node | None = None

    @contextlib.contextmanager
    def before(self, node: Node, like: Node | None = None) -> Iterator[None]:
        """What is called within the block stands before ``node``, and belongs to the module of ``like``, or else of ``node``."""
        outer, self._like = self._like, like or node
        try:
            with self.graph.inserting_before(node):
                yield
        finally:
            self._like = outer

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        """A new node, of the operator ``target``."""
        node: Node = self.graph.call_function(target, args, kwargs)
        with self.fake:
            value = target(*torch.fx.map_arg(args, _value), **torch.fx.map_arg(kwargs, _value))
        node.meta["val"] = value
        if self._like is not None:
            node.meta.update({key: self._like.meta[key] for key in CARRIED if key in self._like.meta})
        return node

    def inline(self, traced: torch.fx.GraphModule, inputs: list[Node]) -> Node:
        """The nodes of a traced function, called with ``inputs``; returned is the one that makes its answer."""
        made: dict[Node, Any] = {}
        given = iter(inputs)
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                made[node] = next(given)
            elif node.op == "get_attr":
                made[node] = self.constant(getattr(traced, str(node.target)), "inlined")
            elif node.op == "call_function":
                made[node] = self.call(
                    node.target, *torch.fx.map_arg(node.args, made.__getitem__), **torch.fx.map_arg(node.kwargs, made.__getitem__)
                )
        (end,) = (node for node in traced.graph.nodes if node.op == "output")
        answer: Node = made[end.args[0]]
        return answer

    def constant(self, tensor: torch.Tensor, name: str) -> Node:
        """A tensor that the program holds; one of its own for each call."""
        signature, nodes = self.exported.graph_signature, [node for node in self.graph.nodes if node.op == "placeholder"]
        kinds = [spec.kind for spec in signature.input_specs]
        place = next((index for index, kind in enumerate(kinds) if kind is InputKind.USER_INPUT), len(kinds))
        anchor = nodes[place] if place < len(nodes) else next(node for node in self.graph.nodes if node.op != "placeholder")
        held = self.exported.constants
        taken = held.keys() | self.exported.state_dict.keys()
        target = next(free for index in range(len(taken) + 1) if (free := f"{name}_{index}") not in taken)
        with self.graph.inserting_before(anchor):
            node: Node = self.graph.placeholder(f"c_{target}")
        node.meta["val"] = self.fake.from_tensor(tensor, static_shapes=True)
        held[target] = tensor
        signature.input_specs.insert(place, InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(node.name), target))
        return node

    def held(self) -> dict[Node, torch.Tensor]:
        """Parameters, buffers and constants, by their nodes."""
        nodes = (node for node in self.graph.nodes if node.op == "placeholder")
        found = {}
        for node, spec in zip(nodes, self.exported.graph_signature.input_specs, strict=True):
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
                tensor = self.exported.state_dict.get(spec.target)
                found[node] = self.exported.constants[spec.target] if tensor is None else tensor
        return {node: tensor for node, tensor in found.items() if isinstance(tensor, torch.Tensor)}

    def replace(self, old: Node, new: Node) -> None:
        """Have everything that reads ``old`` read ``new``, the program's outputs included, and drop ``old``."""
        old.replace_all_uses_with(new)
        signature = self.exported.graph_signature
        signature.output_specs[:] = [_named(spec, {old.name: new.name}) for spec in signature.output_specs]
        self.graph.erase_node(old)

    def become(self, node: Node, made: Node) -> None:
        """Have a node compute what a new one does, which goes: the tensor is the same, and so is its name, which FX gives but once."""
        if made.op != "call_function" or made.users:
            self.replace(node, made)
            return
        node.target, node.args, node.kwargs, node.meta["val"] = made.target, made.args, made.kwargs, made.meta["val"]
        self.graph.erase_node(made)

    def set_outputs(self, outputs: list[Node]) -> None:
        """Have the program answer with other nodes, as many as before."""
        (end,) = (node for node in self.graph.nodes if node.op == "output")
        signature = self.exported.graph_signature
        end.args = (tuple(outputs),)
        signature.output_specs[:] = [
            OutputSpec(spec.kind, TensorArgument(node.name), spec.target)
            for spec, node in zip(signature.output_specs, outputs, strict=True)
        ]

    def drop_unread(self, nodes: list[Node]) -> None:
        """Remove parameters, buffers and constants that nothing reads any more."""
        exported, signature = self.exported, self.exported.graph_signature
        unread = {node.name: node for node in nodes if not node.users}
        for spec in list(signature.input_specs):
            if not isinstance(spec.arg, ConstantArgument) and spec.arg.name in unread:
                signature.input_specs.remove(spec)
                self.graph.erase_node(unread[spec.arg.name])
                exported.state_dict.pop(spec.target, None)
                exported.constants.pop(spec.target, None)

    def finish(self) -> None:
        self.graph.lint()
        self.exported.graph_module.recompile()


def arguments(node: Node) -> dict[str, Any]:
    """What an operator was called with, by the names of its schema, defaults included."""
    target: Any = node.target
    known = [argument.name for argument in target._schema.arguments]
    given = {argument.name: argument.default_value for argument in target._schema.arguments if argument.has_default_value()}
    return given | dict(zip(known, node.args, strict=False)) | node.kwargs


def module_path(node: Node) -> str:
    """The torch module that a node was traced in; empty for the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    return path.removeprefix("L['self'].").removeprefix("L__self__")


def shape_of(node: Node) -> tuple[int, ...]:
    return tuple(map(int, node.meta["val"].shape))


def _value(node: Node) -> Any:
    return node.meta["val"]


def _named(spec: OutputSpec, names: dict[str, str]) -> OutputSpec:
    if not isinstance(spec.arg, TensorArgument) or spec.arg.name not in names:
        return spec
    return OutputSpec(spec.kind, TensorArgument(names[spec.arg.name]), spec.target)
