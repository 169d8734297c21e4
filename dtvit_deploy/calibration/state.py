"""How far a calibration has come, in a file: arrays of known shapes and types, written in one step, believed only when they fit."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtvit_deploy.artifacts.staging import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_HEADERS = 4096
"""Bytes: more than the header of an array and its entry in the archive take."""


def write_state(path: Path, arrays: Arrays) -> None:
    """Write an ``.npz`` file.

    Raises:
        InputError: the file cannot be written.
    """
    import numpy as np

    named: dict[str, Any] = dict(arrays)
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **named)


def read_state(path: Path, like: Arrays) -> dict[str, NDArray[Any]]:
    """Read what `write_state` wrote of arrays like these. No code in the file runs, and no memory is taken on its word.

    Raises:
        ValueError: it cannot be read, or holds anything else than arrays of these names, shapes and types.
    """
    import numpy as np

    npy: Any = np.lib.format  # older releases of NumPy give it no types
    arrays = {}
    try:
        if path.stat().st_size > sum(array.nbytes + _HEADERS for array in like.values()):
            raise ValueError("it is too large")
        with zipfile.ZipFile(path) as archive:
            if sorted(archive.namelist()) != sorted(f"{name}.npy" for name in like):
                raise ValueError("it holds other arrays")
            for name, expected in like.items():
                with archive.open(f"{name}.npy") as stream:
                    if npy.read_magic(stream) != (1, 0):
                        raise ValueError(f"{name} is written in another version of the format")
                    if npy.read_array_header_1_0(stream) != (expected.shape, False, expected.dtype):
                        raise ValueError(f"{name} has another shape or type")
                    content = stream.read(expected.nbytes + 1)
                    if len(content) != expected.nbytes:
                        raise ValueError(f"{name} is cut off, or goes on")
                    arrays[name] = np.frombuffer(content, expected.dtype).reshape(expected.shape)
    except ValueError:
        raise
    # A hostile archive makes zipfile and numpy raise whatever they run into: BadZipFile, zlib.error, RuntimeError (a password), …
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error
    return arrays
