"""What each MIL operator computes, a family a file.

The semantics are those of https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html, of iOS 15 to 18; where
a version of the operators differs from another, the parameters that are given tell which is meant. Where that reference leaves something
open, the file says what else was taken as the source; what nothing says is refused and never guessed.
"""

from dtvit_deploy.runtimes.mil.call import OPS
from dtvit_deploy.runtimes.mil.ops import (
    activation,
    arithmetic,
    convolution,
    creation,
    gathering,
    linear,
    normalisation,
    pooling,
    quantisation,
    reduction,
    resizing,
    scattering,
    shapes,
    slicing,
)

__all__ = [
    "OPS",
    "activation",
    "arithmetic",
    "convolution",
    "creation",
    "gathering",
    "linear",
    "normalisation",
    "pooling",
    "quantisation",
    "reduction",
    "resizing",
    "scattering",
    "shapes",
    "slicing",
]
