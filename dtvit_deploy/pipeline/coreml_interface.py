"""What a Core ML package takes and gives, of what the manifest knows and the user asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.mlpackage.options import CoreMlOptions, ImageInput
from dtvit_deploy.harness.class_scores import class_scores
from dtvit_deploy.pipeline.material import preprocessing_of
from dtvit_deploy.plural import counted, some

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Manifest
    from dtvit_deploy.calibration.class_map import ClassMap
    from dtvit_deploy.export.coreml.interface import Interface


def interface_of(manifest: Manifest, options: CoreMlOptions) -> Interface:
    """Names and types of what goes in and comes out.

    Raises:
        InputError: the network has no scores or no image where a classifier or an image input was asked for, or names that cannot be had.
    """
    from dtvit_deploy.export.coreml.interface import Interface

    scores = _scores(manifest) if options.classifier else None
    image = _image_input(manifest) if options.image else None
    return Interface(manifest.model, manifest.signature, manifest.classes, options, image, scores)


def with_labels(manifest: Manifest, options: CoreMlOptions, class_map: ClassMap | None) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest with the class labels that a classifier answers with, and what is to be said of them.

    They are the checkpoint's names of the classes. Where it has none they are those of the class map, which the manifest then holds, as it
    would the checkpoint's: a package is held to the labels of its manifest.

    Raises:
        InputError: the map gives a class no name of its own, or does not fit the network.
    """
    if class_map is None or not options.classifier:
        return manifest, ()
    if not manifest.classes:
        return msgspec.structs.replace(manifest, classes=class_map.in_order()), ()
    others = [f"{name!r} for what it calls {other!r}" for name, other in class_map.other_names(manifest.classes).items()]
    if not others:
        return manifest, ()
    note = f"the class labels are the checkpoint's names and not those of {class_map.path.name}, which says what images call them"
    return manifest, (f"{note}: {some(others, 3)}",)


def _scores(manifest: Manifest) -> str:
    """The output of which each entry has a class name."""
    outputs, classes = manifest.signature.outputs, len(manifest.classes)
    rows = [spec for spec in outputs if spec.name in class_scores(outputs, classes) and len(spec.shape) == 2]
    named = [spec for spec in rows if spec.shape[-1] == classes]
    if named:
        return named[0].name
    of = f"for the {counted(rows[0].shape[-1], 'score')} of {rows[0].name!r}" if rows else "and no output that is one row of class scores"
    raise InputError(
        f"{manifest.model} cannot be a classifier: it has {counted(classes, 'class name')} {of}",
        remedy="leave --classifier out (in a recipe: coreml.classifier), give a checkpoint whose metadata names the classes, or a"
        " --class-map (data.class_map) with a name for each score",
    )


def _image_input(manifest: Manifest) -> ImageInput:
    """How the network's one image input takes pixels.

    Raises:
        InputError: it has no such input.
    """
    inputs = manifest.signature.inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[:2] != (1, 3) or inputs[0].dtype != "float32":
        raise InputError(
            f"{manifest.model} takes {', '.join(map(str, inputs))}, which is not one image of three channels",
            remedy="leave --image-input out",
        )
    how = preprocessing_of(manifest)
    red, green, blue = ((1 / (255 * std), -mean / std) for mean, std in zip(how.mean, how.std, strict=True))
    return ImageInput(
        name=inputs[0].name,
        color="RGB" if how.channels == "rgb" else "BGR",
        scale=(red[0], green[0], blue[0]),
        bias=(red[1], green[1], blue[1]),
    )
