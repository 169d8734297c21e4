"""Typed ONNX to an engine: one builder for TensorRT 10, TensorRT 11 and TensorRT-RTX.

Every network is strongly typed: the precision of each tensor is the graph's, and no builder flag changes it. What is pinned besides is
what the libraries' defaults differ in (TF32, scratch memory, verbosity), so that two builds of one graph mean the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import onnx

from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx import module_of
from dtvit_deploy.export.tensorrt.lint import Compiler, ParserMessage, blame
from dtvit_deploy.trt.library import Library
from dtvit_deploy.trt.options import RTX_CAPABILITIES, BuildOptions

MIB = 1 << 20
_SAID = 3
"""Messages of a compiler that are repeated in an error."""


class Built(NamedTuple):
    """An engine.

    Attributes:
        engine: its bytes.
        layers: JSON of what it is made of.
        notes: what a user should know of the build.
        timing: measured kernel times, which make the next build on this GPU fast; None where nothing was timed.
    """

    engine: bytes
    layers: bytes
    notes: tuple[str, ...]
    timing: bytes | None


class Diary:
    """What the library said while it built: its logger."""

    def __init__(self, library: Library) -> None:
        trt, said = library.module, self
        self.errors: list[str] = []
        self.warnings: list[str] = []

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                    said.errors.append(message.strip())
                elif severity == trt.ILogger.WARNING:
                    said.warnings.append(message.strip())

        self.logger = Logger()

    @property
    def reasons(self) -> str:
        """The last of its errors, in a line."""
        told = list(dict.fromkeys(self.errors))[-_SAID:]
        return "; ".join(" ".join(message.split()) for message in told) or "it gave no reason"


def engine_from_onnx(path: Path, options: BuildOptions, library: Library, timing: bytes = b"") -> Built:
    """Build.

    Args:
        path: the typed graph.
        options: `unfit_options` has been asked whether the library can follow them.
        library: who builds.
        timing: what an earlier build on this GPU gave.

    Raises:
        InputError: the parser or the builder refuses; the message names torch modules where the library names nodes.
    """
    model = onnx.load(path, load_external_data=False)
    trt, diary = library.module, Diary(library)
    builder = trt.Builder(diary.logger)
    network = builder.create_network(library.strongly_typed())
    parser = trt.OnnxParser(network, diary.logger)
    if not parser.parse(path.read_bytes()):
        raise _parser_errors(parser, model, library)
    config = _config(builder, options, library, timing)
    notes = list(_fallbacks(network, config, model)) if options.dla_core is not None and not library.ahead_of_time else []
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InputError(
            f"{library.name} {library.version} cannot build the engine: {diary.reasons}",
            remedy="give it more scratch memory, or none to keep to (--workspace)"
            if options.workspace_mib
            else "see what it says; `dtvit-deploy verify` of the ONNX artefact shows whether the graph itself is sound",
        )
    engine = bytes(plan)
    kept = None if library.ahead_of_time else bytes(config.get_timing_cache().serialize())
    layers = _network_layers(network, model) if library.ahead_of_time else _engine_layers(engine, library, diary)
    notes += [f"{library.name} warns: {' '.join(message.split())}" for message in dict.fromkeys(diary.warnings)]
    return Built(engine, layers, tuple(notes), kept)


def unfit_options(options: BuildOptions, library: str) -> tuple[str, ...]:
    """What a library cannot do of what is asked: TensorRT-RTX takes these settings, and builds the same bytes whatever they are."""
    if library != "tensorrt-rtx":
        return ()
    default = BuildOptions()
    wishes = {
        "a DLA core": options.dla_core is not None,
        "version compatibility": options.version_compatible,
        "hardware compatibility": options.hardware_compatible,
        "an optimisation level": options.optimization_level != default.optimization_level,
    }
    return tuple(wish for wish, asked in wishes.items() if asked)


def _config(builder: Any, options: BuildOptions, library: Library, timing: bytes) -> Any:
    trt, config = library.module, builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    (config.set_flag if options.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * MIB)
    if library.ahead_of_time:
        capabilities = options.capabilities or RTX_CAPABILITIES
        config.num_compute_capabilities = len(capabilities)
        for place, capability in enumerate(capabilities):
            config.set_compute_capability(_compute_capability(capability, library), place)
        return config
    config.builder_optimization_level = options.optimization_level
    config.set_timing_cache(config.create_timing_cache(timing), False)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.dla_core is not None:
        if options.dla_core >= builder.num_DLA_cores:
            raise InputError(
                f"DLA core {options.dla_core} was asked for, and this machine has {builder.num_DLA_cores or 'none'}",
                remedy="leave --dla-core out here; a Jetson AGX Orin has cores 0 and 1",
            )
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    return config


def _compute_capability(capability: str, library: Library) -> Any:
    known = {
        f"{name[2:-1]}.{name[-1]}": value for name, value in library.module.ComputeCapability.__members__.items() if name.startswith("SM")
    }
    if capability not in known:
        raise InputError(
            f"{library.name} {library.version} does not compile for compute capability {capability}",
            remedy=f"it knows {', '.join(sorted(known, key=float))}; other devices build for themselves: --flavour on-device",
        )
    return known[capability]


def _parser_errors(parser: Any, model: onnx.ModelProto, library: Library) -> InputError:
    """What the parser refused, by torch module, with the remedies that the linter knows."""
    told = [parser.get_error(place) for place in range(parser.num_errors)]
    messages = [ParserMessage(one.code().name, one.desc(), one.node(), one.node_name(), one.node_operator()) for one in told]
    blamed = blame(model, messages, Compiler(library.name, library.version))
    return InputError(
        f"{library.name} {library.version} does not take the graph: "
        + ("; ".join(f"{one.module} ({one.node}): {one.message}" for one in blamed) or "its parser gives no reason"),
        remedy="; ".join(dict.fromkeys(one.remedy for one in blamed)) or "leave the target out",
    )


def _fallbacks(network: Any, config: Any, model: onnx.ModelProto) -> Iterator[str]:
    """Which modules the DLA leaves to the GPU."""
    modules = {node.name: module_of(node) for node in model.graph.node}
    left: dict[str, int] = {}
    for place in range(network.num_layers):
        layer = network.get_layer(place)
        if not config.can_run_on_DLA(layer):
            module = modules.get(layer.name, "(no module)")
            left[module] = left.get(module, 0) + 1
    if left:
        count = sum(left.values())
        yield f"{count} of {network.num_layers} layers fall back from the DLA to the GPU, in {', '.join(left)}"


def _network_layers(network: Any, model: onnx.ModelProto) -> bytes:
    """The layers as they were parsed, each with its torch module: without a GPU, no library tells what it fused them to."""
    modules = {node.name: module_of(node) for node in model.graph.node}
    layers = []
    for place in range(network.num_layers):
        layer = network.get_layer(place)
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        layers.append(
            {
                "name": layer.name,
                "type": layer.type.name,
                "module": modules.get(layer.name, ""),
                "outputs": [{"name": out.name, "dtype": out.dtype.name.lower(), "shape": list(out.shape)} for out in outputs],
            }
        )
    return json.dumps({"stage": "parsed", "layers": layers}, indent=1).encode()


def _engine_layers(engine: bytes, library: Library, diary: Diary) -> bytes:
    """The layers as they were fused, in the library's own words."""
    trt = library.module
    loaded = trt.Runtime(diary.logger).deserialize_cuda_engine(engine)
    if loaded is None:
        raise InputError(f"{library.name} {library.version} does not load the engine that it built: {diary.reasons}")
    told = loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return json.dumps({"stage": "built", "engine": json.loads(told)}, indent=1).encode()
