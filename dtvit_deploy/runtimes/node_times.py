"""How long each node of an ONNX graph takes in a runtime, by the runtime's own profile.

Runtimes fuse nodes and rename what they fuse. A fused layer's time belongs to the node in it that computes most (a product or a
convolution), else to the first; what cannot be told belongs to nobody and is returned under the empty name. Such figures say where time
goes and what to try: a profiled run is slower than an ordinary one, so none of them is a latency.
"""

from __future__ import annotations

import io
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dtvit_deploy.runtimes.layer_times import Layer, of_onnxruntime, of_openvino

if TYPE_CHECKING:
    import onnx

    from dtvit_deploy.artifacts.signature import Feeds

HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_ADDED = re.compile(r"(/.*|_nchwc|_quant|_token_\d+)+$")
"""What runtimes put behind a name when they rewrite a node."""


class Nodes:
    """The nodes of a graph, as runtimes may call them: by their names, or by their outputs'."""

    def __init__(self, model: onnx.ModelProto) -> None:
        named = {node.name: node for node in model.graph.node if node.name}
        self._known = {output: node for node in model.graph.node for output in node.output if output} | named

    def owner(self, names: Iterable[str]) -> str:
        """Name of the node that a layer made of ``names`` belongs to; empty where none is known."""
        found = []
        for name in names:
            node = self._known.get(name) or self._known.get(_ADDED.sub("", name))
            if node is not None:
                found.append(node)
        heavy = [node for node in found if node.op_type in HEAVY]
        return (heavy or found)[0].name if found else ""


def onnxruntime_times(model: onnx.ModelProto, feed: Feeds, threads: int) -> dict[str, float]:
    """Milliseconds of each node in ONNX Runtime on the CPU, by node name."""
    return _owned(model, of_onnxruntime(model.SerializeToString(), feed, threads, leads=False).layers)


def openvino_times(model: onnx.ModelProto, feed: Feeds, threads: int, hint: str) -> dict[str, float]:
    """Milliseconds of each node in OpenVINO on the CPU, by node name; ``hint`` is what floating-point operators are computed in."""
    import openvino

    from dtvit_deploy.runtimes.openvino import settings

    read = openvino.Core().read_model(io.BytesIO(model.SerializeToString()))
    return _owned(model, of_openvino(read, feed, settings(hint, threads)).layers)


def _owned(model: onnx.ModelProto, layers: Iterable[Layer]) -> dict[str, float]:
    nodes = Nodes(model)
    owned: defaultdict[str, float] = defaultdict(float)
    for layer in layers:
        owned[nodes.owner(layer.made_of)] += statistics.median(layer.times_ms)
    return dict(owned)
