"""The exported program's nodes: the names by which a tensor is found in every artefact, and the module that made each."""

from __future__ import annotations

from collections.abc import Container, Iterable

import msgspec

NO_MODULE, NETWORK = "(no module)", "(the network itself)"
"""What people are told of a tensor whose module is not known, and of one that is of no module within the network."""
VIEWS = frozenset(
    [
        "_unsafe_view",
        "alias",
        "clone",
        "contiguous",
        "detach",
        "expand",
        "flatten",
        "getitem",
        "permute",
        "reshape",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "t",
        "transpose",
        "unbind",
        "unflatten",
        "unsqueeze",
        "view",
    ]
)
"""Operators that pass values on and compute none."""


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of the exported program.

    Attributes:
        name: the node's name, which survives into ONNX, OpenVINO and MIL.
        module: dotted path of the innermost torch module that made it; empty for the network itself.
        op: what made it (``aten.linear.default``).
        inputs: names of the nodes it was made from.
    """

    name: str
    module: str
    op: str
    inputs: tuple[str, ...] = ()


class Nodes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is written beside a program: its nodes in the order of execution, and which of them are the outputs."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]


class NodeMap:
    """All nodes of a program, by name.

    Attributes:
        nodes: in the order of execution.
        outputs: names of the nodes that are the program's outputs, in their order.
    """

    def __init__(self, nodes: Iterable[Node], outputs: Iterable[str] = ()) -> None:
        self.nodes = tuple(nodes)
        self.outputs = tuple(outputs)
        self._by_name = {node.name: node for node in self.nodes}

    def get(self, name: str) -> Node | None:
        return self._by_name.get(name)

    def maker(self, name: str, shared: Container[str]) -> Node | None:
        """The node whose arithmetic a tensor holds: its own or, where that only views, the one behind it, if ``shared`` lacks that.

        A simplifier merges a product with the reshape that follows it; what is left has the reshape's name.
        """
        node = at = self._by_name.get(name)
        while at is not None and is_view(at) and at.inputs and at.inputs[0] not in shared:
            at = self._by_name.get(at.inputs[0])
        return node if at is None or is_view(at) else at

    def module_of(self, name: str) -> str:
        """Path of the module that made a tensor, as a person would write it."""
        node = self._by_name.get(name)
        return node.module or NETWORK if node else NO_MODULE


def is_view(node: Node) -> bool:
    """Whether a node only passes values on."""
    name = node.op.split(".")[1] if node.op.startswith("aten.") else node.op.removesuffix(">").rpartition(" ")[2]
    return name in VIEWS
