"""What NVIDIA's library itself says of an engine, and whether it takes it: always in a process of its own.

An engine is native code, and a damaged one may take the process down that loads it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from dtvit_deploy.formats.engine.here import in_child
from dtvit_deploy.formats.engine.library import MODULES

LIMIT = 120.0
"""Seconds for a library to load an engine; TensorRT-RTX compiles the last part of it then."""

# CUDA numbers the GPUs that it is shown from 0, and a process may have been shown a part of them to begin with.
_ON = """
import importlib, json, os
def show(gpu):
    if gpu != "0":
        shown = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
        os.environ["CUDA_VISIBLE_DEVICES"] = shown[int(gpu)] if int(gpu) < len(shown) else gpu
"""
# TensorRT-RTX looks at the header only and runs nothing of the engine. Needs a GPU to be able to say that an engine is valid.
_ASK = """
path, module, gpu = sys.argv[1:]
show(gpu)
trt = importlib.import_module(module)
runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
with open(path, "rb") as file:
    head = file.read(runtime.engine_header_size)
verdict, bits = runtime.get_engine_validity(head)
flags = trt.EngineInvalidityDiagnostics.__members__
print(json.dumps([verdict.name, [name for name, flag in flags.items() if int(flag) & int(bits)]]))
"""
# What is loaded are the bytes that were checked, whatever was put in their place since.
_LOAD = """
import hashlib
path, module, digest, host_code, dla_core, gpu = sys.argv[1:]
show(gpu)
trt = importlib.import_module(module)
said = []
class Logger(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
    def log(self, severity, message):
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            said.append(message)
logger = Logger()
with open(path, "rb") as file:
    content = file.read()
if hashlib.sha256(content).hexdigest() != digest:
    raise SystemExit("the file changed since it was checked")
runtime = trt.Runtime(logger)
runtime.engine_host_code_allowed = host_code == "allowed"
if dla_core != "None":
    runtime.DLA_core = int(dla_core)
engine = runtime.deserialize_cuda_engine(content)
if engine is None:
    raise SystemExit("; ".join(said)[:1000].replace("\\n", " ") or "the library refused it and gave no reason")
names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
print(json.dumps([f"{name} {'x'.join(map(str, engine.get_tensor_shape(name)))} {engine.get_tensor_dtype(name).name}" for name in names]))
"""


class Validity(msgspec.Struct, frozen=True):
    """TensorRT-RTX's own verdict on a header.

    Attributes:
        verdict: ``VALID``, ``SUBOPTIMAL`` or ``INVALID``.
        diagnostics: names of EngineInvalidityDiagnostics, like ``UNSUPPORTED_CC``.
        wrong: why there is no verdict.
    """

    verdict: str = ""
    diagnostics: tuple[str, ...] = ()
    wrong: str = ""


def ask_library(engine: Path, gpu: int = 0) -> Validity:
    """What TensorRT-RTX says of an engine's header, for one of the GPUs."""
    answer, wrong = in_child(_ON + _ASK, str(engine), MODULES["tensorrt-rtx"], str(gpu), limit=LIMIT)
    try:
        verdict, diagnostics = msgspec.convert(answer, tuple[str, tuple[str, ...]])
    except msgspec.ValidationError as error:
        return Validity(wrong=wrong or f"its answer cannot be understood: {error}")
    return Validity(verdict, diagnostics)


class Loaded(msgspec.Struct, frozen=True):
    """What came of loading an engine.

    Attributes:
        tensors: each input and output of it, with its shape and type.
        wrong: why it did not load; empty where it did.
    """

    tensors: tuple[str, ...] = ()
    wrong: str = ""


def load_engine(engine: Path, library: str, digest: str, *, host_code: bool = False, dla_core: int | None = None, gpu: int = 0) -> Loaded:
    """Load an engine with the library that built it, and let it go again.

    Args:
        engine: its file, which must still have this digest.
        library: one of `MODULES`.
        digest: SHA-256 of the bytes that were checked.
        host_code: let it run the code for the processor that a version-compatible engine brings along.
        dla_core: the deep-learning accelerator to load it for.
        gpu: index of the GPU to load it on.
    """
    allowed = "allowed" if host_code else "refused"
    tensors, wrong = in_child(_ON + _LOAD, str(engine), MODULES[library], digest, allowed, str(dla_core), str(gpu), limit=LIMIT)
    return Loaded(wrong=wrong) if wrong else Loaded(tuple(map(str, tensors)))
