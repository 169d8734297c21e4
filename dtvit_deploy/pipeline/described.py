"""What was just written, held against its manifest: a converter that drops or retypes an output is found by `export`, not by `verify`."""

from __future__ import annotations

from pathlib import Path

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.errors import InputError

REMEDY = "the converter did not keep to the network's inputs and outputs: return other tensors, or export another target"


def require_as_described(artifact: Artifact) -> None:
    """Refuse an artefact whose inputs or outputs are not those of its manifest, by name, shape and type.

    Args:
        artifact: of this export; nothing of it is executed or compiled.

    Raises:
        InputError: it has others.
    """
    try:
        if artifact.manifest.format == "mlpackage":
            from dtvit_deploy.runtimes.mil.described import require_as_described as require_program
            from dtvit_deploy.runtimes.mil.load import load_program

            require_program(load_program(artifact.path), artifact)
        elif artifact.manifest.format == "openvino":
            from dtvit_deploy.runtimes.openvino import require_ports

            require_ports(artifact)
        else:
            _require_graph(artifact)
    except InputError as error:
        raise InputError(str(error), remedy=REMEDY) from error


def _require_graph(artifact: Artifact) -> None:
    """ONNX, and the graph from which a TensorRT engine was built or is to be built."""
    from dtvit_deploy.artifacts.graph import read_graph, signature_fault
    from dtvit_deploy.formats.engine.passport import GRAPH

    path = artifact.path / GRAPH if artifact.path.is_dir() else Path(artifact.path)
    if fault := signature_fault(read_graph(path), artifact.manifest.signature):
        raise InputError(f"{artifact.name} is not the graph that its manifest describes: {fault}")
