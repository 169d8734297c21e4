"""What a runtime tells of an artefact's layers, by the nodes of the exported program and the torch modules that made them."""

from __future__ import annotations

import functools
import itertools
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
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

NOT_TOLD = "where its time goes was not looked at: its runtime does not tell that"
_PRODUCTS = ("linear", "conv", "matmul", "bmm", "mm", "addmm", "baddbmm", "scaled_dot_product_attention")
"""What computes most of whatever it is fused with, as the program's operators are called."""
_BEFORE = "InsertedPrecisionFreeCast_"
"""What ONNX Runtime puts before the name of a tensor that it converts."""
_MOST_ADDED = 16
"""Rewrites of one name that are looked behind; who makes up a name of a thousand of them keeps nobody busy."""
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
    told = pairing.runtime.layer_times(pairing.artifact, feed, threads)
    if told is None:
        return None
    called, layers = owners(_operators(pairing.artifact, nodes), nodes), []
    for one in told.layers:
        owner = _owner(one.made_of, one.leads_to, called)
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


def owners(known: Mapping[str, Owner], nodes: NodeMap) -> Callable[[str], Owner | None]:
    """By the name of an operator, as runtimes may spell it, whose it is; None where nobody is called so. A name is looked up once."""

    @functools.cache
    def called(name: str) -> Owner | None:
        at = next((each for each in itertools.islice(_spellings(name), _MOST_ADDED) if each in known or nodes.get(each)), None)
        return None if at is None else known.get(at) or _of_program(at, nodes)

    return called


def _owner(made_of: Iterable[str], leads_to: Iterable[str], called: Callable[[str], Owner | None]) -> Owner:
    """Of the operators that a layer stands for, the product, else the first; where none of them is known, the nearest that it leads to."""
    found = [one for one in map(called, made_of) if one is not None and one.node]
    if not found:
        return next((one for one in map(called, leads_to) if one is not None and one.node), Owner("", ""))
    return next((one for one in found if one.product), found[0])


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
