"""The options of ``--target coreml``."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated

import typer

from dtvit_deploy.formats.mlpackage.options import Layout, Weights

if TYPE_CHECKING:
    from dtvit_deploy.formats.mlpackage.options import CoreMlOptions


class Ios(enum.Enum):
    """Releases that can be named."""

    IOS16 = "16"
    IOS17 = "17"
    IOS18 = "18"


Release = Annotated[Ios, typer.Option("--ios", help="Of coreml: oldest iOS that loads the package (and macOS of its year). INT8 needs 17.")]
Stored = Annotated[
    Weights | None,
    typer.Option("--weights", help="Of coreml: how an FP16 package stores its weights.", show_default="as FP16"),
]
Laid = Annotated[
    Layout | None,
    typer.Option("--layout", help="Of coreml: order of the tensors; ane is the Neural Engine's.", show_default="the network's own"),
]
Image = Annotated[bool, typer.Option("--image-input", help="Of coreml: take an image's pixels, and normalise them inside.")]
Classifier = Annotated[bool, typer.Option("--classifier", help="Of coreml: answer with class labels and probabilities too.")]
Author = Annotated[str, typer.Option("--author", help="Of coreml: shown by Xcode.", show_default=False)]
Licence = Annotated[str, typer.Option("--licence", help="Of coreml: shown by Xcode.", show_default=False)]
Version = Annotated[str, typer.Option("--model-version", help="Of coreml: shown by Xcode.", show_default=False)]
Description = Annotated[str, typer.Option("--description", help="Of coreml: shown by Xcode.", show_default=False)]


def coreml_options(
    ios: Ios,
    weights: Weights | None,
    layout: Layout | None,
    *,
    image: bool,
    classifier: bool,
    author: str,
    licence: str,
    version: str,
    description: str,
) -> CoreMlOptions:
    """The typed form of what Core ML packages are to be."""
    import msgspec

    from dtvit_deploy.formats.mlpackage.options import CoreMlOptions

    asked = CoreMlOptions(
        weights=weights,
        layout=layout,
        image=image,
        classifier=classifier,
        author=author,
        licence=licence,
        version=version,
        description=description,
    )
    return msgspec.convert(msgspec.to_builtins(asked) | {"ios": int(ios.value)}, CoreMlOptions)
