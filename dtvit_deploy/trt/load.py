"""What NVIDIA's library itself says of an engine, and whether it takes it: always in a process of its own.

An engine is native code, and a damaged one may take the process down that loads it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from dtvit_deploy.trt.here import in_child
from dtvit_deploy.trt.library import MODULES

LIMIT = 120.0
"""Seconds for a library to load an engine; TensorRT-RTX compiles the last part of it then."""

# TensorRT-RTX looks at the header only and runs nothing of the engine. Needs a GPU to be able to say that an engine is valid.
_ASK = """
import importlib, json
path, module = sys.argv[1:]
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
import hashlib, importlib, json
path, module, digest, host_code = sys.argv[1:]
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


def ask_library(engine: Path) -> Validity:
    """What TensorRT-RTX says of an engine's header."""
    answer, wrong = in_child(_ASK, str(engine), MODULES["tensorrt-rtx"], limit=LIMIT)
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


def load_engine(engine: Path, library: str, digest: str, *, host_code: bool = False) -> Loaded:
    """Load an engine with the library that built it, and let it go again.

    Args:
        engine: its file, which must still have this digest.
        library: one of `MODULES`.
        digest: SHA-256 of the bytes that were checked.
        host_code: let it run the code for the processor that a version-compatible engine brings along.
    """
    tensors, wrong = in_child(_LOAD, str(engine), MODULES[library], digest, "allowed" if host_code else "refused", limit=LIMIT)
    return Loaded(wrong=wrong) if wrong else Loaded(tuple(map(str, tensors)))
