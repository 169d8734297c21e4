"""What a package tells an app of itself, held against its manifest.

An app sees the description and never the program: it gives pictures of the size and the order of channels that are described, and shows
the labels of the classifier. A package whose numbers are right can so be wrong in an app.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.mlpackage.options import image_input_of
from dtvit_deploy.runtimes.mil.program import HELD, Constant, Program, Type

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Artifact
    from dtvit_deploy.artifacts.signature import TensorSpec

COLORS = {20: "RGB", 30: "BGR", 10: "GRAYSCALE", 40: "GRAYSCALE_FLOAT16"}
"""``ImageFeatureType.ColorSpace`` of FeatureTypes.proto."""
KINDS = {65552: "f", 65568: "f", 65600: "f", 131104: "i"}
"""``ArrayFeatureType.ArrayDataType`` there → numpy's kind; Core ML's integers are of 32 bits where the signature has 64."""


def require_as_described(program: Program, artifact: Artifact) -> None:
    """Refuse a package that takes or gives, or tells that it takes or gives, something else than its manifest says.

    Raises:
        InputError: it does.
    """
    for wrong in (*_of_program(program, artifact), *_of_description(program, artifact), *_of_classifier(program, artifact)):
        raise InputError(f"{artifact.name} is not the program that its manifest describes: {wrong}", remedy="export it again")


def _of_program(program: Program, artifact: Artifact) -> Iterator[str]:
    signature = artifact.manifest.signature
    inputs = dict(program.inputs)
    if inputs.keys() != {spec.name for spec in signature.inputs}:
        yield f"its inputs are {', '.join(inputs)}"
    if missing := {spec.name for spec in signature.outputs} - set(program.outputs):
        yield f"it does not give {', '.join(sorted(missing))}"
    made = inputs | {name: constant.type for name, constant in program.constants.items()}
    made |= {output.name: output.type for operation in program.operations for output in operation.outputs}
    for spec in (*signature.inputs, *signature.outputs):
        kind = made.get(spec.name)
        if kind is not None and not _fits(kind, spec):
            yield f"{spec.name} is {kind} in the program, and {spec}"


def _fits(kind: Type, spec: TensorSpec) -> bool:
    return kind.dtype in HELD and kind.shape == spec.shape and HELD[kind.dtype].numpy.kind == np.dtype(spec.dtype).kind


def _of_description(program: Program, artifact: Artifact) -> Iterator[str]:
    description, signature, image = program.description, artifact.manifest.signature, image_input_of(artifact.manifest)
    taken, given = ({one.name: one.type for one in several} for several in (description.input, description.output))
    if taken.keys() != {variable.name for variable in program.inputs} or given.keys() != set(program.outputs):
        yield f"its description tells of {', '.join((*taken, *given))}"
    for specs, features in ((signature.inputs, taken), (signature.outputs, given)):
        for spec in specs:
            wanted = _array(spec.shape, np.dtype(spec.dtype).kind)
            if features is taken and image is not None and spec.name == image.name:
                wanted = f"an image of {spec.shape[-1]}×{spec.shape[-2]} pixels in {image.color}"
            if spec.name in features and (told := _told(features[spec.name])) != wanted:
                yield f"its description tells that {spec.name} is {told}, the manifest that it is {wanted}"


def _array(shape: tuple[int, ...], kind: str) -> str:
    return f"an array of {'×'.join(map(str, shape)) or 'one'} {'integers' if kind in 'iu' else 'numbers'}"


def _told(feature: Any) -> str:
    """A feature's type in words; two of the same words are the same."""
    word = feature.WhichOneof("Type") or "nothing"
    if word == "imageType":
        image = feature.imageType
        size = "any size" if image.WhichOneof("SizeFlexibility") else f"{image.width}×{image.height} pixels"
        return f"an image of {size} in {COLORS.get(image.colorSpace, image.colorSpace)}"
    if word == "multiArrayType":
        array = feature.multiArrayType
        kind = KINDS.get(array.dataType, "?")
        return _array(tuple(array.shape), kind) if kind != "?" and not array.WhichOneof("ShapeFlexibility") else "an array of any shape"
    return str(word)


def _of_classifier(program: Program, artifact: Artifact) -> Iterator[str]:
    """The labels, their order, and which of the outputs they are."""
    description, classes = program.description, list(artifact.manifest.classes)
    asked = next((link.options["classifier"] for link in artifact.manifest.lineage if "classifier" in link.options), None)
    found = [operation for operation in program.operations if operation.type == "classify"]
    if asked is not None and bool(asked) != bool(found):
        yield "it is a classifier" if found else "it is no classifier"
    for operation in found:
        labels = _constant(program.constants, operation.inputs.get("classes", ()))
        if not isinstance(labels, list) or list(map(str, labels)) != classes:
            yield f"it answers with the labels {_few(labels)}; the classes are {_few(classes)}"
    made = [output.name for operation in found for output in operation.outputs]
    told = [name for name in (description.predictedFeatureName, description.predictedProbabilitiesName) if name]
    if told != made:
        yield f"its description tells that the label and the probabilities are {told}, the program makes {made}"
    words = description.metadata.userDefined
    if "classes" in words and words["classes"] != ",".join(classes):
        yield f"its description tells of the classes {words['classes'][:80]}; they are {_few(classes)}"


def _constant(constants: Mapping[str, Constant], given: tuple[str | Constant, ...]) -> Any:
    """The value of a parameter that has one."""
    if len(given) != 1:
        return None
    (one,) = given
    constant = constants.get(one) if isinstance(one, str) else one
    return None if constant is None else constant.value.tolist() if hasattr(constant.value, "tolist") else constant.value


def _few(names: Any) -> str:
    return ", ".join(map(str, names[:5])) + (" …" if len(names) > 5 else "") if isinstance(names, list) else "of nothing"
