"""What ONNX Runtime refuses, leaves unset or computes wrongly on an ARM64 core with FP16 arithmetic, found in a graph on any machine.

Every rule was seen on an emulated core (qemu, cortex-a76) with the releases that it names. The same graphs load and answer rightly on
x86-64, and on an emulated core without FP16 arithmetic (cortex-a57). An error is what does not load, or gives no answer; a warning what
gives another one. None of it ran on a real core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import onnx
from onnx import TensorProto

from dtvit_deploy.export.tensorrt.graph import Found, Graph, Severity
from dtvit_deploy.export.tensorrt.lint import Finding, findings, lines

__all__ = ["RULES", "Finding", "Severity", "lines", "lint"]

BOTH, NEWER = "ONNX Runtime 1.23.2 and 1.32.0", "ONNX Runtime 1.32.0"
_KEEP = "keep {module} in FP32 (--keep-fp32 {module})"
_AGAIN = "export it again: this release computes it in FP32 between two casts"
FUSED_WITH_FP16_SCALES = frozenset(
    {*("Add", "AveragePool", "Concat", "Conv", "GlobalAveragePool", "LeakyRelu", "MatMul", "Mul")},
)
"""Operators that ONNX Runtime makes an integer kernel of between Q/DQ, whose definition has no FP16 scales; Sub, Div, Gemm, Relu, Sigmoid,
Softmax, Tanh, MaxPool, Transpose and ReduceMean load and answer."""


class Rule(NamedTuple):
    """What is known of some operators.

    Attributes:
        name: short.
        operators: of ONNX's own domain.
        applies: says of a node with such an operator what is wrong; empty if nothing.
        source: releases that it was seen in.
    """

    name: str
    severity: Severity
    operators: frozenset[str]
    applies: Callable[[onnx.NodeProto, Graph], str]
    remedy: str
    source: str


def lint(model: onnx.ModelProto) -> tuple[Finding, ...]:
    """Everything that is known against a graph on such a core, errors first; what is found several times in a module is one finding.

    Args:
        model: any ONNX graph; module paths are in the nodes' metadata where this project made it.
    """
    return findings(_found(Graph(model)))


def _found(graph: Graph) -> Iterator[Found]:
    for node in graph.nodes:
        if node.domain in FOREIGN_LAYOUTS:
            message = f"{node.op_type} of {node.domain} is in a layout that only the kind of CPU has which the graph was optimised on"
            remedy = "ship the graph as exported, or save the optimised one at ORT_ENABLE_EXTENDED"
            yield Found("layout", Severity.ERROR, node, f"{message} (seen in {NEWER})", remedy)
        if node.domain not in ("", "ai.onnx") or node.op_type in graph.functions:
            continue
        for rule in RULES:
            if node.op_type in rule.operators and (said := rule.applies(node, graph)):
                yield Found(rule.name, rule.severity, node, f"{said} (seen in {rule.source})", rule.remedy)


FOREIGN_LAYOUTS = frozenset({"com.microsoft.nchwc", "com.ms.internal.nhwc"})
"""Domains of operators that ONNX Runtime's last level of optimisation writes: of x86-64 and of ARM64."""


def _half(node: onnx.NodeProto, graph: Graph) -> bool:
    return bool(node.input) and graph.type_of(node.input[0]) == TensorProto.FLOAT16


def _average(node: onnx.NodeProto, graph: Graph) -> str:
    if not _half(node, graph) or graph.opset < 19:
        return ""
    return f"an FP16 AveragePool of opset {graph.opset} has no kernel there, and the graph does not load (opset 18 does)"


def _summing_pool(node: onnx.NodeProto, graph: Graph) -> str:
    if not _half(node, graph) or (node.op_type == "AveragePool" and graph.opset >= 19):
        return ""
    return f"an FP16 {node.op_type} adds in FP16: sums stall, or overflow beyond 65504, where the mean is small"


def _old_maximum(node: onnx.NodeProto, graph: Graph) -> str:
    if not _half(node, graph) or graph.opset >= 12:
        return ""
    return f"an FP16 MaxPool of opset {graph.opset} has no kernel there, and the graph does not load (opset 12 does)"


def _indices(node: onnx.NodeProto, graph: Graph) -> str:
    used = [name for name in node.output[1:] if name and (name in graph.outputs or graph.readers(name))]
    return (
        f"the FP16 MaxPool leaves its indices, {used[0]}, unset: no answer, or an error when they are read"
        if _half(node, graph) and used
        else ""
    )


def _erf(node: onnx.NodeProto, graph: Graph) -> str:
    return "the FP16 Erf is off by up to 5e-3, and 0.001 at 0" if _half(node, graph) else ""


def _attention(node: onnx.NodeProto, graph: Graph) -> str:
    return (
        "the FP16 Attention scales after the product of Q and K, which overflows for large scores (NaN), and adds in FP16"
        if _half(node, graph)
        else ""
    )


def _scales(node: onnx.NodeProto, graph: Graph) -> str:
    """Between Q/DQ with FP16 scales: the quantised node that it is fused to is of a type that does not exist."""
    inputs = [graph.maker(name) for name in node.input[: 2 if node.op_type != "Concat" else None]]
    dequantized = [one for one in inputs if one is not None and one.op_type == "DequantizeLinear"]
    quantized = [one for name in node.output for one in graph.readers(name) if one.op_type == "QuantizeLinear"]
    scales = [one.input[1] for one in (*dequantized, *quantized) if len(one.input) > 1]
    if not dequantized or not quantized or not any(graph.type_of(name) == TensorProto.FLOAT16 for name in scales):
        return ""
    return (
        f"Q/DQ with FP16 scales around {node.op_type} become an integer operator of a type that does not exist, and the graph does not load"
    )


RULES = (
    Rule("average-pool", Severity.ERROR, frozenset({"AveragePool"}), _average, _AGAIN, "ONNX Runtime 1.22.1, 1.23.2 and 1.32.0"),
    Rule("pool-sum", Severity.WARNING, frozenset({"AveragePool", "GlobalAveragePool"}), _summing_pool, _AGAIN, BOTH),
    Rule("max-pool", Severity.ERROR, frozenset({"MaxPool"}), _old_maximum, "export with opset 12 or later; ours is 20", BOTH),
    Rule("indices", Severity.ERROR, frozenset({"MaxPool"}), _indices, _AGAIN, BOTH),
    Rule(
        "erf",
        Severity.WARNING,
        frozenset({"Erf"}),
        _erf,
        "write GELU as one operator (nn.GELU), or export it again: this release computes Erf in FP32",
        NEWER,
    ),
    Rule(
        "attention",
        Severity.WARNING,
        frozenset({"Attention"}),
        _attention,
        f"write attention out, with Q scaled before the product, or {_KEEP}",
        BOTH,
    ),
    Rule(
        "scales",
        Severity.ERROR,
        FUSED_WITH_FP16_SCALES,
        _scales,
        "FP32 scales (this project's ONNX INT8 artefacts have them), or load with session.disable_quant_qdq=1",
        f"{NEWER}; Concat, Conv, LeakyRelu and pools in 1.23.2 too",
    ),
)
