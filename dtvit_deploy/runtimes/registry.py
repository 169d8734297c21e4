"""The known runtimes. A handful needs a dictionary, not a plug-in framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dtvit_deploy.errors import InputError, MissingError

if TYPE_CHECKING:
    from dtvit_deploy.artifact import Artifact
    from dtvit_deploy.runtimes.base import Runtime, Session, SessionOptions


def _onnxruntime() -> Runtime:
    from dtvit_deploy.runtimes.onnxruntime import OnnxRuntime

    return OnnxRuntime()


def _openvino() -> Runtime:
    from dtvit_deploy.runtimes.openvino import OpenVinoRuntime

    return OpenVinoRuntime()


def _mil() -> Runtime:
    try:
        from dtvit_deploy.runtimes.mil.runtime import MilRuntime
    except ImportError as error:
        raise MissingError(f"torch cannot be imported: {error}", remedy="pip install 'dtvit-deploy[export]'") from error
    return MilRuntime()


def _torch() -> Runtime:
    try:
        from dtvit_deploy.runtimes.torch import TorchRuntime
    except ImportError as error:
        raise MissingError(f"torch cannot be imported: {error}", remedy="pip install 'dtvit-deploy[export]'") from error
    return TorchRuntime()


RUNTIMES: dict[str, Callable[[], Runtime]] = {"mil": _mil, "onnxruntime": _onnxruntime, "openvino": _openvino, "torch": _torch}
"""By name; calling imports what the runtime needs."""
BY_FORMAT = {"mlpackage": "mil", "onnx": "onnxruntime", "openvino": "openvino", "program": "torch"}
"""The runtime that loads a format where the user names none."""


def runtime_for(artifact: Artifact) -> Runtime:
    """The runtime for an artefact's format.

    Raises:
        InputError: no known runtime loads that format.
        MissingError: the runtime is not installed.
    """
    name = BY_FORMAT.get(artifact.manifest.format)
    if name is None:
        raise InputError(
            f"no runtime here loads the format {artifact.manifest.format!r} of {artifact.name}",
            remedy="formats that can be loaded: " + ", ".join(sorted(BY_FORMAT)),
        )
    runtime = RUNTIMES[name]()
    found = runtime.available()
    if found.version is None:
        raise MissingError(f"{artifact.name} needs {name}, which is not usable here: {found.missing}", remedy=found.remedy)
    return runtime


def open_session(artifact: Artifact, options: SessionOptions) -> Session:
    """Load an artefact in the runtime of its format."""
    return runtime_for(artifact).load(artifact, options)
