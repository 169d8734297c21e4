#!/usr/bin/env python3
# ruff: noqa: T201 - a program of its own, copied to the device as build.py: printing is how it answers
"""Build this folder's network into a TensorRT engine on the device that will run it, and check what the engine answers.

    python3 build.py [--out FOLDER] [--build-only | --profile]

It needs Python and the tensorrt module as JetPack 6 or 7 ship them, and no other package. Exit codes: 0 done, 1 the engine answers
wrongly, 2 the job or what was asked is wrong, 3 something is missing on this machine.

It is one file, however long, because it is copied into the folder of a job as it stands and runs where nothing else of the package is.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import fcntl
import hashlib
import importlib
import json
import math
import os
import platform
import re
import shutil
import stat
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

HERE = Path(__file__).resolve().parent
FORMATS = {"tensorrt": ("tensorrt", "trt"), "tensorrt_rtx": ("tensorrt-rtx", "rtx")}
CODES = {"float32": "f", "float16": "e", "int64": "q", "int32": "i", "int8": "b", "uint8": "B", "bool": "?"}
TYPES = {"float32": "FLOAT", "float16": "HALF", "int64": "INT64", "int32": "INT32", "int8": "INT8", "uint8": "UINT8", "bool": "BOOL"}
SCHEMA = 1
MOST_VALUES = 1 << 28
"""Of one tensor."""
LARGEST_JOB, LARGEST_TIMINGS = 16 << 20, 1 << 30
"""Bytes."""
WARM_UP, RUNS = 10, 50
"""Of an engine that is profiled."""
SHOWN = 12
"""Modules that a note names before it counts the rest."""
NOT_ON_JETSON = (
    "hardware compatibility was left out: NVIDIA does not offer it on a Jetson, and this engine is for GPUs of this compute capability only"
)


class JobError(Exception):
    """An expected failure: one line, and the exit code that says whose fault it is."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the TensorRT engine of this job on this device, and check its answers.")
    parser.add_argument("--out", type=Path, default=HERE.parent, help="folder for the engine's folder (default: beside the job)")
    parser.add_argument("--build-only", action="store_true", help="do not execute the engine")
    parser.add_argument("--profile", action="store_true", help="time every layer, into profile.json in the engine's folder")
    parser.add_argument("--library", choices=sorted(FORMATS), default="tensorrt", help="tensorrt_rtx builds for other GPUs, and needs none")
    parser.add_argument("--capability", action="append", default=[], help="for tensorrt_rtx: a GPU's compute capability, like 8.9")
    try:
        return run(parser.parse_args(arguments))
    except JobError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("build.py: interrupted, nothing was written", file=sys.stderr)
        return 130


def run(asked: argparse.Namespace) -> int:
    job, digest = read_job()
    name, (library, suffix) = job["name"], FORMATS[asked.library]
    ahead = library == "tensorrt-rtx"
    if ahead and not (asked.build_only and asked.capability):
        raise JobError("--library tensorrt_rtx builds ahead of time: add --build-only and --capability 8.9")
    if asked.profile and asked.build_only:
        raise JobError("--profile executes the engine, and --build-only does not: give one of them")
    if asked.capability and not ahead:
        raise JobError("--capability is for --library tensorrt_rtx: TensorRT builds for the GPU that is here")
    trt = import_library(asked.library)
    cuda = None if ahead else Cuda(load_driver())
    host = describe_host(cuda)
    options = dict(job["options"], **({"capabilities": asked.capability} if ahead else {}))
    capabilities = asked.capability if cuda is None else [cuda.capability]
    where = ", ".join(filter(None, [host["device"], "compute capability " + " ".join(capabilities), host["jetpack"], host["platform"]]))
    print(f"{name}: {library} {trt.__version__}, {where}")
    unfit = []
    if options["hardware_compatible"] and (host["jetpack"] or "jetson" in host["device"].lower()):
        options["hardware_compatible"] = False  # the passport says what the engine is
        unfit = [NOT_ON_JETSON]
        print(NOT_ON_JETSON)

    require_own(asked.out / f"{name}.{suffix}", digest)
    log = make_log(trt)
    asked.out.mkdir(parents=True, exist_ok=True)
    stage, lock = open_stage(asked.out, f".{name}.{suffix}.partial")
    try:
        inside = stage / f"{name}.{suffix}"
        inside.mkdir()
        engine, notes = build(trt, log, job, options, inside, capabilities if ahead else [])
        notes = [*unfit, *notes]
        if asked.profile:
            conditions = dict(host, library=library, version=str(trt.__version__), capabilities=capabilities)
            write_json(inside / "profile.json", dict(profile(trt, log, cuda, engine, job), conditions=conditions))
            print(f"timed every layer {RUNS} times: profile.json")
        write(inside / "graph.onnx", (HERE / "graph.onnx").read_bytes())
        passport = dict(host, library=library, version=str(trt.__version__), capabilities=capabilities, options=options)
        passport.update(engine=sha256(inside / "model.engine"), bytes=(inside / "model.engine").stat().st_size)
        passport.update(graph=sha256(inside / "graph.onnx"))
        whole = folder_sha256(inside)
        link = {"kind": "tensorrt", "sha256": whole, "tools": {library: str(trt.__version__)}, "notes": notes}
        link["options"] = {"passport": passport, "job": digest}
        manifest = dict(job["manifest"], format=suffix, sha256=whole, rung="built", lineage=[*job["manifest"]["lineage"], link])
        write_json(stage / f"{name}.{suffix}.json", manifest)
        publish(stage, asked.out, f"{name}.{suffix}")
    finally:
        shutil.rmtree(str(stage), ignore_errors=True)
        os.close(lock)
    print(f"wrote {asked.out / (name + '.' + suffix)} and its manifest")
    if asked.build_only:
        print("verdict: built, not executed")
        return 0

    passed, said = check_golden(trt, log, cuda, engine, job)
    link["notes"] = [*notes, *said]
    manifest["rung"] = "on device" if passed else "built"
    write_json(asked.out / f"{name}.{suffix}.json", manifest)
    print("\n".join(said))
    print("verdict: passed on this device" if passed else "verdict: failed, the engine does not answer as it should")
    return 0 if passed else 1


def read_job() -> tuple[dict[str, Any], str]:
    """The job, once every file of it is known to be as it was written, and everything in it is what it has to be.

    Who can write the folder can write digests that fit, so that a digest alone says nothing of where a path leads.
    """
    text = contents(HERE / "job.json", LARGEST_JOB)
    digest = hashlib.sha256(text).hexdigest()
    if contents(HERE / "job.json.sha256", 4096).decode(errors="replace").split()[:1] != [digest]:
        raise JobError("job.json is not as it was written: copy the folder again")
    try:
        job = json.loads(text.decode(), parse_constant=not_a_number)
        require_job(job)
    except (ValueError, OverflowError, RecursionError) as error:
        raise JobError(f"job.json is no job that this script can take: {' '.join(str(error).split())[:300]}; export it again") from error
    for path, expected in sorted(job["files"].items()):
        parts = [HERE.joinpath(*Path(path).parts[: index + 1]) for index in range(len(Path(path).parts))]
        if not (HERE / path).is_file():
            raise JobError(f"{path} is missing: copy the folder again")
        if any(part.is_symlink() for part in parts):
            raise JobError(f"{path} is a link, and may lead anywhere: copy the folder again, with files in the place of links")
        if sha256(HERE / path) != expected:
            raise JobError(f"{path} is not as it was written: copy the folder again")
    for tensor in [*job["golden"]["inputs"], *job["golden"]["outputs"]]:
        needed = job["golden"]["samples"] * math.prod(tensor["shape"]) * struct.calcsize(CODES[tensor["dtype"]])
        if (HERE / tensor["file"]).stat().st_size != needed:
            raise JobError(f"{tensor['file']} does not hold {job['golden']['samples']} samples of {tensor['name']}: export the job again")
    return job, digest


def contents(path: Path, most: int) -> bytes:
    """A file's bytes, if it is a file: what is large or never ends is none of a job."""
    if not path.is_file() or path.is_symlink():
        raise JobError(f"there is no file {path}: copy the folder again, with files in the place of links")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise JobError(f"{path.name} is larger than {most:,} bytes; no job has such a one")
    return data


def not_a_number(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def require_job(job: Any) -> None:
    """Hold a job to what `dtvit-deploy` writes: nothing else, nothing less.

    Raises:
        ValueError: something is of another type, out of bounds, unknown or not there; it is named.
    """
    require_keys(job, "job", {"schema": int, "name": str, "options": dict, "manifest": dict, "nodes": list, "golden": dict, "files": dict})
    require(job["schema"] == SCHEMA, f"schema is {job['schema']}; this script reads {SCHEMA}")
    require(len(job["name"]) <= 200 and re.fullmatch(r"\w[\w.+-]*", job["name"]), f"name {job['name'][:80]!r} is no name of a folder")
    for path, digest in job["files"].items():
        pieces = path.split("/")
        plain = len(path) <= 200 and all(re.fullmatch(r"\w[\w.+-]*", piece) for piece in pieces)
        require(plain, f"files: {path[:80]!r} is not a path within this folder")
        require(isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest), f"files: {path} has no SHA-256")
    require({"graph.onnx", "build.py"} <= set(job["files"]), "files: graph.onnx or build.py is not listed")
    require_options(job["options"])
    for node in job["nodes"]:
        of_text = isinstance(node, list) and len(node) == 3 and all(isinstance(word, str) for word in node)
        require(of_text, "nodes: each has a name, an operator and a module")
    require_golden(job["golden"], job["files"])
    manifest = job["manifest"]
    required = {"model": str, "format": str, "precision": str, "sha256": str, "signature": dict, "lineage": list}
    optional = {"rung": str, "classes": list, "preprocessing": dict, "schema": int}
    require_keys(manifest, "manifest", required, optional)
    require(bool(manifest["lineage"]), "manifest: its lineage is empty")
    for link in manifest["lineage"]:
        require_keys(link, "manifest.lineage", {"kind": str, "sha256": str}, {"tools": dict, "options": dict, "notes": list})


def require_options(options: Any) -> None:
    flags = ("tf32", "version_compatible", "hardware_compatible")
    numbers = {"optimization_level": (0, 5), "workspace_mib": (1, 1 << 30), "dla_core": (0, 1)}
    none = type(None)
    kinds: dict[str, Any] = dict(dict.fromkeys(flags, bool), capabilities=list, optimization_level=int)
    require_keys(options, "options", dict(kinds, workspace_mib=(int, none), dla_core=(int, none)))
    for name, (least, most) in numbers.items():
        value = options[name]
        require(value is None or least <= value <= most, f"options: {name} is {value}; it may be {least} to {most}")
    fit = all(isinstance(each, str) and re.fullmatch(r"[1-9]\d?\.\d", each) for each in options["capabilities"])
    require(fit, "options: a capability is like 8.7")


def require_golden(golden: Any, files: Mapping[str, Any]) -> None:
    require_keys(golden, "golden", {"samples": int, "inputs": list, "outputs": list})
    require(1 <= golden["samples"] <= 100_000, f"golden: {golden['samples']} samples")
    require(golden["inputs"] and golden["outputs"], "golden: a network has inputs and outputs")
    spec = {"name": str, "shape": list, "dtype": str, "file": str}
    limits = {"tolerance": (int, float, type(None)), "least_sqnr": (int, float, type(None)), "top1": bool}
    for tensor in golden["inputs"]:
        require_keys(tensor, "golden.inputs", spec)
    for tensor in golden["outputs"]:
        require_keys(tensor, "golden.outputs", dict(spec, **limits))
        judged = [tensor[limit] for limit in ("tolerance", "least_sqnr") if tensor[limit] is not None]
        require(judged and all(map(math.isfinite, judged)), f"golden: nothing finite says how near {tensor['name'][:80]!r} must come")
        require(tensor["tolerance"] is not None or tensor["dtype"].startswith("float"), "golden: whole numbers have no SQNR")
    for tensor in [*golden["inputs"], *golden["outputs"]]:
        require(tensor["dtype"] in CODES, f"golden: type {tensor['dtype'][:80]!r} is not known; known: {', '.join(CODES)}")
        sizes = len(tensor["shape"]) <= 32 and all(type(size) is int and 1 <= size <= MOST_VALUES for size in tensor["shape"])
        require(sizes and math.prod(tensor["shape"]) <= MOST_VALUES, f"golden: the shape of {tensor['name'][:80]!r} cannot be")
        require(tensor["file"] in files, f"golden: {tensor['file'][:80]!r} is no file of this job")


def require_keys(value: Any, what: str, needed: Mapping[str, Any], optional: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Refuse what is no object of exactly these keys, each of its type; true and false are no numbers."""
    require(isinstance(value, dict), f"{what} is no object")
    for key in value:
        require(key in needed or key in optional, f"{what}: {key[:80]!r} is not known; known: {', '.join([*needed, *optional])}")
    for key, kind in [*needed.items(), *((key, kind) for key, kind in optional.items() if key in value)]:
        require(key in value, f"{what}: {key} is missing")
        kinds = kind if isinstance(kind, tuple) else (kind,)
        right = isinstance(value[key], kinds) and (bool in kinds or not isinstance(value[key], bool))
        require(right, f"{what}: {key} is not of type {' or '.join(each.__name__ for each in kinds)}")


def require(holds: object, message: str) -> None:
    if not holds:
        raise ValueError(message)


def import_library(module: str) -> Any:
    try:
        trt = importlib.import_module(module)
    except Exception as error:  # a package without its libraries raises what it likes
        remedy = "JetPack 6 and 7 have it: sudo apt install python3-libnvinfer" if module == "tensorrt" else "pip install tensorrt-rtx"
        raise JobError(f"the Python module {module} cannot be imported ({error}); {remedy}", 3) from error
    if module == "tensorrt" and int(str(trt.__version__).split(".")[0]) < 10:
        raise JobError(f"TensorRT {trt.__version__} (JetPack 5 has 8.5) is not supported: at least TensorRT 10 and JetPack 6 are needed", 3)
    return trt


def make_log(trt: Any) -> Any:
    """A logger that keeps what went wrong, so that a refusal can say why."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.problems: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.problems.append(" ".join(message.split()))

    return Log()


def build(trt: Any, log: Any, job: dict[str, Any], options: dict[str, Any], folder: Path, ahead: list[str]) -> tuple[Any, list[str]]:
    """Write the engine and what is known of its layers to ``folder``.

    Returns:
        The engine, loaded (nothing ahead of time), and notes for its manifest.
    """
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # what the bindings make of no builder at all, as where the driver is too old
        raise JobError(f"TensorRT {trt.__version__} does not start, is the NVIDIA driver new enough for it? {last(log)}", 3) from error
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # a later release may know nothing else
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, log)
    if not parser.parse((HERE / "graph.onnx").read_bytes()):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise JobError("the parser refuses the graph: " + ("; ".join(explain(error, job["nodes"]) for error in errors) or last(log)))
    config = builder.create_builder_config()
    config.builder_optimization_level = options["optimization_level"]
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if not options["tf32"]:
        config.clear_flag(trt.BuilderFlag.TF32)  # FP32 in the graph means FP32
    if options["workspace_mib"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options["workspace_mib"] << 20)
    if options["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options["hardware_compatible"]:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    notes = [] if options["dla_core"] is None else use_dla(trt, builder, config, network, job["nodes"], options["dla_core"], folder)
    if ahead:
        config.num_compute_capabilities = len(ahead)
        for index, capability in enumerate(ahead):
            known = getattr(trt.ComputeCapability, "SM" + capability.replace(".", ""), None)
            if known is None or not config.set_compute_capability(known, index):
                names = ", ".join(each for each in trt.ComputeCapability.__members__ if each.startswith("SM"))
                raise JobError(f"TensorRT-RTX {trt.__version__} does not compile for compute capability {capability}; it knows {names}")
    timings = HERE.parent / f"{HERE.name}.timing"  # beside the job: within it, it would change the folder's digest
    reused = not ahead and attach_timings(config, own_timings(timings))
    log.problems.clear()
    begun = time.monotonic()
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise JobError(f"the builder made no engine: {last(log)}")
    size = write(folder / "model.engine", serialized)
    known_timings = ", with the timings of an earlier build" if reused else ""
    print(f"built from {network.num_layers} layers in {time.monotonic() - begun:.1f} s{known_timings}: {size / 2**20:.1f} MiB")
    if ahead:
        return None, notes
    measured = config.get_timing_cache()
    try:
        if measured is not None:
            write(timings, bytes(measured.serialize()))
    except OSError as error:
        print(f"the next build takes as long, since {timings} cannot be written: {error.strerror}")
    runtime = trt.Runtime(log)
    runtime.engine_host_code_allowed = options["version_compatible"]  # such an engine brings code of its own; it was made here just now
    if options["dla_core"] is not None:
        runtime.DLA_core = options["dla_core"]
    engine = runtime.deserialize_cuda_engine(serialized)
    if engine is None:
        raise JobError(f"the engine was built but does not load: {last(log)}")
    write_json(folder / "layers.json", built_layers(trt, engine))
    return engine, notes


def explain(error: Any, nodes: list[list[str]]) -> str:
    """A parser's error, with the torch module that the node comes from."""
    named = [node for node in nodes if node[0] == error.node_name()]
    if len(named) != 1:
        named = nodes[error.node() : error.node() + 1] if error.node() >= 0 else []
    where = f"{named[0][1]} {named[0][0]} of module {named[0][2]}: " if named else ""
    return f"{where}{' '.join(error.desc().split())} ({error.func()})"


def last(log: Any) -> str:
    return str(log.problems[-1]) if log.problems else "it does not say why"


def use_dla(trt: Any, builder: Any, config: Any, network: Any, nodes: list[list[str]], core: int, folder: Path) -> list[str]:
    """Let the accelerator take the layers that it can; the others, which are named, stay on the GPU."""
    if core >= builder.num_DLA_cores:
        raise JobError(f"DLA core {core} was asked for; TensorRT {trt.__version__} offers {builder.num_DLA_cores} on this machine", 3)
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    fallen = left_to_gpu(config, network, {node[0]: node[2] for node in nodes})
    write_json(folder / "fallback.json", fallen)
    said = fallback_note(core, fallen, network.num_layers)
    print(f"{said}; fallback.json has each layer")
    return [said]


def left_to_gpu(config: Any, network: Any, modules: Mapping[str, str]) -> list[dict[str, str]]:
    """Every layer that the accelerator cannot take, with its torch module, by the name of its ONNX node."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return [
        {"layer": layer.name, "type": layer.type.name, "module": module_of_layer(layer.name, layer.metadata, modules)}
        for layer in layers
        if not config.can_run_on_DLA(layer)
    ]


def module_of_layer(name: str, metadata: str, modules: Mapping[str, str]) -> str:
    """The torch modules of a layer: several where it was fused from several, none where TensorRT made it up."""
    named = re.findall(r"\[ONNX Layer: (.*?)\]", metadata or "") or [name]
    return ", ".join(dict.fromkeys(modules[node] for node in named if node in modules))


def fallback_note(core: int, fallen: Sequence[Mapping[str, str]], layers: int) -> str:
    """What of a network the accelerator does not take, in a sentence."""
    said = f"DLA core {core}: {len(fallen)} of {layers} layer{'s fall' if layers != 1 else ' falls'} back to the GPU"
    if not fallen:
        return said
    kinds = ", ".join(f"{number} {kind}" for kind, number in collections.Counter(each["type"] for each in fallen).most_common())
    modules = list(dict.fromkeys(each["module"] or "(no module)" for each in fallen))
    more = f" and {len(modules) - SHOWN} more module{'s' if len(modules) > SHOWN + 1 else ''}" if len(modules) > SHOWN else ""
    return f"{said}: {kinds}; in {', '.join(modules[:SHOWN])}{more}"


def built_layers(trt: Any, engine: Any) -> dict[str, Any]:
    """The layers as they were fused, in the library's own words."""
    told = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        return {"stage": "built", "engine": json.loads(told, strict=False)}  # names may hold characters that JSON wants escaped
    except ValueError:
        return {"stage": "built", "engine": told}


def attach_timings(config: Any, earlier: bytes) -> bool:
    """Start from the kernel timings of an earlier build on this device, or from none: those that cannot be used are no error."""
    known = config.create_timing_cache(earlier) if earlier else None
    if known is not None and config.set_timing_cache(known, False):  # False: another device's are refused
        return True
    none = config.create_timing_cache(b"")
    if none is not None:
        config.set_timing_cache(none, False)
    return False


def profile(trt: Any, log: Any, cuda: Any, engine: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The time of every layer in milliseconds, with its torch modules, over runs of the first golden sample.

    A profiled engine waits after each layer, and is slower than one that is left alone: what counts is the layers' shares.
    """

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.setdefault(layer_name, []).append(ms)

    context = ready_context(trt, log, cuda, engine, job["golden"])
    for tensor in job["golden"]["inputs"]:
        cuda.upload(tensor["address"], sample_of(tensor, 0))
    profiler = Profiler()
    for run in range(WARM_UP + RUNS):
        if run == WARM_UP:
            context.profiler = profiler  # from here on a run ends once its layers have been reported
        execute(context, cuda, log)
    told = built_layers(trt, engine)["engine"]
    layers = told.get("Layers", []) if isinstance(told, dict) else []
    metadata = {layer.get("Name"): layer.get("Metadata") or "" for layer in layers if isinstance(layer, dict)}
    modules = {node[0]: node[2] for node in job["nodes"]}
    timed = [
        {
            "layer": name,
            "module": module_of_layer(name, metadata.get(name, ""), modules),
            "median_ms": statistics.median(times),
            "least_ms": min(times),
            "most_ms": max(times),
            "reports": len(times),
        }
        for name, times in profiler.times.items()
    ]
    return {"warm_up": WARM_UP, "runs": RUNS, "times": "of each layer by itself: their sum exceeds the engine's latency", "layers": timed}


def ready_context(trt: Any, log: Any, cuda: Any, engine: Any, golden: dict[str, Any]) -> Any:
    """A context with memory for every tensor, once the engine has the tensors that the job describes."""
    context = engine.create_execution_context()
    if context is None:
        raise JobError(f"the engine cannot be executed: {last(log)}")
    found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    for tensor in [*golden["inputs"], *golden["outputs"]]:
        name, kind, shape = tensor["name"], TYPES[tensor["dtype"]], tensor["shape"]
        if name not in found or engine.get_tensor_dtype(name) != getattr(trt.DataType, kind) or [*engine.get_tensor_shape(name)] != shape:
            raise JobError(f"the engine has no tensor {name} of type {kind} and shape {shape}")
        tensor["bytes"] = math.prod(shape) * struct.calcsize(CODES[tensor["dtype"]])
        tensor["address"] = cuda.allocate(tensor["bytes"])
        context.set_tensor_address(name, tensor["address"])
    return context


def execute(context: Any, cuda: Any, log: Any) -> None:
    """Run once, to the end."""
    if not context.execute_async_v3(cuda.stream.value or 0):
        raise JobError(f"the engine fails while it executes: {last(log)}")
    cuda("cuStreamSynchronize", cuda.stream)


def check_golden(trt: Any, log: Any, cuda: Any, engine: Any, job: dict[str, Any]) -> tuple[bool, list[str]]:
    """Execute the recorded feeds and hold the answers against the recorded ones."""
    golden = job["golden"]
    context = ready_context(trt, log, cuda, engine, golden)
    answers: dict[str, list[Any]] = {tensor["name"]: [] for tensor in golden["outputs"]}
    for sample in range(golden["samples"]):
        for tensor in golden["inputs"]:
            cuda.upload(tensor["address"], sample_of(tensor, sample))
        execute(context, cuda, log)
        for tensor in golden["outputs"]:
            answers[tensor["name"]].append(values(cuda.download(tensor["address"], tensor["bytes"]), tensor["dtype"]))
    verdicts = []
    for tensor in golden["outputs"]:
        expected = [values(sample_of(tensor, sample), tensor["dtype"]) for sample in range(golden["samples"])]
        verdicts.append(judge(tensor, expected, answers[tensor["name"]]))
    return all(passed for passed, _ in verdicts), [
        f"golden, {golden['samples']} sample{'s' if golden['samples'] != 1 else ''}: {said}" for _, said in verdicts
    ]


def sample_of(tensor: dict[str, Any], sample: int) -> bytes:
    with (HERE / tensor["file"]).open("rb") as file:
        file.seek(sample * tensor["bytes"])
        data: bytes = file.read(tensor["bytes"])
    return data


def values(data: bytes, dtype: str) -> tuple[Any, ...]:
    code = CODES[dtype]
    unpacked: tuple[Any, ...] = struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data)
    return unpacked


def judge(output: dict[str, Any], expected: Sequence[Sequence[float]], answers: Sequence[Sequence[float]]) -> tuple[bool, str]:
    """Whether one output's answers, a row for each sample, are near enough, and how near they are.

    The limit is a ``tolerance`` of max |Δ| (of whole numbers: of the share that differs) or a ``least_sqnr`` in dB.
    """
    name, tolerance, least = output["name"], output["tolerance"], output["least_sqnr"]
    pairs = [(one, two) for row, found in zip(expected, answers) for one, two in zip(row, found)]  # noqa: B905 - not in Python 3.8
    odd = sum(not (math.isfinite(one) and math.isfinite(two)) for one, two in pairs)
    if odd:
        return False, f"{name}: {odd} of {len(pairs)} values are NaN or infinite"
    if not output["dtype"].startswith("float"):
        worst = max(sum(one != two for one, two in zip(row, got)) / max(len(row), 1) for row, got in zip(expected, answers))  # noqa: B905
        passed, said = worst <= tolerance, f"{name}: {worst:.2%} of a sample's values differ, {tolerance:.2%} allowed"
    elif tolerance is not None:
        worst = max((abs(one - two) for one, two in pairs), default=0.0)
        passed, said = worst <= tolerance, f"{name}: max |Δ| {worst:.3g}, {tolerance:.3g} allowed"
    else:
        signal, noise = sum(one * one for one, _ in pairs), sum((one - two) ** 2 for one, two in pairs)
        sqnr = math.inf if noise == 0 else -math.inf if signal == 0 else 10 * math.log10(signal / noise)
        passed, said = sqnr >= least, f"{name}: SQNR {sqnr:.3g} dB, at least {least:g} dB asked"
    if output["top1"]:
        agreed = 0
        for row, found in zip(expected, answers):  # noqa: B905
            chosen = max(range(len(found)), key=found.__getitem__)
            agreed += max(row) - row[chosen] <= 2 * (tolerance or 0)  # within what either may be off by, either choice is right
        passed, said = passed and agreed == len(expected), f"{said}; top-1 {agreed} of {len(expected)}, {len(expected)} needed"
    return passed, said


def load_driver() -> Any:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise JobError("no NVIDIA driver is here (libcuda.so.1 does not load): run this on the device that the engine is for", 3) from error


class Cuda:
    """Memory of the GPU, through the driver's own C interface: every device has it, and no Python package is needed."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        device, context, version, name = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_int(), ctypes.create_string_buffer(256)
        major, minor, self.stream = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
        self("cuInit", 0)
        self("cuDriverGetVersion", ctypes.byref(version))
        self("cuDeviceGet", ctypes.byref(device), 0)
        self("cuDeviceGetName", name, len(name), device)
        self("cuDeviceGetAttribute", ctypes.byref(major), 75, device)
        self("cuDeviceGetAttribute", ctypes.byref(minor), 76, device)
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)  # the context that TensorRT uses too
        self("cuCtxSetCurrent", context)
        self("cuStreamCreate", ctypes.byref(self.stream), 0)
        self.name, self.capability = name.value.decode(errors="replace"), f"{major.value}.{minor.value}"
        self.version = f"{version.value // 1000}.{version.value % 1000 // 10}"

    def __call__(self, function: str, *arguments: Any) -> None:
        status = getattr(self.driver, function)(*arguments)
        if status != 0:
            raise JobError(f"the NVIDIA driver fails in {function} (CUDA error {status})", 3)

    def allocate(self, size: int) -> int:
        pointer = ctypes.c_uint64()
        self("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        return pointer.value

    def upload(self, address: int, data: bytes) -> None:
        self("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), data, ctypes.c_size_t(len(data)), self.stream)
        self("cuStreamSynchronize", self.stream)

    def download(self, address: int, size: int) -> bytes:
        data = ctypes.create_string_buffer(size)
        self("cuMemcpyDtoHAsync_v2", data, ctypes.c_uint64(address), ctypes.c_size_t(size), self.stream)
        self("cuStreamSynchronize", self.stream)
        return data.raw


def describe_host(cuda: Any) -> dict[str, str]:
    """This machine as an engine's passport has it."""
    driver = re.search(r"Kernel Module(?: for \w+)?\s+([\d.]+)", text_of("/proc/driver/nvidia/version"))
    release = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text_of("/etc/nv_tegra_release"))
    machine = platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64")
    return {
        "device": "" if cuda is None else text_of("/proc/device-tree/model").strip("\0\n ") or cuda.name,
        "driver": driver[1] if driver and cuda else "",
        "cuda": cuda.version if cuda else "",
        "jetpack": f"L4T {release[1]}.{release[2]}" if release else "",
        "platform": f"{platform.system().lower()} {machine}",
    }


def text_of(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def folder_sha256(folder: Path) -> str:
    """Digest of a folder's files, as dtvit-deploy computes it: paths, sizes and digests."""
    listing = hashlib.sha256()
    for file in sorted(folder.iterdir(), key=lambda path: path.name):
        listing.update(f"{file.name}\0{file.stat().st_size}\0{sha256(file)}\n".encode())
    return listing.hexdigest()


def write(path: Path, data: Any) -> int:
    """Write a file whole or not at all, through a new name: whatever link or file others put in its way is not written to.

    Returns:
        How many bytes it has.
    """
    part = path.with_name(f".{path.name}.{os.urandom(8).hex()}.part")
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        with os.fdopen(os.open(str(part), new, 0o644), "wb") as file:
            size: int = file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)  # a link of that name is replaced, not followed
    except BaseException:
        if part.is_file() and not part.is_symlink():
            part.unlink()
        raise
    return size


def open_stage(out: Path, prefix: str) -> tuple[Path, int]:
    """A new folder that nobody else can write, and the lock that says that its owner lives; what killed runs left goes first."""
    for left in list(out.glob(f"{prefix}*")):
        with contextlib.suppress(OSError):  # its owner removes it this moment
            found = left.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                remove_if_left(left)
    while True:
        stage = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=str(out)))
        with contextlib.suppress(FileNotFoundError):  # another run took it for one that was left, before the lock was on it
            lock = os.open(str(stage), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            with contextlib.suppress(OSError):  # a file system without locks: nobody removes it then
                fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.lexists(str(stage)):
                return stage, lock
            os.close(lock)


def remove_if_left(folder: Path) -> None:
    """Remove a folder unless its owner, who holds its lock, lives."""
    lock = os.open(str(folder), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(str(folder), ignore_errors=True)
    finally:
        os.close(lock)


def own_timings(path: Path) -> bytes:
    """The timings of an earlier build, if this user wrote them and nobody else can have: TensorRT's reader is native code."""
    try:
        descriptor = os.open(str(path), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        if os.path.lexists(str(path)):
            print(f"{path} is not used: it is a link, or cannot be read")
        return b""
    found = os.fstat(descriptor)
    theirs = found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_nlink != 1
    if not stat.S_ISREG(found.st_mode) or theirs or found.st_size > LARGEST_TIMINGS:
        os.close(descriptor)
        print(f"{path} is not used: it is no file that this user alone has written")
        return b""
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def write_json(path: Path, value: Any) -> None:
    write(path, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def require_own(folder: Path, job: str) -> None:
    """Refuse to replace what this job did not make: an engine for other GPUs, say, that an export put beside it."""
    if not os.path.lexists(str(folder)):
        return
    try:
        text = contents(folder.with_name(f"{folder.name}.json"), LARGEST_JOB)
        made_by = json.loads(text.decode())["lineage"][-1]["options"].get("job")
    except (JobError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        made_by = None
    if made_by != job:
        raise JobError(f"{folder} is there and is not of this job: move it away, or write elsewhere with --out FOLDER")


def publish(stage: Path, out: Path, name: str) -> None:
    """Move the engine's folder and its manifest to ``out``: at every moment the two are one pair, or the folder is absent."""
    if os.path.lexists(str(out / name)):
        (out / name).rename(stage / "former")
    (stage / f"{name}.json").replace(out / f"{name}.json")
    (stage / name).rename(out / name)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a console without Unicode
    sys.exit(main())
