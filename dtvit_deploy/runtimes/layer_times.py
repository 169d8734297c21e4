"""What runtimes tell of the layers that they execute, each in its own way: name, type, kernel, time, and the operators it was made of.

ONNX Runtime writes a profile of every node that it executes; OpenVINO counts each layer of its compiled graph, which names the layers of
the original graph that it was fused of.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dtvit_deploy.formats.onnx_messages import NodeRead, nodes_read

if TYPE_CHECKING:
    import openvino

    from dtvit_deploy.artifacts.signature import Feeds

WARM_UP = 5
RUNS = 25
"""Profiled runs; a layer's time is the median of them."""
_STEPS = 12
"""From a node to whatever is made of it: a layer normalisation is written as nine."""
_IDLE = frozenset({"Constant", "Parameter", "Result"})


class Layer(NamedTuple):
    """One executed layer.

    Attributes:
        made_of: names of the graph's operators that it stands for, the runtime's own name where none are told.
        times_ms: of each profiled run.
        leads_to: names of its results and of what is made of them, the nearest first: whose a layer is that the runtime has added.
    """

    name: str
    type: str
    kernel: str
    made_of: tuple[str, ...]
    times_ms: list[float]
    leads_to: tuple[str, ...] = ()


class Told(NamedTuple):
    """Layers in the order of execution, and how long each profiled run took as a whole."""

    layers: list[Layer]
    whole_ms: list[float]


def of_onnxruntime(content: bytes | str, feed: Feeds, threads: int, *, leads: bool = True) -> Told:
    """Profile a graph in ONNX Runtime on the CPU.

    Args:
        content: the graph, or the path of its file.
        leads: whether `Layer.leads_to` is wanted, which takes reading the graph that is executed.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="dtvit-deploy-") as folder:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        if leads:
            settings.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        whole = [_timed(lambda: session.run(None, dict(feed))) for _ in range(WARM_UP + RUNS)]
        events = json.loads(Path(session.end_profiling()).read_bytes())
        follows = _following(Path(folder) / "optimized.onnx", _names(events)) if leads else {}
    taken: defaultdict[str, list[float]] = defaultdict(list)
    about: dict[str, tuple[str, str]] = {}
    for name, event in _names(events):
        taken[name].append(event["dur"] / 1e3)
        about[name] = str(event["args"].get("op_name", "")), str(event["args"].get("provider", ""))
    layers = [Layer(name, *about[name], (name,), times[WARM_UP:], follows.get(name, ())) for name, times in taken.items()]
    return Told([one for one in layers if one.times_ms], whole[WARM_UP:])


def _names(events: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Executions of nodes in a profile of ONNX Runtime, each with the node's name."""
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            yield name.removesuffix("_kernel_time"), event


def _following(path: Path, told: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, tuple[str, ...]]:
    """By each node of the graph that is executed, what it makes and what is made of that, some steps far.

    ONNX Runtime writes operators that it has no kernel for as several, converts between types and reorders, all under names of its own, or
    under none: those a profile calls by their type and their place, in which order they are in the graph's file too.
    """
    nodes = nodes_read(path.read_bytes())
    named = {node.name for node in nodes}
    places = {int(event["args"]["node_index"]): (str(event["args"]["op_name"]), name) for name, event in told if name not in named}
    nameless: defaultdict[str, list[str]] = defaultdict(list)
    for _, (operator, name) in sorted(places.items()):
        nameless[operator].append(name)
    meant = {operator: sum(not node.name and node.operator == operator for node in nodes) for operator in nameless}
    given = {operator: iter(names if len(names) == meant[operator] else ()) for operator, names in nameless.items()}
    nodes = [node if node.name else node._replace(name=next(given.get(node.operator, iter(())), "")) for node in nodes]
    readers: defaultdict[str, list[NodeRead]] = defaultdict(list)
    for node in nodes:
        for name in node.inputs:
            readers[name].append(node)
    by_name = {node.name: node for node in nodes}
    makes = {name: [*node.outputs] for name, node in by_name.items()}
    feeds = {name: [reader.name for made in node.outputs for reader in readers.get(made, ())] for name, node in by_name.items()}
    return {name: _reached(name, makes, feeds) for name in by_name}


def _reached(start: str, makes: Mapping[str, Iterable[str]], feeds: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """What an operator makes, and what those make that it feeds, the nearest first."""
    found, seen, left = dict[str, None](), {start}, [start]
    for _ in range(_STEPS):
        found |= dict.fromkeys(made for one in left for made in makes.get(one, ()))
        left = [one for one in dict.fromkeys(fed for one in left for fed in feeds.get(one, ())) if one not in seen]
        seen |= set(left)
    return tuple(found)


def of_openvino(model: openvino.Model, feed: Feeds, settings: Mapping[str, Any]) -> Told:
    """Profile a graph in OpenVINO on the CPU, compiled with ``settings``."""
    import openvino

    makes, feeds = _graph(model)
    compiled = openvino.Core().compile_model(model, "CPU", {**settings, "PERF_COUNT": True})
    made_of: dict[str, tuple[str, ...]] = {}
    for layer in compiled.get_runtime_model().get_ordered_ops():
        info = layer.get_rt_info()
        original = info["originalLayersNames"].astype(str) if "originalLayersNames" in info else ""
        made_of[layer.get_friendly_name()] = tuple(name for name in original.split(",") if name)
    follows = _graph(compiled.get_runtime_model())[1]
    meant = {name: [*names, *(made for one in names for made in _reached(one, makes, feeds))] for name, names in made_of.items()}
    request = compiled.create_infer_request()
    whole, taken, about = list[float](), defaultdict[str, list[float]](list), dict[str, tuple[str, str]]()
    for run in range(WARM_UP + RUNS):
        whole.append(_timed(lambda: request.infer(dict(feed))))
        for layer in request.profiling_info if run >= WARM_UP else ():
            if layer.status == openvino.ProfilingInfo.Status.EXECUTED and layer.node_type not in _IDLE:
                taken[layer.node_name].append(layer.real_time.total_seconds() * 1e3)
                about[layer.node_name] = layer.node_type, layer.exec_type
    layers = [
        Layer(name, *about[name], made_of.get(name) or (name,), times, _reached(name, meant, follows)) for name, times in taken.items()
    ]
    return Told(layers, whole[WARM_UP:])


def _graph(model: openvino.Model) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """By the name of each operator, the names of what it makes, and the operators that read it."""
    makes, feeds = {}, {}
    for one in model.get_ordered_ops():
        makes[one.get_friendly_name()] = [name for port in one.outputs() for name in sorted(port.get_names())]
        feeds[one.get_friendly_name()] = [end.get_node().get_friendly_name() for port in one.outputs() for end in port.get_target_inputs()]
    return makes, feeds


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1e3
