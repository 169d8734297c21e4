"""How much the terms of each product of a graph add up to at most, in whatever order they are added: Σ|x·w|, measured on feeds.

A sum in FP16 overflows on the way although its result is small: 1,024 terms of ±256 that sum to 0 give infinity on an ARM64 core. No
partial sum is larger than the sum of the terms' magnitudes, which is one more product, of magnitudes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from dtvit_deploy.artifacts.graph import inferred, unused
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.onnxruntime import OnnxSession

if TYPE_CHECKING:
    import onnx

    from dtvit_deploy.artifacts.signature import Feeds, Signature

OPERATORS = frozenset({"Conv", "Gemm", "MatMul"})
"""Those that ONNX Runtime has FP16 kernels of for ARM64 which add in FP16 (`dtvit_deploy.runtimes.arm64.session`)."""


def term_sums(model: onnx.ModelProto, signature: Signature, feeds: Iterable[Feeds]) -> dict[str, float]:
    """Greatest Σ|x·w| of every floating-point product, its bias included, over all its values and all feeds, by the name of its output.

    Args:
        model: an FP32 graph; it is not changed.

    Raises:
        InputError: the graph cannot be evaluated.
    """
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    infos = (*inferred(model, strict=False).graph.value_info, *graph.input, *graph.output)
    floats = {info.name for info in infos if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    floats |= {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    taken = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer} | floats
    sums: dict[str, str] = {}
    magnitudes: dict[str, str] = {}

    for node in model.graph.node:
        if node.op_type not in OPERATORS or node.domain or not set(filter(None, node.input)) <= floats:
            continue
        positive = onnx.NodeProto()
        positive.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name and name not in magnitudes:
                magnitudes[name] = unused(f"{name}_magnitude", taken)
                graph.node.append(onnx.helper.make_node("Abs", [name], [magnitudes[name]]))
            positive.input[index] = magnitudes.get(name, "")
        for attribute in positive.attribute:
            if attribute.name in ("alpha", "beta"):
                attribute.f = abs(attribute.f)
        positive.name, positive.output[0] = "", unused(f"{node.output[0]}_terms", taken)
        sums[node.output[0]] = unused(f"{node.output[0]}_largest", taken)
        reduced = onnx.helper.make_node("ReduceMax", [positive.output[0]], [sums[node.output[0]]], keepdims=0)
        graph.node.extend((positive, reduced))
        graph.output.append(onnx.helper.make_tensor_value_info(sums[node.output[0]], onnx.TensorProto.FLOAT, ()))
    largest = dict.fromkeys(sums, 0.0)
    if not sums:
        return largest
    options = SessionOptions(threads=0, taps=tuple(sums.values()))
    with OnnxSession(made.SerializeToString(), signature, Precision.FP32, options) as session:
        for feed in feeds:
            found = session.run(feed)
            for name, reduced_name in sums.items():
                size = float(found[reduced_name])
                largest[name] = np.inf if np.isnan(size) else max(largest[name], size)
    return largest
