"""How long each node of an ONNX graph takes in a runtime, by the runtime's own profile.

Runtimes fuse nodes and rename what they fuse. A fused layer's time belongs to the node in it that computes most (a product or a
convolution), else to the first; what cannot be told belongs to nobody and is returned under the empty name. Such figures say where time
goes and what to try: a profiled run is slower than an ordinary one, so none of them is a latency.
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    from dtvit_deploy.artifacts.signature import Feeds

WARM_UP = 5
RUNS = 25
"""Profiled runs; a node's time is the median of them."""
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
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="dtvit-deploy-") as folder:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        for _ in range(WARM_UP + RUNS):
            session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_bytes())
    taken: defaultdict[str, list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            taken[name.removesuffix("_kernel_time")].append(event["dur"] / 1e3)
    return _owned(model, {(name,): times[WARM_UP:] for name, times in taken.items()})


def openvino_times(model: onnx.ModelProto, feed: Feeds, threads: int, hint: str) -> dict[str, float]:
    """Milliseconds of each node in OpenVINO on the CPU, by node name; ``hint`` is what floating-point operators are computed in."""
    import io

    import openvino

    from dtvit_deploy.runtimes.openvino import settings

    core = openvino.Core()
    read = core.read_model(io.BytesIO(model.SerializeToString()))
    compiled = core.compile_model(read, "CPU", settings(hint, threads) | {"PERF_COUNT": True})
    made_of: dict[str, tuple[str, ...]] = {}
    for layer in compiled.get_runtime_model().get_ordered_ops():
        info = layer.get_rt_info()
        original = info["originalLayersNames"].astype(str) if "originalLayersNames" in info else ""
        made_of[layer.get_friendly_name()] = tuple(name for name in original.split(",") if name)
    request = compiled.create_infer_request()
    taken: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
    for run in range(WARM_UP + RUNS):
        request.infer(dict(feed))
        once: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for layer in request.profiling_info if run >= WARM_UP else ():
            once[made_of.get(layer.node_name, ()) or (layer.node_name,)] += layer.real_time.total_seconds() * 1e3
        for names, time in once.items():
            taken[names].append(time)
    return _owned(model, taken)


def _owned(model: onnx.ModelProto, taken: Mapping[tuple[str, ...], list[float]]) -> dict[str, float]:
    nodes = Nodes(model)
    owned: defaultdict[str, float] = defaultdict(float)
    for names, times in taken.items():
        if times:
            owned[nodes.owner(names)] += statistics.median(times)
    return dict(owned)
