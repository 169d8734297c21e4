"""The options of ``--target trt``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.options import BuildOptions, Flavour

if TYPE_CHECKING:
    from dtvit_deploy.recipe import TensorRt

Flavours = Annotated[
    list[Flavour] | None,
    typer.Option("--flavour", help="Of trt: where the engine is compiled. Repeatable.", show_default="auto, the best that is here"),
]
Capabilities = Annotated[
    list[str] | None,
    typer.Option("--capability", help="Of trt: GPUs that an rtx engine has code for. Repeatable.", show_default="8.9 and 12.0"),
]
Workspace = Annotated[int | None, typer.Option("--workspace", min=1, help="Of trt: MiB of scratch memory.", show_default=False)]
Level = Annotated[
    int, typer.Option("--optimization-level", min=0, max=5, help="Of trt: how long the builder looks for the fastest kernels.")
]
Tf32 = Annotated[bool, typer.Option("--tf32", help="Of trt: let products of FP32 be rounded to TF32.")]
VersionCompatible = Annotated[
    bool, typer.Option("--version-compatible", help="Of trt: an engine for later minor releases of TensorRT too.")
]
HardwareCompatible = Annotated[bool, typer.Option("--hardware-compatible", help="Of trt: an engine for every GPU from Ampere on.")]
DlaCore = Annotated[
    int | None, typer.Option("--dla-core", min=0, max=1, help="Of trt: a Jetson's DLA; the GPU takes the rest.", show_default=False)
]


def tensorrt_options(
    flavours: list[Flavour] | None,
    capabilities: list[str] | None,
    *,
    workspace: int | None,
    level: int,
    tf32: bool,
    version_compatible: bool,
    hardware_compatible: bool,
    dla_core: int | None,
) -> TensorRt:
    """The typed form of what TensorRT artefacts are to be.

    Raises:
        InputError: a compute capability is not written as one.
    """
    import msgspec

    from dtvit_deploy.recipe import TensorRt

    asked = {
        "capabilities": list(dict.fromkeys(capabilities or ())),
        "tf32": tf32,
        "workspace_mib": workspace,
        "optimization_level": level,
        "version_compatible": version_compatible,
        "hardware_compatible": hardware_compatible,
        "dla_core": dla_core,
    }
    try:
        build = msgspec.convert(asked, BuildOptions)
    except msgspec.ValidationError as error:
        raise InputError(
            f"--capability {' '.join(capabilities or ())} is no list of compute capabilities", remedy="write each like 8.9"
        ) from error
    return TensorRt(flavours=tuple(dict.fromkeys(flavours or [Flavour.AUTO])), build=build)
