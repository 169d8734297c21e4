"""A Core ML package on disk: the folder that Xcode and coremltools expect, with the same bytes for the same model.

coremltools' own ``save`` draws a random identifier for each of the two items, writes the date of the conversion into the model, and
serialises maps in whatever order they have; and it adds a file of debug handles, of a third of a megabyte, that only ExecuTorch reads.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.errors import MissingError
from dtvit_deploy.process.quiet import quiet

if TYPE_CHECKING:
    from types import ModuleType

MODEL = "com.apple.CoreML/model.mlmodel"
WEIGHTS = "com.apple.CoreML/weights"
AUTHOR = "com.apple.CoreML"
SPACE = uuid.UUID("5f1a3c52-6b0c-5d0e-9a53-5d3b6c1f7a10")
"""Of the identifiers that a package's items have here; any would do, so long as it stays."""


INSTALL = "pip install 'dtvit-deploy[coreml]'"


def require_coremltools() -> None:
    """Refuse to go on without the library; whether it can be imported, which takes seconds, shows when it is needed.

    Raises:
        MissingError: it is not installed, or cannot be used with the NumPy that is.
    """
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        raise MissingError(
            f"coremltools does not work with NumPy {np.__version__}: it takes arrays of one number for numbers, which NumPy 2.4 ended",
            remedy="pip install 'numpy<2.4', or 'dtvit-deploy[coreml]', which says so too",
        )
    if find_spec("coremltools") is None:
        raise MissingError("coremltools is not installed, which writes Core ML packages", remedy=INSTALL)


def coremltools() -> ModuleType:
    """The library, imported in silence: it logs that it cannot predict here, and warns of every torch and scikit-learn that is new.

    Raises:
        MissingError: it cannot be used here.
    """
    require_coremltools()
    try:
        with quiet():
            import coremltools
    except ImportError as error:
        raise MissingError(f"coremltools cannot be imported: {error}", remedy=INSTALL) from error
    module: ModuleType = coremltools
    return module


def write_mlpackage(model: Any, path: Path) -> None:
    """Write an ``MLModel`` as the package ``path``; equal models give equal bytes."""
    spec = model.get_spec()
    for function in spec.mlProgram.functions.values():
        function.attributes.pop("buildInfo", None)  # it repeats versions, which the manifest has, and the date
    spec.mlProgram.attributes.pop("buildInfo", None)
    for key in [key for key in spec.description.metadata.userDefined if key.startswith("com.github.apple.coremltools.")]:
        del spec.description.metadata.userDefined[key]
    _write(spec, model.weights_dir, path)


def write_program(program: Any, path: Path) -> None:
    """Write a MIL program, which stays as it is, as a package to evaluate; no application could use that."""
    from coremltools.converters.mil.backend.mil.load import MILProtoExporter
    from coremltools.proto import Model_pb2

    version = program.functions["main"].opset_version.value
    with tempfile.TemporaryDirectory() as folder:
        spec = Model_pb2.Model(specificationVersion=version, mlProgram=MILProtoExporter(program, folder, version).export())
        _write(spec, folder, path)


def _write(spec: Any, weights: str | None, path: Path) -> None:
    data = path / "Data"
    (data / WEIGHTS).mkdir(parents=True)
    (data / MODEL).write_bytes(spec.SerializeToString(deterministic=True))
    if weights is not None:
        for file in sorted(Path(weights).iterdir()):
            shutil.copyfile(file, data / WEIGHTS / file.name)
    items = {
        MODEL: {"author": AUTHOR, "description": "CoreML Model Specification", "name": "model.mlmodel", "path": MODEL},
        WEIGHTS: {"author": AUTHOR, "description": "CoreML Model Weights", "name": "weights", "path": WEIGHTS},
    }
    named = {str(uuid.uuid5(SPACE, place)): item for place, item in items.items()}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": named, "rootModelIdentifier": str(uuid.uuid5(SPACE, MODEL))}
    (path / "Manifest.json").write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")


def read_mlpackage(path: Path) -> Any:
    """An ``MLModel`` of a package, for rewriting; it is not compiled, and cannot predict."""
    ct = coremltools()
    with quiet():
        return ct.models.MLModel(str(path), skip_model_load=True)


def mil_of(model: Any) -> Any:
    """The MIL program of a package."""
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = model.get_spec()
    return load(spec, spec.specificationVersion, model.weights_dir)
