"""Stand-ins of the Python module ``tensorrt``, one for release 10 and one for 11: they have exactly the names that the release has.

``tensorrt_api.json`` lists the names of the module, of the members of the classes that build and run engines (with the names of the
arguments; ``=`` marks what can be assigned, ``?`` what may be left out, ``*`` what is overloaded), and of all enumerators. They were read
from the compiled bindings, and are kept only where the sources at https://github.com/NVIDIA/TensorRT/tree/v11.1/python/src (and v10.16)
name them too. What is not listed raises AttributeError, when it is read and when it is assigned: so does the real module.

An engine of a stand-in holds the graph that it was built from, and executes it with ONNX Runtime, in the memory that `Driver` hands out.
"""

from __future__ import annotations

import ctypes
import enum
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

RELEASES: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text())
ELEMENT = {1: "FLOAT", 10: "HALF", 7: "INT64", 6: "INT32", 3: "INT8", 2: "UINT8", 9: "BOOL"}
ON_DLA = ("CONVOLUTION", "ACTIVATION", "POOLING", "ELEMENTWISE", "MATRIX_MULTIPLY")


class Plan:
    """How a stand-in is to behave, and what it was told.

    Attributes:
        starts: whether there is a builder at all.
        builds: whether it makes an engine.
        refuses: operators that the parser does not know.
        dla_cores: of the machine.
        spoil: what happens to an answer before it is handed out.
        header: bytes that an engine begins with.
        said: (class, member, value or arguments) of every assignment and call.
    """

    def __init__(self) -> None:
        self.starts, self.builds, self.dla_cores = True, True, 0
        self.refuses: tuple[str, ...] = ()
        self.header = b""
        self.spoil: Callable[[Any], Any] = lambda array: array
        self.said: list[tuple[str, str, Any]] = []

    def told(self, kind: str, member: str) -> list[Any]:
        return [value for owner, name, value in self.said if (owner, name) == (kind, member)]


def stand_in(release: str, plan: Plan) -> Any:
    """The module of one release, ``10`` or ``11``."""
    api = RELEASES[release]
    module: Any = Module("tensorrt")
    module.__version__ = api["version"]
    for name in api["module"].split():
        setattr(module, name, object())  # a name that exists, and that nothing can be done with
    for name, members in api["enums"].items():
        setattr(module, name, enum.IntEnum(name, {member: index for index, member in enumerate(members.split())}))
    for name, members in api["classes"].items():
        setattr(module, name, _class(name, members.split(), plan, module))
    module.ILogger.Severity = enum.IntEnum("Severity", {member: index for index, member in enumerate(api["severity"].split())})
    return module


class Module(ModuleType):
    """A module whose missing names say whose they are."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"module 'tensorrt' {self.__dict__.get('__version__')} has no attribute {name!r}")


def _class(name: str, members: list[str], plan: Plan, module: Any) -> type:
    body: dict[str, Any] = {"__init__": _initialise, "__setattr__": _assign}
    writable = {member[:-1] for member in members if member.endswith("=")}
    for member in members:
        called = re.fullmatch(r"(\w+)\((.*)\)", member)
        if called:
            body[called[1]] = _method(name, called[1], called[2])
        else:
            body[member.rstrip("=")] = _property(name, member.rstrip("="))
    made = type(name, (), body)
    made._listed, made._writable, made._plan, made._module = made, writable, plan, module  # type: ignore[attr-defined]
    return made


def _initialise(self: Any, *made_from: Any) -> None:
    if self._listed.__name__ == "Builder" and not self._plan.starts:
        self.__dict__["_state"] = {"made_from": made_from}
        _say(self, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")  # as the real bindings say it
    self.__dict__["_state"] = {"made_from": made_from}


def _assign(self: Any, name: str, value: Any) -> None:
    if type(self) is not self._listed:  # a class of the caller's own that extends it, like a logger
        object.__setattr__(self, name, value)
    elif name not in self._writable:
        raise AttributeError(f"{self._listed.__name__!r} object has no attribute {name!r} that can be assigned")
    else:
        self._plan.said.append((self._listed.__name__, name, value))
        self._state[name] = value


def _property(kind: str, name: str) -> property:
    def read(self: Any) -> Any:
        return self._state[name] if name in self._state else BEHAVIOUR[f"{kind}.{name}"](self)

    return property(read, lambda self, value: None)  # _assign comes first


def _method(kind: str, name: str, parameters: str) -> Callable[..., Any]:
    names = [parameter.rstrip("?") for parameter in parameters.split(",") if parameter]
    needed = sum(not parameter.endswith("?") for parameter in parameters.split(",") if parameter)

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        if parameters != "*" and not (needed <= len(arguments) + len(named) <= len(names) and named.keys() <= set(names)):
            raise TypeError(f"{kind}.{name}({parameters}) was called with {len(arguments)} arguments and {sorted(named)}")
        self._plan.said.append((kind, name, arguments))
        return BEHAVIOUR.get(f"{kind}.{name}", lambda *_: None)(self, *arguments, **named)

    return call


def _new(self: Any, kind: str, **state: Any) -> Any:
    made = getattr(self._module, kind)()
    made._state.update(state)
    return made


def _say(self: Any, message: str) -> None:
    """Tell the logger that this was made with, as the library does before it gives nothing back."""
    logger = self._state["made_from"][0]
    if logger is not None:
        logger.log(self._module.ILogger.Severity.ERROR, message)


def _build(builder: Any, network: Any, config: Any) -> bytes | None:
    if not builder._plan.builds:
        return _say(builder, "no tactic\nfor product_layer")
    host_code = builder._module.BuilderFlag.VERSION_COMPATIBLE in config._state["flags"]
    return builder._plan.header + b"engine " + (b"with host code " if host_code else b"") + bytes(network._state["graph"])


def _timings(config: Any, data: bytes) -> Any:
    """Bytes that are no cache make none; another device's are found out when they are set."""
    if data.startswith(b"damaged"):
        return _say(config, "the timing cache cannot be read")
    return _new(config, "ITimingCache", data=data)


def _parse(parser: Any, data: bytes) -> bool:
    import onnx

    network = parser._state["made_from"][0]
    model = onnx.load_from_string(data)
    kinds = {"Conv": "CONVOLUTION", "Relu": "ACTIVATION", "MatMul": "MATRIX_MULTIPLY", "Add": "ELEMENTWISE"}
    layers, errors = [], []
    for index, node in enumerate(model.graph.node):
        name = node.name or f"node_of_{node.output[0]}"
        if node.op_type in parser._plan.refuses:
            errors.append(_new(parser, "ParserError", index=index, name=node.name, operator=node.op_type))
        kind = getattr(parser._module.LayerType, kinds.get(node.op_type, "SHUFFLE"))
        layers.append(_new(parser, "ILayer", name=f"{name}_layer", type=kind, metadata=f"[ONNX Layer: {name}]"))
    network._state.update(layers=layers, graph=data)
    parser._state["errors"] = errors
    return not errors


def _deserialize(runtime: Any, data: bytes) -> Any:
    import onnx

    data = bytes(data).removeprefix(runtime._plan.header).removeprefix(b"engine ")
    if data.startswith(b"with host code ") and not runtime._state.get("engine_host_code_allowed"):
        return _say(runtime, "the engine brings host code, which is not allowed")
    model = onnx.load_from_string(data.removeprefix(b"with host code "))
    return _new(runtime, "ICudaEngine", model=model, tensors={tensor.name: tensor for tensor in (*model.graph.input, *model.graph.output)})


def _execute(context: Any, _stream: int) -> bool:
    import onnxruntime

    model, addresses = context._state["model"], context._state["addresses"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    types = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(float16)": np.float16}
    feeds = {}
    for tensor in session.get_inputs():
        size = int(np.prod(tensor.shape)) * np.dtype(types[tensor.type]).itemsize
        feeds[tensor.name] = np.frombuffer(ctypes.string_at(addresses[tensor.name], size), types[tensor.type]).reshape(tensor.shape)
    for tensor, array in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        data = context._plan.spoil(array).tobytes()
        ctypes.memmove(addresses[tensor.name], data, len(data))
    profiler = context._state.get("profiler")
    for place, layer in enumerate(_fused(model) if profiler is not None else ()):
        profiler.report_layer_time(layer["Name"], float(place + 1))
    return True


def _fused(model: Any) -> list[dict[str, str]]:
    """The layers of an engine: the first two nodes are one, the others are as they were."""
    names = [node.name or f"node_of_{node.output[0]}" for node in model.graph.node]
    groups = [names[:2], *([name] for name in names[2:])]
    return [{"Name": "+".join(group), "Metadata": "\x1e".join(f"[ONNX Layer: {name}]" for name in group)} for group in groups]


def _shape(engine: Any, name: str) -> tuple[int, ...]:
    return tuple(size.dim_value for size in engine._state["tensors"][name].type.tensor_type.shape.dim)


BEHAVIOUR: dict[str, Callable[..., Any]] = {
    "Builder.num_DLA_cores": lambda builder: builder._plan.dla_cores,
    "Builder.create_network": lambda builder, *_: _new(builder, "INetworkDefinition"),
    "Builder.create_builder_config": lambda builder: _new(
        builder, "IBuilderConfig", flags={builder._module.BuilderFlag.TF32}, **builder._state
    ),
    "Builder.build_serialized_network": _build,
    "INetworkDefinition.num_layers": lambda network: len(network._state["layers"]),
    "INetworkDefinition.get_layer": lambda network, index: network._state["layers"][index],
    "OnnxParser.parse": _parse,
    "OnnxParser.num_errors": lambda parser: len(parser._state["errors"]),
    "OnnxParser.get_error": lambda parser, index: parser._state["errors"][index],
    "ParserError.node": lambda error: error._state["index"],
    "ParserError.node_name": lambda error: error._state["name"],
    "ParserError.code": lambda error: error._module.ErrorCode.UNSUPPORTED_NODE,
    "ParserError.node_operator": lambda error: error._state["operator"],
    "ParserError.desc": lambda error: f"no importer for\n{error._state['operator']}",
    "ParserError.func": lambda error: f"check{error._state['operator']}",
    "IBuilderConfig.set_flag": lambda config, flag: config._state["flags"].add(flag),
    "IBuilderConfig.clear_flag": lambda config, flag: config._state["flags"].discard(flag),
    "IBuilderConfig.can_run_on_DLA": lambda _, layer: layer.type.name in ON_DLA,
    "IBuilderConfig.create_timing_cache": _timings,
    "IBuilderConfig.set_timing_cache": lambda _, cache, ignore: ignore or cache._state["data"] in (b"", b"timings"),
    "IBuilderConfig.get_timing_cache": lambda config: _new(config, "ITimingCache", data=b"timings"),
    "ITimingCache.serialize": lambda cache: cache._state["data"],
    "Runtime.deserialize_cuda_engine": _deserialize,
    "ICudaEngine.num_io_tensors": lambda engine: len(engine._state["tensors"]),
    "ICudaEngine.get_tensor_name": lambda engine, index: list(engine._state["tensors"])[index],
    "ICudaEngine.get_tensor_dtype": lambda engine, name: getattr(
        engine._module.DataType, ELEMENT[engine._state["tensors"][name].type.tensor_type.elem_type]
    ),
    "ICudaEngine.get_tensor_shape": _shape,
    "ICudaEngine.create_engine_inspector": lambda engine: _new(engine, "EngineInspector", model=engine._state["model"]),
    "ICudaEngine.create_execution_context": lambda engine: _new(engine, "IExecutionContext", addresses={}, model=engine._state["model"]),
    "EngineInspector.get_engine_information": lambda inspector, _: json.dumps({"Layers": _fused(inspector._state["model"])}),
    "IExecutionContext.set_tensor_address": lambda context, name, address: context._state["addresses"].update({name: address}) or True,
    "IExecutionContext.execute_async_v3": _execute,
}


class Driver:
    """The functions of the CUDA driver's library that a job calls, over this process's own memory: an Orin without a GPU."""

    def __init__(self) -> None:
        self.memory: list[Any] = []

    def cuInit(self, flags: int) -> int:  # noqa: N802 - names of the library
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 12060
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:  # noqa: N802
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:  # noqa: N802
        return 0

    def cuStreamCreate(self, stream: Any, flags: int) -> int:  # noqa: N802
        return 0

    def cuStreamSynchronize(self, stream: Any) -> int:  # noqa: N802
        return 0

    def cuMemAlloc_v2(self, pointer: Any, size: Any) -> int:  # noqa: N802
        self.memory.append(ctypes.create_string_buffer(size.value))
        pointer._obj.value = ctypes.addressof(self.memory[-1])
        return 0

    def cuMemcpyHtoDAsync_v2(self, to: Any, data: bytes, size: Any, stream: Any) -> int:  # noqa: N802
        ctypes.memmove(to.value, data, size.value)
        return 0

    def cuMemcpyDtoHAsync_v2(self, to: Any, address: Any, size: Any, stream: Any) -> int:  # noqa: N802
        ctypes.memmove(to, address.value, size.value)
        return 0
