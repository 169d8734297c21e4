"""The seam over NVIDIA's three libraries: TensorRT 10, TensorRT 11 and TensorRT-RTX have nearly one Python API, and here is where not.

* TensorRT 10 builds strongly typed networks when it is asked to (NetworkDefinitionCreationFlag.STRONGLY_TYPED); 11 builds no others, and
  the flag may be gone.
* TensorRT-RTX compiles for named compute capabilities without a GPU; TensorRT compiles for the GPU that it times kernels on.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Any

from dtvit_deploy.errors import MissingError
from dtvit_deploy.formats.engine.options import Flavour

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Library → the Python module that it comes as."""
NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
"""The libraries as NVIDIA writes them."""
_INSTEAD = {"tensorrt": "rtx or on-device", "tensorrt-rtx": "on-device"}
"""Flavours that can be exported without it."""
LIBRARIES = {Flavour.TENSORRT: "tensorrt", Flavour.RTX: "tensorrt-rtx"}


@dataclass(frozen=True)
class Library:
    """One of the libraries, imported.

    Attributes:
        name: ``tensorrt`` or ``tensorrt-rtx``.
        module: its Python module.
    """

    name: str
    module: Any

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    @property
    def cuda(self) -> str:
        """Major version of the CUDA that it was built with; empty where no package says so (a Jetson's does not).

        NVIDIA's packages have it in their names: tensorrt_rtx_cu13_libs, tensorrt_cu12_libs.
        """
        for major in range(20, 10, -1):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                importlib.metadata.version(f"{MODULES[self.name]}_cu{major}_libs")
                return str(major)
        return ""

    @property
    def ahead_of_time(self) -> bool:
        """Whether it compiles for GPUs that are not here."""
        return self.name == "tensorrt-rtx"

    def strongly_typed(self) -> int:
        """Flags of a network whose types are the graph's own."""
        flags = getattr(self.module, "NetworkDefinitionCreationFlag", None)
        flag = getattr(flags, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)


def installation(library: str, version: str = "") -> str:
    """How to get a library, in the release that is needed where one is."""
    release = ".".join(version.split(".")[:3])
    package = f"'{library}=={release}.*'" if release else library
    return f"pip install {package}{' (a Jetson has it with JetPack)' if library == 'tensorrt' else ''}"


def load_library(name: str) -> Library:
    """Import one of `MODULES`.

    Raises:
        MissingError: it is not installed, or does not import.
    """
    try:
        return Library(name, importlib.import_module(MODULES[name]))
    except Exception as error:  # a stub package raises whatever it likes when its libraries are absent
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise MissingError(
            f"{name} cannot be imported: {reason}", remedy=f"{installation(name)}, or use --flavour {_INSTEAD[name]}"
        ) from error
