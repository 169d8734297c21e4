"""What can be asked for: a target, and a precision. Parsed once, never compared as strings."""

from __future__ import annotations

import enum


class Target(enum.Enum):
    """What an export ends in."""

    ONNX = "onnx"

    def __str__(self) -> str:
        return self.value


class Precision(enum.Enum):
    """The type that an artefact's weights and activations mostly have."""

    FP32 = "fp32"
    FP16 = "fp16"

    def __str__(self) -> str:
        return self.value
