"""What can be asked of a Core ML package, and what a session must know to feed one that takes pixels."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.artifact import Manifest

VIEWS = "views"
"""Key of the options of links of the next two kinds: the `HeldAs` of tensors by name."""
LINK = "coreml"
"""Kind of the manifest's link that a conversion adds."""
RELAID = "layout"
"""Kind of the link that is added where tensors got another order by wish."""
IMAGE = "image"
"""Key of that link's options: the `ImageInput` of a package that takes pixels, or null."""


class Weights(enum.Enum):
    """How an FP16 package stores its weights; products are computed in FP16 whatever is chosen."""

    INT8 = "int8"
    """One scale for each output channel: half of FP16's size."""
    PALETTE6 = "palette6"
    """64 values for each weight tensor, and 6 bits a weight to choose one."""
    PALETTE4 = "palette4"
    """16 values, and 4 bits: a quarter of FP16's size."""

    def __str__(self) -> str:
        return self.value


class Layout(enum.Enum):
    """Orders that a package's tensors can be held in, other than the network's own."""

    ANE = "ane"
    """The Neural Engine's: channels first, linears as 1×1 convolutions."""

    def __str__(self) -> str:
        return self.value


class CoreMlOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a package is made, and what Xcode shows of it.

    Attributes:
        ios: least release of iOS that loads it, and the macOS of the same year (13, 14, 15). 17 is the first with the operators that INT8
            activations need; 16 reaches older devices with FP32 and FP16; 18 has nothing that these networks need, and excludes them.
        weights: None stores an FP16 package's weights as FP16.
        layout: None leaves tensors in the order that the network has them in.
        image: the input is an image, as the camera and Vision give it, in place of a normalised tensor.
        classifier: the package answers with a class label and the probability of each, beside the network's own outputs.
        author, licence, version, description: shown by Xcode; none, or a description of our own, when empty.
    """

    ios: Literal[16, 17, 18] = 17
    weights: Weights | None = None
    layout: Layout | None = None
    image: bool = False
    classifier: bool = False
    author: str = ""
    licence: str = ""
    version: str = ""
    description: str = ""


class ImageInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An input that takes pixels from 0 to 255, and normalises them inside: value = scale · pixel + bias, for each channel.

    Attributes:
        name: of the input.
        color: order of the channels.
    """

    name: str
    color: Literal["RGB", "BGR"]
    scale: tuple[float, float, float]
    bias: tuple[float, float, float]

    def pixels(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """What to feed in place of a normalised (1, 3, H, W) tensor; not rounded, since an emulated package takes any number."""
        import numpy as np

        scale, bias = (np.asarray(three, np.float64).reshape(1, 3, 1, 1) for three in (self.scale, self.bias))
        found: NDArray[np.float32] = ((values.astype(np.float64) - bias) / scale).astype(np.float32)
        return found

    def black(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The normalised tensor of a picture without light; zeros are no picture of 8-bit pixels."""
        import numpy as np

        found: NDArray[np.float32] = np.broadcast_to(np.asarray(self.bias, np.float32).reshape(1, 3, 1, 1), shape).copy()
        return found


def image_input_of(manifest: Manifest) -> ImageInput | None:
    """How a package takes pixels; None where it takes a tensor.

    Raises:
        InputError: the manifest tells of an image input that makes no sense.
    """
    link = manifest.parent(LINK)
    try:
        return msgspec.convert(link.options.get(IMAGE) if link else None, ImageInput | None)
    except msgspec.ValidationError as error:
        raise InputError(f"the manifest tells of an image input that makes no sense: {error}", remedy="export the package again") from error


class HeldAs(msgspec.Struct, frozen=True, array_like=True):
    """What makes a tensor the node's again that it holds in another order.

    Attributes:
        apart: shape to give it, every axis as its factors.
        order: of those axes in the node's tensor.
        shape: of the node's tensor.
    """

    apart: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]

    def restored(self, values: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = values.reshape(self.apart).transpose(self.order).reshape(self.shape)
        return found


def views_of(manifest: Manifest) -> dict[str, HeldAs]:
    """Tensors that are held in another order than their node's.

    Raises:
        InputError: the manifest tells of orders that make no sense.
    """
    links = (manifest.parent(LINK), manifest.parent(RELAID))  # the latter has to count for what both tell of
    views: dict[str, HeldAs] = {}
    try:
        for link in links:
            views |= msgspec.convert(link.options.get(VIEWS, {}) if link else {}, dict[str, HeldAs])
    except msgspec.ValidationError as error:
        raise InputError(f"the manifest tells of a layout that makes no sense: {error}", remedy="export the package again") from error
    for name, view in views.items():
        if sorted(view.order) != list(range(len(view.apart))) or min((*view.apart, *view.shape), default=1) < 0:
            raise InputError(f"the manifest tells of a layout of {name} that makes no sense", remedy="export the package again")
    return views
