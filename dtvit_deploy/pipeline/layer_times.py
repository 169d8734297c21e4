"""What a runtime tells of an artefact's layers, by the nodes of the exported program and the torch modules that made them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.graph import read_graph
from dtvit_deploy.artifacts.nodes import NETWORK, NO_MODULE, NodeMap
from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.harness.layer_times import LayerTime, LayerTimes
from dtvit_deploy.runtimes.base import Profiled
from dtvit_deploy.runtimes.pairing import Pairing

if TYPE_CHECKING:
    import onnx

    from dtvit_deploy.artifacts.signature import Feeds

NOT_TOLD = "where its time goes was not looked at: no runtime tells that here"
_PRODUCTS = ("linear", "conv", "matmul", "bmm", "mm", "addmm", "baddbmm", "scaled_dot_product_attention")
"""What computes most of whatever it is fused with, as the program's operators are called."""
_BEFORE = "InsertedPrecisionFreeCast_"
"""What ONNX Runtime puts before the name of a tensor that it converts."""
_ADDED = re.compile(r"(/[^/]*|_(nchwc|quant|original|decomposed|compressed|token_\d+|\d+))$")
"""What translators and runtimes put behind a name when they rewrite what it names."""


class Owner(NamedTuple):
    """Whose time a layer's is."""

    node: str
    module: str
    product: bool = False


def layer_times(pairing: Pairing, feed: Feeds, nodes: NodeMap, threads: int) -> LayerTimes | None:
    """Times of the layers of an artefact; None where its runtime tells none.

    Args:
        nodes: of the program that the artefact was made of.

    Raises:
        InputError: the runtime refuses the artefact.
    """
    if not isinstance(pairing.runtime, Profiled):
        return None
    told, known = pairing.runtime.layer_times(pairing.artifact, feed, threads), _operators(pairing.artifact, nodes)
    layers = []
    for one in told.layers:
        owner = _owner(one.made_of, one.leads_to, known, nodes)
        layers.append(
            LayerTime(
                name=one.name,
                type=one.type,
                kernel=one.kernel,
                unit="CPU",
                ms=statistics.median(one.times_ms),
                node=owner.node,
                module=owner.module,
            )
        )
    return LayerTimes(layers=tuple(layers), runs=len(told.whole_ms), whole_ms=statistics.median(told.whole_ms))


def _owner(made_of: Iterable[str], leads_to: Iterable[str], known: Mapping[str, Owner], nodes: NodeMap) -> Owner:
    """Of the operators that a layer stands for, the product, else the first; where none of them is known, the nearest that it leads to."""

    def owners(names: Iterable[str]) -> Iterator[Owner]:
        for name in names:
            at = next((each for each in _spellings(name) if each in known or nodes.get(each)), None)
            if at is not None:
                yield known.get(at) or _of_program(at, nodes)

    found = [one for one in owners(made_of) if one.node]
    nearest = next((one for one in owners(leads_to) if one.node), Owner("", ""))
    return next((one for one in found if one.product), found[0] if found else nearest)


def _spellings(name: str) -> Iterator[str]:
    """The name, and what is left of it without what rewriting has put around it."""
    name = name.removeprefix(_BEFORE)
    while name:
        yield name
        shorter = _ADDED.sub("", name)
        name = "" if shorter == name else shorter


def _of_program(name: str, nodes: NodeMap) -> Owner:
    node = nodes.get(name)
    assert node is not None
    operator = node.op.split(".")[1] if node.op.startswith("aten.") else node.op
    return Owner(name, node.module, operator.startswith(_PRODUCTS))


def _of_module(node: onnx.NodeProto) -> Owner:
    module = module_of(node)
    return Owner("", "") if module == NO_MODULE else Owner(node.name, "" if module == NETWORK else module)


def _operators(artifact: Artifact, nodes: NodeMap) -> dict[str, Owner]:
    """Whose those names are that are no node's: the outputs', and in an ONNX graph every operator's, which is made for the node that its
    output is called after, or was added for a module.
    """
    ends = zip(artifact.manifest.signature.outputs, nodes.outputs, strict=False)
    found = {spec.name: _of_program(name, nodes) for spec, name in ends if nodes.get(name)}
    if artifact.manifest.format != "onnx":
        return found
    for node in read_graph(artifact.path).graph.node:
        made = next((name for name in node.output if nodes.get(name)), "")
        found[node.name] = _of_program(made, nodes) if made else _of_module(node)
    return found
