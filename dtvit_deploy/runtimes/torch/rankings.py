"""Where a program ranks: the operators whose indices decide what an output holds, and which outputs those are.

Read from the exported program's graph, since only that says which input of an operator holds the scores, along which axis they are ranked,
and in which direction.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from dtvit_deploy.artifacts.nodes import VIEWS
from dtvit_deploy.harness.ranking import Span

_TUPLES = {"topk": (2, -1), "sort": (1, -1), "max": (1, None), "min": (1, None), "kthvalue": (2, -1)}
"""Operators that return values and indices: the place of the argument that is the axis, and its default."""
_PLAIN = {"argmax": (1, None), "argmin": (1, None), "argsort": (1, -1)}
"""Operators that return indices alone."""
_ASCENDING = frozenset({"min", "argmin", "kthvalue"})
_CASTS = frozenset({"to", "_to_copy", "type_as", "convert_element_type"})
_MOVING = frozenset({"permute", "transpose", "t", "expand", "select", "slice", "split", "split_with_sizes", "unbind"})
"""Views after which values are no longer the same ones in the same order."""


@dataclass(frozen=True)
class Ranking:
    """One operator that ranks.

    Attributes:
        node: its name.
        scores: name of the node that it ranks.
        indices: name of the node that holds the indices.
        axis: of the scores, not negative; None where all of them are ranked as one row.
        ascending: whether the smallest comes first.
        shape: of the indices.
        direct: names of the outputs that are the indices themselves, in their order.
        chosen: names of the outputs that hold what the indices chose, and of which this is the nearest ranking; the part of each that is
            this one's, where it puts those of several one after the other.
    """

    node: str
    scores: str
    indices: str
    axis: int | None
    ascending: bool
    shape: tuple[int, ...]
    direct: tuple[str, ...]
    chosen: Mapping[str, Span | None]


def rankings_of(program: ExportedProgram, outputs: Sequence[str]) -> tuple[Ranking, ...]:
    """Every ranking that decides about an output, in the order of execution.

    Args:
        program: decomposed, as artefacts are made of it.
        outputs: names of what it returns, in order.
    """
    nodes = {node.name: node for node in program.graph.nodes}
    returned = {output: nodes.get(name) for output, name in zip(outputs, program.graph_signature.user_outputs, strict=True)}
    deciding = {output: _deciding(at) if at is not None else {} for output, at in returned.items()}
    found = []
    for node in program.graph.nodes:
        name = _operator(node)
        if name not in _TUPLES and name not in _PLAIN:
            continue
        indices = _indices(node, name)
        scores = node.args[0]
        value = indices.meta.get("val") if indices is not None else None
        if indices is None or not isinstance(scores, Node) or not isinstance(value, torch.Tensor):
            continue
        shape = scores.meta["val"].shape
        axis = _axis(node, name)
        direct = tuple(output for output, at in returned.items() if at is not None and _through_views(at) is indices)
        chosen = {output: by[indices] for output, by in deciding.items() if output not in direct and indices in by}
        if direct or chosen:
            found.append(
                Ranking(
                    node=node.name,
                    scores=scores.name,
                    indices=indices.name,
                    axis=None if axis is None else axis % max(len(shape), 1),
                    ascending=_ascending(node, name),
                    shape=tuple(value.shape),
                    direct=direct,
                    chosen=chosen,
                )
            )
    return tuple(found)


def _operator(node: Node) -> str:
    return node.target._schema.name.partition("::")[2] if isinstance(node.target, torch._ops.OpOverload) else ""


def _indices(node: Node, name: str) -> Node | None:
    """The node that holds the indices; None where nobody reads them, or where an operator of that name returns none."""
    if name in _PLAIN:
        return node
    if not isinstance(node.meta.get("val"), (tuple, list)):  # max of all values, or of two tensors
        return None
    return next((user for user in node.users if user.args[1:] == (1,)), None)


def _axis(node: Node, name: str) -> int | None:
    place, default = (_TUPLES | _PLAIN)[name]
    axis = node.kwargs.get("dim", node.args[place] if len(node.args) > place else default)
    return axis if isinstance(axis, int) else None


def _ascending(node: Node, name: str) -> bool:
    if name == "topk":
        return not node.kwargs.get("largest", node.args[3] if len(node.args) > 3 else True)
    if name in ("sort", "argsort"):
        return not node.kwargs.get("descending", node.args[2] if len(node.args) > 2 else False)
    return name in _ASCENDING


def _through_views(node: Node) -> Node:
    """What a node passes on, the same values in the same order."""
    while _operator(node) in (VIEWS | _CASTS) - _MOVING and isinstance(node.args[0], Node):
        node = node.args[0]
    return node


def _deciding(output: Node) -> dict[Node, Span | None]:
    """The indices that decide what an output holds, by the part of it that each decides: of all of it, or of what it is put together of."""
    at = _through_views(output)
    if _operator(at) == "cat":
        pieces = [piece for piece in at.args[0] if isinstance(piece, Node)]  # type: ignore[union-attr]
        nearest = [_nearest(piece) for piece in pieces]
        if len({one for one in nearest if one is not None}) == len(nearest) > 1:
            axis = (at.args[1] if len(at.args) > 1 else 0) % at.meta["val"].ndim
            stops = list(itertools.accumulate(piece.meta["val"].shape[axis] for piece in pieces))
            spans = [Span(axis, start, stop) for start, stop in zip((0, *stops), stops, strict=False)]
            return {one: span for one, span in zip(nearest, spans, strict=True) if one is not None}
    whole = _nearest(output)
    return {} if whole is None else {whole: None}


def _nearest(node: Node) -> Node | None:
    """Of the indices that a node is computed from, with no others in between, those that were ranked last."""
    pending, seen, found = [node], {node}, set()
    while pending:
        at = pending.pop()
        if _operator(at) in _PLAIN or _is_part_of_ranking(at):
            if at.args[1:] == (1,) or _operator(at) in _PLAIN:
                found.add(at)
            continue  # values in their order say nothing of who has them
        new = [source for source in at.all_input_nodes if source not in seen]
        seen.update(new)
        pending += new
    return next((each for each in reversed(node.graph.nodes) if each in found), None)


def _is_part_of_ranking(node: Node) -> bool:
    """Whether a node is the values or the indices of an operator that returns both."""
    maker = node.args[0] if node.op == "call_function" and not _operator(node) and node.args else None
    return isinstance(maker, Node) and _operator(maker) in _TUPLES
