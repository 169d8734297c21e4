"""The known runtimes. A handful needs a dictionary, not a plug-in framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.errors import InputError, MissingError

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Artifact
    from dtvit_deploy.runtimes.base import Runtime, Session, SessionOptions


def _onnxruntime() -> Runtime:
    from dtvit_deploy.runtimes.onnxruntime import OnnxRuntime

    return OnnxRuntime()


def _openvino() -> Runtime:
    from dtvit_deploy.runtimes.openvino import OpenVinoRuntime

    return OpenVinoRuntime()


def _coreml(units: str) -> Callable[[], Runtime]:
    def runtime() -> Runtime:
        from dtvit_deploy.runtimes.coreml.session import CoreMlRuntime, Units

        return CoreMlRuntime(Units(units))

    return runtime


def _coreml_iphone() -> Runtime:
    from dtvit_deploy.runtimes.coreml.iphone import IPhoneRuntime

    return IPhoneRuntime()


def _mil() -> Runtime:
    try:
        from dtvit_deploy.runtimes.mil.runtime import MilRuntime
    except ImportError as error:
        raise MissingError(f"torch cannot be imported: {error}", remedy="pip install 'dtvit-deploy[export]'") from error
    return MilRuntime(why_emulated)


def _torch() -> Runtime:
    try:
        from dtvit_deploy.runtimes.torch.session import TorchRuntime
    except ImportError as error:
        raise MissingError(f"torch cannot be imported: {error}", remedy="pip install 'dtvit-deploy[export]'") from error
    return TorchRuntime()


def _tensorrt() -> Runtime:
    from dtvit_deploy.runtimes.tensorrt.session import TensorRtRuntime

    return TensorRtRuntime("tensorrt")


def _tensorrt_rtx() -> Runtime:
    from dtvit_deploy.runtimes.tensorrt.session import TensorRtRuntime

    return TensorRtRuntime("tensorrt-rtx")


def _emulated() -> Runtime:
    from dtvit_deploy.runtimes.tensorrt.emulated import EmulatedTensorRt

    return EmulatedTensorRt(why_emulated)


RUNTIMES: dict[str, Callable[[], Runtime]] = {
    "coreml": _coreml("all"),
    "coreml-cpu": _coreml("cpu"),
    "coreml-gpu": _coreml("gpu"),
    "coreml-ne": _coreml("ne"),
    "coreml-iphone": _coreml_iphone,
    "mil": _mil,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
    "emulated-in-onnxruntime": _emulated,
}
"""By name; calling imports what the runtime needs."""
BY_FORMAT = {
    "mlpackage": ("coreml", "mil"),
    "onnx": ("onnxruntime",),
    "openvino": ("openvino",),
    "program": ("torch",),
    "trt": ("tensorrt", "emulated-in-onnxruntime"),
    "rtx": ("tensorrt-rtx", "emulated-in-onnxruntime"),
    "trtjob": ("emulated-in-onnxruntime",),
}
"""The runtimes that load a format where the user names none, the best first: the first that can be used for the artefact is taken."""
ALSO = {"mlpackage": ("coreml-cpu", "coreml-gpu", "coreml-ne", "coreml-iphone")}
"""Those that load it where the user asks for them."""


def of_artefacts() -> tuple[str, ...]:
    """Names of those that a user may ask for: torch evaluates the reference alone."""
    return tuple(name for name in RUNTIMES if name != "torch")


def runtime_for(artifact: Artifact) -> Runtime:
    """The best runtime for an artefact that can be used here.

    Raises:
        InputError: no known runtime loads that format.
        MissingError: none of those that do can be used here.
    """
    names = BY_FORMAT.get(artifact.manifest.format)
    if names is None:
        raise InputError(
            f"no runtime here loads the format {artifact.manifest.format!r} of {artifact.name}",
            remedy="formats that can be loaded: " + ", ".join(sorted(BY_FORMAT)),
        )
    for name in names:
        runtime = RUNTIMES[name]()
        found = runtime.available(artifact)
        if found.version is not None:
            return runtime
    raise MissingError(f"{artifact.name} needs {name}, which is not usable here: {found.missing}", remedy=found.remedy)


def why_emulated(artifact: Artifact) -> str:
    """Why an artefact's own runtime is not the one that is taken here."""
    from dtvit_deploy.runtimes.base import ASKED_FOR

    best = RUNTIMES[BY_FORMAT[artifact.manifest.format][0]]()
    if best.rung is Rung.EMULATED:
        return "it is yet to be built, on its device"
    return best.available(artifact).missing or ASKED_FOR


def open_session(artifact: Artifact, options: SessionOptions) -> Session:
    """Load an artefact in the best runtime that can be used for it here."""
    return runtime_for(artifact).load(artifact, options)
