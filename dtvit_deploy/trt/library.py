"""The seam over NVIDIA's three libraries: TensorRT 10, TensorRT 11 and TensorRT-RTX have nearly one Python API, and here is where not.

* TensorRT 10 builds strongly typed networks when it is asked to (NetworkDefinitionCreationFlag.STRONGLY_TYPED); 11 builds no others, and
  the flag may be gone.
* TensorRT-RTX compiles for named compute capabilities without a GPU; TensorRT compiles for the GPU that it times kernels on.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from dtvit_deploy.errors import MissingError
from dtvit_deploy.trt.options import Flavour

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Library → the Python module that it comes as."""
REMEDIES = {
    "tensorrt": "pip install tensorrt (a Jetson has it with JetPack), or use --flavour rtx or on-device",
    "tensorrt-rtx": "pip install 'dtvit-deploy[trt-rtx]', or use --flavour on-device",
}
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
    def ahead_of_time(self) -> bool:
        """Whether it compiles for GPUs that are not here."""
        return self.name == "tensorrt-rtx"

    def strongly_typed(self) -> int:
        """Flags of a network whose types are the graph's own."""
        flags = getattr(self.module, "NetworkDefinitionCreationFlag", None)
        flag = getattr(flags, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)


def load_library(name: str) -> Library:
    """Import one of `MODULES`.

    Raises:
        MissingError: it is not installed, or does not import.
    """
    try:
        return Library(name, importlib.import_module(MODULES[name]))
    except Exception as error:  # a stub package raises whatever it likes when its libraries are absent
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise MissingError(f"{name} cannot be imported: {reason}", remedy=REMEDIES[name]) from error
