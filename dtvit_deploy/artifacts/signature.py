"""Names, shapes and types of what goes into a network and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Feeds = Mapping[str, NDArray[Any]]
    """Arrays by input name."""
    Outputs = dict[str, NDArray[Any]]
    """Arrays by output name."""


MOST_VALUES = 1 << 28
"""Of all inputs, or all outputs, together: 1 GiB as FP32, where an image of 8192×8192 has 0.8."""
_Size = Annotated[int, msgspec.Meta(ge=1, le=MOST_VALUES)]
_Shape = Annotated[tuple[_Size, ...], msgspec.Meta(max_length=32)]
"""No array of numpy's had more axes before its version 2."""


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One named tensor with a static shape.

    Attributes:
        name: of the parameter of forward, or of the output.
        shape: every size, the batch's too.
        dtype: numpy's name of it.
    """

    name: str
    shape: _Shape
    dtype: Annotated[str, msgspec.Meta(pattern=r"^\w+$")] = "float32"

    def __str__(self) -> str:
        return f"{self.name} {'×'.join(map(str, self.shape)) or 'scalar'} {self.dtype}"


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs and the outputs of a network, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check(self, feeds: Feeds) -> None:
        """Refuse feeds that do not fit the inputs.

        Raises:
            InputError: a name is missing or unknown, or a shape or type is another.
        """
        expected = {spec.name: spec for spec in self.inputs}
        wrong = [f"{name}: no such input" for name in feeds if name not in expected]
        for name, spec in expected.items():
            if name not in feeds:
                wrong.append(f"{name}: missing")
            elif tuple(feeds[name].shape) != spec.shape or feeds[name].dtype.name != spec.dtype:
                given = TensorSpec(name, tuple(feeds[name].shape), feeds[name].dtype.name)
                wrong.append(f"given {given}, expected {spec}")
            elif not feeds[name].dtype.isnative:  # ONNX Runtime would read the bytes as they are
                wrong.append(f"{name}: not in this machine's byte order")
        if wrong:
            raise InputError(
                "the feeds do not fit the network: " + "; ".join(wrong),
                remedy="the inputs are " + ", ".join(map(str, self.inputs)),
            )
