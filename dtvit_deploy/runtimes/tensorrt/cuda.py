"""What a session needs of CUDA, by NVIDIA's own bindings (package cuda-bindings): memory on both sides, one stream, events and a graph.

Every function of the bindings returns a status and what it found. `Cuda` is the one place where a status is looked at.
https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html
"""

from __future__ import annotations

import ctypes
import importlib
import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.gpu import gpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODULE = "cuda.bindings.runtime"
EXTRA = "pip install 'dtvit-deploy[gpu]'"


def missing_cuda() -> tuple[str, str]:
    """Why CUDA's runtime cannot be used here, and how to get it; both empty when it can. The caller has found a GPU."""
    try:
        importlib.import_module(MODULE)
        version = str(importlib.import_module("cuda.bindings").__version__)
    except Exception as error:
        reason = (str(error).splitlines() or [repr(error)])[0]
        return f"cuda-bindings cannot be imported: {reason}", EXTRA
    major, newest = version.partition(".")[0], gpus().cuda.partition(".")[0]
    if major.isdecimal() and newest.isdecimal() and int(major) > int(newest):
        return (
            f"cuda-bindings {version} needs a driver for CUDA {major}; the one here goes up to CUDA {gpus().cuda}",
            f"pip install 'cuda-bindings<{int(newest) + 1}', or install a newer driver",
        )
    return "", ""


class Cuda:
    """CUDA's runtime on one GPU. What it hands out is given back when ``owner`` is closed."""

    def __init__(self, device: int, owner: ExitStack) -> None:
        self._runtime: Any = importlib.import_module(MODULE)
        self._owner = owner
        self._failed = False
        self._device = device
        self.select()
        self.stream = self("cudaStreamCreate")
        owner.callback(self._give_back, "cudaStreamDestroy", self.stream)

    def __call__(self, function: str, *arguments: Any) -> Any:
        """Call a function of the runtime; what it found, or None where it finds nothing.

        Raises:
            InputError: its status is not success.
        """
        status, *found = getattr(self._runtime, function)(*arguments)
        if status != self._runtime.cudaError_t.cudaSuccess:
            self._failed = True
            told = [self._text(self._runtime.cudaGetErrorName(status)), self._text(self._runtime.cudaGetErrorString(status))]
            raise InputError(
                f"CUDA's {function} failed with {told[0]} ({told[1]})",
                remedy="see with nvidia-smi whether the GPU is free and has memory left; a process that met an error of the GPU must end",
            )
        return found[0] if found else None

    def select(self) -> None:
        """Make this GPU the one that calls of this thread are for: another session may have chosen its own since."""
        self._give_back("cudaSetDevice", self._device)

    @staticmethod
    def _text(answer: tuple[Any, Any]) -> str:
        return answer[1].decode(errors="replace") if isinstance(answer[1], bytes) else f"an unknown error, {answer[1]}"

    def _give_back(self, function: str, handle: Any) -> None:
        """Free something, or prepare to. After a failure others fail too, as an error of the GPU stays: only the first is told."""
        if self._failed:
            getattr(self._runtime, function)(handle)
        else:
            self(function, handle)

    def event(self) -> Any:
        event = self("cudaEventCreate")
        self._owner.callback(self._give_back, "cudaEventDestroy", event)
        return event

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array in page-locked memory, which the GPU copies from and to by itself. It is gone when the owner is closed."""
        import numpy as np

        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        address = self("cudaMallocHost", size)
        self._owner.callback(self._give_back, "cudaFreeHost", address)
        return np.frombuffer((ctypes.c_byte * size).from_address(int(address)), dtype=kind).reshape(shape)

    def memory(self, size: int) -> int:
        """Address of so many bytes on the GPU."""
        address = self("cudaMalloc", size)
        self._owner.callback(self._give_back, "cudaFree", address)
        return int(address)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Begin to copy a pinned array to the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self.stream)

    def download(self, array: NDArray[Any], address: int) -> None:
        """Begin to copy from the GPU into a pinned array."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self.stream)

    def record(self, event: Any) -> None:
        self("cudaEventRecord", event, self.stream)

    def synchronise(self) -> None:
        """Wait for everything that was begun."""
        self("cudaStreamSynchronize", self.stream)

    def captured(self, work: Callable[[], None]) -> Any:
        """What ``work`` gives to the stream, written down and not done, to be launched at once.

        Raises:
            InputError: it cannot be written down. The stream is as it was.
        """
        try:
            self("cudaStreamBeginCapture", self.stream, self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
            try:
                work()
            finally:  # a stream that still captures could do nothing else
                graph = self("cudaStreamEndCapture", self.stream)
                self._owner.callback(self._give_back, "cudaGraphDestroy", graph)
            executable = self("cudaGraphInstantiate", graph, 0)
        except InputError:
            self._runtime.cudaGetLastError()  # which the next call would report again
            self._failed = False
            raise
        self._owner.callback(self._give_back, "cudaGraphExecDestroy", executable)
        return executable

    def launch(self, graph: Any) -> None:
        self("cudaGraphLaunch", graph, self.stream)
