"""Sessions on a GPU, against stand-ins of the two libraries that they call: there is no GPU where these tests run.

The stand-ins compute. Their GPU has memory of its own, which only copies reach, and does nothing before it is waited for; their engine
answers y = 2x + 1 from that memory. They offer what both TensorRT 10.3 and 11.1 have, and no more (python/src/infer/pyCore.cpp at those
tags of https://github.com/NVIDIA/TensorRT), and CUDA's functions as cuda-bindings 13.5 has them; what is installed of the real ones, they
are compared with.
"""

# ruff: noqa: N802, N815 - the names are CUDA's
from __future__ import annotations

import ctypes
import enum
import gc
import hashlib
import importlib
import itertools
import json
import math
import re
import struct
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, sha256_of
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.engine import gpu as gpu_module
from dtvit_deploy.formats.engine.gpu import Gpu, Gpus, gpus, this_platform
from dtvit_deploy.formats.engine.header import LIBRARY_HEADER, TAGS
from dtvit_deploy.formats.engine.options import BuildOptions
from dtvit_deploy.formats.engine.passport import ENGINE, GRAPH, LINK, PASSPORT, Passport
from dtvit_deploy.runtimes.base import DeviceTimed, Runtime, Session, SessionOptions
from dtvit_deploy.runtimes.registry import runtime_for, why_emulated
from dtvit_deploy.runtimes.tensorrt import cuda as cuda_module
from dtvit_deploy.runtimes.tensorrt import session as tensorrt_module
from dtvit_deploy.runtimes.tensorrt.session import TensorRtRuntime, TensorRtSession

VERSION = "10.3.0"
KERNEL_MS = 2.5
"""What one execution takes by the clock of the stand-in's GPU."""
SIGNATURE = Signature(
    (TensorSpec("image", (1, 3, 4, 5)), TensorSpec("places", (7,), "int64"), TensorSpec("scale", (), "float16")),
    (TensorSpec("doubled", (1, 3, 4, 5)), TensorSpec("moved", (7,), "int64"), TensorSpec("scaled", (), "float16")),
)


def feeds(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    image, places = rng.standard_normal((1, 3, 4, 5)).astype(np.float32), rng.integers(0, 9, 7)
    return {"image": image, "places": places, "scale": np.array(rng.standard_normal(), np.float16)}


# ------------------------------------------------------------------------------------------------ CUDA


class Error(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorIllegalAddress = 700


class MemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class CaptureMode(enum.IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


class Handle:
    """A stream, an event or a graph: an object that is a number to those who ask, as in the bindings."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.device = 0
        self.work: list[Callable[[], None]] = []
        self.at: float | None = None

    def __int__(self) -> int:
        return self.number


OK = Error.cudaSuccess


class StandInCuda(types.ModuleType):
    """``cuda.bindings.runtime``: every function answers with a tuple, its status first.

    Attributes:
        fails: function → number of its first call that fails; from there on the GPU is broken, as after an illegal address.
    """

    cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode = Error, MemcpyKind, CaptureMode

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.fails: dict[str, int] = {}
        self.called: Counter[str] = Counter()
        self.device = 0
        self.left_with = 0
        self.clock_ms = 0.0
        self.memory: dict[int, bytearray] = {}
        self.pinned: dict[int, Any] = {}
        self.handles: dict[int, Handle] = {}
        self.capturing: list[Callable[[], None]] | None = None
        self._next = 0x7000_0000

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if not name.startswith("cuda") or not callable(found) or isinstance(found, type) or name.startswith("cudaGetError"):
            return found

        def counted(*arguments: Any) -> tuple[Any, ...]:
            self.called[name] += 1
            if self.called[name] == self.fails.get(name):
                if name == "cudaStreamEndCapture":
                    self.capturing = None  # the capture is over, only nothing came of it
                return (Error.cudaErrorIllegalAddress, None)
            answer: tuple[Any, ...] = found(*arguments)
            return answer

        return counted

    @property
    def outstanding(self) -> int:
        return len(self.memory) + len(self.pinned) + len(self.handles)

    def _address(self) -> int:
        self._next += 0x1000
        return self._next

    def _handle(self) -> Handle:
        number = self._address()
        made = self.handles.setdefault(number, Handle(number))
        made.device = self.device
        return made

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        (self.capturing if self.capturing is not None else self.handles[stream].work).append(work)

    def cudaGetErrorName(self, error: Error) -> tuple[Any, ...]:
        return OK, error.name.encode()

    def cudaGetErrorString(self, error: Error) -> tuple[Any, ...]:
        return OK, b"an error of the stand-in"

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return (OK,)

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        self.device = device
        return (OK,)

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        return OK, self._handle()

    def cudaEventCreate(self) -> tuple[Any, ...]:
        return OK, self._handle()

    def _destroy(self, handle: Handle) -> tuple[Any, ...]:
        return (OK,) if self.handles.pop(int(handle), None) else (Error.cudaErrorInvalidValue,)

    cudaStreamDestroy = cudaEventDestroy = cudaGraphDestroy = cudaGraphExecDestroy = _destroy

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        address = self._address()
        self.memory[address] = bytearray(b"\xa5" * size)
        return OK, address

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        return (OK,) if self.memory.pop(address, None) is not None else (Error.cudaErrorInvalidValue,)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        buffer = ctypes.create_string_buffer(b"\xa5" * size, size)
        self.pinned[ctypes.addressof(buffer)] = buffer
        return OK, ctypes.addressof(buffer)

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        return (OK,) if self.pinned.pop(address, None) is not None else (Error.cudaErrorInvalidValue,)

    def cudaMemcpyAsync(self, to: int, source: int, count: int, kind: MemcpyKind, stream: Handle) -> tuple[Any, ...]:
        device, host = (to, source) if kind is MemcpyKind.cudaMemcpyHostToDevice else (source, to)
        if device not in self.memory or host not in self.pinned or count != len(self.memory[device]) or count != len(self.pinned[host]):
            return (Error.cudaErrorInvalidValue,)
        there, here = self.memory[device], self.pinned[host]

        def copy() -> None:
            if kind is MemcpyKind.cudaMemcpyHostToDevice:
                there[:] = here.raw
            else:
                ctypes.memmove(here, bytes(there), count)

        self.enqueue(int(stream), copy)
        return (OK,)

    def cudaEventRecord(self, event: Handle, stream: Handle) -> tuple[Any, ...]:
        if event.device != stream.device:
            return (Error.cudaErrorInvalidValue,)
        event.at = None
        self.enqueue(int(stream), lambda: setattr(event, "at", self.clock_ms))
        return (OK,)

    def cudaEventElapsedTime(self, start: Handle, end: Handle) -> tuple[Any, ...]:
        if start.at is None or end.at is None:
            return Error.cudaErrorInvalidValue, None
        return OK, end.at - start.at

    def cudaStreamSynchronize(self, stream: Handle) -> tuple[Any, ...]:
        work, stream.work = stream.work, []
        for one in work:
            one()
        return (OK,)

    def cudaStreamBeginCapture(self, stream: Handle, mode: CaptureMode) -> tuple[Any, ...]:
        self.capturing = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: Handle) -> tuple[Any, ...]:
        work, self.capturing = self.capturing, None
        if work is None:
            return Error.cudaErrorInvalidValue, None
        graph = self._handle()
        graph.work = work
        return OK, graph

    def cudaGraphInstantiate(self, graph: Handle, flags: int) -> tuple[Any, ...]:
        executable = self._handle()
        executable.work = list(graph.work)
        return OK, executable

    def cudaGraphLaunch(self, graph: Handle, stream: Handle) -> tuple[Any, ...]:
        if stream.device != self.device:
            return (Error.cudaErrorInvalidValue,)
        stream.work += graph.work
        return (OK,)


# ------------------------------------------------------------------------------------------------ TensorRT

API = {
    "Runtime": {"deserialize_cuda_engine", "engine_host_code_allowed", "DLA_core"},
    "ICudaEngine": {
        *("num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_shape", "get_tensor_dtype", "get_tensor_location"),
        "create_execution_context",
    },
    "IExecutionContext": {"set_tensor_address", "execute_async_v3"},
    "ILogger": {"Severity", "log"},
    "TensorIOMode": {"NONE", "INPUT", "OUTPUT"},
    "TensorLocation": {"DEVICE", "HOST"},
    "DataType": {"FLOAT", "HALF", "BF16", "INT8", "INT32", "INT64", "BOOL", "UINT8"},
}
"""What TensorRT 10.3, TensorRT 11.1 and TensorRT-RTX 1.7 all have of what a session may use."""


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


def stand_in_tensorrt(gpu: StandInCuda, version: str) -> types.ModuleType:
    """``tensorrt``. An engine file is its header and JSON: its inputs and outputs, and what goes wrong with it."""
    module = types.ModuleType("tensorrt")

    class DataType(enum.Enum):
        FLOAT, HALF, BF16, INT8, INT32, INT64, BOOL, UINT8 = range(8)

    kinds = {"float32": DataType.FLOAT, "float16": DataType.HALF, "bfloat16": DataType.BF16, "int64": DataType.INT64}

    def nptype(kind: DataType) -> Any:
        for name, known in kinds.items():
            if known is kind and kind is not DataType.BF16:
                return np.dtype(name).type
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")

    class TensorIOMode(enum.Enum):
        NONE, INPUT, OUTPUT = range(3)

    class TensorLocation(enum.Enum):
        DEVICE, HOST = range(2)

    class ILogger:
        Severity = Severity

        def log(self, severity: Severity, message: str) -> None: ...

    class IExecutionContext:
        def __init__(self, plan: dict[str, Any]) -> None:
            self._plan, self._at = plan, dict[str, int]()

        def __del__(self) -> None:
            gpu.left_with = len(gpu.memory)

        def set_tensor_address(self, name: str, memory: int) -> bool:
            assert isinstance(memory, int)
            self._at[name] = memory
            return name != self._plan.get("refuses")

        def execute_async_v3(self, stream_handle: int) -> bool:
            assert isinstance(stream_handle, int)
            if gpu.handles[stream_handle].device != gpu.device:
                return False
            if self._plan.get("runs") is False or (self._plan.get("captures") is False and gpu.capturing is not None):
                return False
            gpu.enqueue(stream_handle, self._compute)
            return True

        def _compute(self) -> None:
            gpu.clock_ms += KERNEL_MS
            for (source, shape, kind), (target, *_) in zip(self._plan["inputs"], self._plan["outputs"], strict=True):
                read = np.frombuffer(gpu.memory[self._at[source]], kind)
                assert read.size == math.prod(shape)
                gpu.memory[self._at[target]][:] = (2 * read + 1).astype(kind).tobytes()

    class ICudaEngine:
        def __init__(self, plan: dict[str, Any]) -> None:
            self._plan = plan
            self._ends = {name: (mode, shape, kind) for mode in ("inputs", "outputs") for name, shape, kind in plan[mode]}
            self.num_io_tensors = len(self._ends)

        def get_tensor_name(self, index: int) -> str:
            return list(self._ends)[index]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if self._ends[name][0] == "inputs" else TensorIOMode.OUTPUT

        def get_tensor_shape(self, name: str) -> Iterator[int]:
            return iter(self._ends[name][1])  # a sequence of its own class there

        def get_tensor_dtype(self, name: str) -> DataType:
            return kinds[self._ends[name][2]]

        def get_tensor_location(self, name: str) -> TensorLocation:
            return TensorLocation.HOST if name == self._plan.get("on host") else TensorLocation.DEVICE

        def create_execution_context(self) -> IExecutionContext | None:
            return None if self._plan.get("context") is False else IExecutionContext(self._plan)

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self._logger = logger
            self.engine_host_code_allowed, self.DLA_core = False, -1

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            try:
                plan = json.loads(serialized_engine[LIBRARY_HEADER:])
                fits = (plan.get("host code", False), plan.get("DLA", -1)) == (self.engine_host_code_allowed, self.DLA_core)
                return ICudaEngine(plan) if fits else None
            except ValueError:
                self._logger.log(Severity.WARNING, "a warning comes first")
                self._logger.log(Severity.ERROR, "Serialization assertion failed:\nno magic tag")
                self._logger.log(Severity.ERROR, "and a consequence of it")
                return None

    for one in (DataType, TensorIOMode, TensorLocation, ILogger, IExecutionContext, ICudaEngine, Runtime, nptype):
        setattr(module, one.__name__, one)
    module.__dict__["__version__"] = version
    return module


# ------------------------------------------------------------------------------------------------ fixtures


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandInCuda:
    """A machine with a GPU of compute capability 8.9, TensorRT and cuda-bindings."""
    stand_in = StandInCuda()
    bindings = types.ModuleType("cuda.bindings")
    bindings.__dict__["__version__"] = "12.9.1"
    for name, module in {"cuda": types.ModuleType("cuda"), "cuda.bindings": bindings, "cuda.bindings.runtime": stand_in}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in_tensorrt(stand_in, VERSION))
    machine_with(monkeypatch, "8.9")
    return stand_in


def machine_with(monkeypatch: pytest.MonkeyPatch, *capabilities: str, missing: str = "", cuda: str = "12.6") -> None:
    found = Gpus(tuple(Gpu(f"GPU {index}", each, 8 << 30) for index, each in enumerate(capabilities)), cuda, missing)
    for module in (tensorrt_module, cuda_module, gpu_module):
        monkeypatch.setattr(module, "gpus", lambda: found)
    monkeypatch.setattr(gpu_module, "board", lambda root: "")


Build = Callable[..., Artifact]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """An artefact whose engine is a plan for the stand-in; keywords change the plan, ``passport`` and ``signature`` what is said of it,
    ``header`` the version that the engine itself gives.
    """

    def built(
        *,
        passport: dict[str, Any] | None = None,
        signature: Signature = SIGNATURE,
        engine: bytes | None = None,
        format: str = "trt",  # noqa: A002 - the manifest's word
        header: str = "",
        trusted: bool = True,
        **plan: Any,
    ) -> Artifact:
        folder = tmp_path / f"net.{format}"
        folder.mkdir(exist_ok=True)
        ends = {
            mode: [[spec.name, spec.shape, spec.dtype] for spec in specs]
            for mode, specs in (("inputs", SIGNATURE.inputs), ("outputs", SIGNATURE.outputs))
        }
        said = passport or {}
        tag = b"vtrt" if said.get("library") == "tensorrt-rtx" else b"ftrt"
        version = [int(part) for part in f"{header or said.get('version', VERSION)}.0".split(".")[:4]]
        content = struct.pack("<4sI16x4B", tag, 0, *version) + (json.dumps(ends | plan).encode() if engine is None else engine)
        if engine is not None and engine[:4] in TAGS:
            content = engine
        (folder / ENGINE).write_bytes(content)
        (folder / GRAPH).write_bytes(b"any")
        words: dict[str, Any] = {
            "library": "tensorrt",
            "version": VERSION,
            "capabilities": ("8.9",),
            "platform": this_platform(),
            "engine": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "graph": sha256_of(folder / GRAPH),
        }
        digest = sha256_of(folder)
        told = msgspec.to_builtins(Passport(**words | said))
        manifest = Manifest(
            model="any",
            format=format,
            precision=Precision.FP16,
            sha256=digest,
            signature=signature,
            lineage=(Link(kind=LINK, sha256=digest, options={PASSPORT: told}),),
        )
        return Artifact(folder, manifest, trusted)

    return built


def opened(artifact: Artifact, **options: Any) -> TensorRtSession:
    return TensorRtRuntime("tensorrt").load(artifact, SessionOptions(**options))


@pytest.fixture(params=[True, False], ids=["as a graph", "kernel by kernel"])
def launched(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# ------------------------------------------------------------------------------------------------ tests


class TestAnswers:
    def test_every_tensor_goes_to_the_gpu_and_comes_back_by_its_name(self, gpu: StandInCuda, build: Build, launched: bool) -> None:
        with opened(build(), cuda_graph=launched) as session:
            for seed in range(3):
                fed = feeds(seed)
                answer = session.run(fed)
                assert list(answer) == ["doubled", "moved", "scaled"]
                for (source, target), spec in zip(zip(fed, answer, strict=True), SIGNATURE.outputs, strict=True):
                    assert (answer[target].shape, answer[target].dtype.name) == (spec.shape, spec.dtype)
                    np.testing.assert_array_equal(answer[target], (2 * fed[source] + 1).astype(spec.dtype))

    def test_an_answer_stays_when_the_next_one_comes_and_when_the_session_goes(self, gpu: StandInCuda, build: Build) -> None:
        with opened(build()) as session:
            first = session.run(feeds(0))
            kept = {name: values.copy() for name, values in first.items()}
            session.run(feeds(1))
        for name, values in first.items():
            np.testing.assert_array_equal(values, kept[name])

    @pytest.mark.parametrize("view", ["read-only", "reversed", "strided"])
    def test_any_view_of_memory_is_a_feed(self, gpu: StandInCuda, build: Build, view: str) -> None:
        fed = feeds()
        image = fed["image"].copy()
        if view == "read-only":
            image.flags.writeable = False
        elif view == "reversed":
            image = image[..., ::-1].copy()[..., ::-1]
        else:
            image = np.repeat(image, 2, axis=-1)[..., ::2]
        with opened(build()) as session:
            np.testing.assert_array_equal(session.run(fed | {"image": image})["doubled"], 2 * fed["image"] + 1)

    def test_it_is_a_runtime_and_a_session_like_any_other(self, gpu: StandInCuda, build: Build) -> None:
        runtime: Runtime = TensorRtRuntime("tensorrt")
        assert (runtime.name, runtime.rung) == ("tensorrt", Rung.EXECUTED)
        session: Session = runtime.load(build(), SessionOptions())
        assert session.signature == SIGNATURE

    def test_inner_tensors_cannot_be_had(self, gpu: StandInCuda, build: Build) -> None:
        assert TensorRtRuntime("tensorrt").tensors(build()) == ()
        with pytest.raises(InputError, match=r"no tensor conv2d to look at: an engine has fused"):
            opened(build(), taps=("conv2d",))


class TestTimes:
    def test_the_gpu_says_what_the_engine_alone_took(self, gpu: StandInCuda, build: Build, launched: bool) -> None:
        with opened(build(), cuda_graph=launched) as session:
            session.run(feeds())
            assert isinstance(session, DeviceTimed)
            assert session.device_ms == KERNEL_MS

    def test_the_conditions_say_what_is_in_which_time_and_how_the_engine_was_launched(self, gpu: StandInCuda, build: Build) -> None:
        with opened(build(), threads=2) as session:
            told = session.conditions
        assert told["runtime"] == f"tensorrt {VERSION}"
        assert told["provider"] == "GPU 0, compute capability 8.9"
        assert (told["threads"], told["precision"]) == ("2", "fp16 engine, in the types of its graph")
        assert "transfers in and out" in told["host latency"]
        assert "no transfers" in told["device latency"]
        assert told["launch"] == "at once, as a CUDA graph of the engine"
        with opened(build(), cuda_graph=False) as session:
            assert session.conditions["launch"] == "kernel by kernel"

    def test_a_graph_is_launched_once_a_run_and_made_after_a_run_that_warms_up(self, gpu: StandInCuda, build: Build) -> None:
        with opened(build()) as session:
            assert gpu.clock_ms == KERNEL_MS  # what is captured is not run
            session.run(feeds())
            session.run(feeds())
        assert gpu.called["cudaGraphLaunch"] == 2
        assert gpu.clock_ms == 3 * KERNEL_MS

    @pytest.mark.parametrize("at", ["execute_async_v3", "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"])
    def test_what_cannot_be_captured_is_launched_kernel_by_kernel_and_the_conditions_say_why(
        self, gpu: StandInCuda, build: Build, at: str
    ) -> None:
        gpu.fails[at] = 1
        with opened(build(captures=at != "execute_async_v3")) as session:
            launch = session.conditions["launch"]
            np.testing.assert_array_equal(session.run(feeds())["doubled"], 2 * feeds()["image"] + 1)
        assert launch.startswith("kernel by kernel, since a CUDA graph cannot be made: ")
        assert ("does not run in tensorrt" if at == "execute_async_v3" else f"CUDA's {at} failed with ") in launch
        assert gpu.capturing is None
        assert gpu.outstanding == 0


ONCE = ("cudaStreamCreate",)
AGAIN = (
    *("cudaSetDevice", "cudaEventCreate", "cudaMalloc", "cudaMallocHost", "cudaMemcpyAsync", "cudaEventRecord", "cudaEventElapsedTime"),
    *("cudaStreamSynchronize", "cudaGraphLaunch"),
)


class TestFailures:
    @pytest.mark.parametrize(("function", "call"), [*((name, 1) for name in ONCE), *itertools.product(AGAIN, (1, 2))])
    def test_every_status_is_looked_at_and_everything_is_given_back(self, gpu: StandInCuda, build: Build, function: str, call: int) -> None:
        gpu.fails[function] = call

        def use() -> None:
            with opened(build()) as session:
                session.run(feeds())
                session.run(feeds())

        told = rf"CUDA's {function} failed with cudaErrorIllegalAddress \(an error of the stand-in\)"
        with pytest.raises(InputError, match=told) as caught:
            use()
        assert caught.value.remedy
        assert gpu.outstanding == 0

    @pytest.mark.parametrize("function", ["cudaFree", "cudaFreeHost", "cudaStreamDestroy", "cudaEventDestroy", "cudaGraphExecDestroy"])
    def test_what_cannot_be_given_back_is_told_and_the_rest_is_given_back(self, gpu: StandInCuda, build: Build, function: str) -> None:
        gpu.fails[function] = 1
        session = opened(build())
        with pytest.raises(InputError, match=f"CUDA's {function} failed"):
            session.__exit__()
        assert gpu.outstanding == 1

    def test_leaving_a_session_gives_everything_back_and_once(self, gpu: StandInCuda, build: Build, launched: bool) -> None:
        with opened(build(), cuda_graph=launched) as session:
            session.run(feeds())
            assert gpu.outstanding
        assert gpu.outstanding == 0
        assert gpu.left_with == 6  # the context went first, and the memory that it uses after it
        session.__exit__()
        with pytest.raises(RuntimeError, match="the session was left"):
            session.run(feeds())
        gc.collect()  # nothing that looks into memory which is gone

    def test_an_engine_that_the_library_refuses_is_refused_with_its_first_reason(self, gpu: StandInCuda, build: Build) -> None:
        with pytest.raises(InputError) as caught:
            opened(build(engine=b"not an engine"))
        assert str(caught.value) == "tensorrt 10.3.0 cannot load net.trt: Serialization assertion failed: no magic tag"
        assert gpu.outstanding == 0

    @pytest.mark.parametrize(
        ("plan", "told"),
        [
            ({"context": False}, "has no execution context for net.trt"),
            ({"refuses": "moved"}, "net.trt takes no address for moved"),
            ({"runs": False}, "net.trt does not run"),
        ],
    )
    def test_what_the_library_answers_with_no_is_told(self, gpu: StandInCuda, build: Build, plan: dict[str, Any], told: str) -> None:
        with pytest.raises(InputError, match=told):
            opened(build(**plan))
        assert gpu.outstanding == 0

    @pytest.mark.parametrize(
        "plan",
        [
            {"inputs": [["picture", [1, 3, 4, 5], "float32"], ["places", [7], "int64"], ["scale", [], "float16"]]},
            {"inputs": [["image", [1, 3, 4, 4], "float32"], ["places", [7], "int64"], ["scale", [], "float16"]]},
            {"inputs": [["image", [1, 3, 4, 5], "float16"], ["places", [7], "int64"], ["scale", [], "float16"]]},
            {"inputs": [["image", [1, 3, 4, 5], "bfloat16"], ["places", [7], "int64"], ["scale", [], "float16"]]},
            {"inputs": [["image", [1, 3, 4, 5], "float32"], ["places", [7], "int64"]]},
            {"inputs": [["image", [-1, 3, 4, 5], "float32"], ["places", [7], "int64"], ["scale", [], "float16"]]},
            {"outputs": [["doubled", [1, 3, 4, 5], "float32"], ["moved", [7], "int64"], ["scaled", [2], "float16"]]},
            {"on host": "places"},
        ],
        ids=["name", "shape", "type", "a type that numpy has not", "fewer", "dynamic", "output", "place"],
    )
    def test_an_engine_with_other_ends_than_its_manifest_says_gets_no_memory(
        self, gpu: StandInCuda, build: Build, plan: dict[str, Any]
    ) -> None:
        with pytest.raises(InputError, match=r"net\.trt is not the network that its manifest describes: its inputs are "):
            opened(build(**plan))
        assert not gpu.called["cudaMalloc"]
        assert gpu.outstanding == 0

    def test_an_engine_that_is_not_the_passports_is_not_given_to_the_library(self, gpu: StandInCuda, build: Build) -> None:
        artifact = build()
        content = (artifact.path / ENGINE).read_bytes()
        (artifact.path / ENGINE).write_bytes(content + b"native code")
        with pytest.raises(InputError, match="is not the engine that the passport is of"):
            opened(artifact)
        (artifact.path / ENGINE).unlink()
        with pytest.raises(InputError, match=r"model\.engine cannot be read"):
            opened(artifact)


NO_FIT = {
    "library": (
        {"library": "tensorrt-rtx", "version": "1.8.0.1"},
        "for the other library: it is an engine of TensorRT-RTX, and installed here is TensorRT 10.3.0",
    ),
    "platform": ({"platform": "linux vax"}, f"built for another platform: this machine is {this_platform()}, and needed is linux vax"),
    "release": (
        {"version": "10.7.0"},
        "built by another version: TensorRT 10.3.0 is installed here, and needed is TensorRT 10.7.0.0, which built it",
    ),
    "capability": (
        {"capabilities": ("8.7", "12.0")},
        "built for another GPU: GPU 0 has compute capability 8.9, and needed is one of compute capability 8.7 or 12.0",
    ),
}


class TestFit:
    @pytest.mark.parametrize(("passport", "told"), NO_FIT.values(), ids=NO_FIT)
    def test_an_engine_for_elsewhere_is_refused_before_the_library_sees_it(
        self, gpu: StandInCuda, build: Build, passport: dict[str, Any], told: str
    ) -> None:
        artifact = build(passport=passport)
        with pytest.raises(InputError, match=re.escape(f"net.trt cannot be loaded here: {told}")) as caught:
            opened(artifact)
        assert caught.value.remedy
        assert not gpu.called
        assert TensorRtRuntime("tensorrt").available(artifact).missing.startswith(told)

    @pytest.mark.parametrize(
        "passport",
        [
            {"version": "10.3.0.26"},
            {"capabilities": ("8.6",), "options": BuildOptions(hardware_compatible=True)},
            {"capabilities": ("8.6", "8.9")},
        ],
        ids=["with its build number", "hardware-compatible", "one of several"],
    )
    def test_one_that_was_built_to_be_portable_fits(self, gpu: StandInCuda, build: Build, passport: dict[str, Any]) -> None:
        artifact = build(passport=passport)
        assert TensorRtRuntime("tensorrt").available(artifact).version == VERSION
        assert runtime_for(artifact).rung is Rung.EXECUTED
        with opened(artifact) as session:
            session.run(feeds())

    def test_a_version_compatible_one_loads_in_a_later_release_with_the_code_that_it_brings(self, gpu: StandInCuda, build: Build) -> None:
        artifact = build(passport={"version": "10.0.1", "options": BuildOptions(version_compatible=True)}, **{"host code": True})
        with opened(artifact) as session:
            session.run(feeds())
        with pytest.raises(InputError, match="it does not say why"):  # code that the manifest does not tell of is not allowed to run
            opened(build(**{"host code": True}))

    def test_the_gpu_that_it_fits_is_taken(self, gpu: StandInCuda, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
        machine_with(monkeypatch, "7.5", "12.0", "8.9", "8.9")
        with opened(build()) as session:
            assert session.conditions["provider"] == "GPU 2, compute capability 8.9"
        assert gpu.device == 2

    def test_two_sessions_on_two_gpus_run_in_turns(
        self, gpu: StandInCuda, build: Build, monkeypatch: pytest.MonkeyPatch, launched: bool
    ) -> None:
        machine_with(monkeypatch, "8.9", "12.0")
        with (
            opened(build(), cuda_graph=launched) as first,
            opened(build(passport={"capabilities": ("12.0",)}), cuda_graph=launched) as second,
        ):
            for session, device in ((first, 0), (second, 1), (first, 0)):
                np.testing.assert_array_equal(session.run(feeds())["doubled"], 2 * feeds()["image"] + 1)
                assert gpu.device == device
        assert gpu.device == 0  # each is taken down on its own
        assert gpu.outstanding == 0

    def test_an_engine_for_a_dla_is_loaded_for_its_core(self, gpu: StandInCuda, build: Build) -> None:
        with opened(build(passport={"options": BuildOptions(dla_core=1)}, DLA=1)) as session:
            session.run(feeds())

    def test_a_passport_that_is_none_makes_it_unusable_and_no_crash(self, gpu: StandInCuda, build: Build) -> None:
        artifact = build()
        link = msgspec.structs.replace(artifact.manifest.lineage[0], options={PASSPORT: {"library": "tensorrt"}})
        spoilt = Artifact(artifact.path, msgspec.structs.replace(artifact.manifest, lineage=(link,)))
        assert "the engine's passport cannot be understood" in TensorRtRuntime("tensorrt").available(spoilt).missing
        with pytest.raises(InputError, match="the engine's passport cannot be understood"):
            opened(spoilt)


class TestTrust:
    """An engine is native code, and anyone can write a manifest that fits it."""

    def test_one_from_elsewhere_is_emulated_and_the_conditions_say_how_it_would_be_executed(self, gpu: StandInCuda, build: Build) -> None:
        pytest.importorskip("onnxruntime", reason="emulation needs the extra `export`")
        stranger = build(trusted=False)
        assert runtime_for(stranger).rung is Rung.EMULATED
        assert why_emulated(stranger) == "this engine was not built by you here; --trust executes it"
        assert runtime_for(msgspec.structs.replace(stranger, trusted=True)).rung is Rung.EXECUTED
        assert not gpu.called

    def test_one_that_does_not_fit_is_not_said_to_need_trust(self, gpu: StandInCuda, build: Build) -> None:
        stranger = build(trusted=False, passport={"capabilities": ("12.0",)})
        assert "--trust" not in TensorRtRuntime("tensorrt").available(stranger).missing

    @pytest.mark.parametrize("options", [BuildOptions(), BuildOptions(version_compatible=True)], ids=["plain", "with host code"])
    def test_none_of_it_reaches_the_library(
        self, gpu: StandInCuda, build: Build, monkeypatch: pytest.MonkeyPatch, options: BuildOptions
    ) -> None:
        stranger = build(trusted=False, passport={"options": options}, **{"host code": options.version_compatible})
        monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", None)
        with pytest.raises(InputError, match=r"net\.trt is not executed: this engine was not built by you here; --trust executes it"):
            opened(stranger)
        assert not gpu.called


class TestAvailability:
    def test_without_a_gpu_nothing_else_matters(self, gpu: StandInCuda, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
        machine_with(monkeypatch, missing="the NVIDIA driver finds no GPU")
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        found = TensorRtRuntime("tensorrt").available()
        assert (found.version, found.missing) == (None, "the NVIDIA driver finds no GPU")
        with pytest.raises(MissingError, match=r"net\.trt needs tensorrt, which is not usable here: the NVIDIA driver finds no GPU"):
            opened(build())

    def test_everything_that_is_missing_is_said_at_once(self, gpu: StandInCuda, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
        found = TensorRtRuntime("tensorrt").available()
        assert found.version is None
        assert "tensorrt cannot be imported" in found.missing
        assert "cuda-bindings cannot be imported" in found.missing
        assert "pip install tensorrt" in found.remedy
        assert "pip install 'dtvit-deploy[gpu]'" in found.remedy

    def test_bindings_newer_than_the_driver_are_missing_with_the_release_that_fits(
        self, gpu: StandInCuda, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine_with(monkeypatch, "8.7", cuda="11.4")
        found = TensorRtRuntime("tensorrt").available()
        assert found.missing == "cuda-bindings 12.9.1 needs a driver for CUDA 12; the one here goes up to CUDA 11.4"
        assert found.remedy == "pip install 'cuda-bindings<12', or install a newer driver"

    def test_a_gpu_of_another_kind_leaves_the_artefact_to_emulation(
        self, gpu: StandInCuda, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("onnxruntime", reason="emulation needs the extra `export`")
        assert runtime_for(build()).name == "tensorrt"
        machine_with(monkeypatch, "12.0")
        assert runtime_for(build()).rung is Rung.EMULATED


class TestStandIns:
    """What the other tests rest on."""

    def test_the_library_offers_nothing_that_the_real_ones_have_not(self) -> None:
        module = stand_in_tensorrt(StandInCuda(), VERSION)
        offered = {name for name in vars(module) if name[0] != "_"}
        assert offered == {*API, "nptype"}
        instances = {
            "ICudaEngine": {"num_io_tensors"},
            "Runtime": {"engine_host_code_allowed", "DLA_core"},
        }  # theirs are properties of the class
        for name, known in API.items():
            own = {each for each in dir(getattr(module, name)) if each[0] != "_"} | instances.get(name, set())
            assert known <= own
            assert own - known <= {"name", "value"}

    def test_a_real_library_has_all_of_it(self) -> None:
        real = pytest.importorskip("tensorrt_rtx", reason="the extra `trt-rtx` is not installed")
        assert callable(real.nptype)
        missing = {f"{name}.{each}" for name, known in API.items() for each in known if not hasattr(getattr(real, name), each)}
        assert not missing

    def test_real_bindings_have_every_function_with_as_many_parameters(self) -> None:
        real = pytest.importorskip("cuda.bindings.runtime", reason="the extra `gpu` is not installed")
        for name in (name for name in dir(StandInCuda) if name.startswith("cuda")):
            own, theirs = getattr(StandInCuda, name), getattr(real, name)
            if isinstance(own, type):
                assert {each.name for each in own} <= {each.name for each in theirs}
            else:
                declared = theirs.__doc__.splitlines()[0].partition("(")[2].rpartition(")")[0]
                assert len([one for one in declared.split(",") if one.strip()]) == own.__code__.co_argcount - 1, name


class TestRealLibrary:
    def test_an_engine_of_the_real_compiler_is_refused_with_the_real_reason_where_there_is_no_gpu(
        self, gpu: StandInCuda, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The compiler needs no GPU, the runtime does: the session must say what the library says, and end cleanly."""
        real = pytest.importorskip("tensorrt_rtx", reason="the extra `trt-rtx` is not installed")
        if gpus().found:
            pytest.skip("there is a GPU, on which the engine would run")
        version = importlib.import_module("tensorrt_rtx").__version__
        machine_with(monkeypatch, "8.9", cuda="13.0")
        rtx = {"library": "tensorrt-rtx", "version": version}
        artifact = build(format="rtx", engine=relu_engine(real), passport=rtx)
        with pytest.raises(InputError, match=rf"tensorrt-rtx {re.escape(version)} cannot load net\.rtx: .*Cuda Runtime"):
            TensorRtRuntime("tensorrt-rtx").load(artifact, SessionOptions())
        artifact = build(format="rtx", engine=b"rubbish" * 100, passport=rtx)
        with pytest.raises(InputError, match=r"net\.rtx cannot be loaded here: altered: "):
            TensorRtRuntime("tensorrt-rtx").load(artifact, SessionOptions())
        assert gpu.outstanding == 0


def relu_engine(trt: Any) -> bytes:
    """The smallest engine, for compute capability 8.9."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    image = network.add_input("image", trt.DataType.FLOAT, (1, 3, 4, 5))
    layer = network.add_activation(image, trt.ActivationType.RELU)
    layer.get_output(0).name = "doubled"
    network.mark_output(layer.get_output(0))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    return bytes(builder.build_serialized_network(network, config))
