"""What a Core ML package takes and gives, of what the manifest knows and the user asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.mlpackage.options import CoreMlOptions, ImageInput
from dtvit_deploy.pipeline.material import preprocessing_of
from dtvit_deploy.pipeline.scoring import scores_of
from dtvit_deploy.plural import counted

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Manifest
    from dtvit_deploy.export.coreml.interface import Interface


def interface_of(manifest: Manifest, options: CoreMlOptions) -> Interface:
    """Names and types of what goes in and comes out.

    Raises:
        InputError: the network has no scores or no image where a classifier or an image input was asked for, or names that cannot be had.
    """
    from dtvit_deploy.export.coreml.interface import Interface

    scores = None
    if options.classifier:
        found = scores_of(manifest.signature)
        if found is None or found.shape[-1] != len(manifest.classes):
            raise InputError(
                f"{manifest.model} cannot be a classifier: it has {counted(len(manifest.classes), 'class name')}"
                + (
                    f" for the {counted(found.shape[-1], 'score')} of {found.name!r}"
                    if found
                    else " and no output that is one row of scores"
                ),
                remedy="leave --classifier out, or give a checkpoint whose metadata names the classes",
            )
        scores = found.name
    image = _image_input(manifest) if options.image else None
    return Interface(manifest.model, manifest.signature, manifest.classes, options, image, scores)


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
