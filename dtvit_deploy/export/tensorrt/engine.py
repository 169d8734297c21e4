"""Typed ONNX to an engine: one builder for TensorRT 10, TensorRT 11 and TensorRT-RTX.

Every network is strongly typed: the precision of each tensor is the graph's, and no builder flag changes it. What is pinned besides is
what the libraries' defaults differ in (TF32, scratch memory, verbosity), so that two builds of one graph mean the same.

A device that builds for itself does so with a script of its own, :mod:`.on_device_build`; what the two say of an engine, and how they take
an earlier build's timings, is written there once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import onnx

from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.export.tensorrt.lint import Compiler, ParserMessage, blame
from dtvit_deploy.export.tensorrt.on_device_build import (
    NOT_ON_JETSON,
    attach_timings,
    built_layers,
    fallback_note,
    left_to_gpu,
    module_of_layer,
)
from dtvit_deploy.formats.engine.gpu import jetpack
from dtvit_deploy.formats.engine.library import Library
from dtvit_deploy.formats.engine.options import RTX_CAPABILITIES, BuildOptions

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
                if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                    said.errors.append(message.strip())
                elif severity == trt.ILogger.Severity.WARNING:
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
        MissingError: the library does not start, or a DLA core is not there.
    """
    model = onnx.load(path, load_external_data=False)
    modules = {parsed_name(node): module_of(node) for node in model.graph.node}
    trt, diary = library.module, Diary(library)
    try:
        builder = trt.Builder(diary.logger)
    except TypeError as error:  # what the bindings make of no builder at all, as where the driver is too old
        raise MissingError(
            f"{library.name} {library.version} does not start: {diary.reasons}",
            remedy="see that the NVIDIA driver is new enough for this release (nvidia-smi shows it), or use --flavour rtx or on-device",
        ) from error
    network = builder.create_network(library.strongly_typed())
    parser = trt.OnnxParser(network, diary.logger)
    if not parser.parse(path.read_bytes()):
        raise _parser_errors(parser, model, library)
    config = _config(builder, options, library)
    notes: list[str] = []
    fallen = None
    if not library.ahead_of_time:
        attach_timings(config, timing)
        if options.hardware_compatible and jetpack():
            notes.append(NOT_ON_JETSON)
        if options.dla_core is not None:
            fallen = left_to_gpu(config, network, modules)
            notes.append(fallback_note(options.dla_core, fallen, network.num_layers))
    diary.errors.clear()  # of timings that were refused, say: what follows is the build's
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InputError(
            f"{library.name} {library.version} cannot build the engine: {diary.reasons}",
            remedy="give it more scratch memory, or none to keep to (--workspace)"
            if options.workspace_mib
            else "see what it says; `dtvit-deploy verify` of the ONNX artefact shows whether the graph itself is sound",
        )
    engine = bytes(plan)
    if library.ahead_of_time:
        kept, layers = None, _network_layers(network, modules)
    else:
        measured = config.get_timing_cache()
        kept = None if measured is None else bytes(measured.serialize())
        layers = _engine_layers(engine, options, library, diary) | ({} if fallen is None else {"left to the GPU": fallen})
    notes += [f"{library.name} warns: {' '.join(message.split())}" for message in dict.fromkeys(diary.warnings)]
    return Built(engine, json.dumps(layers, indent=1).encode(), tuple(notes), kept)


def parsed_name(node: onnx.NodeProto) -> str:
    """A node's name in the parser's words: it gives one to those that have none."""
    return node.name or f"node_of_{next(iter(node.output), '')}"


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


def _config(builder: Any, options: BuildOptions, library: Library) -> Any:
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
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible and not jetpack():
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.dla_core is not None:
        if options.dla_core >= builder.num_DLA_cores:
            raise MissingError(
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


def _network_layers(network: Any, modules: Mapping[str, str]) -> dict[str, Any]:
    """The layers as they were parsed, each with its torch module: without a GPU, no library tells what it fused them to."""
    layers = []
    for place in range(network.num_layers):
        layer = network.get_layer(place)
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        layers.append(
            {
                "name": layer.name,
                "type": layer.type.name,
                "module": module_of_layer(layer.name, layer.metadata, modules),
                "outputs": [{"name": out.name, "dtype": out.dtype.name.lower(), "shape": list(out.shape)} for out in outputs],
            }
        )
    return {"stage": "parsed", "layers": layers}


def _engine_layers(engine: bytes, options: BuildOptions, library: Library, diary: Diary) -> dict[str, Any]:
    """The layers as they were fused, which only the loaded engine tells."""
    runtime = library.module.Runtime(diary.logger)
    runtime.engine_host_code_allowed = options.version_compatible  # such an engine brings code of its own; it was made a moment ago, here
    if options.dla_core is not None:
        runtime.DLA_core = options.dla_core
    loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        raise InputError(
            f"{library.name} {library.version} does not load the engine that it built: {diary.reasons}",
            remedy="see that the GPU has memory left",
        )
    return built_layers(library.module, loaded)
