"""What can be asked for: a target, a precision, and a CPU. Parsed once, never compared as strings."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from dtvit_deploy.errors import InputError


class Target(enum.Enum):
    """What an export ends in."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TRT = "trt"
    COREML = "coreml"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def _missing_(cls, value: object) -> Target | None:
        """What people call a target besides."""
        return cls(ALIASES[value]) if isinstance(value, str) and value in ALIASES else None


ALIASES = {"tensorrt": "trt"}
"""Other names of targets, in recipes and on the command line."""


class Precision(enum.Enum):
    """The type that an artefact's weights and activations mostly have."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"

    def __str__(self) -> str:
        return self.value


class Cpu(enum.Enum):
    """What an ONNX artefact is to run on: ONNX Runtime computes FP16 otherwise on each (docs/adr/0018)."""

    X86_64 = "x86-64"
    ARM64 = "arm64"

    def __str__(self) -> str:
        return self.value


BUILT = {
    Target.ONNX: (Precision.FP32, Precision.FP16, Precision.INT8),
    Target.OPENVINO: (Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8),
    Target.TRT: (Precision.FP32, Precision.FP16, Precision.INT8),
    Target.COREML: (Precision.FP32, Precision.FP16, Precision.INT8),
}
"""The precisions of each target."""


def pairs(targets: Sequence[Target], precisions: Sequence[Precision]) -> list[tuple[Target, Precision]]:
    """Every pair that can be built, in the order asked for.

    Raises:
        InputError: a target or a precision is in none of them.
    """
    found = [(target, precision) for target in targets for precision in precisions if precision in BUILT[target]]
    used = {one for pair in found for one in pair}
    if unused := [str(one) for one in (*targets, *precisions) if one not in used]:
        raise InputError(
            f"nothing can be built for {', '.join(unused)} with targets {', '.join(map(str, targets))} and precisions"
            f" {', '.join(map(str, precisions))}",
            remedy="; ".join(f"{target} has {', '.join(map(str, known))}" for target, known in BUILT.items()),
        )
    return found
