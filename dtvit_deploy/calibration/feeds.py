"""Feeds: from images, from an ``.npz`` file, and made up to be difficult."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtvit_deploy.calibration.decode import decode_image
from dtvit_deploy.calibration.images import ImageSet
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.errors import InputError
from dtvit_deploy.signature import Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Feed = dict[str, NDArray[Any]]
    """One inference: an array for each input, by its name."""
    _Maker = Callable[[tuple[int, ...]], Any]

LARGEST_NPZ = 4 << 30
"""Bytes of all arrays of an ``.npz`` file, unpacked: they are held in memory."""
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


def load_feeds(path: Path, signature: Signature) -> list[Feed]:
    """Feeds from an ``.npz`` file that holds one array for each input, by its name, with samples along the first axis.

    For an input of shape S the array has the shape (N, *S), or, where S begins with a batch of 1, (N, *S[1:]).
    Nothing in the file is run or believed: sizes are checked from the headers before memory is taken for them.

    Raises:
        InputError: the file cannot be read, is damaged or too large, an input is missing, unknown, of another shape or type, the
            inputs have different numbers of samples, or a value is NaN.
    """
    remedy = f"write it with numpy.savez, one array for each input with samples along the first axis: {_listed(signature)}"

    def refuse(message: str) -> InputError:
        return InputError(f"{path}: {message}", remedy=remedy)

    try:
        if not path.is_file():  # a named pipe would be waited for
            raise refuse("is no file" if path.exists() else "does not exist")
        with zipfile.ZipFile(path) as archive:
            found, wanted = {info.filename for info in archive.infolist()}, {f"{spec.name}.npy" for spec in signature.inputs}
            if found != wanted:
                names = ", ".join(sorted(name.removesuffix(".npy") for name in found)) or "none"
                raise refuse(f"the arrays are {names}; the inputs are {_listed(signature)}")
            size = sum(info.file_size for info in archive.infolist())
            if size > LARGEST_NPZ:
                raise refuse(f"unpacks to {size:,} bytes; at most {LARGEST_NPZ:,} are read")
            arrays = {spec.name: _read(archive, spec, refuse) for spec in signature.inputs}
    except InputError:
        raise
    # A hostile archive makes zipfile and numpy raise whatever they run into: BadZipFile, zlib.error, ValueError, RuntimeError (a
    # password), NotImplementedError (a compression), EOFError, MemoryError, …
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise refuse(f"cannot be read as an .npz file of feeds: {reason}") from error
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise refuse(f"every input needs the same number of samples, at least 1; {listed}")
    return [{name: array[sample, ...] for name, array in arrays.items()} for sample in range(min(counts.values(), default=0))]


def _read(archive: zipfile.ZipFile, spec: TensorSpec, refuse: Callable[[str], InputError]) -> NDArray[Any]:
    """(N, *shape) array of one input, once its header is found to describe that input and the bytes that follow it."""
    import numpy as np

    npy: Any = np.lib.format  # older releases of NumPy give it no types
    info = archive.getinfo(f"{spec.name}.npy")
    with archive.open(info) as stream:
        version = npy.read_magic(stream)
        header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if header is None:  # version 3 is for records with foreign names, which no input is
            raise refuse(f"{spec.name} is written in version {version[0]}.{version[1]} of the .npy format")
        shape, _, dtype = header(stream)
        data = info.file_size - stream.tell()
    batched = spec.shape[:1] == (1,) and shape[1:] == spec.shape[1:]
    if dtype.name != spec.dtype or dtype.kind not in "fiub" or not (shape[1:] == spec.shape or batched) or not shape:
        alternative = f" or N×{'×'.join(map(str, spec.shape[1:]))}" if spec.shape[:1] == (1,) else ""
        raise refuse(
            f"{spec.name} is {'×'.join(map(str, shape)) or 'scalar'} {dtype.name}; "
            f"expected {'×'.join(map(str, ('N', *spec.shape)))}{alternative} {spec.dtype}"
        )
    if math.prod(shape) * dtype.itemsize != data:
        raise refuse(f"{spec.name} says it has {'×'.join(map(str, shape))} values, and {data:,} bytes follow")
    with archive.open(info) as stream:
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    for sample, values in enumerate(array):
        # Infinity is left alone: a mask may well use it.
        if np.isnan(values).any():
            raise refuse(f"{spec.name} holds NaN in sample {sample}")
    every: NDArray[Any] = np.ascontiguousarray(array, np.dtype(spec.dtype)).reshape(shape[0], *spec.shape)
    return every


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
