"""What a Jetson has, as far as a stand-in goes: TensorRT, the CUDA driver and NVIDIA's bindings, in the device's Python alone.

It lies in that Python's folder of packages (`jetson`), and the tests' own never imports it. TensorRT is the one of ``tensorrt_api``; its
engines hold the graph, and ONNX Runtime executes them. A file ``behaviour.json`` beside it says what goes wrong, and ``builds.txt`` has a
line for each engine that was built.
"""

# ruff: noqa: N801, N802, N815 - the names are CUDA's
from __future__ import annotations

import ctypes
import importlib
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

HERE = Path(__file__).parent
KERNEL_MS = 2.5
"""What one execution takes by the clock of the stand-in's GPU."""
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2


def behaviour() -> dict[str, Any]:
    told: dict[str, Any] = json.loads((HERE / "behaviour.json").read_text())
    return told


def tensorrt() -> ModuleType:
    """The module, which behaves as the file says."""
    api = importlib.import_module("tensorrt_api")
    plan, told = api.Plan(), behaviour()
    plan.header = b"ftrt" + bytes(20) + bytes((10, 4 if told.get("lies") else 3, 0, 26)) + bytes(told.get("pads", 0))
    plan.refuses = tuple(told.get("refuses", ()))
    plan.spoil = (lambda array: array + array.dtype.type(1)) if told.get("spoils") else (lambda array: array)
    module = api.stand_in("10", plan)
    build = api.BEHAVIOUR["Builder.build_serialized_network"]

    def built(builder: Any, network: Any, config: Any) -> Any:
        with (HERE / "builds.txt").open("a") as file:
            file.write("begun\n")
        time.sleep(told.get("seconds", 0))
        return build(builder, network, config)

    api.BEHAVIOUR["Builder.build_serialized_network"] = built
    ends = {True: module.TensorIOMode.INPUT, False: module.TensorIOMode.OUTPUT}
    api.BEHAVIOUR["ICudaEngine.get_tensor_mode"] = lambda engine, name: ends[
        name in [one.name for one in engine._state["model"].graph.input]
    ]
    api.BEHAVIOUR["ICudaEngine.get_tensor_location"] = lambda engine, name: module.TensorLocation.DEVICE
    kinds = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32}
    module.nptype = lambda kind: kinds[kind.name]
    return module


class Driver:
    """``libcuda.so.1``, with what the package asks of it besides what a job's script does."""

    def __init__(self) -> None:
        self._driver = importlib.import_module("tensorrt_api").Driver()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def cuDeviceGetCount(self, number: Any) -> int:
        number._obj.value = 1
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, device: Any) -> int:
        size._obj.value = 8 << 30
        return 0


class Bindings(ModuleType):
    """``cuda.bindings.runtime``, whose GPU is this process: each function answers with a tuple, its status first."""

    class cudaError_t:
        cudaSuccess = 0

    class cudaMemcpyKind:
        cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost = HOST_TO_DEVICE, DEVICE_TO_HOST

    class cudaStreamCaptureMode:
        cudaStreamCaptureModeThreadLocal = 1

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self._memory: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)
        return lambda *arguments: (0,)

    def cudaStreamCreate(self) -> tuple[int, int]:
        return 0, 1

    def cudaEventCreate(self) -> tuple[int, int]:
        return 0, 2

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        buffer = ctypes.create_string_buffer(max(1, size))
        self._memory[ctypes.addressof(buffer)] = buffer
        return 0, ctypes.addressof(buffer)

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address: int) -> tuple[int]:
        del self._memory[int(address)]
        return (0,)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, to: int, source: int, count: int, kind: int, stream: int) -> tuple[int]:
        ctypes.memmove(to, source, count)
        return (0,)

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple[int, float]:
        return 0, KERNEL_MS

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:
        return (801,)  # this GPU cannot write launches down

    def cudaGetErrorName(self, status: int) -> tuple[int, bytes]:
        return 0, b"cudaErrorNotSupported"

    def cudaGetErrorString(self, status: int) -> tuple[int, bytes]:
        return 0, b"operation not supported"
