"""What can be asked of a TensorRT build, whichever of NVIDIA's libraries does it."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from dtvit_deploy.artifacts.bounds import Natural

RTX_CAPABILITIES = ("8.9", "12.0")
"""GeForce RTX 40 and 50."""
Capability = Annotated[str, msgspec.Meta(pattern=r"\A[1-9][0-9]?\.[0-9]\Z")]
"""A GPU's compute capability, like ``8.9``."""


class Flavour(enum.Enum):
    """Where the compiler is that makes the engine.

    TensorRT engines run on the kind of device that they were built on and on no other, so a laptop without a GPU has two ways: let the
    device build, or build for RTX PCs, whose compiler (TensorRT-RTX) needs no GPU.
    """

    AUTO = "auto"
    """The first of the following that can be had here."""
    TENSORRT = "tensorrt"
    """TensorRT is here, and a GPU: the engine is for this machine."""
    RTX = "rtx"
    """TensorRT-RTX compiles ahead of time for the compute capabilities that are named."""
    ON_DEVICE = "on-device"
    """A folder with everything that the device needs to build the engine itself."""

    def __str__(self) -> str:
        return self.value


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an engine is built. Precision is not here: it is in the graph, and every network is strongly typed.

    Attributes:
        capabilities: GPUs that TensorRT-RTX compiles for, all in one engine; 8.9 and 12.0 if none is named. TensorRT takes the one
            that it builds on.
        tf32: whether products of FP32 may be rounded to TF32's 10 bits on the way, which NVIDIA's builders allow by default: an FP32 engine
            would not keep to FP32's tolerance then.
        workspace_mib: MiB of scratch memory that a layer may use; None leaves it to the library, which takes what the GPU has.
        optimization_level: 0 builds fastest, 5 searches longest; 3 is the libraries' own default.
        version_compatible: the engine loads in later minor releases too, and may be slower.
        hardware_compatible: a TensorRT engine that runs on every GPU from Ampere on, and may be slower.
        dla_core: the deep-learning accelerator of a Jetson that takes what it can, the rest falling back to the GPU; None uses none.
    """

    capabilities: Annotated[tuple[Capability, ...], msgspec.Meta(examples=[["8.9", "12.0"]])] = ()
    tf32: bool = False
    workspace_mib: Annotated[Natural, msgspec.Meta(examples=[512])] | None = None
    optimization_level: Annotated[int, msgspec.Meta(ge=0, le=5)] = 3
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla_core: Annotated[int, msgspec.Meta(ge=0, le=1)] | None = None
