"""Feeds: from images, and made up to be difficult; ready ones are read by :mod:`dtvit_deploy.calibration.npz`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.calibration.decode import decode_image
from dtvit_deploy.calibration.images import ImageSet
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Feed = dict[str, NDArray[Any]]
    """One inference: an array for each input, by its name."""
    _Maker = Callable[[tuple[int, ...]], Any]

SATURATED = 2.64
"""The largest value that ImageNet's normalisation gives a pixel: (1 − 0.406) / 0.225, a fully blue one."""


def image_feeds(images: ImageSet, preprocessing: Preprocessing, signature: Signature) -> Iterator[Feed]:
    """One feed for each image, in order, each made when it is asked for; only one is held.

    Raises:
        InputError: at once, when the network does not take one float32 image of the preprocessing's size; later, when an image
            cannot be read.
    """
    shape = (1, 3, *preprocessing.crop)
    wanted = TensorSpec("image", shape)
    if len(signature.inputs) != 1 or signature.inputs[0].shape != shape or signature.inputs[0].dtype != "float32":
        raise InputError(
            f"images become one input of {wanted}; the network takes {_listed(signature)}",
            remedy="set the preprocessing's crop to the input's size, or give feeds as an .npz file of arrays by input name",
        )
    name = signature.inputs[0].name
    return ({name: preprocessing.apply(decode_image(image.path))[None]} for image in images.images)


def adversarial_feeds(signature: Signature, seed: int = 0) -> dict[str, Feed]:
    """Feeds by name that images do not cover: no signal, no contrast, both ends of the range, unlike any image, next to nothing.

    Floats are ``zeros``, ``constant`` (0.5), ``saturated`` (a checkerboard of ±2.64), ``noise`` (standard normal) and ``tiny``
    (1e-4 times that). Integers and booleans are, in the same order, 0, 1, 1, and twice random from 0 to 3, which most indexes allow.

    Raises:
        InputError: an input is neither a real number nor a boolean.
    """
    import numpy as np

    noise, tiny = _stream(seed), _stream(seed + 1)
    makers: dict[str, tuple[_Maker, _Maker]] = {
        "zeros": (np.zeros, np.zeros),
        "constant": (lambda shape: np.full(shape, 0.5), np.ones),
        "saturated": (_checkerboard, np.ones),
        "noise": (noise.standard_normal, lambda shape: noise.randint(0, 4, shape)),
        "tiny": (lambda shape: 1e-4 * tiny.standard_normal(shape), lambda shape: tiny.randint(0, 4, shape)),
    }
    return {name: _made(signature, *maker) for name, maker in makers.items()}


def random_feeds(signature: Signature, count: int, seed: int = 0) -> list[Feed]:
    """``count`` different feeds: standard normal floats, integers and booleans from 0 to 3. More of them begin with the same ones.

    Raises:
        InputError: an input is neither a real number nor a boolean, or ``count`` is less than 1.
    """
    if count < 1:
        raise InputError(f"{count} random feeds were asked for", remedy="ask for at least 1")
    stream = _stream(seed)
    return [_made(signature, stream.standard_normal, lambda shape: stream.randint(0, 4, shape)) for _ in range(count)]


def _stream(seed: int) -> np.random.RandomState:
    """A generator whose stream is promised to stay the same in every version of numpy, unlike that of ``default_rng``."""
    import numpy as np

    return np.random.RandomState(seed % (1 << 32))


def _made(signature: Signature, floats: _Maker, integers: _Maker) -> Feed:
    import numpy as np

    feed = {}
    for spec in signature.inputs:
        try:
            dtype = np.dtype(spec.dtype)
        except TypeError:
            dtype = np.dtype(object)
        if dtype.kind not in "fiub":
            raise InputError(f"no feeds can be made up for the input {spec}", remedy="give feeds as an .npz file of arrays by input name")
        feed[spec.name] = np.asarray((floats if dtype.kind == "f" else integers)(spec.shape)).astype(dtype)
    return feed


def _checkerboard(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """±2.64, alternating along the last two axes."""
    import numpy as np

    board = np.indices(shape[-2:]).sum(0)
    return np.broadcast_to(SATURATED * (1.0 - 2.0 * (board % 2)), shape)


def _listed(signature: Signature) -> str:
    return ", ".join(map(str, signature.inputs)) or "none"
