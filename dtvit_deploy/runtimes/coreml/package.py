"""What a ``.mlpackage`` takes and gives, by its own description, and how arrays go into it and come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.mlpackage.options import ImageInput
from dtvit_deploy.process.quiet import quiet
from dtvit_deploy.runtimes.base import SessionOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.signature import Feeds, Outputs, Signature, TensorSpec

EMULATE = "use --runtime mil, which evaluates the package on any machine"
FED = {"FLOAT16": "float16", "FLOAT32": "float32", "DOUBLE": "float64", "INT32": "int32"}
"""Element types of multi-arrays → numpy's names. Core ML has no 64-bit integers: what the program calls int64 is int32 in the package."""


PIXEL = 1e-3
"""How far from a whole number a pixel may be that float32 made of one by normalising it, and that is taken back."""


class Ports:
    """How arrays of a signature go into a package and come out: by name, in the element types that Core ML has.

    Args:
        description: of the package, by itself.
        signature: of the artefact.
        name: of the artefact.
        image: the input that takes pictures, where the session can hand one over.

    Raises:
        InputError: the package does not have the signature's inputs and outputs.
    """

    def __init__(self, description: Any, signature: Signature, name: str, image: ImageInput | None = None) -> None:
        self._signature, self._name, self._image = signature, name, image
        kinds = {feature.name: feature.type for feature in description.input}
        pictures = [name for name, kind in kinds.items() if kind.WhichOneof("Type") == "imageType"]
        if pictures != ([image.name] if image else []):
            raise InputError(
                f"{name} takes pictures of 8-bit pixels ({', '.join(pictures) or 'its manifest says so'}), which cannot be fed here",
                remedy=f"export it without --image-input, or {EMULATE}",
            )
        shapes = {name: _shape(kind) for name, kind in kinds.items()}
        outputs = {feature.name for feature in description.output}
        if shapes != {spec.name: spec.shape for spec in signature.inputs} or not outputs >= {spec.name for spec in signature.outputs}:
            inputs = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in shapes.items())
            raise InputError(
                f"{name} is not the package that its manifest describes: its inputs are {inputs}, its outputs {', '.join(sorted(outputs))}",
                remedy="export it again",
            )
        arrays = {name: kind.multiArrayType for name, kind in kinds.items() if name not in pictures}
        named = {name: kind.ArrayDataType.Name(kind.dataType) for name, kind in arrays.items()}
        if unknown := sorted({kind for kind in named.values() if kind not in FED}):
            raise InputError(f"{name} has inputs of {', '.join(unknown)}; known: {', '.join(FED)}", remedy="export it again")
        self._dtypes = {name: np.dtype(FED[kind]) for name, kind in named.items()}

    def into(self, feeds: Feeds) -> dict[str, Any]:
        """Feeds in the package's types, contiguous: a remote device would take a view's strides with a copy's bytes."""
        return {
            name: self._picture(self._image, np.asarray(values))
            if self._image and name == self._image.name
            else self._fed(name, np.asarray(values))
            for name, values in feeds.items()
        }

    def _picture(self, image: ImageInput, values: NDArray[Any]) -> Any:
        """The picture that normalised values were made of, or none: rounding would feed the package something else than its reference."""
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingError(f"a picture needs Pillow: {error}", remedy="pip install pillow") from error

        pixels = image.pixels(values)
        whole = np.rint(pixels)
        if not (np.abs(pixels - whole) <= PIXEL).all() or whole.min() < 0 or whole.max() > 255:  # NaN too
            raise InputError(
                f"{self._name} takes pictures of 8-bit pixels, and what {image.name} was fed is none",
                remedy=f"feed images (--data); for other feeds, which verify always has, {EMULATE}",
            )
        rows = whole[0].astype(np.uint8).transpose(1, 2, 0)
        return Image.fromarray(np.ascontiguousarray(rows if image.color == "RGB" else rows[..., ::-1]))  # the order is Core ML's to change

    def _fed(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        fed = np.ascontiguousarray(values, dtype=self._dtypes[name]).reshape(values.shape)  # at least one axis is made otherwise
        if values.dtype.kind in "iu" and not np.array_equal(fed, values):
            raise InputError(f"{name} has values that {self._dtypes[name]}, which {self._name} takes, cannot hold", remedy="feed others")
        return fed

    def out_of(self, answer: Mapping[str, Any]) -> Outputs:
        return {spec.name: self._answered(spec, answer) for spec in self._signature.outputs}

    def _answered(self, spec: TensorSpec, answer: Mapping[str, Any]) -> NDArray[Any]:
        if spec.name not in answer:
            raise InputError(f"{self._name} gave no {spec.name}, but {', '.join(sorted(answer))}", remedy="export it again")
        values = np.array(answer[spec.name], dtype=spec.dtype)  # a copy: the memory is Core ML's
        if values.size != np.prod(spec.shape, dtype=int):
            raise InputError(f"{self._name} gave {spec.name} of shape {values.shape} in place of {spec}", remedy="export it again")
        return values.reshape(spec.shape)  # a scalar comes as an array of one


def _shape(kind: Any) -> tuple[int, ...]:
    """Of a feed for an input of that type."""
    if kind.WhichOneof("Type") == "imageType":
        return (1, 3, kind.imageType.height, kind.imageType.width)
    return tuple(kind.multiArrayType.shape)


def refuse_taps(artifact: Artifact, options: SessionOptions) -> None:
    if options.taps:
        raise InputError(
            f"Core ML hands out no inner tensor of {artifact.name}, and {', '.join(options.taps[:5])} was asked for",
            remedy=f"to compare inner tensors, {EMULATE}",
        )


def model_description(artifact: Artifact) -> Any:
    """Inputs and outputs as the package itself describes them."""
    return _specification(artifact).description


def specification_version(artifact: Artifact) -> int:
    return int(_specification(artifact).specificationVersion)


def _specification(artifact: Artifact) -> Any:
    """The package's model, without its weights; coremltools finds it, so that a Mac needs no torch."""
    with quiet():
        from coremltools.models.utils import load_spec

        try:
            return load_spec(str(artifact.path))
        except Exception as error:  # a parser's, the file system's, and coremltools' own, which has no class
            raise InputError(f"{artifact.name} holds no Core ML model: {first_line(error)}", remedy="export it again") from error


def compiled(artifact: Artifact) -> str:
    """What a compiler was given: the device's own, at loading."""
    return f"{artifact.name}, SHA-256 {artifact.manifest.sha256[:12]}, specification version {specification_version(artifact)}"


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
