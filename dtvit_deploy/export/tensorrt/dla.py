"""What of a graph a Jetson Orin's deep-learning accelerator (DLA) would take, and how often execution crosses between it and the GPU.

A DLA is made for convolutions on images. Each crossing converts formats and synchronises, so a network that goes to and fro is slower than
on the GPU alone. No public compiler for a DLA runs without one; this is reckoned from what NVIDIA has published, and what that leaves open
counts as falling back. What only a DLA's compiler knows, its convolution buffer and its memory pools, can make more fall back.

* limits of each layer: include/NvInfer.h of https://github.com/NVIDIA/TensorRT at v10.3.0; section "DLA Supported Layers and Restrictions"
  of the developer guide (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/dla-layer-restrictions.html);
* operators: operators/README.md of https://github.com/NVIDIA/Deep-Learning-Accelerator-SW at ea61780;
* releases: https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library/work-with-dla.html: 10.7 was the last 10.x with DLA, and
  11.4.1 the first 11.x that has it again, for Jetson AGX Orin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import onnx

from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.export.tensorrt.dla_layers import refusal
from dtvit_deploy.export.tensorrt.graph import Graph, Severity
from dtvit_deploy.export.tensorrt.lint import WHOLE, Finding
from dtvit_deploy.export.tensorrt.operators import Compiler
from dtvit_deploy.plural import counted, some

LOADABLES = 16
"""Pieces of networks that one DLA core can hold at a time."""
_SHOWN = 3
_FALLBACK = "build without a DLA core, or replace these operators by what a DLA has: convolutions, pooling, ReLU, sums of images"
_FP16 = "export with --precision fp16"


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes that stay on the GPU for one reason.

    Attributes:
        operators: which, in alphabetical order.
        modules: torch modules that they are of, in the order of execution.
        nodes: how many they are.
    """

    reason: str
    operators: tuple[str, ...]
    modules: tuple[str, ...]
    nodes: int


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Which device computes what.

    Attributes:
        dla: nodes that the DLA takes, by name, or by their first output where they have none.
        fallbacks: why the others stay on the GPU, one for each reason, that with most nodes first.
        crossings: how often execution goes from one device to the other; data comes from the GPU's memory and returns there.
        loadables: connected pieces that the DLA executes, each at one go.
        macs, dla_macs: multiply–accumulates of convolutions and matrix products, in all and on the DLA.
        findings: what follows from it.
    """

    dla: tuple[str, ...]
    fallbacks: tuple[Fallback, ...]
    crossings: int
    loadables: int
    macs: int
    dla_macs: int
    findings: tuple[Finding, ...]

    @property
    def share(self) -> float:
        """Of the multiply–accumulates, those on the DLA; 0 where there are none."""
        return self.dla_macs / self.macs if self.macs else 0.0


def lint_dla(model: onnx.ModelProto, compiler: Compiler) -> Placement:
    """Reckon where each node would be computed, with GPU fallback allowed.

    Raises:
        InputError: there is no such compiler.
    """
    graph = Graph(model)
    nodes = _computed(graph)
    reasons = [refusal(node, graph, compiler) for node in nodes]
    on_dla = [not reason for reason in reasons]
    work = [_macs(node, graph) for node in nodes]
    crossings, loadables = _schedule(nodes, on_dla)
    placement = Placement(
        dla=tuple(_name(node) for node, here in zip(nodes, on_dla, strict=True) if here),
        fallbacks=_fallbacks(nodes, reasons),
        crossings=crossings,
        loadables=loadables,
        macs=sum(work),
        dla_macs=sum(macs for macs, here in zip(work, on_dla, strict=True) if here),
        findings=(),
    )
    return msgspec.structs.replace(placement, findings=_findings(placement, compiler))


def has_dla(compiler: Compiler) -> bool:
    """Whether that release can build for the DLA of a Jetson Orin."""
    release = compiler.release
    return not compiler.rtx and (release < (10, 8) or release >= (11, 4, 1))


def _computed(graph: Graph) -> list[onnx.NodeProto]:
    """The nodes that are left when all that follows from constants is folded, in their order."""
    fixed = set(graph.constants()) | {""}
    left: list[onnx.NodeProto] = []
    for node in graph.model.graph.node:
        if not node.output:
            continue
        inner = any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute)
        measured = node.op_type == "Shape" and all(None not in (graph.shape_of(name) or (None,)) for name in node.input)
        if measured or (fixed.issuperset(node.input) and not inner):
            fixed.update(node.output)
        else:
            left.append(node)
    return left


def _schedule(nodes: Sequence[onnx.NodeProto], on_dla: Sequence[bool]) -> tuple[int, int]:
    """Crossings and loadables when each device computes all that it can before the other goes on."""
    maker = {name: index for index, node in enumerate(nodes) for name in node.output}
    needs = [{maker[name] for name in node.input if name in maker} for node in nodes]
    left, done = set(range(len(nodes))), set[int]()
    here, crossings, loadables = False, 0, 0
    while left:
        part: set[int] = set()
        for index in sorted(left):  # nodes are in an order in which they can be computed
            if on_dla[index] is here and needs[index] <= done | part:
                part.add(index)
        if here:
            loadables += _pieces(part, needs)
        done |= part
        left -= part
        if left:
            if not part and crossings > 2 * len(nodes):  # a cycle: no graph that a compiler would take
                break
            crossings += 1
            here = not here
    return crossings + int(here), loadables


def _pieces(part: set[int], needs: Sequence[set[int]]) -> int:
    """Connected parts of one turn on the DLA."""
    roots = {index: index for index in part}

    def root(index: int) -> int:
        while roots[index] != index:
            index = roots[index]
        return index

    for index in part:
        for other in needs[index] & part:
            roots[root(index)] = root(other)
    return sum(root(index) == index for index in part)


def _macs(node: onnx.NodeProto, graph: Graph) -> int:
    """Multiply–accumulates; 0 of what is no product, or where a size is not known."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or len(node.input) < 2:
        return 0
    data, weights, result = (graph.shape_of(name) for name in (node.input[0], node.input[1], next(iter(node.output), "")))
    if data is None or weights is None or result is None or not data or not weights:
        return 0
    outer = data if node.op_type == "ConvTranspose" else result
    inner = weights[1:] if node.op_type.startswith("Conv") else data[-1:]
    sizes = [size or 0 for size in (*outer, *inner)]
    return math.prod(sizes)


def _name(node: onnx.NodeProto) -> str:
    return node.name or next(iter(node.output), "")


def _fallbacks(nodes: Sequence[onnx.NodeProto], reasons: Sequence[str]) -> tuple[Fallback, ...]:
    found: dict[str, list[int]] = {}
    for index, reason in enumerate(reasons):
        if reason:
            found.setdefault(reason, []).append(index)
    made = (
        Fallback(
            reason=reason,
            operators=tuple(sorted({nodes[index].op_type for index in indexes})),
            modules=tuple(dict.fromkeys(module_of(nodes[index]) for index in indexes)),
            nodes=len(indexes),
        )
        for reason, indexes in found.items()
    )
    return tuple(sorted(made, key=lambda fallback: -fallback.nodes))


def _findings(placement: Placement, compiler: Compiler) -> tuple[Finding, ...]:
    if not has_dla(compiler):
        remedy = "build without a DLA core, or on a Jetson Orin with TensorRT 10.0 to 10.7, or 11.4.1 and later"
        return (_finding(WHOLE, f"{compiler} builds for no Jetson's DLA", remedy, Severity.ERROR),)
    found = []
    if not placement.dla:
        single = any("FP32" in fallback.reason for fallback in placement.fallbacks)
        remedy = _FP16 if single else "build without a DLA core"
        found.append(_finding(WHOLE, "the DLA would take nothing of this network", remedy))
    elif placement.crossings > 2:
        message = (
            f"execution would cross between GPU and DLA {counted(placement.crossings, 'time')}, "
            f"for {placement.share:.1%} of the multiply–accumulates on the DLA; each crossing converts formats and waits"
        )
        found.append(_finding(WHOLE, message, "build without a DLA core, and compare the two on the device"))
    if placement.loadables > LOADABLES:
        message = f"the DLA would get {placement.loadables} pieces, and a core holds {LOADABLES}"
        found.append(_finding(WHOLE, message, "build without a DLA core"))
    for fallback in placement.fallbacks:
        modules = some(fallback.modules, _SHOWN)
        fall = "falls" if fallback.nodes == 1 else "fall"
        message = (
            f"{counted(fallback.nodes, 'node')} {fall} back to the GPU ({', '.join(fallback.operators)}, in {modules}): {fallback.reason}"
        )
        remedy = _FP16 if "FP32" in fallback.reason else _FALLBACK
        found.append(_finding(fallback.modules[0], message, remedy, count=fallback.nodes))
    return tuple(found)


def _finding(module: str, message: str, remedy: str, severity: Severity = Severity.WARNING, count: int = 1) -> Finding:
    return Finding(rule="dla", severity=severity, module=module, node="", message=message, remedy=remedy, count=count)
